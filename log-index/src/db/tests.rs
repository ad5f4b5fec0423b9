//! The index as a whole: what goes in is found, followed, kept over flushes, restarts and crashes, and never doubled.

use signal::{
    Labels, LogRecord, LogStream, Severity, Span, SpanId, SpanStatus, SpanStream, Timestamp, TraceId,
};

use super::*;
use crate::search::{Direction, Search};
use crate::traces::SpanSearch;

fn rt() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime")
}

fn logs(dir: &std::path::Path) -> Arc<LogIndex> {
    LogIndex::open(Config::new(dir, Kind::Logs)).expect("opens")
}

fn record(t: i64, body: &str) -> LogRecord {
    LogRecord {
        timestamp: Timestamp(t),
        severity: Severity::INFO,
        body: body.to_owned(),
        ..LogRecord::default()
    }
}

fn batch(pod: &str, records: Vec<LogRecord>) -> LogBatch {
    let labels = Labels::from_pairs([("namespace", "shop"), ("pod", pod)]);
    LogBatch { streams: vec![LogStream { labels, records }], checkpoints: Vec::new() }
}

fn find(db: &LogIndex, needles: &[&str], direction: Direction, limit: usize) -> Vec<String> {
    let mut s = Search::new(vec![Matcher::equal("namespace", "shop")], Timestamp(0), Timestamp(i64::MAX));
    s.direction = direction;
    s.needles = needles.iter().map(|n| (*n).to_owned()).collect();
    let found = db.search(&s, limit, |_, r| Some(r.body)).expect("searches");
    found.into_iter().map(|(_, b)| b).collect()
}

#[test]
fn lines_are_found_in_head_and_partitions_alike() {
    let dir = tempfile::tempdir().expect("dir");
    let trace: TraceId = "4bf92f3577b34da6a3ce929d0e0e4736".parse().expect("id");
    let check = |db: &LogIndex| {
        assert_eq!(
            find(db, &["500"], Direction::Forward, 10),
            ["GET /cart code=500 in 3ms", "code=500 again"]
        );
        assert_eq!(find(db, &["ode=50"], Direction::Backward, 1), ["code=500 again"]);
        assert_eq!(find(db, &["Code"], Direction::Backward, 10), [] as [&str; 0]);
        assert_eq!(find(db, &["trace_id=4bf92f3577b34da6a3ce929d0e0e4736"], Direction::Backward, 9).len(), 1);
        assert_eq!(find(db, &["3577b34da6a3ce92"], Direction::Backward, 9).len(), 1);
        assert_eq!(find(db, &["ID4bf9"], Direction::Backward, 9).len(), 0);
        let mut s = Search::new(vec![], Timestamp(0), Timestamp(i64::MAX));
        s.trace_id = Some(trace);
        assert_eq!(db.search(&s, 10, |_, r| Some(r.body)).expect("searches").len(), 2);
        assert_eq!(find(db, &[], Direction::Forward, 3).len(), 3);
        assert_eq!(find(db, &[], Direction::Backward, 1), ["with a trace of its own"]);
    };
    rt().block_on(async {
        let db = logs(dir.path());
        let mut own = record(5, "with a trace of its own");
        own.trace_id = trace;
        let lines = vec![
            record(1, "GET /cart code=500 in 3ms"),
            record(2, "all is well"),
            record(3, "code=500 again"),
            record(4, "said trace_id=4bf92f3577b34da6a3ce929d0e0e4736 done"),
            own,
        ];
        db.append_logs(batch("a", lines)).await.expect("appends");
        check(&db);
        db.flush().await.expect("flushes");
        assert_eq!((db.stats().partitions, db.stats().head_records), (1, 0));
        check(&db);
        db.append_logs(batch("b", vec![record(0, "older, later")])).await.expect("appends");
        check(&db);
    });
    let db = logs(dir.path());
    check(&db);
    assert_eq!(find(&db, &[], Direction::Forward, 1), ["older, later"]);
    assert_eq!(db.streams(&[], Timestamp(0), Timestamp(9)).expect("streams").len(), 2);
}

