//! Follows container logs: one task per file, its position committed with the lines (exactly once).
//!
//! A container's log is one stream of bytes, cut into files: the current `<name>` and rotated ones beside it,
//! `<name>.<position>`, where position is the offset of the file's first byte in the stream (20 digits).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use signal::{Checkpoint, LogBatch, LogFileTarget, LogRecord, LogStream, Registry, Sink, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::line::{self, parse};
use crate::metrics::{METRICS, accepted, refused};
use crate::process::Rules;
use crate::process::multiline::{Joiner, Multiline};

/// The attribute that says which of a container's lives a line is from; the first one's lines do without.
pub const RESTARTS: &str = "k8s.container.restart_count";
/// Bytes read at once, and with it the size of a batch.
const CHUNK: usize = 256 << 10;
/// A line that is longer is cut here.
const LONGEST_LINE: usize = 1 << 20;
/// After the first new line, how long others may join the same fsync.
const LINGER: Duration = Duration::from_millis(10);
/// A stack trace's next line comes at once or not at all.
const JOINED_WITHIN: Duration = Duration::from_millis(200);
/// A missed wake-up is made good after this.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Tells how far a source is stored already.
pub type Checkpoints = Arc<dyn Fn(&str) -> Option<u64> + Send + Sync>;

/// Follows every log of the registry until `stop`.
pub async fn run(
    files: Arc<Registry<LogFileTarget>>,
    checkpoints: Checkpoints,
    rules: Arc<Rules>,
    sink: Arc<dyn Sink>,
    stop: CancellationToken,
) {
    let mut changes = files.changes();
    let mut running: BTreeMap<String, CancellationToken> = BTreeMap::new();
    loop {
        let wanted: BTreeMap<String, LogFileTarget> = files.snapshot().into_iter().collect();
        running.retain(|key, ended| {
            let keep = wanted.contains_key(key);
            if !keep {
                ended.cancel();
            }
            keep
        });
        for (key, target) in wanted {
            running.entry(key).or_insert_with(|| {
                let ended = CancellationToken::new();
                let follower = Follower {
                    position: checkpoints(&target.source).unwrap_or(0),
                    restarts: target.source.rsplit('/').next().and_then(|n| n.parse().ok()).unwrap_or(0),
                    target,
                    sink: sink.clone(),
                    rules: rules.clone(),
                    partial: Vec::new(),
                    open: false,
                    held: None,
                };
                telemetry::task::spawn("log-file", follower.run(ended.clone(), stop.clone()));
                ended
            });
        }
        tokio::select! {
            () = stop.cancelled() => return,
            r = changes.changed() => if r.is_err() { return },
        }
    }
}

struct Follower {
    target: LogFileTarget,
    sink: Arc<dyn Sink>,
    rules: Arc<Rules>,
    /// How often the container had been started before.
    restarts: i64,
    /// Everything before it is stored.
    position: u64,
    /// Pieces of a line, or lines of a record, whose end has not come yet. They are read again after a restart: the
    /// position moves only over whole records.
    partial: Vec<u8>,
    /// Whether `partial` ends with a record that more lines may join.
    open: bool,
    held: Option<Held>,
}

