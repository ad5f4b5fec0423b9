//! `sum by (rate)` over a thousand series and two hundred steps.

use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use promql::{Engine, Limits, memory::MemorySeries};
use signal::Labels;

fn benches(c: &mut Criterion) {
    let mut store = MemorySeries::default();
    for i in 0..1000 {
        let labels = [
            ("__name__", "requests_total".to_owned()),
            ("pod", format!("pod-{i}")),
            ("ns", format!("ns-{}", i % 10)),
        ];
        let labels = Labels::from_pairs(labels);
        (0..240).for_each(|s| store.push(&labels, s * 15_000, (s * i) as f64));
    }
    let engine = Engine::new(Arc::new(store), Limits::default());
    c.bench_function("sum by (ns) (rate[5m]), 1000 series, 200 steps", |b| {
        b.iter(|| {
            engine.range("sum by (ns) (rate(requests_total[5m]))", 600_000, 3_600_000, 15_000).expect("runs")
        });
    });
    c.bench_function("instant sum(rate[1m]), 1000 series", |b| {
        b.iter(|| engine.instant("sum(rate(requests_total[1m]))", 3_600_000).expect("runs"));
    });
}

criterion_group!(all, benches);
criterion_main!(all);
