//! What is merged when, and that a merge neither loses nor doubles.

use std::time::Duration;

use proptest::prelude::*;
use signal::{Labels, LogBatch, LogRecord, LogStream, Timestamp};

use super::*;
use crate::config::Kind;
use crate::search::{Direction, Search};

const MB: u64 = 1 << 20;

fn config(dir: &std::path::Path) -> Config {
    Config { merge_fan: 3, ..Config::new(dir, Kind::Logs) }
}

#[test]
fn what_is_of_one_size_and_came_together_is_merged() {
    let dir = tempfile::tempdir().expect("dir");
    let c = Config { merged_bytes: 100 * MB, merged_span: Duration::from_nanos(100), ..config(dir.path()) };
    let check = |parts: &[(u64, i64, i64)], expect: Option<&[usize]>| {
        let metas: Vec<Meta> = parts
            .iter()
            .zip(1..)
            .map(|((raw_bytes, min, max), seq)| Meta {
                seq,
                raw_bytes: *raw_bytes,
                min: *min,
                max: *max,
                ..Meta::default()
            })
            .collect();
        let metas: Vec<&Meta> = metas.iter().collect();
        assert_eq!(plan(&metas, &c).as_deref(), expect, "{parts:?}");
    };
    check(&[(1, 0, 1), (1, 1, 2)], None);
    check(&[(1, 0, 1), (1, 1, 2), (1, 2, 3)], Some(&[0, 1, 2]));
    // The large one between them holds the small ones apart.
    check(&[(1, 0, 1), (50 * MB, 1, 2), (1, 2, 3), (1, 3, 4)], None);
    check(&[(50 * MB, 0, 9), (1, 9, 10), (1, 20, 30), (1, 11, 12)], Some(&[1, 2, 3]));
    // Too much time, too many bytes.
    check(&[(1, 0, 1), (1, 1, 2), (1, 2, 200)], None);
    check(&[(40 * MB, 0, 1), (40 * MB, 1, 2), (40 * MB, 2, 3)], None);
}

fn batch(pod: u8, records: Vec<LogRecord>) -> LogBatch {
    let pod = format!("pod-{pod}");
    let labels = Labels::from_pairs([("namespace", "shop"), ("pod", pod.as_str())]);
    LogBatch { streams: vec![LogStream { labels, records }], checkpoints: Vec::new() }
}

/// Every record as pod, time and line. A search gives them in order of time; of equal times any may come first.
fn all(db: &LogIndex) -> Vec<(String, i64, String)> {
    let mut s = Search::new(vec![], Timestamp(0), Timestamp(i64::MAX));
    s.direction = Direction::Forward;
    let found = db
        .search(&s, usize::MAX, |l, r| {
            Some((l.get("pod").unwrap_or("").to_owned(), r.timestamp.nanos(), r.body))
        })
        .expect("searches");
    assert!(found.is_sorted_by_key(|(t, _)| *t), "out of order: {found:?}");
    let mut found: Vec<_> = found.into_iter().map(|(_, v)| v).collect();
    found.sort();
    found
}

