//! One rule: its expression, what it gave last, and how one evaluation of it goes.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use promql::Value as Answer;
use signal::{
    FloatHistogram, HistogramSample, HistogramSeries, Labels, METRIC_NAME, MetricBatch, TimeSeries, stale_nan,
};
use std::sync::Arc;

use crate::alert::{Alert, AlertState, Alerts, Change, Durations, Found};
use crate::file::{AlertSpec, RuleSpec};
use crate::ground::Ground;
use crate::texts::{self, Texts};

/// The label that names an alert, and the one of its state.
pub(crate) const ALERT_NAME: &str = "alertname";
const ALERT_STATE: &str = "alertstate";
pub(crate) const ALERTS: &str = "ALERTS";
pub(crate) const ALERTS_FOR_STATE: &str = "ALERTS_FOR_STATE";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Not evaluated yet.
    #[default]
    Unknown,
    Good,
    Bad,
}

impl Health {
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Unknown => "unknown",
            Health::Good => "ok",
            Health::Bad => "err",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) spec: RuleSpec,
    /// The expression as PromQL prints it.
    pub(crate) query: String,
    pub(crate) alerts: Alerts,
    /// Its alerts' states are those of before the restart, if there are any: only then are they written.
    pub(crate) restored: bool,
    /// Series that the last evaluation gave: those that the next one does not give end there.
    pub(crate) previous: HashSet<Labels>,
    pub(crate) health: Health,
    pub(crate) last_error: Option<String>,
    pub(crate) took: Duration,
    /// Milliseconds.
    pub(crate) evaluated_at: Option<i64>,
}

/// What one evaluation did besides writing.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) samples: usize,
    pub(crate) changes: Vec<Change>,
    /// Alerts that must be told of, whether or not the samples were stored.
    pub(crate) due: Vec<Alert>,
    /// Why samples were not stored.
    pub(crate) unwritten: Option<String>,
}

/// One series of a result.
struct Row {
    labels: Labels,
    value: f64,
    histogram: Option<Arc<FloatHistogram>>,
}

impl Rule {
    pub(crate) fn new(spec: RuleSpec, restored: bool) -> Rule {
        let query = promql::parse(&spec.expr).map_or_else(|_| spec.expr.clone(), |e| e.to_string());
        Rule {
            spec,
            query,
            alerts: Alerts::default(),
            restored,
            previous: HashSet::new(),
            health: Health::Unknown,
            last_error: None,
            took: Duration::ZERO,
            evaluated_at: None,
        }
    }

    /// Evaluates as of `now` (milliseconds), looking `offset` back, and writes what comes of it.
    pub(crate) fn evaluate(
        &mut self,
        ground: &Ground<'_>,
        now: i64,
        offset: i64,
        limit: usize,
    ) -> Result<Outcome, String> {
        let at = now.saturating_sub(offset);
        let rows = rows(ground, &self.spec.expr, at)?;
        let mut outcome = Outcome::default();
        let rows = match self.spec.alert.clone() {
            None => self.recorded(rows, limit)?,
            Some(alert) => {
                let found = self.found(ground, &alert, rows, now, offset)?;
                let durations = Durations { hold: alert.hold, keep_firing_for: alert.keep_firing_for };
                outcome.changes = self.alerts.advance(now, found, durations, limit)?;
                outcome.due = self.alerts.due(now, ground.resend);
                self.alert_rows()
            }
        };
        outcome.samples = rows.len();
        outcome.unwritten = self.write(ground, rows, at).err();
        Ok(outcome)
    }

    /// Gives the series their name and labels.
    fn recorded(&self, mut rows: Vec<Row>, limit: usize) -> Result<Vec<Row>, String> {
        let mut seen = HashSet::with_capacity(rows.len());
        for r in &mut rows {
            let mut b = r.labels.builder();
            b.set(METRIC_NAME, &self.spec.name);
            for (n, v) in &self.spec.labels {
                b.set(n, v);
            }
            r.labels = b.build();
            if !seen.insert(r.labels.clone()) {
                return Err(
                    "vector contains metrics with the same labelset after applying rule labels".to_owned()
                );
            }
        }
        if limit > 0 && rows.len() > limit {
            return Err(format!("exceeded limit of {limit} with {} series", rows.len()));
        }
        Ok(rows)
    }

