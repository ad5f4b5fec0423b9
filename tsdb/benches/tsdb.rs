//! The hot paths of the database: a scrape's append, and reading a metric's series back.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use signal::{Labels, Matcher, MetricBatch, Select, SeriesSource};
use tsdb::{Columns, Config, Key, Tsdb};

const SERIES: usize = 5000;

fn scrape(t: i64) -> MetricBatch {
    let mut b = MetricBatch::default();
    for i in 0..SERIES {
        let labels = [
            ("__name__", format!("metric_{}", i % 50)),
            ("namespace", "shop".to_owned()),
            ("pod", format!("pod-{}", i / 50)),
            ("container", "web".to_owned()),
            ("node", "node-1".to_owned()),
        ];
        b.push(Labels::from_pairs(labels), t, (t / 1000) as f64 * (i % 7) as f64);
    }
    b
}

fn benches(c: &mut Criterion) {
    let rt = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    let dir = tempfile::tempdir().expect("dir");
    let db = Tsdb::open(Config::new(dir.path())).expect("opens");
    let mut t = signal::time::now().millis() - 60_000;
    let mut g = c.benchmark_group("tsdb");
    g.throughput(Throughput::Elements(SERIES as u64));
    g.bench_function("append a scrape of 5000 series", |b| {
        b.iter(|| {
            t += 1;
            rt.block_on(db.append(scrape(t))).expect("appends")
        });
    });
    let mut columns = Columns::default();
    let batch = scrape(t);
    for s in &batch.series {
        columns.series.push((Key::of(s.labels.encoded()), 1));
        columns.samples.extend(&s.samples);
    }
    g.bench_function("append 5000 series known by key", |b| {
        b.iter(|| {
            t += 1;
            columns.samples.iter_mut().for_each(|s| s.timestamp = t);
            rt.block_on(db.append_columns(&columns, |i| Ok(batch.series[i].labels.clone()))).expect("appends")
        });
    });
    g.bench_function("select 100 series of one metric", |b| {
        let matchers = vec![Matcher::equal("__name__", "metric_7")];
        let s = Select { matchers, start: t - 300_000, end: t };
        b.iter(|| db.select(&s).expect("selects").map(|s| s.expect("reads").values.len()).sum::<usize>());
    });
    g.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
