//! Deletions and snapshots: nothing that was deleted is seen again, nothing else is lost.

use std::sync::Arc;

use signal::time::Clock;
use signal::{Labels, MatchOp, Matcher, MetricBatch, Select, SeriesSource, Timestamp};
use tsdb::{Config, Tsdb};

const NOW: i64 = 1_700_000_000_000;

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(NOW)
    }
    fn monotonic(&self) -> std::time::Instant {
        signal::time::monotonic()
    }
}

fn open(dir: &std::path::Path) -> Arc<Tsdb> {
    Tsdb::open(Config { clock: Arc::new(Fixed), ..Config::new(dir) }).expect("opens")
}

async fn append(db: &Tsdb, samples: &[(&str, i64, f64)]) {
    let mut batch = MetricBatch::default();
    for (name, t, v) in samples {
        batch.push(Labels::from_pairs([("__name__", *name)]), NOW + t, *v);
    }
    assert_eq!(db.append(batch).await.expect("appends").rejected, 0);
}

fn all(db: &Tsdb) -> Vec<(String, Vec<(i64, f64)>)> {
    let select = Select { matchers: Vec::new(), start: i64::MIN, end: i64::MAX };
    let series = db.select(&select).expect("selects").map(|s| s.expect("reads"));
    series
        .map(|s| {
            let times: Vec<i64> = s.timestamps.iter().map(|t| t - NOW).collect();
            (s.labels.metric_name().to_owned(), times.into_iter().zip(s.values).collect())
        })
        .collect()
}

fn named(pattern: &str) -> Vec<Matcher> {
    vec![Matcher::new("__name__", MatchOp::Regex, pattern).expect("pattern")]
}

fn bytes(dir: &std::path::Path) -> Vec<u8> {
    let files = std::fs::read_dir(dir).expect("directory").map(|f| f.expect("entry").path());
    files
        .filter(|p| p.extension().is_some_and(|e| e == "blk"))
        .flat_map(|p| std::fs::read(p).expect("reads"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_stays_deleted() {
    let dir = tempfile::tempdir().expect("dir");
    let db = open(dir.path());
    append(&db, &[("a", -3000, 1.0), ("a", -2000, 2.0), ("a", -1000, 3.0), ("b", -2000, 4.0)]).await;
    db.flush().await.expect("flushes");
    append(&db, &[("a", -500, 5.0), ("b", -500, 6.0)]).await;
    // Of what lies in a block and of what lies in the head.
    db.delete(&named("a|none"), NOW - 2000, NOW - 500).await.expect("deletes");
    let left = vec![("a".to_owned(), vec![(-3000, 1.0)]), ("b".to_owned(), vec![(-2000, 4.0), (-500, 6.0)])];
    assert_eq!(all(&db), left);
    // A sample that comes later is not touched, though its time was deleted.
    append(&db, &[("a", -1000, 7.0)]).await;
    let left = vec![
        ("a".to_owned(), vec![(-3000, 1.0), (-1000, 7.0)]),
        ("b".to_owned(), vec![(-2000, 4.0), (-500, 6.0)]),
    ];
    assert_eq!(all(&db), left);
    drop(db);
    let db = open(dir.path());
    assert_eq!(all(&db), left);
    db.clean_tombstones().await.expect("cleans");
    assert_eq!(all(&db), left);
    let kept = std::fs::read_to_string(dir.path().join("tombstones.json")).expect("file");
    assert_eq!(kept, "[]");
    // A whole series goes, its name too.
    db.delete(&named("b"), i64::MIN, i64::MAX).await.expect("deletes");
    assert_eq!(all(&db).len(), 1);
    assert_eq!(
        db.label_values("__name__", &Select { matchers: Vec::new(), start: 0, end: i64::MAX }).ok(),
        Some(vec!["a".to_owned()])
    );
    db.clean_tombstones().await.expect("cleans");
    drop(db);
    assert_eq!(all(&open(dir.path())), left[..1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_opens_as_a_database() {
    let dir = tempfile::tempdir().expect("dir");
    let db = open(dir.path());
    append(&db, &[("a", -3000, 1.0), ("b", -2000, 2.0)]).await;
    db.flush().await.expect("flushes");
    db.delete(&named("b"), i64::MIN, i64::MAX).await.expect("deletes");
    append(&db, &[("c", -1000, 3.0)]).await;
    let (whole, old) = (db.snapshot(false).await, db.snapshot(true).await);
    let (whole, old) = (whole.expect("makes one"), old.expect("makes one"));
    assert!(whole.starts_with("20231114T221320Z-"), "{whole}");
    append(&db, &[("d", 0, 4.0)]).await;
    db.delete(&named(".*"), i64::MIN, i64::MAX).await.expect("deletes");
    db.clean_tombstones().await.expect("cleans");
    assert!(all(&db).is_empty() && bytes(dir.path()).is_empty());
    let expect = vec![("a".to_owned(), vec![(-3000, 1.0)]), ("c".to_owned(), vec![(-1000, 3.0)])];
    for name in [whole, old] {
        assert_eq!(all(&open(&dir.path().join("snapshots").join(name))), expect);
    }
}
