//! Queries over an index of 120 lines.

use super::*;
use log_index::{Config, Kind};
use signal::{LogBatch, LogRecord, LogStream};

fn filled() -> (tempfile::TempDir, Engine) {
    let dir = tempfile::tempdir().expect("dir");
    let index = LogIndex::open(Config::new(dir.path(), Kind::Logs)).expect("opens");
    let record =
        |s: i64, body: String| LogRecord { timestamp: Timestamp::from_secs(s), body, ..Default::default() };
    let streams = ["a", "b"].map(|pod| LogStream {
        labels: Labels::from_pairs([("namespace", "shop"), ("pod", pod)]),
        records: (0..60)
            .map(|i| {
                record(
                    1000 + i,
                    format!("level={} ms={i} pod={pod}", if i % 10 == 0 { "error" } else { "info" }),
                )
            })
            .collect(),
    });
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    rt.block_on(async {
        index.append_logs(LogBatch { streams: streams.into(), checkpoints: vec![] }).await.expect("appends");
        index.flush().await.expect("flushes");
    });
    (dir, Engine::new(index, Limits::default()))
}

fn vector(e: &Engine, q: &str) -> Vec<(String, f64)> {
    match e.instant(q, Timestamp::from_secs(1059), &Options::default()).expect(q).0 {
        LogResult::Metric(r) => match r.value {
            Value::Vector(v) => v.into_iter().map(|(l, s)| (l.to_string(), s.value)).collect(),
            v => panic!("{v:?}"),
        },
        LogResult::Streams(_) => panic!("{q} is a metric query"),
    }
}

#[test]
fn lines_in_order_within_limit_and_scope() {
    let (_dir, e) = filled();
    let o = Options { limit: 5, ..Options::default() };
    let (start, end) = (Timestamp::from_secs(0), Timestamp::from_secs(2000));
    let step = Duration::from_secs(60);
    let (LogResult::Streams(s), _) =
        e.range(r#"{namespace="shop"} |= "error""#, start, end, step, &o).expect("runs")
    else {
        panic!("a log query")
    };
    assert_eq!(s.len(), 2);
    assert_eq!(s.iter().map(|s| s.entries.len()).sum::<usize>(), 5);
    assert!(s[0].entries[0].line.contains("ms=50"));
    let o = Options { enforce: vec![Matcher::equal("namespace", "other")], limit: 5, ..Options::default() };
    let (LogResult::Streams(s), _) = e.range(r#"{namespace="shop"}"#, start, end, step, &o).expect("runs")
    else {
        panic!("a log query")
    };
    assert!(s.is_empty());
}

#[test]
fn metric_queries() {
    let (_dir, e) = filled();
    assert_eq!(vector(&e, r#"sum(count_over_time({namespace="shop"}[1m]))"#), [("{}".to_owned(), 120.0)]);
    assert_eq!(
        vector(&e, r#"rate({pod="a"} |= "error" [1m])"#),
        [(r#"{namespace="shop", pod="a"}"#.to_owned(), 0.1)]
    );
    assert_eq!(
        vector(&e, r#"sum by (level) (count_over_time({namespace="shop"} | logfmt [1m]))"#),
        [(r#"{level="error"}"#.to_owned(), 12.0), (r#"{level="info"}"#.to_owned(), 108.0)]
    );
    assert_eq!(
        vector(&e, r#"max_over_time({pod="a"} | logfmt | unwrap ms [1m]) by (pod)"#),
        [(r#"{pod="a"}"#.to_owned(), 59.0)]
    );
    assert_eq!(vector(&e, "vector(1)+vector(1)"), [("{}".to_owned(), 2.0)]);
    assert_eq!(vector(&e, r#"absent_over_time({pod="c"}[1m])"#), [(r#"{pod="c"}"#.to_owned(), 1.0)]);
    assert_eq!(vector(&e, r#"topk(1, sum by (pod) (bytes_over_time({namespace="shop"}[1m]))) > 1e9"#), []);
}

#[test]
fn a_query_nobody_waits_for_and_one_that_reads_too_much_end() {
    let (_dir, e) = filled();
    let o = Options { limit: 5, ..Options::default() };
    o.stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let at = Timestamp::from_secs(1059);
    for q in [r#"{namespace="shop"}"#, r#"rate({namespace="shop"}[1m])"#] {
        assert!(matches!(e.instant(q, at, &o), Err(Error::Canceled)), "{q}");
        let few = Engine::new(e.index.clone(), Limits { bytes: 10, ..Limits::default() });
        assert!(
            matches!(few.instant(q, at, &Options { limit: 5, ..Options::default() }), Err(Error::Limit(_))),
            "{q}"
        );
        let short = Engine::new(e.index.clone(), Limits { timeout: Duration::ZERO, ..Limits::default() });
        assert!(matches!(short.instant(q, at, &Options::default()), Err(Error::Timeout)), "{q}");
    }
}
