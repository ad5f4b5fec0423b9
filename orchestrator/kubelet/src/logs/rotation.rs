//! A log's files: the current one and those rotated away, each named by the position of its first byte.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A file is rotated when it is this large.
pub(crate) const MAX_SIZE: u64 = 10 << 20;
/// Files kept, the current one included.
pub(crate) const MAX_FILES: usize = 5;
/// The same if the older ones are not stored yet: a container may write faster than lines are stored, for a while.
const MAX_UNSTORED_FILES: usize = 50;

/// `<path>.<start, 20 digits>`.
pub(crate) fn rotated_path(path: &Path, start: u64) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{start:020}"));
    path.with_file_name(name)
}

/// Rotated files with the positions of their first bytes, oldest first.
pub(crate) fn rotated(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let Some(dir) = path.parent() else { return Ok(Vec::new()) };
    let prefix = format!("{}.", path.file_name().unwrap_or_default().to_string_lossy());
    let mut out = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let digits = name.to_str().and_then(|n| n.strip_prefix(&prefix));
        if let Some(start) = digits.and_then(|d| d.parse().ok()) {
            out.push((start, entry.path()));
        }
    }
    out.sort();
    Ok(out)
}

/// The position of the current file's first byte: where the newest rotated one ends.
pub(crate) fn current_start(path: &Path) -> io::Result<u64> {
    match rotated(path)?.last() {
        Some((start, file)) => Ok(start + fs::metadata(file)?.len()),
        None => Ok(0),
    }
}

/// Moves the current file aside and removes those that are too many, unless they hold something after the position up to
/// which all is stored.
pub(crate) fn rotate(path: &Path, start: u64, stored: u64) -> io::Result<()> {
    fs::rename(path, rotated_path(path, start))?;
    let old = rotated(path)?;
    // The newest rotated file always stays: it says where the current one starts.
    let many = old.len().saturating_sub(MAX_FILES - 1);
    let too_many = old.len().saturating_sub(MAX_UNSTORED_FILES - 1);
    for (i, (_, file)) in old.iter().enumerate().take(many) {
        // A file ends where the next begins.
        if i < too_many || old.get(i + 1).is_some_and(|(next, _)| *next <= stored) {
            fs::remove_file(file)?;
        }
    }
    Ok(())
}
