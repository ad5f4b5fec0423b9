//! Reads a container's log over its rotated files, and follows it.
//!
//! A reader works with positions in the whole stream, not with files: rotation under it changes nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use signal::Timestamp;

use super::cri::Line;
use super::rotation;

/// Bytes read at a time.
const CHUNK: usize = 64 << 10;

/// What of a log is wanted: the words of `kubectl logs`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    pub(crate) tail_lines: Option<u64>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) timestamps: bool,
    pub(crate) limit_bytes: Option<u64>,
    /// `stdout` or `stderr`; both if `None`.
    pub(crate) stream: Option<String>,
}

/// Stands at a position in a container's log.
pub(crate) struct Reader {
    path: PathBuf,
    position: u64,
    query: Query,
    /// A CRI line whose end is not read yet.
    rest: Vec<u8>,
    /// True if the last piece given was a part of a line: the next one begins no new line.
    within: bool,
    sent: u64,
    away: Option<Away>,
}

/// Lines that were asked for and are rotated away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Away {
    /// Time of the first line there is.
    pub(crate) before: Timestamp,
    /// How many of the last lines asked for.
    pub(crate) lines: Option<u64>,
}

impl Reader {
    pub(crate) fn open(path: &Path, query: Query) -> io::Result<Self> {
        let mut r = Reader {
            path: path.to_owned(),
            position: first(path)?,
            query,
            rest: Vec::new(),
            within: false,
            sent: 0,
            away: None,
        };
        let mut missing = None;
        if let Some(n) = r.query.tail_lines {
            let (position, lines) = r.tail_position(n)?;
            r.position = position;
            missing = Some(lines);
        }
        if r.position > 0 && missing != Some(0) {
            let first = r.first_time()?;
            r.away = first
                .filter(|f| r.query.since.is_none_or(|s| s < *f))
                .map(|before| Away { before, lines: missing });
        }
        Ok(r)
    }

    /// What was asked for and is rotated away.
    pub(crate) fn away(&self) -> Option<Away> {
        self.away
    }

    /// Time of the line at this position.
    fn first_time(&self) -> io::Result<Option<Timestamp>> {
        let Some(data) = read_at(&self.path, &mut { self.position })? else { return Ok(None) };
        let line = data.split(|b| *b == b'\n').next().and_then(Line::parse);
        let time = line.and_then(|l| l.time.parse::<jiff::Timestamp>().ok());
        Ok(time.and_then(|t| i64::try_from(t.as_nanosecond()).ok()).map(Timestamp))
    }

