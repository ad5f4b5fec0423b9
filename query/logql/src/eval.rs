//! Evaluating: log queries through the index's search, metric queries by filling a small store of series, one for
//! each range aggregation and step, that PromQL is then evaluated over.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use log_index::{Direction, LogIndex, Progress};
use promql::memory::MemorySeries;
use promql::{QueryResult, Value};
use signal::{Labels, METRIC_NAME, Matcher, Timestamp};

use crate::ast::{RangeAggregation, Stage};
use crate::error::Error;
use crate::parse::{MetricQuery, Query, parse};
use crate::pipeline::{Pipeline, Processed};
use crate::source::{Reading, progress};

#[derive(Clone, Debug)]
pub struct Limits {
    /// Lines a log query gives at most, whatever it asks for.
    pub lines: usize,
    /// Series and samples a metric query may hold.
    pub series: usize,
    pub samples: usize,
    /// Steps of a range query.
    pub steps: usize,
    /// Bytes of records, before compression, that one query may read.
    pub bytes: u64,
    pub timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            lines: 5000,
            series: 5000,
            samples: 20_000_000,
            steps: 11_000,
            bytes: 64 << 30,
            timeout: Duration::from_secs(60),
        }
    }
}

/// What one caller asks on top of the query.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Added to every stream selector: what the caller may see.
    pub enforce: Vec<Matcher>,
    pub direction: Direction,
    /// Lines wanted.
    pub limit: usize,
    /// Ends the query once it is true.
    pub stop: Arc<AtomicBool>,
}

