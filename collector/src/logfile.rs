//! Follows container logs: one task per file, its position committed with the lines (exactly once).
//!
//! A container's log is one stream of bytes, cut into files: the current `<name>` and rotated ones beside it,
//! `<name>.<position>`, where position is the offset of the file's first byte in the stream (20 digits).

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use signal::{Checkpoint, LogBatch, LogFileTarget, LogRecord, LogStream, Registry, Sink};
use tokio_util::sync::CancellationToken;

use crate::line::{self, parse};
use crate::metrics::{METRICS, accepted, refused};

/// Bytes read at once, and with it the size of a batch.
const CHUNK: usize = 256 << 10;
/// A line that is longer is cut here.
const LONGEST_LINE: usize = 1 << 20;
/// After the first new line, how long others may join the same fsync.
const LINGER: Duration = Duration::from_millis(10);
/// A missed wake-up is made good after this.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Tells how far a source is stored already.
pub type Checkpoints = Arc<dyn Fn(&str) -> Option<u64> + Send + Sync>;

/// Follows every log of the registry until `stop`.
pub async fn run(
    files: Arc<Registry<LogFileTarget>>,
    checkpoints: Checkpoints,
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
                    target,
                    sink: sink.clone(),
                    partial: Vec::new(),
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
    /// Everything before it is stored.
    position: u64,
    /// Pieces of a line whose end has not come yet. They are read again after a restart: the position moves
    /// only over whole lines.
    partial: Vec<u8>,
}

impl Follower {
    /// Follows until the container is gone (`ended`) and everything is read, or until the process ends.
    async fn run(mut self, ended: CancellationToken, stop: CancellationToken) {
        let mut delay = Duration::from_millis(100);
        loop {
            let written = self.target.written.clone();
            let written = written.notified();
            tokio::pin!(written);
            written.as_mut().enable();
            let last = ended.is_cancelled();
            match self.drain(&stop).await {
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
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// Reads and stores up to the end of the file.
    async fn drain(&mut self, stop: &CancellationToken) -> Result<(), String> {
        while !stop.is_cancelled() {
            let (path, position) = (self.target.path.clone(), self.position + self.partial_bytes());
            let read = tokio::task::spawn_blocking(move || read_at(&path, position)).await;
            let chunk = read.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
            let Some(chunk) = chunk else { return Ok(()) };
            if chunk.start > position {
                METRICS.log_bytes_lost.inc_by(chunk.start - position);
                tracing::warn!(path = %self.target.path.display(), bytes = chunk.start - position,
                    "container log was rotated away before it was read");
                self.partial.clear();
                self.position = chunk.start;
            }
            self.store(&chunk.bytes).await?;
        }
        Ok(())
    }

    fn partial_bytes(&self) -> u64 {
        self.partial.len() as u64
    }

    /// `bytes` continue the stream after what `partial` holds.
    async fn store(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut data = std::mem::take(&mut self.partial);
        data.extend_from_slice(bytes);
        let (records, used) = split(&data);
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

/// Whole lines as records, and how many bytes they take. The pieces of a long line are joined.
fn split(data: &[u8]) -> (Vec<LogRecord>, usize) {
    let mut records = Vec::new();
    let mut used = 0;
    let mut at = 0;
    let mut joined: Vec<u8> = Vec::new();
    while let Some(len) = data[at..].iter().position(|b| *b == b'\n') {
        let text = &data[at..at + len];
        at += len + 1;
        match parse(text) {
            Some(l) => {
                joined.extend_from_slice(l.text);
                if !l.partial || joined.len() >= LONGEST_LINE {
                    records.push(line::record(l.timestamp, l.stderr, &joined));
                    joined.clear();
                    used = at;
                }
            }
            // Not CRI: somebody else wrote into the file. It is kept as it stands, at the time of reading.
            None if !text.is_empty() => {
                records.push(line::record(signal::time::now(), false, text));
                used = at;
            }
            None => used = at,
        }
    }
    (records, used)
}

struct Chunk {
    /// Where in the stream the bytes begin; later than asked for if the file with the asked ones is gone.
    start: u64,
    bytes: Vec<u8>,
}

/// Up to [`CHUNK`] bytes of the stream from `position` on; `None` at its end.
fn read_at(path: &Path, position: u64) -> io::Result<Option<Chunk>> {
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
            rotated.iter().map(|r| (r.start, r.len, Source::Path(&r.path))).collect();
        if let (Some(f), Some((_, len))) = (&current, inode) {
            let start = rotated.last().map_or(0, |r| r.start + r.len);
            segments.push((start, len, Source::Open(f)));
        }
        for (start, len, source) in segments {
            if position >= start + len {
                continue;
            }
            let from = position.max(start);
            let mut bytes = vec![0; CHUNK.min(usize::try_from(start + len - from).unwrap_or(CHUNK))];
            let n = match source {
                Source::Open(f) => f.read_at(&mut bytes, from - start)?,
                Source::Path(p) => File::open(p)?.read_at(&mut bytes, from - start)?,
            };
            bytes.truncate(n);
            return Ok((n > 0).then_some(Chunk { start: from, bytes }));
        }
        return Ok(None);
    }
}

enum Source<'a> {
    Open(&'a File),
    Path(&'a Path),
}

struct Rotated {
    start: u64,
    len: u64,
    inode: u64,
    path: PathBuf,
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
        let start = file.to_str().and_then(|f| f.strip_prefix(name)?.strip_prefix('.')?.parse().ok());
        let Some(start) = start else { continue };
        let meta = entry.metadata()?;
        found.push(Rotated { start, len: meta.len(), inode: meta.ino(), path: entry.path() });
    }
    found.sort_by_key(|r| r.start);
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
        let (records, used) = split(data.as_bytes());
        let bodies: Vec<_> = records.into_iter().map(|r| r.body).collect();
        assert_eq!((bodies, used), (vec!["abcd".to_owned(), "e".to_owned()], whole.len()));
    }

    #[test]
    fn reads_over_rotation_and_tells_of_a_gap() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("0.log");
        std::fs::write(dir.path().join(format!("0.log.{:020}", 0)), "aaaa").expect("written");
        std::fs::write(dir.path().join(format!("0.log.{:020}", 4)), "bbbb").expect("written");
        std::fs::write(&path, "cc").expect("written");
        let read = |position| read_at(&path, position).expect("read").map(|c| (c.start, c.bytes));
        assert_eq!(read(0), Some((0, b"aaaa".to_vec())));
        assert_eq!(read(6), Some((6, b"bb".to_vec())));
        assert_eq!(read(8), Some((8, b"cc".to_vec())));
        assert_eq!(read(10), None);
        std::fs::remove_file(dir.path().join(format!("0.log.{:020}", 0))).expect("removed");
        assert_eq!(read(1), Some((4, b"bbbb".to_vec())));
    }
}