#[test]
fn a_checkpoint_drops_repetitions_over_flush_and_restart() {
    let dir = tempfile::tempdir().expect("dir");
    let with = |n: u64| LogBatch {
        checkpoints: vec![Checkpoint { source: "uid/c/0".into(), position: n }],
        ..batch("a", vec![record(n as i64, "line")])
    };
    rt().block_on(async {
        let db = logs(dir.path());
        db.append_logs(with(10)).await.expect("appends");
        db.append_logs(with(10)).await.expect("appends");
        db.flush().await.expect("flushes");
        db.append_logs(with(5)).await.expect("appends");
        db.append_logs(with(20)).await.expect("appends");
        assert_eq!(find(&db, &["line"], Direction::Forward, 10).len(), 2);
        assert_eq!(db.stats().duplicates, 2);
    });
    let db = logs(dir.path());
    assert_eq!(db.checkpoint("uid/c/0"), Some(20));
    assert_eq!(db.checkpoint("other"), None);
    assert_eq!(find(&db, &["line"], Direction::Forward, 10).len(), 2);
}

#[test]
fn a_tail_sees_what_comes_and_is_told_what_it_missed() {
    let dir = tempfile::tempdir().expect("dir");
    rt().block_on(async {
        let db =
            LogIndex::open(Config { tail_batches: 1, ..Config::new(dir.path(), Kind::Logs) }).expect("opens");
        let mut tail = db.tail(vec![Matcher::equal("pod", "a")]);
        db.append_logs(batch("b", vec![record(1, "not asked for")])).await.expect("appends");
        for i in 0..3 {
            db.append_logs(batch("a", vec![record(i, "x")])).await.expect("appends");
        }
        let first = tail.next().await.expect("open");
        assert_eq!((first.streams[0].records[0].body.as_str(), first.dropped), ("x", 2));
        assert_eq!(db.stats().tail_dropped, 2);
    });
}

#[test]
fn traces_are_found_by_id_and_by_what_they_are() {
    let dir = tempfile::tempdir().expect("dir");
    let span = |id: u8, parent: u8, name: &str, start: i64, end: i64| Span {
        trace_id: TraceId([9; 16]),
        span_id: SpanId([id; 8]),
        parent_span_id: SpanId([parent; 8]),
        name: name.to_owned(),
        start: Timestamp(start),
        end: Timestamp(end),
        status: if id == 2 { SpanStatus::Error("bad".into()) } else { SpanStatus::Unset },
        attributes: [("http.route", "/cart")].into_iter().collect(),
        ..Span::default()
    };
    let stream = |service: &str, spans: Vec<Span>| SpanStream {
        labels: Labels::from_pairs([("service_name", service), ("namespace", "shop")]),
        resource: [("k8s.pod.name", "p")].into_iter().collect(),
        spans,
    };
    rt().block_on(async {
        let db = LogIndex::open(Config::new(dir.path(), Kind::Spans)).expect("opens");
        let streams = vec![
            stream("web", vec![span(1, 0, "GET", 10, 50)]),
            stream("cart", vec![span(2, 1, "add", 20, 40)]),
        ];
        db.append_spans(SpanBatch { streams }).await.expect("appends");
        for flushed in [false, true] {
            if flushed {
                db.flush().await.expect("flushes");
            }
            assert_eq!(db.trace(TraceId([9; 16]), &[]).expect("finds").len(), 2);
            assert!(db.trace(TraceId([8; 16]), &[]).expect("finds").is_empty());
            let q = SpanSearch {
                matchers: vec![Matcher::equal("service_name", "cart")],
                start: Timestamp(0),
                end: Timestamp(100),
                name: None,
                min_duration: Some(20),
                max_duration: None,
                attributes: vec![("http.route".into(), "/cart".into()), ("status".into(), "error".into())],
            };
            let found = db.search_traces(&q, 5).expect("searches");
            assert_eq!(found.len(), 1);
            let t = &found[0];
            assert_eq!(
                (t.root_service.as_str(), t.root_name.as_str(), t.duration, t.spans, t.errors),
                ("web", "GET", 40, 2, 1)
            );
            assert!(
                db.search_traces(&SpanSearch { min_duration: Some(21), ..q }, 5)
                    .expect("searches")
                    .is_empty()
            );
        }
    });
}