/// A line of a result.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub timestamp: Timestamp,
    pub line: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LogStreamResult {
    pub labels: Labels,
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
pub enum LogResult {
    /// Streams in the order of their first line; lines in the order asked for.
    Streams(Vec<LogStreamResult>),
    Metric(QueryResult),
}

#[derive(Clone)]
pub struct Engine {
    index: Arc<LogIndex>,
    limits: Limits,
}

impl Engine {
    pub fn new(index: Arc<LogIndex>, limits: Limits) -> Self {
        Engine { index, limits }
    }

    pub fn index(&self) -> &Arc<LogIndex> {
        &self.index
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Evaluates at one time. A log query gives the last hour's lines.
    pub fn instant(&self, text: &str, time: Timestamp, o: &Options) -> Result<LogResult, Error> {
        match parse(text)? {
            Query::Log(p) => {
                let start = time.saturating_sub(Duration::from_secs(3600));
                self.lines(&p, start, time, o).map(LogResult::Streams)
            }
            Query::Metric(q) => {
                let ms = time.millis();
                let store = self.fill(&q, ms, ms, 1, o)?;
                let result = engine(store, &self.limits).instant(&q.promql, ms)?;
                Ok(LogResult::Metric(without_names(result)))
            }
        }
    }

    /// Evaluates over a range: for metric queries at `start`, `start + step`, …; lines are from `start`
    /// (inclusive) to `end` (exclusive).
    pub fn range(
        &self,
        text: &str,
        start: Timestamp,
        end: Timestamp,
        step: Duration,
        o: &Options,
    ) -> Result<LogResult, Error> {
        match parse(text)? {
            Query::Log(p) => self.lines(&p, start, end, o).map(LogResult::Streams),
            Query::Metric(q) => {
                let step = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
                let steps = (end.millis().saturating_sub(start.millis())) / step + 1;
                if usize::try_from(steps).is_ok_and(|s| s > self.limits.steps) {
                    return Err(Error::Limit(format!(
                        "exceeded maximum resolution of {} points per time series. Try decreasing the query resolution (?step=XX)",
                        self.limits.steps
                    )));
                }
                let store = self.fill(&q, start.millis(), end.millis(), step, o)?;
                let result =
                    engine(store, &self.limits).range(&q.promql, start.millis(), end.millis(), step)?;
                Ok(LogResult::Metric(without_names(result)))
            }
        }
    }

    fn progress(&self, o: &Options) -> Arc<Progress> {
        progress(&o.stop, self.limits.timeout, self.limits.bytes)
    }

    /// The newest lines before now that come through, oldest first: what a tail begins with.
    pub fn backlog(
        &self,
        p: &Pipeline,
        start: Timestamp,
        o: &Options,
    ) -> Result<Vec<(Timestamp, Processed)>, Error> {
        let progress = self.progress(o);
        let reading =
            Reading { pipeline: p, enforce: &o.enforce, start, end: Timestamp::MAX, progress: &progress };
        let mut found = reading.first(&self.index, Direction::Backward, o.limit.min(self.limits.lines))?;
        found.reverse();
        Ok(found)
    }

    fn lines(
        &self,
        p: &Pipeline,
        start: Timestamp,
        end: Timestamp,
        o: &Options,
    ) -> Result<Vec<LogStreamResult>, Error> {
        let progress = self.progress(o);
        let reading = Reading { pipeline: p, enforce: &o.enforce, start, end, progress: &progress };
        let found = reading.first(&self.index, o.direction, o.limit.min(self.limits.lines))?;
        let mut order: Vec<LogStreamResult> = Vec::new();
        let mut at: BTreeMap<Labels, usize> = BTreeMap::new();
        for (timestamp, processed) in found {
            let i = *at.entry(processed.labels.clone()).or_insert_with(|| {
                order.push(LogStreamResult { labels: processed.labels, entries: Vec::new() });
                order.len() - 1
            });
            order[i].entries.push(Entry { timestamp, line: processed.line });
        }
        Ok(order)
    }

    /// Evaluates every range aggregation at every step.
    fn fill(
        &self,
        q: &MetricQuery,
        start: i64,
        end: i64,
        step: i64,
        o: &Options,
    ) -> Result<MemorySeries, Error> {
        let mut store = MemorySeries::default();
        let progress = self.progress(o);
        for (i, r) in q.ranges.iter().enumerate() {
            let name = format!("__logql_{i}");
            let series = self.samples(r, &q.names, start, end, o, &progress)?;
            let mut present: Vec<i64> = Vec::new();
            for (labels, mut samples) in series {
                samples.sort_by_key(|(t, _)| *t);
                let mut b = labels.builder();
                b.set(METRIC_NAME, &name);
                let labels = b.build();
                let (mut lo, mut hi) = (0, 0);
                let mut t = start;
                while t <= end {
                    let right = (t * 1_000_000).saturating_sub(r.offset);
                    while samples.get(hi).is_some_and(|s| s.0 <= right) {
                        hi += 1;
                    }
                    while lo < hi && samples[lo].0 <= right - r.range {
                        lo += 1;
                    }
                    if lo < hi {
                        present.push(t);
                        if r.op != "absent_over_time" {
                            store.push(&labels, t, window(r, &samples[lo..hi]));
                        }
                    }
                    t += step;
                }
            }
            if r.op == "absent_over_time" {
                let known = r.log.matchers.iter().filter(|m| m.op == signal::MatchOp::Equal);
                let labels = Labels::from_pairs(
                    known.map(|m| (m.name.as_str(), m.value.as_str())).chain([(METRIC_NAME, name.as_str())]),
                );
                present.sort_unstable();
                let mut t = start;
                while t <= end {
                    if present.binary_search(&t).is_err() {
                        store.push(&labels, t, 1.0);
                    }
                    t += step;
                }
            }
        }
        Ok(store)
    }

    /// Time in nanoseconds and value of every line that counts, by series.
    fn samples(
        &self,
        r: &RangeAggregation,
        names: &[String],
        start: i64,
        end: i64,
        o: &Options,
        progress: &Arc<Progress>,
    ) -> Result<BTreeMap<Labels, Vec<(i64, f64)>>, Error> {
        let pipeline = Pipeline::new(r.log.clone());
        let from = Timestamp((start * 1_000_000).saturating_sub(r.offset + r.range));
        let to = Timestamp((end * 1_000_000).saturating_sub(r.offset).saturating_add(1));
        let reading = Reading { pipeline: &pipeline, enforce: &o.enforce, start: from, end: to, progress };
        let unwraps = r.log.stages.iter().any(|s| matches!(s, Stage::Unwrap { .. }));
        let mut out: BTreeMap<Labels, Vec<(i64, f64)>> = BTreeMap::new();
        let (mut count, mut failure) = (0usize, None);
        reading.every(&self.index, |stream, records| {
            for record in records {
                let Some(p) = pipeline.apply_for_series(stream, &record, names) else { continue };
                let value = match (unwraps, p.value) {
                    (true, Some(v)) => v,
                    // A line whose value could not be read is no sample.
                    (true, None) => continue,
                    (false, _) => p.line.len() as f64,
                };
                let labels = match &r.grouping {
                    None => p.labels,
                    Some((by, list)) => {
                        Labels::from_pairs(p.labels.iter().filter(|(n, _)| list.iter().any(|l| l == n) == *by))
                    }
                };
                count += 1;
                out.entry(labels).or_default().push((record.timestamp.nanos(), value));
            }
            if out.len() > self.limits.series || count > self.limits.samples {
                failure = Some(Error::Limit(format!(
                    "maximum number of series ({}) or samples ({}) reached for a single query; aggregate by fewer labels or ask for less time",
                    self.limits.series, self.limits.samples
                )));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        failure.map_or(Ok(out), Err)
    }
}

/// PromQL over the steps: a lookback of one millisecond sees exactly the value of its own step.
fn engine(store: MemorySeries, limits: &Limits) -> promql::Engine {
    let limits = promql::Limits {
        lookback: Duration::from_millis(1),
        timeout: limits.timeout,
        steps: limits.steps,
        ..promql::Limits::default()
    };
    promql::Engine::new(Arc::new(store), limits)
}

/// The window's value; `s` is not empty and in order of time.
fn window(r: &RangeAggregation, s: &[(i64, f64)]) -> f64 {
    let n = s.len() as f64;
    let seconds = r.range as f64 / 1e9;
    let sum = || s.iter().map(|(_, v)| v).sum::<f64>();
    let variance = || {
        let mean = sum() / n;
        s.iter().map(|(_, v)| (v - mean).powi(2)).sum::<f64>() / n
    };
    let unwraps = r.log.stages.iter().any(|s| matches!(s, Stage::Unwrap { .. }));
    match r.op.as_str() {
        "rate" if unwraps => sum() / seconds,
        "rate" => n / seconds,
        "rate_counter" => {
            let grown: f64 =
                s.windows(2).map(|w| if w[1].1 < w[0].1 { w[1].1 } else { w[1].1 - w[0].1 }).sum();
            grown / seconds
        }
        "bytes_rate" => sum() / seconds,
        "bytes_over_time" | "sum_over_time" => sum(),
        "avg_over_time" => sum() / n,
        "min_over_time" => s.iter().map(|(_, v)| *v).fold(f64::INFINITY, f64::min),
        "max_over_time" => s.iter().map(|(_, v)| *v).fold(f64::NEG_INFINITY, f64::max),
        "stdvar_over_time" => variance(),
        "stddev_over_time" => variance().sqrt(),
        "first_over_time" => s.first().map_or(f64::NAN, |(_, v)| *v),
        "last_over_time" => s.last().map_or(f64::NAN, |(_, v)| *v),
        "quantile_over_time" => {
            let mut v: Vec<f64> = s.iter().map(|(_, v)| *v).collect();
            v.sort_by(f64::total_cmp);
            let rank = r.param.unwrap_or(0.5).clamp(0.0, 1.0) * (n - 1.0);
            let (low, high) = (rank.floor() as usize, rank.ceil() as usize);
            v[low] + (v[high] - v[low]) * (rank - rank.floor())
        }
        "present_over_time" => 1.0,
        _ => n,
    }
}

/// The names under which range aggregations were kept are ours, not the caller's.
fn without_names(mut r: QueryResult) -> QueryResult {
    let strip = |l: &mut Labels| {
        if l.metric_name().starts_with("__logql_") {
            *l = Labels::from_pairs(l.iter().filter(|(n, _)| *n != METRIC_NAME));
        }
    };
    match &mut r.value {
        Value::Vector(v) => v.iter_mut().for_each(|(l, _)| strip(l)),
        Value::Matrix(m) => m.iter_mut().for_each(|s| strip(&mut s.labels)),
        _ => {}
    }
    // Notes about names that the caller never wrote would only puzzle.
    r.infos.clear();
    r
}

#[cfg(test)]
mod tests {
    use super::*;
    use log_index::{Config, Kind};
    use signal::{LogBatch, LogRecord, LogStream};

    fn filled() -> (tempfile::TempDir, Engine) {
        let dir = tempfile::tempdir().expect("dir");
        let index = LogIndex::open(Config::new(dir.path(), Kind::Logs)).expect("opens");
        let record = |s: i64, body: String| LogRecord {
            timestamp: Timestamp::from_secs(s),
            body,
            ..Default::default()
        };
        let streams = ["a", "b"].map(|pod| LogStream {
            labels: Labels::from_pairs([("namespace", "shop"), ("pod", pod)]),
            records: (0..60)
                .map(|i| {
                    record(
                        1000 + i,
                        format!("level={} ms={i} pod={pod}", if i % 10 == 0 { "error" } else { "info" }),
                    )
                })
                .collect(),
        });
        let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        rt.block_on(async {
            index
                .append_logs(LogBatch { streams: streams.into(), checkpoints: vec![] })
                .await
                .expect("appends");
            index.flush().await.expect("flushes");
        });
        (dir, Engine::new(index, Limits::default()))
    }

    fn vector(e: &Engine, q: &str) -> Vec<(String, f64)> {
        match e.instant(q, Timestamp::from_secs(1059), &Options::default()).expect(q) {
            LogResult::Metric(r) => match r.value {
                Value::Vector(v) => v.into_iter().map(|(l, s)| (l.to_string(), s.value)).collect(),
                v => panic!("{v:?}"),
            },
            LogResult::Streams(_) => panic!("{q} is a metric query"),
        }
    }

    #[test]
    fn lines_in_order_within_limit_and_scope() {
        let (_dir, e) = filled();
        let o = Options { limit: 5, ..Options::default() };
        let (start, end) = (Timestamp::from_secs(0), Timestamp::from_secs(2000));
        let step = Duration::from_secs(60);
        let LogResult::Streams(s) =
            e.range(r#"{namespace="shop"} |= "error""#, start, end, step, &o).expect("runs")
        else {
            panic!("a log query")
        };
        assert_eq!(s.len(), 2);
        assert_eq!(s.iter().map(|s| s.entries.len()).sum::<usize>(), 5);
        assert!(s[0].entries[0].line.contains("ms=50"));
        let o =
            Options { enforce: vec![Matcher::equal("namespace", "other")], limit: 5, ..Options::default() };
        let LogResult::Streams(s) = e.range(r#"{namespace="shop"}"#, start, end, step, &o).expect("runs")
        else {
            panic!("a log query")
        };
        assert!(s.is_empty());
    }

    #[test]
    fn metric_queries() {
        let (_dir, e) = filled();
        assert_eq!(vector(&e, r#"sum(count_over_time({namespace="shop"}[1m]))"#), [("{}".to_owned(), 120.0)]);
        assert_eq!(
            vector(&e, r#"rate({pod="a"} |= "error" [1m])"#),
            [(r#"{namespace="shop", pod="a"}"#.to_owned(), 0.1)]
        );
        assert_eq!(
            vector(&e, r#"sum by (level) (count_over_time({namespace="shop"} | logfmt [1m]))"#),
            [(r#"{level="error"}"#.to_owned(), 12.0), (r#"{level="info"}"#.to_owned(), 108.0)]
        );
        assert_eq!(
            vector(&e, r#"max_over_time({pod="a"} | logfmt | unwrap ms [1m]) by (pod)"#),
            [(r#"{pod="a"}"#.to_owned(), 59.0)]
        );
        assert_eq!(vector(&e, "vector(1)+vector(1)"), [("{}".to_owned(), 2.0)]);
        assert_eq!(vector(&e, r#"absent_over_time({pod="c"}[1m])"#), [(r#"{pod="c"}"#.to_owned(), 1.0)]);
        assert_eq!(
            vector(&e, r#"topk(1, sum by (pod) (bytes_over_time({namespace="shop"}[1m]))) > 1e9"#),
            []
        );
    }

    #[test]
    fn a_query_nobody_waits_for_and_one_that_reads_too_much_end() {
        let (_dir, e) = filled();
        let o = Options { limit: 5, ..Options::default() };
        o.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let at = Timestamp::from_secs(1059);
        for q in [r#"{namespace="shop"}"#, r#"rate({namespace="shop"}[1m])"#] {
            assert!(matches!(e.instant(q, at, &o), Err(Error::Canceled)), "{q}");
            let few = Engine::new(e.index.clone(), Limits { bytes: 10, ..Limits::default() });
            assert!(
                matches!(
                    few.instant(q, at, &Options { limit: 5, ..Options::default() }),
                    Err(Error::Limit(_))
                ),
                "{q}"
            );
            let short = Engine::new(e.index.clone(), Limits { timeout: Duration::ZERO, ..Limits::default() });
            assert!(matches!(short.instant(q, at, &Options::default()), Err(Error::Timeout)), "{q}");
        }
    }
}
