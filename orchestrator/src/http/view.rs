//! What the query APIs show of the collector: scrape targets as Prometheus has them.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::assemble::Shared;

/// `data` of `/api/v1/targets`.
pub(super) fn targets(shared: &Shared) -> Arc<dyn Fn() -> Value + Send + Sync> {
    let (targets, health) = (shared.scrape_targets.clone(), shared.target_health.clone());
    let dropped = shared.dropped_targets.clone();
    Arc::new(move || {
        let active: Vec<Value> = targets
            .snapshot()
            .into_iter()
            .map(|(key, t)| {
                let h = health.get(&key).unwrap_or_default();
                let state = match (h.last_scrape, h.up) {
                    (0, _) => "unknown",
                    (_, true) => "up",
                    (_, false) => "down",
                };
                json!({
                    "discoveredLabels": t.discovered, "labels": t.labels,
                    "scrapePool": if t.options.pool.is_empty() { t.labels.get("job").unwrap_or_default() } else { &t.options.pool }, "scrapeUrl": t.url, "globalUrl": t.url,
                    "lastError": h.last_error,
                    "lastScrape": jiff::Timestamp::from_millisecond(h.last_scrape).map(|t| t.to_string()).unwrap_or_default(),
                    "lastScrapeDuration": h.last_duration.as_secs_f64(), "health": state,
                    "scrapeInterval": format!("{}s", t.interval.as_secs()), "scrapeTimeout": format!("{}s", t.timeout.as_secs()),
                })
            })
            .collect();
        let dropped = dropped.snapshot();
        let counts: Map<String, Value> =
            dropped.iter().map(|(job, list)| (job.clone(), list.len().into())).collect();
        let all = dropped.iter().flat_map(|(job, list)| list.iter().map(move |labels| (job, labels)));
        let dropped: Vec<Value> =
            all.map(|(job, labels)| json!({"discoveredLabels": labels, "scrapePool": job})).collect();
        json!({"activeTargets": active, "droppedTargets": dropped, "droppedTargetCounts": counts})
    })
}
