//! Classic histograms of a script made native, with their own bounds (Prometheus: util/convertnhcb).

use std::collections::BTreeMap;
use std::sync::Arc;

use signal::histogram::{Bucket, CUSTOM_SCHEMA};
use signal::{FloatHistogram, Labels, METRIC_NAME};

use super::series::{Described, Item};

/// What is known of one histogram at one time.
#[derive(Default)]
struct Parts {
    /// Upper bound and cumulative count.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

pub(super) fn convert(step: i64, all: &[Described]) -> Result<Vec<(Labels, i64, FloatHistogram)>, String> {
    let mut found: BTreeMap<(Labels, i64), Parts> = BTreeMap::new();
    for s in all {
        let name = s.labels.metric_name();
        let Some((base, part)) = ["_bucket", "_count", "_sum"]
            .into_iter()
            .find_map(|suffix| Some((name.strip_suffix(suffix)?, suffix)))
        else {
            continue;
        };
        let upper = match (part, s.labels.get("le")) {
            ("_bucket", None) => return Err(format!("expected bucket label in metric {}", s.labels)),
            ("_bucket", Some(le)) => match le.parse::<f64>() {
                Ok(v) if !v.is_nan() => v,
                _ => continue,
            },
            _ => 0.0,
        };
        let mut labels = s.labels.builder();
        labels.set(METRIC_NAME, base).remove("le");
        let labels = labels.build();
        for (t, item) in (0i64..).map(|i| i * step).zip(&s.items) {
            let Item::Float(v) = item else { continue };
            let parts = found.entry((labels.clone(), t)).or_default();
            match part {
                "_bucket" => parts.buckets.push((upper, *v)),
                "_count" => parts.count = Some(*v),
                _ => parts.sum = *v,
            }
        }
    }
    found.into_iter().map(|((labels, t), parts)| Ok((labels, t, parts.finish()?))).collect()
}

impl Parts {
    fn finish(mut self) -> Result<FloatHistogram, String> {
        self.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.buckets.dedup_by(|a, b| a.0 == b.0);
        let highest = self.buckets.last().map_or(0.0, |b| b.1);
        let count = self.count.unwrap_or(highest);
        if self.buckets.last().is_none_or(|b| b.0 != f64::INFINITY) {
            self.buckets.push((f64::INFINITY, count));
        }
        if self.buckets.windows(2).any(|w| w[1].1 < w[0].1) {
            return Err("count is not cumulative".to_owned());
        }
        if self.buckets.last().is_none_or(|b| b.1 != count) {
            return Err(format!("count mismatch: count={count}"));
        }
        let before = [0.0].into_iter().chain(self.buckets.iter().map(|b| b.1));
        let counts = self.buckets.iter().zip(before).map(|(b, before)| b.1 - before);
        let positive = (0..).zip(counts).map(|(index, count)| Bucket { index, count });
        let bounds: Arc<[f64]> = self.buckets.iter().map(|b| b.0).filter(|b| b.is_finite()).collect();
        Ok(FloatHistogram {
            schema: CUSTOM_SCHEMA,
            count,
            sum: self.sum,
            positive: positive.filter(|b| b.count != 0.0).collect(),
            bounds,
            ..FloatHistogram::default()
        })
    }
}
