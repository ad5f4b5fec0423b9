//! Patterns of lines, mined as they arrive; for times before this process began, of the newest lines stored.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use log_index::LogIndex;
use logql::drain::Drain;
use logql::patterns::{BUCKET, Mined, Miner, message};
use parking_lot::Mutex;
use serde_json::{Value, json};
use signal::Timestamp;

use super::explore::newest;
use super::{Answer, METADATA_RANGE, answer, fail, range, required};
use crate::App;
use crate::params::Params;
use crate::scope::Scope;

/// Lines that are mined when a question is about stored ones.
const LINES: usize = 50_000;
/// Patterns of an answer, unless the request says otherwise.
const PATTERNS: usize = 300;

pub(crate) type Patterns = Arc<Mutex<Miner>>;

/// Follows all that is appended.
pub(crate) fn follow(logs: &LogIndex, now: Timestamp) -> Patterns {
    let miner: Patterns = Arc::new(Mutex::new(Miner::new(now)));
    let mut tail = logs.tail(Vec::new());
    let weak = Arc::downgrade(&miner);
    telemetry::task::spawn("log-patterns", async move {
        while let Some(batch) = tail.next().await {
            // Nobody can ask any more.
            let Some(miner) = weak.upgrade() else { return };
            for s in &batch.streams {
                miner.lock().add(s);
                // A stream at a time: others have work, too.
                tokio::task::yield_now().await;
            }
        }
    });
    miner
}

/// Patterns with their counts at each step. With `new_since` only those whose first line came since then; `first` and
/// `last` say when lines came, in nanoseconds.
pub(super) async fn patterns(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let text = required(&p)?;
    let (start, end) = range(&app, &p, METADATA_RANGE).map_err(fail)?;
    let default = Duration::from_secs((end.since(start).as_secs() / 60).max(1));
    let step = p.duration("step").map_err(fail)?.unwrap_or(default).max(Duration::from_secs(1));
    let seconds = i64::try_from(step.as_secs()).unwrap_or(i64::MAX);
    let limit = p.number("limit").map_err(fail)?.unwrap_or(PATTERNS);
    let new_since = p.time("new_since").map_err(fail)?;
    let q = logql::parse_log_query(&text).map_err(|e| fail(e.into()))?;
    let mined_since = app.patterns.lock().since();
    // What was mined has no lines any more: only a selector can be asked of it.
    let is_selector = q.is_selector();
    let recent = new_since.unwrap_or(start) >= mined_since && seconds >= BUCKET;
    let data: Vec<Value> = if is_selector && (recent || new_since.is_some()) {
        let mut matchers = q.matchers().to_vec();
        matchers.extend(scope.enforce());
        let mut all = app.patterns.lock().patterns(&matchers, start, end);
        if let Some(since) = new_since {
            all.retain(|m| m.first >= since);
        }
        all.iter().take(limit).map(|m| mined(m, seconds)).collect()
    } else {
        let mut drain = Drain::default();
        for s in newest(&app, &scope, &p, LINES).await.map_err(fail)? {
            for e in &s.entries {
                let at = e.timestamp.millis() / 1000;
                drain.add(&message(&e.line), at - at.rem_euclid(seconds));
            }
        }
        let all = drain.patterns().into_iter().take(limit);
        all.map(|p| json!({"pattern": p.text, "samples": p.counts.into_iter().collect::<Vec<(i64, u64)>>()}))
            .collect()
    };
    Ok(answer(json!({"status": "success", "data": data, "minedSince": mined_since.to_string()})))
}

fn mined(m: &Mined, step: i64) -> Value {
    let mut samples: std::collections::BTreeMap<i64, u64> = Default::default();
    for (at, n) in &m.pattern.counts {
        *samples.entry(at - at.rem_euclid(step)).or_default() += n;
    }
    json!({
        "pattern": m.pattern.text, "samples": samples.into_iter().collect::<Vec<(i64, u64)>>(),
        "first": m.first.to_string(), "last": m.last.to_string(), "labels": m.labels,
    })
}
