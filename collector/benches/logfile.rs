//! How fast a container's log is read, from the file to the sink, on one thread.
//! `cargo bench -p collector -p orchestrator --bench logfile`.

use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use collector::logfile;
use collector::process::{LogsConfig, Rules};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use signal::{Accepted, Labels, LogBatch, LogFileTarget, MetricBatch, Registry, Sink, SinkError, SpanBatch};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Lines, as a web server and a service with JSON write them.
fn text(lines: usize) -> String {
    let mut out = String::new();
    for n in 0..lines {
        let (second, nano) = (n / 1000 % 60, n % 1000 * 1_000_003 % 1_000_000_000);
        write!(out, "2026-11-23T10:11:{second:02}.{nano:09}Z stdout F ").expect("memory");
        if n % 4 == 0 {
            writeln!(out, r#"{{"level":"info","msg":"request","path":"/cart/{n}","took_ms":{},"trace_id":"{:032x}"}}"#, n % 90, n * 7919 + 1)
        } else {
            writeln!(out, r#"10.1.{}.{} - - [23/Nov/2026:10:11:{second:02} +0000] "GET /products/{n}?page={} HTTP/1.1" 200 {} "https://shop.example/products" "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0 Safari/537.36""#, n % 250, n % 199, n % 17, n % 9999)
        }
        .expect("memory");
    }
    out
}

/// Counts and keeps nothing.
struct Counter(AtomicU64, Notify, u64);

#[async_trait]
impl Sink for Counter {
    async fn write_metrics(&self, _: MetricBatch) -> Result<Accepted, SinkError> {
        Ok(Accepted::default())
    }

    async fn write_logs(&self, batch: LogBatch) -> Result<Accepted, SinkError> {
        let position = batch.checkpoints.first().map_or(0, |c| c.position);
        self.0.fetch_add(black_box(batch).records() as u64, Ordering::Relaxed);
        if position >= self.2 {
            self.1.notify_one();
        }
        Ok(Accepted::default())
    }

    async fn write_spans(&self, _: SpanBatch) -> Result<Accepted, SinkError> {
        Ok(Accepted::default())
    }
}

fn benches(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("0.log");
    let text = text(200_000);
    std::fs::write(&path, &text).expect("written");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut g = c.benchmark_group("logfile");
    g.throughput(Throughput::Bytes(text.len() as u64)).sample_size(10);
    g.bench_function("read", |b| {
        b.iter(|| {
            runtime.block_on(async {
                let sink = Arc::new(Counter(AtomicU64::new(0), Notify::new(), text.len() as u64));
                let files: Arc<Registry<LogFileTarget>> = Arc::default();
                let target = LogFileTarget {
                    source: "uid/c/0".into(),
                    path: path.clone(),
                    labels: Labels::from_pairs([("namespace", "shop"), ("pod", "web-1"), ("container", "c")]),
                    written: Arc::default(),
                };
                files.set("uid/c/0", target);
                let rules = Arc::new(Rules::new(LogsConfig::default()).expect("rules"));
                let stop = CancellationToken::new();
                let run = logfile::run(files, Arc::new(|_: &str| None), rules, sink.clone(), stop.clone());
                tokio::join!(run, async {
                    sink.1.notified().await;
                    stop.cancel();
                });
                assert_eq!(sink.0.load(Ordering::Relaxed), 200_000);
            });
        });
    });
    g.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
