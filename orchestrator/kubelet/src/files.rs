//! Small files: replaced as a whole, read with a bound, removed with what is in them.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use crate::Error;

/// Replaces a file by rename, so that a reader sees the old or the new one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let tmp = path.with_extension("tmp");
    fs::write(&tmp, bytes).map_err(Error::io(format!("write {tmp:?}")))?;
    fs::rename(&tmp, path).map_err(Error::io(format!("replace {path:?}")))
}

/// The last `most` bytes of a file.
pub(crate) fn read_at_most(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    use std::io::Seek;
    let mut f = fs::File::open(path)?;
    let len = f.metadata()?.len();
    if len > most {
        f.seek(io::SeekFrom::Start(len - most))?;
    }
    let mut out = Vec::new();
    f.take(most).read_to_end(&mut out)?;
    Ok(out)
}

/// Removes a directory and what is in it; one that is not there is fine.
pub(crate) fn remove_dir(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(format!("remove {path:?}"))(e)),
        _ => Ok(()),
    }
}
