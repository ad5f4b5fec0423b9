//! Evaluating: log queries through the index's search; metric queries by filling a small store of series, one for
//! each range aggregation and step, that PromQL is then evaluated over.

mod window;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use log_index::{BlockView, Direction, LogIndex, Progress};
use promql::memory::MemorySeries;
use promql::{QueryResult, Value};
use signal::{Labels, METRIC_NAME, Matcher, Timestamp};

use crate::ast::RangeAggregation;
use crate::error::Error;
use crate::parse::{MetricQuery, Query, parse, parse_log_query};
use crate::pipeline::{Pipeline, Processed};
use crate::source::{self, Reading, progress};
use window::{Samples, Steps};

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

/// What it took to answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics {
    /// Blocks, records and bytes before compression that were read.
    pub blocks: u64,
    pub records: u64,
    pub bytes: u64,
    /// Lines in the answer.
    pub entries: u64,
    pub took: Duration,
    /// What is wrong with the answer.
    pub warnings: Vec<String>,
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
    pub fn instant(
        &self,
        text: &str,
        time: Timestamp,
        o: &Options,
    ) -> Result<(LogResult, Statistics), Error> {
        self.counted(o, |progress| match parse(text)? {
            Query::Log(p) => {
                let start = time.saturating_sub(Duration::from_secs(3600));
                self.lines(&p, start, time, o, progress).map(LogResult::Streams)
            }
            Query::Metric(q) => {
                let ms = time.millis();
                let steps = Steps { start: ms, end: ms, step: 1 };
                let store = self.fill(&q, &steps, o, progress)?;
                let result = engine(store, &self.limits).instant(&q.promql, ms)?;
                Ok(LogResult::Metric(without_names(result)))
            }
        })
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
    ) -> Result<(LogResult, Statistics), Error> {
        self.counted(o, |progress| match parse(text)? {
            Query::Log(p) => self.lines(&p, start, end, o, progress).map(LogResult::Streams),
            Query::Metric(q) => {
                let step = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
                let steps = Steps { start: start.millis(), end: end.millis(), step };
                if steps.count() > self.limits.steps {
                    return Err(Error::Limit(format!(
                        "exceeded maximum resolution of {} points per time series. Try decreasing the query resolution (?step=XX)",
                        self.limits.steps
                    )));
                }
                let store = self.fill(&q, &steps, o, progress)?;
                let engine = engine(store, &self.limits);
                let result = engine.range(&q.promql, steps.start, steps.end, step)?;
                Ok(LogResult::Metric(without_names(result)))
            }
        })
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

    /// Deletes for good the records from `start` (inclusive) to `end` (exclusive) that a log query finds, and gives how
    /// many they were. What is changed by the query's stages decides nothing but which records come through.
    pub async fn delete(&self, text: &str, start: Timestamp, end: Timestamp) -> Result<u64, Error> {
        source::delete(&self.index, parse_log_query(text)?, start, end).await
    }

    fn progress(&self, o: &Options) -> Arc<Progress> {
        progress(&o.stop, self.limits.timeout, self.limits.bytes)
    }

    fn counted(
        &self,
        o: &Options,
        work: impl FnOnce(&Arc<Progress>) -> Result<LogResult, Error>,
    ) -> Result<(LogResult, Statistics), Error> {
        let began = signal::time::monotonic();
        let progress = self.progress(o);
        let result = work(&progress)?;
        let entries = match &result {
            LogResult::Streams(s) => s.iter().map(|s| s.entries.len() as u64).sum(),
            LogResult::Metric(_) => 0,
        };
        let statistics = Statistics {
            blocks: progress.blocks(),
            records: progress.records(),
            bytes: progress.bytes(),
            entries,
            took: signal::time::monotonic().duration_since(began),
            warnings: progress.warning().into_iter().collect(),
        };
        Ok((result, statistics))
    }

    fn lines(
        &self,
        p: &Pipeline,
        start: Timestamp,
        end: Timestamp,
        o: &Options,
        progress: &Arc<Progress>,
    ) -> Result<Vec<LogStreamResult>, Error> {
        let reading = Reading { pipeline: p, enforce: &o.enforce, start, end, progress };
        let found = reading.first(&self.index, o.direction, o.limit.min(self.limits.lines))?;
        let mut order: Vec<LogStreamResult> = Vec::new();
        let mut at: HashMap<Labels, usize> = HashMap::new();
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
        steps: &Steps,
        o: &Options,
        progress: &Arc<Progress>,
    ) -> Result<MemorySeries, Error> {
        let mut store = MemorySeries::default();
        for (i, r) in q.ranges.iter().enumerate() {
            let name = format!("__logql_{i}");
            let series = self.samples(r, &q.names, steps, o, progress)?;
            let mut present = vec![false; steps.count()];
            for (labels, samples) in series {
                let mut b = labels.builder();
                b.set(METRIC_NAME, &name);
                let labels = b.build();
                samples.each_step(r, steps, |n, value| {
                    if let Some(p) = present.get_mut(n) {
                        *p = true;
                    }
                    if r.op != "absent_over_time" {
                        store.push(&labels, steps.at(n), value);
                    }
                });
            }
            if r.op == "absent_over_time" {
                let known = r.pipeline.matchers().iter().filter(|m| m.op == signal::MatchOp::Equal);
                let labels = Labels::from_pairs(
                    known.map(|m| (m.name.as_str(), m.value.as_str())).chain([(METRIC_NAME, name.as_str())]),
                );
                for (n, _) in present.iter().enumerate().filter(|(_, there)| !**there) {
                    store.push(&labels, steps.at(n), 1.0);
                }
            }
        }
        Ok(store)
    }

    /// The samples of every line that counts, by series.
    fn samples(
        &self,
        r: &RangeAggregation,
        names: &[String],
        steps: &Steps,
        o: &Options,
        progress: &Arc<Progress>,
    ) -> Result<HashMap<Labels, Samples>, Error> {
        let p = &r.pipeline;
        let (from, to) = steps.covered(r);
        let reading = Reading { pipeline: p, enforce: &o.enforce, start: from, end: to, progress };
        let mut out: HashMap<Labels, Samples> = HashMap::new();
        let (mut held, mut failure) = (0usize, None);
        reading.every(&self.index, |v| of_block(p, r, names, steps, v), |found| {
            match found {
                Found::Series(labels, samples) => {
                    let more = series(&mut out, &mut held, r, steps, labels).merge(samples);
                    held += more;
                }
                Found::Samples(all) => {
                    for (labels, samples) in all {
                        let to = series(&mut out, &mut held, r, steps, labels);
                        held += samples.iter().map(|(t, v)| to.add(r, steps, *t, *v)).sum::<usize>();
                    }
                }
                Found::Failure(e) => {
                    failure = Some(e);
                    return ControlFlow::Break(());
                }
            }
            if out.len() > self.limits.series || held > self.limits.samples {
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

/// What a block gives to a range aggregation.
enum Found {
    /// All of it is one series.
    Series(Labels, Samples),
    /// Time and value of each sample, by series.
    Samples(HashMap<Labels, Vec<(i64, f64)>>),
    Failure(Error),
}

fn of_block(
    p: &Pipeline,
    r: &RangeAggregation,
    names: &[String],
    steps: &Steps,
    v: &BlockView<'_>,
) -> Result<Found, log_index::Error> {
    // Where every name the query says is the stream's own, all records of the stream are one series.
    if p.filters_only() && names.iter().all(|n| v.labels().get(n).is_some()) {
        let mut samples = Samples::new(r, steps);
        let (all_pass, of_bytes) = (p.search_suffices(), r.op.starts_with("bytes"));
        for i in 0..v.len() {
            // A column that is not asked for is not read.
            if all_pass && !of_bytes {
                samples.add(r, steps, v.time(i), 0.0);
                continue;
            }
            let line = v.text(i)?;
            if all_pass || p.line_filters(line, v.trace_id(i)?).is_some() {
                samples.add(r, steps, v.time(i), line.len() as f64);
            }
        }
        return Ok(Found::Series(r.series(v.labels()), samples));
    }
    let mut all: HashMap<Labels, Vec<(i64, f64)>> = HashMap::new();
    for i in 0..v.len() {
        if p.line_filters(v.text(i)?, v.trace_id(i)?).is_none() {
            continue;
        }
        let Some(s) = p.sample(v.labels(), &v.log(i)?, names) else { continue };
        if let Some(e) = s.error {
            return Ok(Found::Failure(Error::Pipeline { error: e, series: s.labels.to_string() }));
        }
        all.entry(r.series(&s.labels)).or_default().push((v.time(i), s.value));
    }
    Ok(Found::Samples(all))
}

/// A series of the result. What it takes from the start is counted as held.
fn series<'a>(
    all: &'a mut HashMap<Labels, Samples>,
    held: &mut usize,
    r: &RangeAggregation,
    steps: &Steps,
    labels: Labels,
) -> &'a mut Samples {
    all.entry(labels).or_insert_with(|| {
        let s = Samples::new(r, steps);
        *held += s.held();
        s
    })
}

impl RangeAggregation {
    /// What of a sample's labels makes its series.
    fn series(&self, labels: &Labels) -> Labels {
        match &self.grouping {
            None => labels.clone(),
            Some((by, list)) => {
                Labels::from_pairs(labels.iter().filter(|(n, _)| list.iter().any(|l| l == n) == *by))
            }
        }
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
mod tests;
