//! Segment files: their names, their header, and how they are made and removed.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::Error;

pub(crate) const MAGIC: &[u8; 4] = b"BNWL";
/// 1: frames with one checksum. 2: with one of their header too.
pub(crate) const VERSION: u32 = 2;
/// Magic, version, number.
pub(crate) const HEADER: usize = 16;

pub(crate) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.wal"))
}

/// Numbers of the segments in the directory, ascending.
pub(crate) fn list(dir: &Path) -> Result<Vec<u64>, Error> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let name = entry.map_err(Error::io(dir))?.file_name();
        if let Some(hex) = name.to_str().and_then(|n| n.strip_suffix(".wal"))
            && let Ok(n) = u64::from_str_radix(hex, 16)
        {
            numbers.push(n);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// A new segment, its header and its directory entry synced.
pub(crate) fn create(dir: &Path, number: u64) -> Result<File, Error> {
    let path = path(dir, number);
    let file =
        OpenOptions::new().write(true).create(true).truncate(true).open(&path).map_err(Error::io(&path))?;
    file.write_all_at(&header(number), 0).map_err(Error::io(&path))?;
    file.sync_all().map_err(Error::io(&path))?;
    sync_dir(dir)?;
    Ok(file)
}

/// The version of the segment. `None`: it does not begin as one of this number does.
pub(crate) fn version(number: u64, data: &[u8]) -> Option<u32> {
    let head = data.get(..HEADER)?;
    (1..=VERSION).find(|v| header_of(number, *v) == *head)
}

pub(crate) fn header(number: u64) -> [u8; HEADER] {
    header_of(number, VERSION)
}

fn header_of(number: u64, version: u32) -> [u8; HEADER] {
    let mut h = [0; HEADER];
    let (magic, rest) = h.split_at_mut(4);
    magic.copy_from_slice(MAGIC);
    let (v, num) = rest.split_at_mut(4);
    v.copy_from_slice(&version.to_le_bytes());
    num.copy_from_slice(&number.to_le_bytes());
    h
}

pub(crate) fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io(dir))
}