    /// Alerts with their texts expanded.
    fn found(
        &self,
        ground: &Ground<'_>,
        alert: &AlertSpec,
        rows: Vec<Row>,
        now: i64,
        offset: i64,
    ) -> Result<BTreeMap<Labels, Found>, String> {
        let query = |expr: &str| {
            let rows = self::rows(ground, expr, now.saturating_sub(offset))?;
            Ok(rows.into_iter().map(|r| (r.labels, r.value)).collect())
        };
        let texts = Texts {
            query: &query,
            now,
            external_url: ground.external_url,
            external_labels: ground.external_labels,
        };
        let mut found = BTreeMap::new();
        for r in rows {
            let seen = texts::labels_value(&r.labels);
            let expand = |text: &str| texts.expand(&self.spec.name, text, &seen, r.value);
            let mut b = r.labels.builder();
            b.remove(METRIC_NAME);
            for (n, v) in &self.spec.labels {
                b.set(n, &expand(v));
            }
            b.set(ALERT_NAME, &self.spec.name);
            let annotations = alert.annotations.iter().map(|(n, v)| (n.clone(), expand(v))).collect();
            if found.insert(b.build(), Found { annotations, value: r.value }).is_some() {
                return Err(
                    "vector contains metrics with the same labelset after applying alert labels".to_owned()
                );
            }
        }
        Ok(found)
    }

    /// `ALERTS` and `ALERTS_FOR_STATE` of the active alerts.
    fn alert_rows(&self) -> Vec<Row> {
        if !self.restored {
            return Vec::new();
        }
        let row = |a: &Alert, name: &str, state: Option<AlertState>, value: f64| {
            let mut b = self.spec.labels.builder();
            for (n, v) in &a.labels {
                b.set(n, v);
            }
            b.set(METRIC_NAME, name).set(ALERT_NAME, &self.spec.name);
            if let Some(s) = state {
                b.set(ALERT_STATE, s.as_str());
            }
            Row { labels: b.build(), value, histogram: None }
        };
        let active = self.alerts.active();
        active
            .flat_map(|a| {
                let since = a.active_at.div_euclid(1000) as f64;
                [row(a, ALERTS, Some(a.state), 1.0), row(a, ALERTS_FOR_STATE, None, since)]
            })
            .collect()
    }

    fn write(&mut self, ground: &Ground<'_>, rows: Vec<Row>, at: i64) -> Result<(), String> {
        let mut batch = MetricBatch::default();
        let mut given = HashSet::with_capacity(rows.len());
        for r in rows {
            given.insert(r.labels.clone());
            match r.histogram {
                None => batch.series.push(TimeSeries::single(r.labels, at, r.value)),
                Some(histogram) => {
                    let sample = HistogramSample { timestamp: at, start: 0, histogram };
                    batch.histograms.push(HistogramSeries { labels: r.labels, samples: vec![sample] });
                }
            }
        }
        let wanted = batch.samples();
        for ended in self.previous.difference(&given) {
            batch.push(ended.clone(), at, stale_nan());
        }
        if batch.samples() > 0 {
            let accepted = (ground.write)(batch)?;
            if accepted.rejected > 0 {
                let why = accepted.reason.unwrap_or_default();
                return Err(format!("{} of {wanted} samples were refused: {why}", accepted.rejected));
            }
        }
        self.previous = given;
        Ok(())
    }
}

/// The expression's value at a time, as a vector.
fn rows(ground: &Ground<'_>, expr: &str, at: i64) -> Result<Vec<Row>, String> {
    let result = ground.engine.instant_with(expr, at, &ground.options).map_err(|e| e.to_string())?;
    match result.value {
        Answer::Vector(all) => Ok(all
            .into_iter()
            .map(|(labels, p)| Row { labels, value: p.value, histogram: p.histogram })
            .collect()),
        Answer::Scalar(s) => Ok(vec![Row { labels: Labels::empty(), value: s.value, histogram: None }]),
        Answer::String(_) | Answer::Matrix(_) => Err("rule result is not a vector or scalar".to_owned()),
    }
}
