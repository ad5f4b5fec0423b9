//! The query set of `make bench-metrics` over the database itself: 5,000 series a metric, an hour at 15 s, most of
//! it in blocks and the newest minutes in the head.

use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use promql::{Engine, Limits};
use signal::{Labels, MetricBatch};
use tsdb::{Config, Tsdb};

const PODS: usize = 1000;
const CODES: usize = 5;
const STEP: i64 = 15_000;
const SCRAPES: i64 = 240;
/// So many scrapes are still in the head.
const IN_HEAD: i64 = 40;

/// Metric names, and whether a metric is a counter.
const METRICS: [(&str, bool); 4] =
    [("requests_total", true), ("bytes_total", true), ("errors_total", true), ("memory", false)];

fn series() -> Vec<(Labels, bool)> {
    let all = METRICS.iter().flat_map(|(name, counter)| {
        (0..PODS).flat_map(move |pod| {
            (0..CODES).map(move |code| {
                let labels = Labels::from_pairs([
                    ("__name__", (*name).to_owned()),
                    ("code", format!("{}00", code + 1)),
                    ("container", "web".to_owned()),
                    ("instance", format!("10.42.{}.{}:9090", pod >> 8, pod & 255)),
                    ("job", "kubernetes-pods".to_owned()),
                    ("namespace", format!("team-{}", pod % 20)),
                    ("node", format!("node-{}", pod % 50)),
                    ("pod", format!("web-{}-{:05x}", pod % 100, (pod * 2_654_435_761) & 0xF_FFFF)),
                    ("service", format!("web-{}", pod % 100)),
                ]);
                (labels, *counter)
            })
        })
    });
    all.collect()
}

fn load(rt: &tokio::runtime::Runtime, db: &Arc<Tsdb>, begin: i64) {
    let series = series();
    let mut values = vec![0u64; series.len()];
    let mut random = 1u64;
    for scrape in 0..SCRAPES {
        if scrape == SCRAPES - IN_HEAD {
            rt.block_on(db.flush()).expect("flushes");
        }
        let mut batch = MetricBatch::default();
        for ((labels, counter), v) in series.iter().zip(&mut values) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *v = if *counter { *v + (random >> 33) % 200 } else { (random >> 33) % 1000 };
            batch.push(labels.clone(), begin + scrape * STEP, *v as f64);
        }
        rt.block_on(db.append(batch)).expect("appends");
    }
}

fn benches(c: &mut Criterion) {
    let rt = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    let dir = tempfile::tempdir().expect("dir");
    let mut config = Config::new(dir.path());
    config.head_bytes = usize::MAX;
    let db = Tsdb::open(config).expect("opens");
    let begin = (signal::time::now().millis() / STEP - SCRAPES) * STEP;
    load(&rt, &db, begin);
    let engine = Engine::new(db, Limits::default());
    let end = begin + (SCRAPES - 1) * STEP + 1;
    let mut g = c.benchmark_group("stored");
    g.sample_size(10);
    let ranges = [
        ("sum by(ns)(rate), 5k x 200", "sum by (namespace) (rate(requests_total[5m]))", 200),
        (
            "three sum(rate), 15k x 60",
            "sum(rate(requests_total[5m])) + sum(rate(bytes_total[5m])) + sum(rate(errors_total[5m]))",
            60,
        ),
        ("topk(10), 5k x 40", "topk(10, memory)", 40),
        ("quantile by ns, 5k x 200", "quantile by (namespace) (0.9, memory)", 200),
        ("matching, 5k x 40", "memory / on (pod, code) requests_total", 40),
        ("over_time, 5k x 40", "max_over_time(memory[5m]) - min_over_time(memory[5m])", 40),
        ("deriv, 5k x 40", "deriv(memory[5m])", 40),
        ("the newest 5 minutes, 5k x 20", "sum(rate(requests_total[1m]))", 20),
    ];
    for (what, query, steps) in ranges {
        g.bench_function(what, |b| {
            b.iter(|| engine.range(query, end - steps * STEP, end, STEP).expect("runs"));
        });
    }
    let instants = [
        ("avg by(pod)(rate[2m]), 5k", "avg by (pod) (rate(requests_total[2m]))"),
        ("one deployment's sum(rate)", "sum(rate(requests_total{pod=~\"web-1-.*\"}[1m]))"),
        ("count of everything, 20k", "count({__name__!=\"\"})"),
        ("label_replace, 5k", "label_replace(memory, \"n\", \"$1\", \"pod\", \"web-(.*)-.*\")"),
    ];
    for (what, query) in instants {
        g.bench_function(what, |b| b.iter(|| engine.instant(query, end).expect("runs")));
    }
    g.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
