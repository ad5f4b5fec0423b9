//! Several hundred generated queries, answered by our engine over our database and by Debian's Prometheus over the
//! same samples. Samples never lie on the edge of a window: ranges are open on the left since Prometheus 3, in the
//! version of Debian they are not.
//!
//! Needs `prometheus` of the package of that name.

mod generate;
mod prometheus;

use std::collections::BTreeMap;
use std::sync::Arc;

use promql::{Engine, Limits, Value};
use serde_json::Value as Json;
use signal::{Labels, MetricBatch};
use tsdb::{Config, Tsdb};

use generate::Random;
use prometheus::Prometheus;

const QUERIES: usize = 1500;
/// Half of the samples are in blocks, half in the head.
const SCRAPES: i64 = 120;
const STEP: i64 = 15_000;
/// Off every multiple of a second.
const OFFSET: i64 = 357;

type Points = Vec<(i64, f64)>;

fn samples(begin: i64) -> Vec<(Labels, Points)> {
    let mut r = Random(7);
    let mut out = Vec::new();
    for pod in 0..6 {
        let place = |name: &str| {
            vec![
                ("__name__".to_owned(), name.to_owned()),
                ("namespace".to_owned(), format!("ns-{}", pod % 2)),
                ("node".to_owned(), format!("node-{}", pod % 3)),
                ("pod".to_owned(), format!("web-{pod}")),
            ]
        };
        // The last pod comes late, the one before goes early.
        let lives = |i: i64| !(pod == 5 && i < SCRAPES / 2 || pod == 4 && i > SCRAPES / 3);
        let scrapes = || (0..SCRAPES).filter(move |i| lives(*i)).map(|i| (i, begin + i * STEP + OFFSET));
        for code in ["200", "500"] {
            let mut labels = place("requests_total");
            labels.push(("code".to_owned(), code.to_owned()));
            // Far from zero also after a reset: near it the version of Debian extrapolates in another order.
            let mut v = 2e6;
            let values = scrapes().map(|(_, t)| {
                v = if r.below(40) == 0 { 1e6 + r.below(5) as f64 } else { v + r.below(100) as f64 };
                (t, v)
            });
            out.push((Labels::from_pairs(labels), values.collect()));
        }
        // A gauge with gaps, a float that wanders, one that hardly changes.
        let gauge = scrapes().filter(|(i, _)| i % 37 > 4).map(|(_, t)| (t, r.below(50) as f64)).collect();
        out.push((Labels::from_pairs(place("in_flight")), gauge));
        let mut v = 20.0;
        let float = scrapes().map(|(_, t)| {
            v += r.unit() - 0.5;
            (t, v)
        });
        out.push((Labels::from_pairs(place("temperature")), float.collect()));
        let slow = scrapes().map(|(i, t)| (t, (i / 40 + pod) as f64)).collect();
        out.push((Labels::from_pairs(place("replicas")), slow));
        let bounds = ["0.1", "0.5", "1", "5", "+Inf"];
        let mut counts = [1e6; 5];
        let mut buckets: Vec<Points> = vec![Vec::new(); bounds.len()];
        for (_, t) in scrapes() {
            let at = r.below(5) as usize;
            for (i, c) in counts.iter_mut().enumerate().skip(at) {
                *c += (1 + i) as f64;
            }
            for (b, c) in buckets.iter_mut().zip(counts) {
                b.push((t, c));
            }
        }
        for (le, points) in bounds.into_iter().zip(buckets) {
            let mut labels = place("latency_bucket");
            labels.push(("le".to_owned(), le.to_owned()));
            out.push((Labels::from_pairs(labels), points));
        }
    }
    out
}

fn store(series: &[(Labels, Points)], dir: &std::path::Path) -> Arc<Tsdb> {
    let rt = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    let db = Tsdb::open(Config::new(dir)).expect("opens");
    let half = series.iter().flat_map(|(_, p)| p).map(|(t, _)| *t).min().unwrap_or(0) + SCRAPES / 2 * STEP;
    for late in [false, true] {
        let mut batch = MetricBatch::default();
        for (labels, points) in series {
            let samples = points.iter().filter(|(t, _)| (*t >= half) == late);
            let samples =
                samples.map(|(timestamp, value)| signal::Sample { timestamp: *timestamp, value: *value });
            batch.series.push(signal::TimeSeries { labels: labels.clone(), samples: samples.collect() });
        }
        batch.series.retain(|s| !s.samples.is_empty());
        let taken = rt.block_on(db.append(batch)).expect("appends");
        assert_eq!(taken.rejected, 0);
        if !late {
            rt.block_on(db.flush()).expect("flushes");
        }
    }
    db
}

