//! The hot paths of the log index: appending lines, and finding a needle among them in head and partition.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use log_index::{Config, Kind, LogIndex, Search};
use signal::{Labels, LogBatch, LogRecord, LogStream, Timestamp};

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

fn benches(c: &mut Criterion) {
    let rt = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    let dir = tempfile::tempdir().expect("dir");
    let db = LogIndex::open(Config::new(dir.path(), Kind::Logs)).expect("opens");
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
    g.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