#[test]
fn several_traces_are_each_as_alone() {
    let dir = tempfile::tempdir().expect("dir");
    rt().block_on(async {
        let db = LogIndex::open(Config::new(dir.path(), Kind::Spans)).expect("opens");
        for part in 0..3u8 {
            let span = |n: u8| Span {
                trace_id: TraceId([n % 5 + 1; 16]),
                span_id: SpanId([part * 40 + n + 1; 8]),
                name: format!("GET /{n}"),
                start: Timestamp(i64::from(n ^ 3)),
                end: Timestamp(i64::from(n) + 5),
                attributes: [("n", "x")].into_iter().collect(),
                ..Span::default()
            };
            let stream = |service: u8| SpanStream {
                labels: Labels::from_pairs([("service_name", format!("s{service}"))]),
                resource: [("host", "h")].into_iter().collect(),
                spans: (0..20).filter(|n| n % 2 == service).map(span).collect(),
            };
            let batch = || SpanBatch { streams: vec![stream(0), stream(1)] };
            db.append_spans(batch()).await.expect("appends");
            // The same again, as after a lost answer.
            db.append_spans(batch()).await.expect("appends");
            if part < 2 {
                db.flush().await.expect("flushes");
            }
        }
        let ids: Vec<TraceId> = [1u8, 3, 5, 99].map(|n| TraceId([n; 16])).to_vec();
        for matchers in [vec![], vec![Matcher::equal("service_name", "s1")]] {
            let mut all = db.traces(&ids, &matchers).expect("reads");
            assert_eq!(all.len(), 3);
            for id in &ids {
                let sorted = |mut streams: Vec<SpanStream>| {
                    streams.sort_by(|a, b| a.labels.cmp(&b.labels));
                    streams
                };
                let alone = sorted(db.trace(*id, &matchers).expect("reads"));
                assert_eq!(sorted(all.remove(id).unwrap_or_default()), alone);
                let spans: usize = alone.iter().map(|s| s.spans.len()).sum();
                let half = usize::from(matchers.is_empty()) + 1;
                assert_eq!(spans, if *id == TraceId([99; 16]) { 0 } else { 6 * half });
            }
        }
    });
}

/// Not a test of its own: the child that the next test starts and kills.
#[test]
fn crash_child() {
    let Some(dir) = std::env::var_os("BINNACLE_LOG_CRASH_DIR") else { return };
    rt().block_on(async {
        let db = logs(std::path::Path::new(&dir));
        for i in 0..u64::MAX {
            let mut b = batch("a", vec![record(i as i64, &format!("line {i}"))]);
            b.checkpoints.push(Checkpoint { source: "s".into(), position: i + 1 });
            db.append_logs(b).await.expect("appends");
            if i % 40 == 39 {
                db.flush().await.expect("flushes");
            }
            eprintln!("acknowledged {i}");
        }
    });
}

#[test]
fn acknowledged_lines_survive_kill_nine_once_each() {
    use std::io::BufRead;
    let dir = tempfile::tempdir().expect("dir");
    let mut child = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "db::tests::crash_child", "--nocapture"])
        .env("BINNACLE_LOG_CRASH_DIR", dir.path())
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("starts");
    let mut last = 0;
    for line in std::io::BufReader::new(child.stderr.take().expect("piped")).lines() {
        if let Some(n) = line.expect("text").strip_prefix("acknowledged ") {
            last = n.parse().expect("number");
            if last == 100 {
                child.kill().expect("killed");
            }
        }
    }
    child.wait().expect("ended");
    assert!(last >= 100);
    let db = logs(dir.path());
    let lines = find(&db, &["line"], Direction::Forward, 100_000);
    let expect: Vec<String> = (0..lines.len()).map(|i| format!("line {i}")).collect();
    assert!(lines.len() > last, "{} lines, {last} acknowledged", lines.len());
    assert_eq!(lines, expect);
    assert_eq!(db.checkpoint("s"), Some(lines.len() as u64));
}

