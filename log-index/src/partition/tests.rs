//! Partitions of all versions are read; what is searched is found; a changed byte is noticed.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use signal::{
    AttributeValue, Labels, LogBatch, LogRecord, LogStream, Severity, Span, SpanBatch, SpanEvent, SpanId,
    SpanKind, SpanLink, SpanStatus, SpanStream, Timestamp, TraceId,
};

use crate::{Config, Direction, Kind, LogIndex, Search, SpanSearch};

fn rt() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for e in std::fs::read_dir(from).expect("fixtures") {
        let e = e.expect("entry");
        if e.file_type().expect("type").is_dir() {
            copy(&e.path(), &to.join(e.file_name()));
        } else {
            std::fs::copy(e.path(), to.join(e.file_name())).expect("copied");
        }
    }
}

fn everything() -> Search {
    let mut s = Search::new(vec![], Timestamp::MIN, Timestamp::MAX);
    s.direction = Direction::Forward;
    s
}

/// Record `n` of the fixtures: 150 of pod a, 150 of pod b, three times; the last third is in the log.
fn fixture_record(n: i64, pod: &str) -> LogRecord {
    let part = (n - 1) / 300;
    let ids = n % 4 == 0;
    let byte = (n % 250) as u8 + 1;
    LogRecord {
        timestamp: Timestamp(1_700_000_000_000_000_000 + n * 1_000_000),
        severity: Severity(9 + (n % 3) as u8 * 4),
        body: format!(
            "line {n} of pod {pod}: GET /item/{} id={:032x}\nsecond",
            n % 17,
            n.wrapping_mul(0x1234_5678_9abc_def1)
        ),
        attributes: [
            ("n", AttributeValue::Int(n)),
            ("even", AttributeValue::Bool(n % 2 == 0)),
            ("part", AttributeValue::Double(part as f64 / 4.0)),
            ("user", AttributeValue::String(format!("u{}", n % 5))),
        ]
        .into_iter()
        .collect(),
        trace_id: if ids { TraceId([byte; 16]) } else { TraceId::INVALID },
        span_id: if ids { SpanId([byte; 8]) } else { SpanId::INVALID },
    }
}

fn check_fixture_logs(db: &LogIndex) {
    let all = db.search(&everything(), usize::MAX, |l, r| Some((l.clone(), r))).expect("searches");
    assert_eq!(all.len(), 900);
    for ((_, (labels, r)), n) in all.into_iter().zip(1..) {
        let pod = if (n - 1) / 150 % 2 == 0 { "a" } else { "b" };
        assert_eq!((labels.get("pod"), r), (Some(pod), fixture_record(n, pod)));
    }
    let mut s = everything();
    s.needles = vec!["line 77 ".to_owned()];
    assert_eq!(db.search(&s, 10, |_, r| Some(r.timestamp.nanos())).expect("finds").len(), 1);
    s.needles = vec![format!("{:032x}", 500i64.wrapping_mul(0x1234_5678_9abc_def1))];
    assert_eq!(db.search(&s, 10, |_, r| Some(r.timestamp.nanos())).expect("finds").len(), 1);
    s.needles.clear();
    s.trace_id = Some(TraceId([41; 16]));
    assert_eq!(db.search(&s, 10, |_, r| Some(r.trace_id)).expect("finds").len(), 2);
    assert_eq!((db.checkpoint("uid/a"), db.checkpoint("uid/b")), (Some(750), Some(900)));
}

fn check_fixture_spans(db: &LogIndex) {
    for n in 1..=80u8 {
        let streams = db.trace(TraceId([n; 16]), &[]).expect("finds");
        assert_eq!(streams.len(), 2, "trace {n}");
        let web = streams.iter().find(|s| s.labels.get("service_name") == Some("web")).expect("web");
        let [span] = web.spans.as_slice() else { panic!("{web:?}") };
        let i = (n - 1) % 40;
        assert_eq!(span.name, format!("web {}", i % 3));
        assert_eq!(span.status == SpanStatus::Error("bad".into()), i % 8 == 0);
        assert_eq!(
            (span.events.len(), span.links.len(), span.attributes.get_str("http.route")),
            (1, 1, Some("/cart"))
        );
        assert_eq!(web.resource.get_str("k8s.pod.name"), Some("p"));
    }
    let q = SpanSearch {
        matchers: vec![],
        start: Timestamp::MIN,
        end: Timestamp::MAX,
        name: Some("cart 0".into()),
        min_duration: Some(5_000),
        max_duration: Some(5_000),
        attributes: vec![("status".into(), "error".into()), ("k8s.pod.name".into(), "p".into())],
    };
    let found = db.search_traces(&q, 100).expect("searches");
    assert_eq!(found.len(), 4);
    for t in found {
        assert_eq!((t.root_service.as_str(), t.spans, t.errors), ("web", 2, 2));
        assert_eq!(t.services.get("cart"), Some(&1));
    }
}

