//! A query's budget of bytes is what the process really holds for it, within a tenth.

use std::sync::Arc;

use peak_alloc::PeakAlloc;
use promql::{Engine, Error, Limits};
use signal::{Labels, MetricBatch};
use tsdb::{Config, Tsdb};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const SERIES: usize = 3000;
const STEP: i64 = 15_000;
const SCRAPES: i64 = 400;

/// Half of the time is in a block, half in the head.
fn load(dir: &std::path::Path, begin: i64) -> Arc<Tsdb> {
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let mut config = Config::new(dir);
    config.head_bytes = usize::MAX;
    let db = Tsdb::open(config).expect("opens");
    for scrape in 0..SCRAPES {
        let mut batch = MetricBatch::default();
        for i in 0..SERIES {
            let labels = Labels::from_pairs([
                ("__name__", "m".to_owned()),
                ("instance", format!("10.42.{}.{}:9090", i >> 8, i & 255)),
                ("namespace", format!("team-{}", i % 20)),
                ("pod", format!("web-{i}")),
            ]);
            batch.push(labels, begin + scrape * STEP, (scrape * 7 + i as i64 % 13) as f64);
        }
        rt.block_on(db.append(batch)).expect("appends");
        if scrape == SCRAPES / 2 {
            rt.block_on(db.flush()).expect("flushes");
        }
    }
    db
}

#[test]
fn what_is_counted_is_what_is_held() {
    let dir = tempfile::tempdir().expect("dir");
    let begin = (signal::time::now().millis() / STEP - SCRAPES) * STEP;
    let db = load(dir.path(), begin);
    let limits = |bytes| Limits { bytes, ..Limits::default() };
    let end = begin + (SCRAPES - 1) * STEP + 1;
    let run =
        |bytes: usize, query: &str| Engine::new(db.clone(), limits(bytes)).range(query, begin + 1, end, STEP);
    let queries = [
        "m",
        "rate(m[5m])",
        "sum by (namespace) (rate(m[5m]))",
        "sum by (pod) (rate(m[5m]))",
        "topk(5, m)",
        "m + on (pod) m",
        "(m + on (pod) m) * on (pod) m",
        "max_over_time(m[5m:30s])",
        "quantile by (namespace) (0.9, m)",
        "-abs(m)",
        "label_replace(m, \"copy\", \"$1\", \"pod\", \"(.*)\")",
        "m > 100 and on (pod) m < 2000",
    ];
    let mut wrong = Vec::new();
    for query in queries {
        // What is kept between queries comes first.
        drop(run(usize::MAX, query).expect("runs"));
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let result = run(usize::MAX, query).expect("runs");
        let held = MEMORY.peak_usage().saturating_sub(before) as f64;
        let counted = result.peak_bytes as f64;
        drop(result);
        if (counted / held - 1.0).abs() > 0.1 {
            wrong.push(format!(
                "{query}: {counted} bytes are counted, {held} are held ({:.2})",
                counted / held
            ));
        }
        // So a budget that is a tenth too small is refused, and one that is a tenth larger does.
        let refused = run((counted * 0.9) as usize, query);
        assert!(matches!(refused, Err(Error::Limit(_))), "{query}");
        assert!(run((counted * 1.1) as usize, query).is_ok(), "{query}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