impl Follower {
    /// Follows until the container is gone (`ended`) and everything is read, or until the process ends.
    async fn run(mut self, ended: CancellationToken, stop: CancellationToken) {
        let mut delay = Duration::from_millis(100);
        let mut over = false;
        loop {
            let written = self.target.written.clone();
            let written = written.notified();
            tokio::pin!(written);
            written.as_mut().enable();
            let last = ended.is_cancelled();
            // A record that nothing joined for a while is over; so is the last one of a container that is gone.
            let join_no_more = std::mem::take(&mut over) || last;
            match self.drain(&stop, join_no_more).await {
                Ok(()) => delay = Duration::from_millis(100),
                Err(e) => {
                    tracing::warn!(path = %self.target.path.display(), error = %e, "container log not stored, trying again");
                    refused("logfile", "sink");
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(delay) => {}
                    }
                    delay = (delay * 2).min(Duration::from_secs(10));
                    continue;
                }
            }
            if last || stop.is_cancelled() {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = ended.cancelled() => {}
                () = &mut written => tokio::time::sleep(LINGER).await,
                () = tokio::time::sleep(JOINED_WITHIN), if self.open => over = true,
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// Reads and stores up to the end of the file. If the last record is `over` nothing more joins it.
    async fn drain(&mut self, stop: &CancellationToken, over: bool) -> Result<(), String> {
        while !stop.is_cancelled() {
            let (path, position) = (self.target.path.clone(), self.position + self.partial_bytes());
            let mut held = self.held.take();
            let read = tokio::task::spawn_blocking(move || (read_at(&path, position, &mut held), held)).await;
            let (chunk, held) = read.map_err(|e| e.to_string())?;
            self.held = held;
            let chunk = chunk.map_err(|e| e.to_string())?;
            let Some(chunk) = chunk else {
                return if over && self.open { self.store(&[], true).await } else { Ok(()) };
            };
            if chunk.start > position {
                METRICS.log_bytes_lost.inc_by(chunk.start - position);
                tracing::warn!(path = %self.target.path.display(), bytes = chunk.start - position,
                    "container log was rotated away before it was read");
                self.partial.clear();
                self.position = chunk.start;
            }
            self.store(&chunk.bytes, false).await?;
        }
        Ok(())
    }

    fn partial_bytes(&self) -> u64 {
        self.partial.len() as u64
    }

    /// `bytes` continue the stream after what `partial` holds.
    async fn store(&mut self, bytes: &[u8], over: bool) -> Result<(), String> {
        let mut data = std::mem::take(&mut self.partial);
        data.extend_from_slice(bytes);
        let rules = self.rules.of(&self.target.labels);
        let Split { mut records, used, open } = split(&data, &rules.multiline, over);
        if self.restarts > 0 {
            records.iter_mut().for_each(|r| r.attributes.set(RESTARTS, self.restarts));
        }
        self.open = open;
        if !records.is_empty() {
            let n = records.len();
            let end = self.position + used as u64;
            let batch = LogBatch {
                streams: vec![LogStream { labels: self.target.labels.clone(), records }],
                checkpoints: vec![Checkpoint { source: self.target.source.clone(), position: end }],
            };
            if let Err(e) = self.sink.write_logs(batch).await {
                // Nothing is stored: the same bytes are read again.
                return Err(e.to_string());
            }
            accepted("logfile", "logs", n);
            self.position = end;
        }
        data.drain(..used);
        self.partial = data;
        Ok(())
    }
}

struct Split {
    records: Vec<LogRecord>,
    /// Bytes that the records take.
    used: usize,
    /// Behind them stands a whole line that others may join.
    open: bool,
}

/// A record whose last line may not have come.
struct Joined {
    timestamp: Timestamp,
    stderr: bool,
    text: Vec<u8>,
}

/// Whole records, each of one line or of several that belong together. The pieces of a long line are joined.
fn split(data: &[u8], how: &Multiline, over: bool) -> Split {
    let mut out = Split { records: Vec::new(), used: 0, open: false };
    let mut joiner = Joiner::new(how);
    let mut last: Option<Joined> = None;
    let mut line: Vec<u8> = Vec::new();
    // Where the line began whose pieces are read.
    let (mut at, mut begin) = (0, 0);
    let end = |last: &mut Option<Joined>, out: &mut Split, used: usize| {
        if let Some(j) = last.take() {
            out.records.push(line::record(j.timestamp, j.stderr, &j.text));
        }
        out.used = used;
    };
    while let Some(len) = memchr::memchr(b'\n', &data[at..]) {
        let text = &data[at..at + len];
        at += len + 1;
        let Some(l) = parse(text) else {
            joiner.interrupt();
            end(&mut last, &mut out, begin);
            // Not CRI: somebody else wrote into the file. It is kept as it stands, at the time of reading.
            if !text.is_empty() {
                out.records.push(line::record(signal::time::now(), false, text));
            }
            (out.used, begin) = (at, at);
            line.clear();
            continue;
        };
        // A line mostly comes in one piece.
        let whole: &[u8] = if line.is_empty() && !l.partial {
            l.text
        } else {
            line.extend_from_slice(l.text);
            if l.partial && line.len() < LONGEST_LINE {
                continue;
            }
            &line
        };
        if last.as_ref().is_some_and(|j| j.stderr != l.stderr) {
            joiner.interrupt();
        }
        match &mut last {
            // A line of another stream is none of this record, whatever it looks like.
            Some(j) if j.stderr == l.stderr && joiner.continues(whole) => {
                j.text.push(b'\n');
                j.text.extend_from_slice(whole);
            }
            _ => {
                if last.is_none() || last.as_ref().is_some_and(|j| j.stderr != l.stderr) {
                    joiner.continues(whole);
                }
                end(&mut last, &mut out, begin);
                last = Some(Joined { timestamp: l.timestamp, stderr: l.stderr, text: whole.to_vec() });
            }
        }
        line.clear();
        begin = at;
    }
    if over || !joiner.is_open() {
        end(&mut last, &mut out, begin);
    }
    out.open = last.is_some();
    out
}

/// For `fuzz`: reads bytes as a file.
#[doc(hidden)]
pub fn decode(data: &[u8]) -> usize {
    let s = split(data, &Multiline::Auto, true);
    assert!(s.used <= data.len() && !s.open, "a file that is over leaves nothing open");
    s.records.len()
}

struct Chunk {
    /// Where in the stream the bytes begin; later than asked for if the file with the asked ones is gone.
    start: u64,
    bytes: Vec<u8>,
}

/// Up to [`CHUNK`] bytes of the stream from `position` on; `None` at its end.
fn read_at(path: &Path, position: u64, held: &mut Option<Held>) -> io::Result<Option<Chunk>> {
    loop {
        let current = match File::open(path) {
            Ok(f) => Some(f),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        let rotated = rotated(path)?;
        let inode = current.as_ref().map(|f| f.metadata().map(|m| (m.ino(), m.len()))).transpose()?;
        // Rotated between the two looks: look again.
        if let Some((ino, _)) = inode
            && rotated.iter().any(|r| r.inode == ino)
        {
            continue;
        }
        let mut segments: Vec<(u64, u64, Source<'_>)> =
            rotated.iter().map(|r| (r.start, r.len, Source::Rotated(r))).collect();
        if let (Some(f), Some((ino, len))) = (current, inode) {
            let start = rotated.last().map_or(0, |r| r.start + r.len);
            if held.as_ref().is_none_or(|h| h.inode != ino) {
                *held = Some(Held { start, inode: ino, file: f });
            }
            segments.extend(held.as_ref().map(|h| (start, len, Source::Open(&h.file))));
        } else if let (Some(h), true) = (&*held, rotated.is_empty()) {
            // The pod is gone and its files with it: what was not read yet is there until this one is closed.
            segments.push((h.start, h.file.metadata()?.len(), Source::Open(&h.file)));
        }
        for (start, len, source) in segments {
            if position >= start + len {
                continue;
            }
            let from = position.max(start);
            let mut bytes = vec![0; CHUNK.min(usize::try_from(start + len - from).unwrap_or(CHUNK))];
            let n = match source {
                Source::Open(f) => f.read_at(&mut bytes, from - start)?,
                Source::Rotated(r) if r.packed => {
                    let mut unpacked = flate2::read::MultiGzDecoder::new(File::open(&r.path)?);
                    io::copy(&mut unpacked.by_ref().take(from - start), &mut io::sink())?;
                    let mut n = 0;
                    while n < bytes.len() {
                        match unpacked.read(&mut bytes[n..])? {
                            0 => break,
                            more => n += more,
                        }
                    }
                    n
                }
                Source::Rotated(r) => File::open(&r.path)?.read_at(&mut bytes, from - start)?,
            };
            bytes.truncate(n);
            return Ok((n > 0).then_some(Chunk { start: from, bytes }));
        }
        return Ok(None);
    }
}

enum Source<'a> {
    Open(&'a File),
    Rotated(&'a Rotated),
}

/// The file that is written to, kept open so that it can be read to its end when it is deleted.
struct Held {
    start: u64,
    inode: u64,
    file: File,
}

struct Rotated {
    start: u64,
    /// Unpacked.
    len: u64,
    inode: u64,
    path: PathBuf,
    /// By gzip, by whoever saves room.
    packed: bool,
}

/// What a gzip file holds: its last four bytes say (RFC 1952).
fn unpacked_len(path: &Path, len: u64) -> io::Result<u64> {
    let mut bytes = [0; 4];
    File::open(path)?.read_exact_at(&mut bytes, len.saturating_sub(4))?;
    Ok(u64::from(u32::from_le_bytes(bytes)))
}

/// The rotated files beside `path`, oldest first.
fn rotated(path: &Path) -> io::Result<Vec<Rotated>> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
        return Ok(Vec::new());
    };
    let entries = match std::fs::read_dir(dir) {
        Ok(e) => e,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let file = entry.file_name();
        let Some(rest) = file.to_str().and_then(|f| f.strip_prefix(name)?.strip_prefix('.')) else {
            continue;
        };
        let (digits, packed) = rest.strip_suffix(".gz").map_or((rest, false), |d| (d, true));
        let Ok(start) = digits.parse() else { continue };
        let (meta, path) = (entry.metadata()?, entry.path());
        let len = if packed { unpacked_len(&path, meta.len())? } else { meta.len() };
        found.push(Rotated { start, len, inode: meta.ino(), path, packed });
    }
    found.sort_by_key(|r| (r.start, r.packed));
    // One that is being packed is there twice.
    found.dedup_by_key(|r| r.start);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cri(text: &str) -> String {
        format!("2026-11-23T01:02:03Z stdout F {text}\n")
    }

    #[test]
    fn joins_pieces_and_stops_at_the_last_whole_line() {
        let whole = format!("2026-11-23T01:02:03Z stdout P ab\n{}{}", cri("cd"), cri("e"));
        let data = format!("{whole}2026-11-23T01:02:03Z stdout P f\n2026");
        let s = split(data.as_bytes(), &Multiline::Auto, false);
        let bodies: Vec<_> = s.records.into_iter().map(|r| r.body).collect();
        assert_eq!((bodies, s.used), (vec!["abcd".to_owned(), "e".to_owned()], whole.len()));
    }

    #[test]
    fn a_stack_trace_is_one_record_and_waits_for_its_end() {
        let bodies = |s: &Split| s.records.iter().map(|r| r.body.clone()).collect::<Vec<_>>();
        let head = format!("{}{}", cri("before"), cri("java.lang.Error: no"));
        let s = split(head.as_bytes(), &Multiline::Auto, false);
        assert_eq!((bodies(&s), s.used, s.open), (vec!["before".to_owned()], cri("before").len(), true));
        let whole = format!("{head}{}{}", cri("\tat a.B"), cri("after"));
        let s = split(whole.as_bytes(), &Multiline::Auto, false);
        assert_eq!(
            (bodies(&s), s.used),
            (vec!["before".into(), "java.lang.Error: no\n\tat a.B".into(), "after".into()], whole.len())
        );
        let s = split(head.as_bytes(), &Multiline::Auto, true);
        assert_eq!((bodies(&s).len(), s.used, s.open), (2, head.len(), false));
        // The other stream's lines stand between.
        let other = "2026-11-23T01:02:03Z stderr F warning\n";
        let mixed = format!("{head}{other}{}", cri("\tat a.B"));
        let s = split(mixed.as_bytes(), &Multiline::Auto, true);
        assert_eq!(bodies(&s), ["before", "java.lang.Error: no", "warning", "\tat a.B"]);
    }

    #[test]
    fn reads_over_rotation_and_tells_of_a_gap() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("0.log");
        std::fs::write(dir.path().join(format!("0.log.{:020}", 0)), "aaaa").expect("written");
        std::fs::write(dir.path().join(format!("0.log.{:020}", 4)), "bbbb").expect("written");
        std::fs::write(&path, "cc").expect("written");
        let mut held = None;
        let mut read =
            |position| read_at(&path, position, &mut held).expect("read").map(|c| (c.start, c.bytes));
        assert_eq!(read(0), Some((0, b"aaaa".to_vec())));
        assert_eq!(read(6), Some((6, b"bb".to_vec())));
        assert_eq!(read(8), Some((8, b"cc".to_vec())));
        assert_eq!(read(10), None);
        // Somebody packs the oldest: while it is there twice, and after.
        let plain = dir.path().join(format!("0.log.{:020}", 0));
        let packed = std::fs::File::create(dir.path().join(format!("0.log.{:020}.gz", 0))).expect("made");
        let mut zip = flate2::write::GzEncoder::new(packed, flate2::Compression::fast());
        std::io::Write::write_all(&mut zip, b"aaaa").expect("packed");
        zip.finish().expect("packed");
        assert_eq!(read(1), Some((1, b"aaa".to_vec())));
        std::fs::remove_file(&plain).expect("removed");
        assert_eq!(read(1), Some((1, b"aaa".to_vec())));
        std::fs::remove_file(dir.path().join(format!("0.log.{:020}.gz", 0))).expect("removed");
        assert_eq!(read(1), Some((4, b"bbbb".to_vec())));
        // The pod is deleted before its last lines are read.
        assert_eq!(read(8), Some((8, b"cc".to_vec())));
        std::fs::write(&path, "ccdd").expect("written");
        std::fs::remove_dir_all(dir.path()).expect("removed");
        assert_eq!(read(10), Some((10, b"dd".to_vec())));
        assert_eq!(read(12), None);
    }
}
