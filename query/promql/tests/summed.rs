//! Functions over long times take what blocks know of their chunks: the answers are those of reading every sample.

use std::sync::Arc;

use promql::memory::MemorySeries;
use promql::{Engine, Limits, Value};
use signal::{Labels, MetricBatch, Sample, TimeSeries, stale_nan};
use tsdb::{Config, Tsdb};

const MINUTE: i64 = 60_000;
const MINUTES: i64 = 600;

fn series(begin: i64) -> Vec<(Labels, Vec<Sample>)> {
    let mut out = Vec::new();
    for kind in 0..6i64 {
        let labels = Labels::from_pairs([("__name__", "m_total".to_owned()), ("kind", kind.to_string())]);
        let mut samples = Vec::new();
        for i in 0..MINUTES {
            let value = match kind {
                // A constant, a counter with resets, decimals, one with a gap and a stale marker, one that ends early.
                0 => 7.0,
                1 => (i % 130) as f64 * 3.0,
                2 => ((i * 7919) % 1000) as f64 / 100.0,
                3 if i == 200 => stale_nan(),
                3 if (201..300).contains(&i) => continue,
                4 if i > 450 => break,
                _ => i as f64 * 1.5,
            };
            samples.push(Sample { timestamp: begin + i * MINUTE + kind, value });
        }
        out.push((labels, samples));
    }
    out
}

fn values(engine: &Engine, query: &str, time: i64) -> (Vec<(String, f64)>, u64) {
    let r = engine.instant(query, time).expect("answers");
    let Value::Vector(v) = r.value else { panic!("no vector") };
    let mut all: Vec<(String, f64)> = v.into_iter().map(|(l, p)| (l.to_string(), p.value)).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    (all, r.samples_read)
}

#[test]
fn summaries_agree_with_samples() {
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let begin = (signal::time::now().millis() / MINUTE - MINUTES) * MINUTE;
    let dir = tempfile::tempdir().expect("dir");
    let db: Arc<Tsdb> = Tsdb::open(Config::new(dir.path())).expect("opens");
    let mut memory = MemorySeries::default();
    let all = series(begin);
    // Four blocks; the last hour is in the head, and some samples of the last block come late.
    for (from, to) in [(0, 150), (150, 300), (300, 500), (500, 540), (540, MINUTES)] {
        let mut batch = MetricBatch::default();
        for (labels, samples) in &all {
            let inside = |s: &&Sample| (from..to).contains(&((s.timestamp - begin) / MINUTE));
            let mut samples: Vec<Sample> = samples.iter().filter(inside).copied().collect();
            if from == 540 && labels.get("kind") == Some("5") {
                samples.swap(3, 17);
            }
            samples.iter().for_each(|s| memory.push(labels, s.timestamp, s.value));
            if !samples.is_empty() {
                batch.series.push(TimeSeries { labels: labels.clone(), samples });
            }
        }
        assert_eq!(rt.block_on(db.append(batch)).expect("appends").rejected, 0);
        if to < MINUTES {
            rt.block_on(db.flush()).expect("flushes");
        }
    }
    let stored = Engine::new(db, Limits::default());
    let read = Engine::new(Arc::new(memory), Limits::default());
    let end = begin + MINUTES * MINUTE;
    let functions = [
        "min_over_time",
        "max_over_time",
        "sum_over_time",
        "count_over_time",
        "avg_over_time",
        "present_over_time",
        "first_over_time",
        "last_over_time",
        "rate",
        "increase",
        "delta",
    ];
    for function in functions {
        for range in ["6h", "7h13m", "9h30m", "20h"] {
            for shift in ["", " offset 47m", " offset 3h1m"] {
                let query = format!("{function}(m_total[{range}]{shift})");
                let ((got, n), (expect, m)) = (values(&stored, &query, end), values(&read, &query, end));
                assert_eq!(got.len(), expect.len(), "{query}");
                for ((labels, a), (other, b)) in got.iter().zip(&expect) {
                    assert_eq!(labels, other, "{query}");
                    assert!((a - b).abs() <= 1e-12 * b.abs().max(1.0), "{query} of {labels}: {a}, not {b}");
                }
                // The memory's count has the stale marker.
                assert!(n <= m && n + 1 >= m, "{query}: {n} samples, not {m}");
            }
        }
    }
}
