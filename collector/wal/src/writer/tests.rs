//! Appending, reading back, cutting and damaging.

use std::path::Path;

use proptest::prelude::*;

use super::*;

fn read(dir: &Path) -> (Vec<Vec<u8>>, Recovery) {
    let mut frames = Vec::new();
    let (_, found) = Wal::open(Config::new(dir), |_, f| frames.push(f.to_vec())).expect("opens");
    (frames, found)
}

fn write(dir: &Path, frames: &[Vec<u8>]) {
    let (wal, _) = Wal::open(Config::new(dir), |_, _| ()).expect("opens");
    let pending: Vec<_> = frames.iter().map(|f| wal.enqueue(f.clone()).expect("room")).collect();
    pending.into_iter().for_each(|p| p.wait().expect("durable"));
}

fn only_segment(dir: &Path) -> std::path::PathBuf {
    segment::path(dir, 1)
}

#[test]
fn many_appends_share_syncs_and_come_back_in_order() {
    let dir = tempfile::tempdir().expect("dir");
    let frames: Vec<Vec<u8>> = (0..1000u32).map(|i| i.to_le_bytes().to_vec()).collect();
    write(dir.path(), &frames);
    let (got, found) = read(dir.path());
    assert_eq!(got, frames);
    assert_eq!((found.frames, found.torn_bytes, found.damage.len()), (1000, 0, 0));
}

#[test]
fn rotated_segments_are_deleted_and_the_rest_stays() {
    let dir = tempfile::tempdir().expect("dir");
    let rt = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    rt.block_on(async {
        let (wal, _) = Wal::open(Config::new(dir.path()), |_, _| ()).expect("opens");
        wal.append(&b"old"[..]).await.expect("durable");
        let next = wal.rotate().await.expect("rotates");
        wal.append(&b"new"[..]).await.expect("durable");
        wal.delete_before(next).await.expect("deletes");
        assert_eq!(wal.stats().segments, 1);
    });
    assert_eq!(read(dir.path()).0, [b"new".to_vec()]);
}

#[test]
fn size_closes_segments() {
    let dir = tempfile::tempdir().expect("dir");
    let config = Config { segment_bytes: 100, ..Config::new(dir.path()) };
    let (wal, _) = Wal::open(config, |_, _| ()).expect("opens");
    for i in 0..10u8 {
        wal.enqueue(vec![i; 60]).expect("room").wait().expect("durable");
    }
    assert!(wal.stats().segments >= 5);
    drop(wal);
    assert_eq!(read(dir.path()).0.len(), 10);
}

#[test]
fn every_writes_at_once_and_syncs_later() {
    let dir = tempfile::tempdir().expect("dir");
    let config = Config { sync: SyncPolicy::Every(Duration::from_secs(3600)), ..Config::new(dir.path()) };
    let (wal, _) = Wal::open(config, |_, _| ()).expect("opens");
    wal.enqueue(&b"x"[..]).expect("room").wait().expect("written");
    assert_eq!(wal.stats().syncs, 0);
    drop(wal);
    assert_eq!(read(dir.path()).0, [b"x".to_vec()]);
}

#[test]
fn damage_in_the_middle_is_set_aside_and_reported() {
    let dir = tempfile::tempdir().expect("dir");
    write(dir.path(), &[vec![1; 10], vec![2; 10], vec![3; 10]]);
    let path = only_segment(dir.path());
    let mut data = std::fs::read(&path).expect("segment");
    data[segment::HEADER + 22 + frame::HEADER + 3] ^= 0xff;
    std::fs::write(&path, data).expect("segment");
    let (got, found) = read(dir.path());
    assert_eq!(got, [vec![1; 10], vec![3; 10]]);
    assert_eq!(found.damage.len(), 1);
    assert_eq!(std::fs::read(&found.damage[0].kept_in).expect("kept").len(), 22);
}

#[test]
fn too_long_and_too_many_are_refused() {
    let dir = tempfile::tempdir().expect("dir");
    let config = Config { frame_bytes: 10, ..Config::new(dir.path()) };
    let (wal, _) = Wal::open(config, |_, _| ()).expect("opens");
    assert!(matches!(wal.enqueue(vec![0; 11]), Err(Error::FrameTooLong { .. })));
}

