//! The hot paths of the log index: appending lines and spans, making a partition of them, finding a needle in head and
//! partition, counting, and a trace by its id.

use std::ops::ControlFlow;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use log_index::{Config, Kind, LogIndex, Search};
use signal::{
    Labels, LogBatch, LogRecord, LogStream, Span, SpanBatch, SpanId, SpanStream, Timestamp, TraceId,
};

fn batch(from: i64, lines: i64) -> LogBatch {
    let record = |i: i64| LogRecord {
        timestamp: Timestamp(i),
        body: format!(
            "2024-01-01T00:00:00Z level=info method=GET path=/api/items/{} status=200 duration={}ms request={i}",
            i % 977,
            i % 131
        ),
        ..LogRecord::default()
    };
    let labels = Labels::from_pairs([("namespace", "shop"), ("pod", "web-0"), ("container", "web")]);
    LogBatch {
        streams: vec![LogStream { labels, records: (from..from + lines).map(record).collect() }],
        checkpoints: vec![],
    }
}

fn spans(from: u64, count: u64) -> SpanBatch {
    let span = |i: u64| Span {
        trace_id: TraceId(
            u128::from(i / 8 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes(),
        ),
        span_id: SpanId(i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()),
        name: format!("GET /api/v{}", i % 8),
        start: Timestamp(i as i64 * 1000),
        end: Timestamp(i as i64 * 1000 + 500),
        attributes: [("http.route", "/api/v1"), ("http.status_code", "200")].into_iter().collect(),
        ..Span::default()
    };
    let labels = Labels::from_pairs([("namespace", "shop"), ("service_name", "web")]);
    SpanBatch {
        streams: vec![SpanStream {
            labels,
            resource: Default::default(),
            spans: (from..from + count).map(span).collect(),
        }],
    }
}

fn open(kind: Kind) -> (tempfile::TempDir, Arc<LogIndex>) {
    let dir = tempfile::tempdir().expect("dir");
    let config = Config { head_bytes: usize::MAX / 8, ..Config::new(dir.path(), kind) };
    let db = LogIndex::open(config).expect("opens");
    (dir, db)
}

fn benches(c: &mut Criterion) {
    let rt = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    let (_dir, db) = open(Kind::Logs);
    let mut g = c.benchmark_group("log-index");
    let mut at = 0;
    g.throughput(Throughput::Elements(1000));
    g.bench_function("append 1000 lines", |b| {
        b.iter(|| {
            at += 1000;
            rt.block_on(db.append_logs(batch(at, 1000))).expect("appends")
        });
    });
    let find = || {
        let mut s = Search::new(vec![], Timestamp(0), Timestamp(i64::MAX));
        s.needles.push("path=/api/items/500 ".to_owned());
        db.search(&s, 100, |_, r| Some(r.body)).expect("searches").len()
    };
    g.bench_function("find in the head", |b| b.iter(find));
    rt.block_on(db.flush()).expect("flushes");
    g.bench_function("find in a partition", |b| b.iter(find));
    let count = |needle: &str| {
        let mut s = Search::new(vec![], Timestamp(0), Timestamp(i64::MAX));
        s.needles.push(needle.to_owned());
        let mut n = 0;
        let each = |found: usize| {
            n += found;
            ControlFlow::Continue(())
        };
        db.map_blocks(&s, |v| Ok(v.len()), each).expect("searches");
        n
    };
    g.throughput(Throughput::Elements(db.stats().partition_records));
    g.bench_function("count a common word", |b| b.iter(|| count("status=200")));
    g.bench_function("a word that is nowhere", |b| b.iter(|| count("xyzzyplugh")));

    g.sample_size(10);
    g.throughput(Throughput::Elements(100_000));
    let filled = |kind| {
        let (dir, db) = open(kind);
        match kind {
            Kind::Logs => drop(rt.block_on(db.append_logs(batch(1, 100_000)))),
            Kind::Spans => drop(rt.block_on(db.append_spans(spans(1, 100_000)))),
        }
        (dir, db)
    };
    for (name, kind) in [("flush 100,000 lines", Kind::Logs), ("flush 100,000 spans", Kind::Spans)] {
        let flush = |(dir, db): (tempfile::TempDir, Arc<LogIndex>)| {
            rt.block_on(db.flush()).expect("flushes");
            (dir, db)
        };
        g.bench_function(name, |b| b.iter_batched(|| filled(kind), flush, BatchSize::PerIteration));
    }
    let (_dir, traces) = filled(Kind::Spans);
    rt.block_on(traces.flush()).expect("flushes");
    let id = spans(50_000, 1).streams.swap_remove(0).spans.swap_remove(0).trace_id;
    g.throughput(Throughput::Elements(1));
    g.bench_function("a trace by its id", |b| b.iter(|| traces.trace(id, &[]).expect("reads").len()));
    g.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