#[test]
fn fixtures_of_the_first_version_are_read_and_rewritten() {
    let dir = tempfile::tempdir().expect("dir");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/fixtures/v1"), dir.path());
    // They are of 2023: nothing may be too old for the merge.
    let config = |name: &str, kind| Config {
        merge_fan: 2,
        retention: std::time::Duration::from_secs(1 << 32),
        ..Config::new(dir.path().join(name), kind)
    };
    rt().block_on(async {
        let logs = LogIndex::open(config("logs", Kind::Logs)).expect("opens");
        assert_eq!(logs.stats().partitions, 2);
        check_fixture_logs(&logs);
        logs.flush().await.expect("flushes");
        check_fixture_logs(&logs);
        logs.merge().expect("merges");
        assert!(logs.stats().partitions < 3);
        check_fixture_logs(&logs);
        let spans = LogIndex::open(config("traces", Kind::Spans)).expect("opens");
        assert_eq!(spans.stats().partitions, 1);
        check_fixture_spans(&spans);
        spans.flush().await.expect("flushes");
        check_fixture_spans(&spans);
        spans.merge().expect("merges");
        assert_eq!(spans.stats().partitions, 1);
        check_fixture_spans(&spans);
    });
}

/// Span `i` of 40 of a service; trace `n`.
fn fixture_span(service: &str, n: u8, i: u8) -> Span {
    let start = 1_700_000_000_000_000_000 + i64::from(i) * 1_000_000;
    let some = |k: &str, v: &str| [(k, v)].into_iter().collect();
    Span {
        trace_id: TraceId([n; 16]),
        span_id: SpanId([if service == "web" { 1 } else { 2 }; 8]),
        parent_span_id: if service == "web" { SpanId::INVALID } else { SpanId([1; 8]) },
        name: format!("{service} {}", i % 3),
        kind: SpanKind::Server,
        start: Timestamp(start),
        end: Timestamp(start + 5_000),
        status: if i.is_multiple_of(8) { SpanStatus::Error("bad".into()) } else { SpanStatus::Unset },
        attributes: some("http.route", "/cart"),
        events: vec![SpanEvent {
            timestamp: Timestamp(start + 100),
            name: "e".into(),
            attributes: some("k", "v"),
        }],
        links: vec![SpanLink {
            trace_id: TraceId([7; 16]),
            span_id: SpanId([8; 8]),
            attributes: some("l", "w"),
        }],
    }
}

/// With `UPDATE=1` they are written first; `git diff` judges.
#[test]
fn fixtures_of_the_present_version_are_read() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/fixtures/v2");
    let open =
        |dir: &Path, name: &str, kind| LogIndex::open(Config::new(dir.join(name), kind)).expect("opens");
    if std::env::var_os("UPDATE").is_some() {
        rt().block_on(async {
            let logs = open(&fixtures, "logs", Kind::Logs);
            for part in 0..3 {
                for (pod, from) in [("a", part * 300), ("b", part * 300 + 150)] {
                    let records: Vec<LogRecord> =
                        (from + 1..=from + 150).map(|n| fixture_record(n, pod)).collect();
                    let streams = vec![LogStream {
                        labels: Labels::from_pairs([("namespace", "shop"), ("pod", pod)]),
                        records,
                    }];
                    let source = format!("uid/{pod}");
                    let checkpoints = vec![signal::Checkpoint { source, position: from as u64 + 150 }];
                    logs.append_logs(LogBatch { streams, checkpoints }).await.expect("appends");
                }
                if part < 2 {
                    logs.flush().await.expect("flushes");
                }
            }
            let spans = open(&fixtures, "traces", Kind::Spans);
            for part in 0..2 {
                let streams = ["web", "cart"].map(|service| SpanStream {
                    labels: Labels::from_pairs([("service_name", service), ("namespace", "shop")]),
                    resource: [("k8s.pod.name", "p")].into_iter().collect(),
                    spans: (0..40).map(|i| fixture_span(service, part * 40 + i + 1, i)).collect(),
                });
                spans.append_spans(SpanBatch { streams: streams.into() }).await.expect("appends");
                if part == 0 {
                    spans.flush().await.expect("flushes");
                }
            }
        });
    }
    let dir = tempfile::tempdir().expect("dir");
    copy(&fixtures, dir.path());
    check_fixture_logs(&open(dir.path(), "logs", Kind::Logs));
    check_fixture_spans(&open(dir.path(), "traces", Kind::Spans));
}

