//! The note a log writer leaves before it writes: see FORMAT.md.
//!
//! It is written with one `pwrite` into the page cache, which a kill of this process does not touch.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const MAGIC: &[u8; 8] = b"BNLLOG01";
const LEN: usize = 48;

/// What is about to happen: `cri` bytes are appended at `position`, then `raw` bytes leave the pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Intent {
    /// 0 stdout, 1 stderr.
    pub(crate) stream: u32,
    /// Position in the whole CRI stream where the text begins.
    pub(crate) position: u64,
    pub(crate) cri: u64,
    pub(crate) raw: u64,
    /// CRC-32 of the raw bytes.
    pub(crate) crc: u32,
}

pub(crate) struct IntentFile(File);

impl IntentFile {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).map(IntentFile)
    }

    pub(crate) fn set(&self, intent: &Intent) -> io::Result<()> {
        self.0.write_all_at(&encode(intent), 0)
    }

    /// The write is done and the pipe is emptied of it.
    pub(crate) fn clear(&self) -> io::Result<()> {
        self.0.write_all_at(&[0; LEN], 0)
    }

    /// What a predecessor had begun; `None` if it had finished.
    pub(crate) fn get(&self) -> io::Result<Option<Intent>> {
        let mut buf = [0; LEN];
        match self.0.read_exact_at(&mut buf, 0) {
            Ok(()) => Ok(decode(&buf)),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(e) => Err(e),
        }
    }
}

fn encode(i: &Intent) -> [u8; LEN] {
    let mut b = [0; LEN];
    b[..8].copy_from_slice(MAGIC);
    b[8..12].copy_from_slice(&i.stream.to_le_bytes());
    b[12..20].copy_from_slice(&i.position.to_le_bytes());
    b[20..28].copy_from_slice(&i.cri.to_le_bytes());
    b[28..36].copy_from_slice(&i.raw.to_le_bytes());
    b[36..40].copy_from_slice(&i.crc.to_le_bytes());
    let sum = crc32fast::hash(&b[..44]);
    b[44..].copy_from_slice(&sum.to_le_bytes());
    b
}

fn decode(b: &[u8; LEN]) -> Option<Intent> {
    let u32_at = |n: usize| u32::from_le_bytes(b[n..n + 4].try_into().expect("four bytes"));
    let u64_at = |n: usize| u64::from_le_bytes(b[n..n + 8].try_into().expect("eight bytes"));
    if &b[..8] != MAGIC || u32_at(44) != crc32fast::hash(&b[..44]) {
        return None;
    }
    Some(Intent {
        stream: u32_at(8),
        position: u64_at(12),
        cri: u64_at(20),
        raw: u64_at(28),
        crc: u32_at(36),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips_and_refuses_damage(stream in 0u32..2, position: u64, cri: u64, raw: u64, crc: u32, at in 0usize..LEN) {
            let i = Intent { stream, position, cri, raw, crc };
            let mut b = encode(&i);
            prop_assert_eq!(decode(&b), Some(i));
            b[at] ^= 1;
            prop_assert_eq!(decode(&b), None);
        }
    }
}
