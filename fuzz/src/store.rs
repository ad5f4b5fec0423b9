//! What lies on disk: a log and a block, in a directory of their own.

use std::fs;

use crate::wire::open_and_read;

/// A directory in memory where there is one: a target runs thousands of times a second.
pub(crate) fn directory() -> tempfile::TempDir {
    let shared = std::path::Path::new("/dev/shm");
    let dir = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() };
    dir.expect("a directory")
}

/// The first byte says what the rest is: a segment of the log as it lies on disk; frames that were written in good order but
/// hold anything; or records that were packed in good order but hold anything. Then the database is opened over it.
pub(crate) fn log(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let dir = directory();
    let log = dir.path().join("wal");
    if first % 3 == 0 {
        fs::create_dir_all(&log).expect("made");
        fs::write(log.join(format!("{:016x}.wal", 1)), rest).expect("written");
    } else {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let config = wal::Config {
            sync: wal::SyncPolicy::Every(std::time::Duration::from_secs(1)),
            ..wal::Config::new(log)
        };
        let (wal, _) = wal::Wal::open(config, |_, _| {}).expect("opens");
        for frame in rest.split(|b| *b == 0xff).filter(|f| !f.is_empty()) {
            let frame = if first % 3 == 1 { frame.to_vec() } else { record(frame) };
            if let Ok(pending) = wal.enqueue(frame) {
                drop(runtime.block_on(pending));
            }
        }
        drop(wal);
    }
    open_and_read(dir.path());
}

/// A record as the log has it (tsdb/FORMAT.md): version, length, packed content.
fn record(content: &[u8]) -> Vec<u8> {
    let mut out = vec![3];
    let mut n = content.len();
    while n > 0x7f {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out.extend(zstd::bulk::compress(content, 1).expect("compressing in memory cannot fail"));
    out
}

/// Length of a block's footer, and where in it what stands (tsdb/FORMAT.md).
const FOOTER: usize = 48;
const INDEX_AT: usize = 0;
const INDEX_LEN: usize = 8;
const INDEX_UNPACKED: usize = 12;
const INDEX_CRC: usize = 16;
const FACTS_AT: usize = 20;
const CRC: usize = 36;

/// Changes to a sound block, each of three bytes, where and what: to the file, or, if the first byte is odd, to its index
/// unpacked, which is then packed again.
pub(crate) fn block(data: &[u8]) {
    let Some((first, edits)) = data.split_first() else { return };
    let mut block = include_bytes!("../../tsdb/src/block/fixtures/v3.blk").to_vec();
    if first % 2 == 1 {
        block = with_index(&block, |index| edit(index, edits));
    } else {
        edit(&mut block, edits);
        if edits.len() % 3 == 1 {
            block.truncate(block.len() * usize::from(edits[edits.len() - 1]) / 256);
        }
    }
    let dir = directory();
    fs::write(dir.path().join(format!("{:016x}.blk", 3)), block).expect("written");
    open_and_read(dir.path());
}

pub(crate) fn edit(what: &mut [u8], edits: &[u8]) {
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % what.len();
        what[at] = edit[2];
    }
}

/// The block with its index changed, all lengths and checksums right.
fn with_index(block: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let (body, footer) = block.split_at(block.len() - FOOTER);
    let mut footer = footer.to_vec();
    let u64_at = |f: &[u8], at: usize| u64::from_le_bytes(f[at..at + 8].try_into().expect("eight bytes"));
    let u32_at = |f: &[u8], at: usize| u32::from_le_bytes(f[at..at + 4].try_into().expect("four bytes"));
    let (index_at, facts_at) = (u64_at(&footer, INDEX_AT) as usize, u64_at(&footer, FACTS_AT) as usize);
    let unpacked = u32_at(&footer, INDEX_UNPACKED) as usize;
    let mut index = zstd::bulk::decompress(&body[index_at..facts_at], unpacked).expect("a sound index");
    change(&mut index);
    let packed = zstd::bulk::compress(&index, 1).expect("compressing in memory cannot fail");
    let mut out = body[..index_at].to_vec();
    out.extend_from_slice(&packed);
    footer[INDEX_LEN..INDEX_LEN + 4].copy_from_slice(&(packed.len() as u32).to_le_bytes());
    footer[INDEX_CRC..INDEX_CRC + 4].copy_from_slice(&crc32fast::hash(&packed).to_le_bytes());
    footer[FACTS_AT..FACTS_AT + 8].copy_from_slice(&(out.len() as u64).to_le_bytes());
    let crc = crc32fast::hash(&footer[..CRC]);
    footer[CRC..CRC + 4].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&body[facts_at..]);
    out.extend(footer);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_with_its_index_packed_again_is_as_sound() {
        let block = include_bytes!("../../tsdb/src/block/fixtures/v3.blk");
        let read = |block: &[u8]| {
            let dir = directory();
            fs::write(dir.path().join(format!("{:016x}.blk", 3)), block).expect("written");
            open_and_read(dir.path())
        };
        let series = read(block);
        assert!(series > 0);
        assert_eq!(read(&with_index(block, |_| {})), series);
    }
}