fn line() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        4 => "[a-dA-D]{1,4}",
        1 => "[0-9a-f]{16}",
        1 => "[0-9a-f]{32}",
        1 => "[0-9]{19}",
        1 => "[A-D0-9]{20}",
        2 => "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        1 => "[0-9a-f]{4}",
        1 => "[a-f]{70}",
        1 => "é[a-d]|\u{1}|\n",
    ];
    prop::collection::vec((word, "[ =-]?"), 0..8)
        .prop_map(|all| all.into_iter().map(|(w, s)| w + &s).collect::<String>())
}

fn batch(pod: &str, lines: &[String], from: i64) -> LogBatch {
    let record = |(i, l): (usize, &String)| LogRecord {
        timestamp: Timestamp(from + i as i64),
        body: l.clone(),
        ..LogRecord::default()
    };
    let records = lines.iter().enumerate().map(record).collect();
    LogBatch {
        streams: vec![LogStream { labels: Labels::from_pairs([("pod", pod)]), records }],
        checkpoints: vec![],
    }
}

fn found(db: &LogIndex, needle: &str) -> Vec<String> {
    let mut s = everything();
    s.needles = vec![needle.to_owned()];
    let found = db.search(&s, usize::MAX, |_, r| Some(r.body)).expect("searches");
    found.into_iter().map(|(_, b)| b).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any part of any line is found in every line that has it, in the head, in partitions and in what they are merged
    /// to; and of two, one suffices where that is what is asked.
    #[test]
    fn what_is_there_is_found(
        parts in prop::collection::vec(prop::collection::vec(line(), 1..12), 2..5),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<prop::sample::Index>()), 30),
    ) {
        let dir = tempfile::tempdir().expect("dir");
        let now = signal::time::now().nanos() - 1_000_000_000;
        let all: Vec<&String> = parts.iter().flatten().collect();
        let needles: Vec<String> = cuts
            .iter()
            .map(|(part, l, a, b)| {
                let part = part.get(&parts);
                let chars: Vec<char> = l.get(part).chars().collect();
                let (a, b) = (a.index(chars.len() + 1), b.index(chars.len() + 1));
                chars[a.min(b)..a.max(b)].iter().collect()
            })
            .collect();
        rt().block_on(async {
            let config = Config { merge_fan: 2, ..Config::new(dir.path(), Kind::Logs) };
            let db = LogIndex::open(config).expect("opens");
            for (i, lines) in parts.iter().enumerate() {
                db.append_logs(batch("a", lines, now + i as i64 * 1000)).await.expect("appends");
                if i > 0 {
                    db.flush().await.expect("flushes");
                }
            }
            for merged in [false, true] {
                if merged {
                    db.merge().expect("merges");
                }
                for pair in needles.windows(2) {
                    let expect: Vec<String> =
                        all.iter().filter(|l| l.contains(pair[0].as_str())).map(|l| (*l).clone()).collect();
                    prop_assert_eq!(found(&db, &pair[0]), expect, "{:?}", &pair[0]);
                    let mut s = everything();
                    s.any = vec![pair.to_vec()];
                    let any = db.search(&s, usize::MAX, |_, r| Some(r.body)).expect("searches").len();
                    let expect = all.iter().filter(|l| pair.iter().any(|n| l.contains(n.as_str()))).count();
                    prop_assert_eq!(any, expect, "{:?}", pair);
                }
            }
            Ok(())
        })?;
    }
}

fn reads_everything(db: &LogIndex) -> Result<Vec<LogRecord>, crate::Error> {
    let mut all = Vec::new();
    db.scan(&everything(), |_, records| {
        all.extend(records);
        std::ops::ControlFlow::Continue(())
    })?;
    all.sort_by_key(|r| r.timestamp);
    Ok(all)
}