type Answer = BTreeMap<String, Vec<(i64, String)>>;

fn ours(engine: &Engine, query: &str, start: i64, end: i64, step: i64) -> Result<Answer, String> {
    let value = engine.range(query, start, end, step).map_err(|e| e.to_string())?.value;
    let Value::Matrix(series) = value else { return Err("no matrix".to_owned()) };
    let one = |s: promql::Series| {
        let points = s.samples.iter().map(|p| (p.timestamp, promql::format_value(p.value))).collect();
        (s.labels.to_string(), points)
    };
    Ok(series.into_iter().map(one).collect())
}

fn theirs(answer: &Json) -> Result<Answer, String> {
    if answer["status"] != "success" {
        return Err(answer["error"].as_str().unwrap_or("no error text").to_owned());
    }
    let series = answer["data"]["result"].as_array().ok_or("no result")?;
    let one = |s: &Json| {
        let labels = s["metric"].as_object().into_iter().flatten();
        let labels = labels.map(|(n, v)| (n.as_str(), v.as_str().unwrap_or("")));
        let points = s["values"].as_array().into_iter().flatten().map(|p| {
            let millis = (p[0].as_f64().unwrap_or(0.0) * 1000.0).round() as i64;
            (millis, p[1].as_str().unwrap_or("").to_owned())
        });
        (Labels::from_pairs(labels).to_string(), points.collect())
    };
    Ok(series.iter().map(one).collect())
}

fn near(a: &str, b: &str) -> bool {
    let (Ok(x), Ok(y)) = (a.parse::<f64>(), b.parse::<f64>()) else { return a == b };
    x == y || x.is_nan() && y.is_nan() || (x - y).abs() <= 1e-9 * x.abs().max(y.abs()).max(1.0)
}

fn difference(ours: &Answer, theirs: &Answer) -> Option<String> {
    if !ours.keys().eq(theirs.keys()) {
        let odd: Vec<&String> = ours.keys().filter(|k| !theirs.contains_key(*k)).collect();
        let missing: Vec<&String> = theirs.keys().filter(|k| !ours.contains_key(*k)).collect();
        return Some(format!("too many: {odd:?}, missing: {missing:?}"));
    }
    ours.iter().zip(theirs).find_map(|((labels, a), (_, b))| {
        let times = |p: &[(i64, String)]| p.iter().map(|(t, _)| *t).collect::<Vec<_>>();
        if times(a) != times(b) {
            return Some(format!("{labels}: {} points, not {}", a.len(), b.len()));
        }
        let odd = a.iter().zip(b).find(|((_, x), (_, y))| !near(x, y))?;
        Some(format!("{labels}: {odd:?}"))
    })
}

#[test]
fn answers_are_those_of_prometheus() {
    let now = signal::time::now().millis();
    let begin = (now / STEP - SCRAPES) * STEP;
    let series = samples(begin);
    let reference = Prometheus::start();
    reference.write(&series);
    let dir = tempfile::tempdir().expect("dir");
    let engine = Engine::new(store(&series, dir.path()), Limits::default());
    let (start, end, step) = (begin + 300_000, begin + SCRAPES * STEP, 45_000);
    let mut r = Random(42);
    let (mut failures, mut answered, mut refused) = (Vec::new(), 0, 0);
    for _ in 0..QUERIES {
        let query = generate::query(&mut r);
        let expect = theirs(&reference.range(&query, start, end, step));
        let got = ours(&engine, &query, start, end, step);
        match (&got, &expect) {
            (Ok(a), Ok(b)) => {
                answered += usize::from(!b.is_empty());
                failures.extend(difference(a, b).map(|d| format!("{query}\n    {d}")));
            }
            (Err(_), Err(_)) => refused += 1,
            (Ok(_), Err(e)) => failures.push(format!("{query}\n    is an error for Prometheus: {e}")),
            (Err(e), Ok(_)) => failures.push(format!("{query}\n    is an error for us: {e}")),
        }
    }
    assert!(failures.is_empty(), "{} of {QUERIES} differ:\n{}", failures.len(), failures.join("\n"));
    assert!(answered > QUERIES / 2, "only {answered} queries have an answer, {refused} are refused");
}