#[test]
fn what_is_deleted_is_gone_from_memory_and_disk() {
    let dir = tempfile::tempdir().expect("dir");
    rt().block_on(async {
        let db = logs(dir.path());
        let now = signal::time::now().nanos() - 1_000_000_000;
        for part in 0..3 {
            let line = |i: i64| record(now + part * 100 + i, &format!("user={} secret-{part}-{i}", i % 2));
            db.append_logs(batch("a", (0..50).map(line).collect())).await.expect("appends");
            db.append_logs(batch("b", (0..50).map(line).collect())).await.expect("appends");
            if part < 2 {
                db.flush().await.expect("flushes");
            }
        }
        let mut s = Search::new(vec![Matcher::equal("pod", "a")], Timestamp(now), Timestamp(now + 210));
        s.needles = vec!["user=1".to_owned()];
        let deleted = db.delete(s.clone(), |v, i| Ok(!v.text(i)?.ends_with("-1-3"))).await.expect("deletes");
        // 25 of each part, but only five of the last one are in the range; one is spared.
        assert_eq!(deleted, 25 + 25 + 5 - 1);
        let left = db.search(&s, 100, |_, r| Some(r.body)).expect("searches");
        assert_eq!(left.iter().map(|(_, b)| b.as_str()).collect::<Vec<_>>(), ["user=1 secret-1-3"]);
        assert_eq!(find(&db, &["secret"], Direction::Forward, 1000).len(), 300 - 54);
        drop(db);
        let db = logs(dir.path());
        assert_eq!(find(&db, &["secret"], Direction::Forward, 1000).len(), 300 - 54);
        assert_eq!(db.delete(s, |_, _| Ok(true)).await.expect("deletes"), 1);
        let all = Search::new(vec![], Timestamp::MIN, Timestamp::MAX);
        assert_eq!(db.delete(all, |_, _| Ok(true)).await.expect("deletes"), 300 - 55);
        assert_eq!(db.stats().partitions, 0);
    });
}

#[test]
fn late_records_are_taken_for_an_hour() {
    let dir = tempfile::tempdir().expect("dir");
    rt().block_on(async {
        let db = logs(dir.path());
        let now = signal::time::now().nanos();
        let hour = 3_600_000_000_000;
        db.append_logs(batch("a", vec![record(now, "now")])).await.expect("appends");
        let late = || batch("a", vec![record(now - hour / 2, "late"), record(now - 2 * hour, "too late")]);
        let a = db.append_logs(late()).await.expect("appends");
        assert_eq!((a.accepted, a.rejected), (1, 1));
        assert!(a.reason.expect("says why").contains("older than the newest of their stream"));
        // Another stream is not behind; and a file is read however late.
        assert_eq!(
            db.append_logs(batch("b", late().streams.swap_remove(0).records))
                .await
                .expect("appends")
                .rejected,
            0
        );
        let file = LogBatch { checkpoints: vec![Checkpoint { source: "f".into(), position: 1 }], ..late() };
        assert_eq!(db.append_logs(file).await.expect("appends").rejected, 0);
        // A clock that ran ahead by a year leaves today's records their place.
        db.append_logs(batch("c", vec![record(now + 9000 * hour, "ahead")])).await.expect("appends");
        assert_eq!(db.append_logs(batch("c", vec![record(now, "now")])).await.expect("appends").rejected, 0);
    });
}

mod faults;