#[test]
fn a_log_cut_at_every_byte_recovers_a_prefix() {
    let dir = tempfile::tempdir().expect("dir");
    let frames: Vec<Vec<u8>> = (1..8u8).map(|i| vec![i; usize::from(i) * 3]).collect();
    write(dir.path(), &frames);
    let whole = std::fs::read(only_segment(dir.path())).expect("segment");
    for cut in 0..=whole.len() {
        let d = tempfile::tempdir().expect("dir");
        std::fs::write(only_segment(d.path()), &whole[..cut]).expect("segment");
        let (got, found) = read(d.path());
        assert_eq!(got, frames[..got.len()], "cut at {cut}");
        assert!(found.damage.is_empty(), "cut at {cut}");
        // What was cut off stays cut off, and the log can be used.
        write(d.path(), &[b"after".to_vec()]);
        let (again, _) = read(d.path());
        assert_eq!(again.last().map(Vec::as_slice), Some(&b"after"[..]));
        assert_eq!(again.len(), got.len() + 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn a_flipped_byte_costs_one_frame_and_is_told(at in 0usize..400, mask in 1u8..) {
        let dir = tempfile::tempdir().expect("dir");
        let frames: Vec<Vec<u8>> = (0..12u8).map(|i| vec![i; 20]).collect();
        write(dir.path(), &frames);
        let path = only_segment(dir.path());
        let mut data = std::fs::read(&path).expect("segment");
        let at = at % data.len();
        data[at] ^= mask;
        std::fs::write(&path, data).expect("segment");
        let (got, found) = read(dir.path());
        let hit = at.checked_sub(segment::HEADER).map(|at| at / (20 + frame::HEADER));
        let left: Vec<Vec<u8>> =
            frames.iter().enumerate().filter(|(i, _)| Some(*i) != hit).map(|(_, f)| f.clone()).collect();
        prop_assert_eq!(&got, &left);
        if hit == Some(11) {
            // Nobody can tell it from an append that was under way.
            prop_assert_eq!((found.damage.len(), found.torn_bytes), (0, 32));
        } else {
            prop_assert_eq!((found.damage.len(), found.torn_bytes), (1, 0));
        }
        // What was found wrong once is told once.
        let (again, found) = read(dir.path());
        prop_assert_eq!(again, got);
        prop_assert_eq!(found.torn_bytes, 0);
    }

    #[test]
    fn bytes_in_between_are_skipped(garbage in prop::collection::vec(any::<u8>(), 1..60), at in 0usize..5) {
        let dir = tempfile::tempdir().expect("dir");
        let frames: Vec<Vec<u8>> = (0..5u8).map(|i| vec![i; 9]).collect();
        write(dir.path(), &frames);
        let path = only_segment(dir.path());
        let mut data = std::fs::read(&path).expect("segment");
        let place = segment::HEADER + at * (9 + frame::HEADER);
        let n = garbage.len().min(data.len() - place);
        data[place..place + n].copy_from_slice(&garbage[..n]);
        std::fs::write(&path, data).expect("segment");
        let (got, _) = read(dir.path());
        prop_assert!(got.iter().all(|f| frames.contains(f)));
        let untouched = (place + n - segment::HEADER).div_ceil(9 + frame::HEADER);
        prop_assert!(frames[untouched.min(5)..].iter().all(|f| got.contains(f)));
        prop_assert!(frames[..at].iter().all(|f| got.contains(f)));
    }
}

/// Segments of the first version, as its first release wrote them.
#[test]
fn segments_of_version_1_are_read() {
    let dir = tempfile::tempdir().expect("dir");
    let mut data = b"BNWL\x01\0\0\0".to_vec();
    data.extend_from_slice(&1u64.to_le_bytes());
    for payload in [&b"one"[..], b"two"] {
        let len = payload.len() as u32;
        let mut sum = crc32fast::Hasher::new();
        sum.update(&1u64.to_le_bytes());
        sum.update(&len.to_le_bytes());
        sum.update(payload);
        data.extend_from_slice(&len.to_le_bytes());
        data.extend_from_slice(&sum.finalize().to_le_bytes());
        data.extend_from_slice(payload);
    }
    std::fs::write(only_segment(dir.path()), &data).expect("segment");
    let (got, found) = read(dir.path());
    assert_eq!(got, [b"one".to_vec(), b"two".to_vec()]);
    assert_eq!(found.damage.len(), 0);
    write(dir.path(), &[b"three".to_vec()]);
    assert_eq!(read(dir.path()).0.len(), 3);
}

#[test]
fn closed_segments_are_read_and_deleted_one_by_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let (wal, _) = Wal::open(Config::new(dir.path()), |_, _| {}).expect("a log");
    let rt = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    rt.block_on(async {
        wal.append(&b"a"[..]).await.expect("appends");
        wal.append(&b"b"[..]).await.expect("appends");
        let second = wal.rotate().await.expect("rotates");
        wal.append(&b"c"[..]).await.expect("appends");
        let third = wal.rotate().await.expect("rotates");
        let all = wal.segments().expect("segments");
        assert_eq!(all.last(), Some(&third));
        let first = all[all.len() - 3];
        assert_eq!(wal.read(first).expect("frames"), [&b"a"[..], b"b"]);
        wal.delete_before(second).await.expect("deletes");
        assert!(wal.read(first).expect("no frames").is_empty());
        assert_eq!(wal.read(second).expect("frames"), [&b"c"[..]]);
    });
}
