//! What the log index reads from disk: its log and a partition.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use log_index::{Config, Kind, LogIndex, Search};
use signal::{Timestamp, TraceId};

use crate::store::{directory, edit};

const LOGS: &[u8] = include_bytes!("../../log-index/src/fixtures/v2/logs/0000000000000001.part");
const TRACES: &[u8] = include_bytes!("../../log-index/src/fixtures/v2/traces/0000000000000001.part");
/// log-index/FORMAT.md: four sections, a checksum of them, eight bytes.
const FOOTER: usize = 4 * SECTION + 12;
const SECTION: usize = 20;

/// Opens what is there and reads all of it. Gives how many records and spans that were.
fn read(dir: &Path) -> usize {
    let mut n = 0;
    for kind in [Kind::Logs, Kind::Spans] {
        let Ok(index) = LogIndex::open(Config::new(dir, kind)) else { continue };
        let mut s = Search::new(vec![], Timestamp::MIN, Timestamp::MAX);
        for needle in ["", "line 7", "0af7651916cd43dd8448eb211c80319c"] {
            s.needles = vec![needle.to_owned()];
            let read = index.map_blocks(
                &s,
                |v| {
                    (0..v.len()).try_for_each(|i| match kind {
                        Kind::Logs => v.log(i).map(drop),
                        Kind::Spans => v.span(i).map(drop),
                    })?;
                    Ok(v.len())
                },
                |found| {
                    n += found;
                    ControlFlow::Continue(())
                },
            );
            drop(read);
        }
        let ids = [TraceId([1; 16]), TraceId([33; 16])];
        drop(index.trace(ids[0], &[]));
        drop(index.summaries(&ids, &[]));
        drop(index.merge());
    }
    n
}

/// Frames in a sound log that hold anything, packed as the index packs them.
pub(crate) fn frames(data: &[u8]) {
    let dir = directory();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let config = wal::Config {
        sync: wal::SyncPolicy::Every(std::time::Duration::from_secs(1)),
        ..wal::Config::new(dir.path().join("wal"))
    };
    let (wal, _) = wal::Wal::open(config, |_, _| {}).expect("opens");
    for frame in data.split(|b| *b == 0xff) {
        let mut packed = vec![1];
        wal::bytes::put_uvarint(&mut packed, frame.len() as u64);
        packed.extend(zstd::bulk::compress(frame, 1).expect("compressing in memory cannot fail"));
        if let Ok(pending) = wal.enqueue(packed) {
            drop(runtime.block_on(pending));
        }
    }
    drop(wal);
    read(dir.path());
}

/// Changes to a sound partition: the first byte says of logs or of spans, and of what: the whole file, or one of its
/// sections, which is packed again with all checksums right.
pub(crate) fn partition(data: &[u8]) {
    let Some((first, edits)) = data.split_first() else { return };
    let sound = if first % 2 == 0 { LOGS } else { TRACES };
    let changed = match first / 2 % 5 {
        4 => {
            let mut all = sound.to_vec();
            edit(&mut all, edits);
            all
        }
        section => with_section(sound, usize::from(section), |bytes| edit(bytes, edits)),
    };
    let dir = directory();
    fs::write(dir.path().join(format!("{:016x}.part", 1)), changed).expect("written");
    read(dir.path());
}

fn with_section(sound: &[u8], section: usize, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let (body, footer) = sound.split_at(sound.len() - FOOTER);
    let mut footer = footer.to_vec();
    let at = section * SECTION;
    let u32_at = |f: &[u8], at: usize| u32::from_le_bytes(f[at..at + 4].try_into().expect("four bytes"));
    let offset = u64::from_le_bytes(footer[at..at + 8].try_into().expect("eight bytes")) as usize;
    let (len, unpacked) = (u32_at(&footer, at + 8) as usize, u32_at(&footer, at + 12) as usize);
    let packed = &body[offset..offset + len];
    // The last section is no zstd.
    let plain = section == 3;
    let mut bytes = if plain {
        packed.to_vec()
    } else {
        zstd::bulk::decompress(packed, unpacked).expect("a sound section")
    };
    if !bytes.is_empty() {
        change(&mut bytes);
    }
    let packed = if plain {
        bytes
    } else {
        zstd::bulk::compress(&bytes, 1).expect("compressing in memory cannot fail")
    };
    // Behind all others, which stay where they are.
    let mut out = body.to_vec();
    footer[at..at + 8].copy_from_slice(&(out.len() as u64).to_le_bytes());
    footer[at + 8..at + 12].copy_from_slice(&(packed.len() as u32).to_le_bytes());
    footer[at + 16..at + 20].copy_from_slice(&crc32fast::hash(&packed).to_le_bytes());
    out.extend_from_slice(&packed);
    let crc = crc32fast::hash(&footer[..4 * SECTION]);
    footer[4 * SECTION..4 * SECTION + 4].copy_from_slice(&crc.to_le_bytes());
    out.extend(footer);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_with_a_section_packed_again_is_as_sound() {
        let read = |part: &[u8]| {
            let dir = directory();
            fs::write(dir.path().join(format!("{:016x}.part", 1)), part).expect("written");
            super::read(dir.path())
        };
        for sound in [LOGS, TRACES] {
            let expect = read(sound);
            assert!(expect > 0);
            for section in 0..4 {
                assert_eq!(read(&with_section(sound, section, |_| {})), expect);
            }
        }
    }
}