    /// The next output: empty if all that is written was given, `None` if the byte limit is reached.
    pub(crate) fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut out = Vec::new();
        while out.len() < CHUNK {
            if self.query.limit_bytes.is_some_and(|l| self.sent >= l) {
                return Ok((!out.is_empty()).then_some(out));
            }
            let Some(data) = read_at(&self.path, &mut self.position)? else { break };
            self.rest.extend_from_slice(&data);
            let Some(end) = self.rest.iter().rposition(|b| *b == b'\n') else { continue };
            let tail = self.rest.split_off(end + 1);
            let lines = std::mem::replace(&mut self.rest, tail);
            for line in lines.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
                self.push(line, &mut out);
            }
        }
        Ok(Some(out))
    }

    fn push(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(line) = Line::parse(line) else { return };
        if self.query.stream.as_deref().is_some_and(|s| s != line.stream) {
            return;
        }
        if let Some(since) = self.query.since
            && line
                .time
                .parse::<jiff::Timestamp>()
                .is_ok_and(|t| t.as_nanosecond() < i128::from(since.nanos()))
        {
            return;
        }
        let from = out.len();
        if self.query.timestamps && !self.within {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if !line.partial {
            out.push(b'\n');
        }
        self.within = line.partial;
        let room = self.query.limit_bytes.map_or(u64::MAX, |l| l - self.sent.min(l));
        let added = (out.len() - from) as u64;
        out.truncate(from + usize::try_from(added.min(room)).unwrap_or(usize::MAX));
        self.sent += added.min(room);
    }

    /// Where the last `n` lines begin, and how many of them are rotated away.
    fn tail_position(&self, n: u64) -> io::Result<(u64, u64)> {
        let mut files = rotation::rotated(&self.path)?;
        files.push((rotation::current_start(&self.path)?, self.path.clone()));
        let end = end(&self.path)?;
        let mut missing = n;
        if n == 0 {
            return Ok((end, 0));
        }
        for (start, file) in files.iter().rev() {
            let f = match File::open(file) {
                Ok(f) => f,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            let mut at = f.metadata()?.len();
            let mut buf = vec![0; CHUNK];
            let mut carry: Vec<u8> = Vec::new();
            while at > 0 {
                let len = usize::try_from(at.min(CHUNK as u64)).map_err(io::Error::other)?;
                at -= len as u64;
                f.read_exact_at(&mut buf[..len], at)?;
                let mut block = buf[..len].to_vec();
                block.extend_from_slice(&carry);
                // Lines that begin within this block, the last first.
                let mut hi = block.len();
                while let Some(nl) = block[..hi.saturating_sub(1)].iter().rposition(|b| *b == b'\n') {
                    if self.counts(&block[nl + 1..hi]) {
                        missing -= 1;
                        if missing == 0 {
                            return Ok((self.line_start(&f, *start, at + nl as u64 + 1)?, 0));
                        }
                    }
                    hi = nl + 1;
                }
                carry = block[..hi].to_vec();
            }
            if !carry.is_empty() && self.counts(&carry) {
                missing -= 1;
                if missing == 0 {
                    return Ok((*start, 0));
                }
            }
        }
        Ok((first(&self.path)?, missing))
    }

    /// A line of the container ends here: parts before it belong to it.
    fn counts(&self, line: &[u8]) -> bool {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        Line::parse(line)
            .is_some_and(|l| !l.partial && self.query.stream.as_deref().is_none_or(|s| s == l.stream))
    }

    /// Steps back over parts (`P`) in front of the line at `at`.
    fn line_start(&self, f: &File, start: u64, mut at: u64) -> io::Result<u64> {
        while at > 0 {
            let len = usize::try_from(at.min(2 * CHUNK as u64)).map_err(io::Error::other)?;
            let mut buf = vec![0; len];
            f.read_exact_at(&mut buf, at - len as u64)?;
            let begin = buf[..len - 1].iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
            let partial = Line::parse(&buf[begin..len - 1]).is_some_and(|l| l.partial);
            if !partial {
                break;
            }
            at -= (len - begin) as u64;
        }
        Ok(start + at)
    }
}

/// Position of the first byte that is kept.
fn first(path: &Path) -> io::Result<u64> {
    Ok(rotation::rotated(path)?.first().map_or(rotation::current_start(path)?, |(s, _)| *s))
}

/// Position after the last byte.
fn end(path: &Path) -> io::Result<u64> {
    let start = rotation::current_start(path)?;
    match std::fs::metadata(path) {
        Ok(m) => Ok(start + m.len()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(start),
        Err(e) => Err(e),
    }
}

/// Bytes at a position, which it moves on; `None` at the end. A rotation between two looks is looked at again.
fn read_at(path: &Path, position: &mut u64) -> io::Result<Option<Vec<u8>>> {
    for _ in 0..3 {
        let old = rotation::rotated(path)?;
        let current = rotation::current_start(path)?;
        let (start, file) = match old.iter().rev().find(|(s, _)| *s <= *position) {
            Some((s, f)) if *position < current => (*s, f.clone()),
            _ if *position < current => {
                // What stood here is no longer kept: go on with the oldest.
                let Some((s, f)) = old.first() else { return Ok(None) };
                *position = *s;
                (*s, f.clone())
            }
            _ => (current, path.to_owned()),
        };
        let f = match File::open(&file) {
            Ok(f) => f,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        let mut buf = vec![0; CHUNK];
        let n = f.read_at(&mut buf, *position - start)?;
        // If it was rotated in between, the open file may be a newer one than its name said.
        if file == path && rotation::current_start(path)? != current {
            continue;
        }
        buf.truncate(n);
        *position += n as u64;
        return Ok((n > 0).then_some(buf));
    }
    Ok(None)
}
