//! What lies on disk: a log and a block, in a directory of their own.

use std::fs;

use crate::wire::open_and_read;

/// A directory in memory where there is one: a target runs thousands of times a second.
fn directory() -> tempfile::TempDir {
    let shared = std::path::Path::new("/dev/shm");
    let dir = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() };
    dir.expect("a directory")
}

/// The first byte says whether the rest is a segment of the log as it lies on disk, or frames that were written in good
/// order but hold anything; then the database is opened over it.
pub(crate) fn log(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let dir = directory();
    let log = dir.path().join("wal");
    if first % 2 == 0 {
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
            if let Ok(pending) = wal.enqueue(frame.to_vec()) {
                drop(runtime.block_on(pending));
            }
        }
        drop(wal);
    }
    open_and_read(dir.path());
}

/// Changes to a sound block: each of three bytes, where and what.
pub(crate) fn block(data: &[u8]) {
    let mut block = include_bytes!("../../tsdb/src/block/fixtures/v3.blk").to_vec();
    for edit in data.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % block.len();
        block[at] = edit[2];
    }
    if data.len() % 3 == 1 {
        block.truncate(block.len() * usize::from(data[data.len() - 1]) / 256);
    }
    let dir = directory();
    fs::write(dir.path().join(format!("{:016x}.blk", 3)), block).expect("written");
    open_and_read(dir.path());
}