/// Every byte of a partition is covered by a checksum or by what it means: changed, the partition is refused or a read
/// of it fails, or nothing changes.
#[test]
fn every_changed_byte_is_noticed() {
    let dir = tempfile::tempdir().expect("dir");
    let now = signal::time::now().nanos() - 1_000_000;
    let file = rt().block_on(async {
        let db = LogIndex::open(Config::new(dir.path(), Kind::Logs)).expect("opens");
        let records: Vec<LogRecord> =
            (0..40).map(|n| LogRecord { timestamp: Timestamp(now + n), ..fixture_record(n, "a") }).collect();
        let streams =
            vec![LogStream { labels: Labels::from_pairs([("pod", "a")]), records: records.clone() }];
        db.append_logs(LogBatch { streams, checkpoints: vec![] }).await.expect("appends");
        db.flush().await.expect("flushes");
        assert_eq!(reads_everything(&db).expect("reads"), records);
        dir.path().join("0000000000000001.part")
    });
    let sound = std::fs::read(&file).expect("reads");
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x41;
        std::fs::write(&file, &bytes).expect("writes");
        let Ok(p) = super::Partition::open(file.clone(), Kind::Logs) else { continue };
        let p = Arc::new(p);
        let read = || {
            let index = p.index()?;
            let mut all = Vec::new();
            for b in &index.blocks {
                let block = p.block(b)?;
                for row in 0..block.count() {
                    all.push(block.log(row)?);
                }
                p.raw(b)?;
            }
            if let Some(words) = &index.words {
                let mut cursor = words.cursor(p.clone(), index.blocks.len());
                while cursor.next_word()?.is_some() {}
            }
            Ok::<_, crate::Error>(all)
        };
        assert!(read().is_err(), "byte {at} of {}", sound.len());
    }
    for len in 0..sound.len() {
        std::fs::write(&file, &sound[..len]).expect("writes");
        assert!(super::Partition::open(file.clone(), Kind::Logs).is_err(), "cut to {len}");
    }
}

#[test]
fn a_trace_is_read_whole_after_merges_that_copy_and_merges_that_do_not() {
    let dir = tempfile::tempdir().expect("dir");
    rt().block_on(async {
        let config = Config { merge_fan: 2, ..Config::new(dir.path(), Kind::Spans) };
        let db = LogIndex::open(config).expect("opens");
        let now = signal::time::now().nanos() - 60_000_000_000;
        let mut n = 0u64;
        for part in 0..4i64 {
            // Large enough that blocks are copied, in two services; each trace has a span in every part.
            let streams = ["web", "cart"].map(|service| SpanStream {
                labels: Labels::from_pairs([("service_name", service), ("namespace", service)]),
                resource: Default::default(),
                spans: (0..3000i64)
                    .map(|i| {
                        n += 1;
                        let start = now + part * 1_000_000_000 + i * 1000;
                        Span {
                            trace_id: TraceId((i as u128 + 1).to_be_bytes()),
                            span_id: SpanId(n.to_be_bytes()),
                            parent_span_id: SpanId(
                                (if part == 0 && service == "web" { 0u64 } else { 1 }).to_be_bytes(),
                            ),
                            name: format!("{service} {part}"),
                            start: Timestamp(start),
                            end: Timestamp(start + 500),
                            status: if i % 10 == 0 {
                                SpanStatus::Error(String::new())
                            } else {
                                SpanStatus::Unset
                            },
                            attributes: [("padding", "x".repeat(200) + &n.to_string())].into_iter().collect(),
                            ..Span::default()
                        }
                    })
                    .collect(),
            });
            db.append_spans(SpanBatch { streams: streams.into() }).await.expect("appends");
            db.flush().await.expect("flushes");
        }
        let before = db.stats();
        let check = |scope: &str| {
            let matchers = match scope {
                "" => vec![],
                s => vec![signal::Matcher::equal("namespace", s)],
            };
            let services = if scope.is_empty() { 2 } else { 1 };
            let ids = [1u128, 11, 1500, 9999].map(|i| TraceId(i.to_be_bytes()));
            let summaries = db.summaries(&ids, &matchers).expect("summaries");
            assert_eq!(summaries.len(), 3);
            for t in &summaries {
                assert_eq!((t.spans, t.services.len()), (4 * services, services), "{t:?}");
                assert_eq!(t.errors, if t.trace_id == ids[2] { 0 } else { 4 * services }, "{t:?}");
                assert_eq!(t.root_name, if scope == "cart" { "cart 0" } else { "web 0" });
                assert_eq!(t.duration, 3_000_000_500);
                let spans: usize =
                    db.trace(t.trace_id, &matchers).expect("reads").iter().map(|s| s.spans.len()).sum();
                assert_eq!(spans, t.spans);
            }
        };
        ["", "web", "cart"].iter().for_each(|s| check(s));
        db.merge().expect("merges");
        assert!(db.stats().partitions < before.partitions);
        assert_eq!(db.stats().partition_records, before.partition_records);
        ["", "web", "cart"].iter().for_each(|s| check(s));
    });
}
