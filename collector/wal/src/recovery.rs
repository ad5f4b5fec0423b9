//! Reading a log back: every whole frame, in order, and what was wrong on the way.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::error::Error;
use crate::frame::{Parsed, Place};
use crate::segment;

/// What [`crate::Wal::open`] found.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// Frames given to the caller.
    pub frames: u64,
    pub bytes: u64,
    /// Bytes of an unfinished last append that were cut off. Nobody was told that they were stored.
    pub torn_bytes: u64,
    /// Acknowledged bytes that could not be read.
    pub damage: Vec<Damage>,
}

/// A stretch of a segment that failed its checksum and was set aside.
#[derive(Clone, Debug)]
pub struct Damage {
    pub segment: PathBuf,
    pub offset: u64,
    pub bytes: u64,
    /// Where the bytes were copied to.
    pub kept_in: PathBuf,
}

/// Reads all segments; gives back the number the next segment should have.
pub(crate) fn replay(
    dir: &Path,
    limit: usize,
    mut each: impl FnMut(u64, &[u8]),
) -> Result<(Recovery, u64), Error> {
    let numbers = segment::list(dir)?;
    let mut found = Recovery::default();
    let last = numbers.last().copied();
    for number in numbers {
        let path = segment::path(dir, number);
        let data = fs::read(&path).map_err(Error::io(&path))?;
        let whole = read_segment(dir, number, &data, limit, Some(number) == last, &mut found, &mut each)?;
        if whole < data.len() as u64 && Some(number) == last {
            found.torn_bytes += data.len() as u64 - whole;
            let file = OpenOptions::new().write(true).open(&path).map_err(Error::io(&path))?;
            file.set_len(whole).and_then(|()| file.sync_all()).map_err(Error::io(&path))?;
        }
    }
    Ok((found, last.map_or(1, |n| n + 1)))
}

/// The frames of a segment that is closed; what is damaged in it is set aside. Empty if it is gone.
pub(crate) fn read(dir: &Path, number: u64, limit: usize) -> Result<Vec<Bytes>, Error> {
    let path = segment::path(dir, number);
    let data = match fs::read(&path) {
        Ok(d) => d,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(&path)(e)),
    };
    let mut frames = Vec::new();
    let mut found = Recovery::default();
    read_segment(dir, number, &data, limit, false, &mut found, &mut |_, f| {
        frames.push(Bytes::copy_from_slice(f));
    })?;
    Ok(frames)
}

/// Gives back how many bytes of the segment to keep.
fn read_segment(
    dir: &Path,
    number: u64,
    data: &[u8],
    limit: usize,
    is_last: bool,
    found: &mut Recovery,
    each: &mut impl FnMut(u64, &[u8]),
) -> Result<u64, Error> {
    let version = segment::version(number, data);
    if version.is_none() && data.len() <= segment::HEADER {
        return Ok(0);
    }
    // A damaged header costs no frame: those of the present version say themselves where they belong.
    let place = Place { version: version.unwrap_or(segment::VERSION), segment: number, limit };
    let mut at = segment::HEADER;
    if version.is_none() {
        at = place.find(data, 0).unwrap_or(data.len());
        set_aside(dir, number, 0, data.get(..at).unwrap_or(data), found)?;
    }
    loop {
        let rest = data.get(at..).unwrap_or(&[]);
        if rest.is_empty() {
            return Ok(at as u64);
        }
        let len = match place.parse(data, at) {
            Parsed::Frame(payload, len) => {
                each(number, payload);
                found.frames += 1;
                found.bytes += payload.len() as u64;
                at += len;
                continue;
            }
            Parsed::Corrupt(len) => Some(len),
            Parsed::None => None,
        };
        // Damage in the middle if a good frame follows it, at once or further on; at the very end of the log it is
        // an append that was under way.
        let next = match len.map(|len| at + len) {
            Some(next) if matches!(place.parse(data, next), Parsed::Frame(..)) => Some(next),
            _ => place.find(data, at + 1),
        };
        match next {
            Some(next) => {
                set_aside(dir, number, at, data.get(at..next).unwrap_or(rest), found)?;
                at = next;
            }
            None if is_last => return Ok(at as u64),
            None => {
                set_aside(dir, number, at, rest, found)?;
                return Ok(data.len() as u64);
            }
        }
    }
}

fn set_aside(dir: &Path, number: u64, at: usize, bytes: &[u8], found: &mut Recovery) -> Result<(), Error> {
    let kept_in = dir.join(format!("{number:016x}-{at:08x}.bad"));
    fs::write(&kept_in, bytes).map_err(Error::io(&kept_in))?;
    let segment = segment::path(dir, number);
    tracing::error!(segment = %segment.display(), offset = at, bytes = bytes.len(), kept_in = %kept_in.display(),
        "write-ahead log is damaged; the bytes were set aside");
    found.damage.push(Damage { segment, offset: at as u64, bytes: bytes.len() as u64, kept_in });
    Ok(())
}
