//! Aggregation of log lines: how many and how long, by pod and minute, and by what each line says.

use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use log_index::{Kind, LogIndex};
use signal::time::{now, system_clock};
use signal::{Labels, LogBatch, LogRecord, LogStream, Severity};
use sql::{Caller, Config, Engine, Sources};
use tsdb::Tsdb;

const LINES: u64 = 200_000;
const PODS: u64 = 7;

/// Lines of ten minutes, in partitions.
async fn filled(dir: &std::path::Path) -> Arc<LogIndex> {
    let logs = LogIndex::open(log_index::Config::new(dir.join("logs"), Kind::Logs)).expect("opens");
    let began = now().saturating_sub(Duration::from_secs(600));
    let record = |i: u64| LogRecord {
        timestamp: began.saturating_add(Duration::from_millis(i * 600_000 / LINES)),
        severity: if i.is_multiple_of(50) { Severity::ERROR } else { Severity::INFO },
        body: format!(
            "10.2.{}.{} - - \"GET /api/items/{} HTTP/1.1\" {} {} \"https://shop.example/{}\" trace_id={:032x}",
            i % 250,
            i * 7 % 250,
            i % 977,
            if i.is_multiple_of(50) { 500 } else { 200 },
            i * 7919 % 60_000,
            "x".repeat((i % 90) as usize),
            u128::from(i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
        ),
        ..LogRecord::default()
    };
    for from in (0..LINES).step_by(20_000) {
        let stream = |pod: u64| LogStream {
            labels: Labels::from_pairs([("namespace", "shop".to_owned()), ("pod", format!("web-{pod}"))]),
            records: (from..from + 20_000).filter(|i| i % PODS == pod).map(record).collect(),
        };
        let batch = LogBatch { streams: (0..PODS).map(stream).collect(), checkpoints: vec![] };
        logs.append_logs(batch).await.expect("appends");
    }
    logs.flush().await.expect("flushes");
    logs
}

fn benches(c: &mut Criterion) {
    let rt = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    let dir = tempfile::tempdir().expect("dir");
    let logs = rt.block_on(filled(dir.path()));
    let tsdb = Tsdb::open(tsdb::Config::new(dir.path().join("metrics"))).expect("opens");
    let traces =
        LogIndex::open(log_index::Config::new(dir.path().join("traces"), Kind::Spans)).expect("opens");
    let engine = Engine::new(Sources { tsdb, logs, traces, clock: system_clock() }, Config::default());
    let mut g = c.benchmark_group("sql over logs");
    g.throughput(Throughput::Elements(LINES)).sample_size(20);
    for (name, sql) in [
        (
            "lines by pod and minute",
            "select pod, date_trunc('minute', time), count(*) from logs group by 1, 2",
        ),
        (
            "bytes by pod and minute",
            "select pod, date_trunc('minute', time), sum(octet_length(body)) from logs group by 1, 2",
        ),
        ("lines by severity", "select severity, count(*) from logs group by 1"),
        ("a common word counted", "select count(*) from logs where body like '%HTTP/1.1\" 500%'"),
        ("lines by their text", "select split_part(body, ' ', 5) page, count(*) from logs group by 1"),
    ] {
        let ask = || rt.block_on(engine.query(sql, Caller::default())).expect("answers").row_count;
        g.bench_function(name, |b| b.iter(ask));
    }
    g.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