fn parts(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut all: Vec<_> = std::fs::read_dir(dir)
        .expect("dir")
        .map(|e| e.expect("entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "part"))
        .collect();
    all.sort();
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Records of few streams and few times, flushed in pieces: after merges, and after a crash that left the parts
    /// beside the merged one, every record is there once.
    #[test]
    fn a_merge_changes_nothing_that_is_found(
        flushes in prop::collection::vec(prop::collection::vec((0u8..3, 0i64..20), 1..40), 3..10)
    ) {
        let dir = tempfile::tempdir().expect("dir");
        let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
        rt.block_on(async {
            // Times near now, so that nothing is older than the retention.
            let now = signal::time::now().nanos() - 1_000_000;
            let db = LogIndex::open(config(dir.path())).expect("opens");
            let mut n = 0;
            for f in &flushes {
                for (pod, t) in f {
                    n += 1;
                    let r = LogRecord { timestamp: Timestamp(now + t), body: format!("line {n}"), ..LogRecord::default() };
                    db.append_logs(batch(*pod, vec![r])).await.expect("appends");
                }
                db.flush().await.expect("flushes");
            }
            let before = all(&db);
            prop_assert_eq!(before.len(), n);
            let old = parts(dir.path());
            let kept = tempfile::tempdir().expect("dir");
            for p in &old {
                std::fs::copy(p, kept.path().join(p.file_name().expect("name"))).expect("copies");
            }
            db.merge().expect("merges");
            prop_assert!(parts(dir.path()).len() < old.len());
            prop_assert_eq!(&all(&db), &before);
            drop(db);
            // As if killed before the parts were deleted.
            for p in std::fs::read_dir(kept.path()).expect("dir").map(|e| e.expect("entry").path()) {
                let to = dir.path().join(p.file_name().expect("name"));
                if !to.try_exists().expect("stat") {
                    std::fs::copy(&p, to).expect("copies");
                }
            }
            let db = LogIndex::open(config(dir.path())).expect("opens again");
            prop_assert_eq!(&all(&db), &before);
            Ok(())
        })?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Two files of one container, the old one read late: lines of one time, which batches, blocks, flushes and merges
    /// cut anywhere, stay in order, whether they are read from their beginning, from their end or page by page.
    #[test]
    fn lines_of_one_time_keep_their_order(
        // How many lines have one time, how many make a batch, how far the old file lags behind, in batches.
        same in prop::collection::vec(1usize..60, 8),
        cuts in prop::collection::vec(1usize..60, 6),
        lag in 0usize..6,
        flush in prop::collection::vec(any::<bool>(), 8),
        page in 1usize..50,
    ) {
        const LINES: usize = 400;
        let dir = tempfile::tempdir().expect("dir");
        let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
        rt.block_on(async {
            let began = signal::time::now().nanos() - 1_000_000_000;
            // So long that a block has few.
            let pad = "x".repeat(crate::partition::BLOCK_BYTES / 40);
            let (mut records, mut same, mut time) = (Vec::new(), same.iter().cycle(), began);
            while records.len() < LINES {
                time += 1000;
                for _ in 0..*same.next().expect("endless") {
                    let body = format!("{:04} {pad}", records.len());
                    records.push(LogRecord { timestamp: Timestamp(time), body, ..LogRecord::default() });
                }
            }
            let lines = records.len();
            let mut batches: Vec<Vec<LogRecord>> = Vec::new();
            let mut cuts = cuts.iter().cycle();
            let mut left = records.as_slice();
            while !left.is_empty() {
                let (batch, rest) = left.split_at(left.len().min(*cuts.next().expect("endless")));
                batches.push(batch.to_vec());
                left = rest;
            }
            // The old file has the first half, and no time that the new one has, too.
            let old = batches.len() / 2;
            let new = batches.iter_mut().skip(old).flatten();
            new.for_each(|r| r.timestamp = Timestamp(r.timestamp.nanos() + 500));
            let mut order: Vec<usize> = (0..batches.len()).collect();
            order.sort_by_key(|i| if *i < old { i + lag } else { *i });
            let db = LogIndex::open(config(dir.path())).expect("opens");
            let mut flush = flush.iter().cycle();
            for i in order {
                db.append_logs(batch(0, batches[i].clone())).await.expect("appends");
                if *flush.next().expect("endless") {
                    db.flush().await.expect("flushes");
                    db.merge().expect("merges");
                }
            }
            let s = |direction, from| {
                let mut s = Search::new(vec![], Timestamp(from), Timestamp(i64::MAX));
                s.direction = direction;
                s
            };
            let read = |s: &Search, limit| {
                let found = db.search(s, limit, |_, r| Some(r.body[..4].to_owned())).expect("searches");
                found.into_iter().map(|(t, line)| (t.nanos(), line)).collect::<Vec<_>>()
            };
            let all = read(&s(Direction::Forward, 0), usize::MAX);
            prop_assert_eq!(all.len(), lines);
            let wrong = all.windows(2).find(|w| w[0].1 > w[1].1);
            prop_assert_eq!(wrong, None);
            let mut back = read(&s(Direction::Backward, 0), usize::MAX);
            back.reverse();
            prop_assert_eq!(&back, &all);
            for i in (0..all.len()).step_by(7) {
                let from = all[i].0;
                let at = all.partition_point(|(t, _)| *t < from);
                let some = read(&s(Direction::Forward, from), page);
                prop_assert_eq!(&some[..], &all[at..all.len().min(at + page)], "from {}", from);
            }
            Ok(())
        })?;
    }
}

#[test]
fn a_damaged_part_stays_and_does_not_stop_the_rest() {
    let dir = tempfile::tempdir().expect("dir");
    let rt =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    rt.block_on(async {
        let db = LogIndex::open(config(dir.path())).expect("opens");
        let now = signal::time::now().nanos() - 1_000_000;
        let write = async |n: i64| {
            let r = LogRecord {
                timestamp: Timestamp(now + n),
                body: format!("line {n}"),
                ..LogRecord::default()
            };
            db.append_logs(batch(0, vec![r])).await.expect("appends");
            db.flush().await.expect("flushes");
        };
        for n in 0..3 {
            write(n).await;
        }
        // The first block's data begins behind the header.
        let broken = parts(dir.path()).swap_remove(0);
        let mut data = std::fs::read(&broken).expect("reads");
        data[13] ^= 1;
        std::fs::write(&broken, data).expect("writes");
        let e = db.merge().expect_err("the damage is said");
        assert!(e.to_string().contains("checksum of column"), "{e}");
        assert_eq!(parts(dir.path()).len(), 3);
        for n in 3..6 {
            write(n).await;
        }
        db.merge().expect("merges the others");
        assert_eq!(parts(dir.path()).len(), 4);
    });
}
