//! One target's expositions become samples: what is known of a series from the scrape before is not worked out again.
//!
//! A series is known by the text that stands for it in the exposition; its labels, relabelled and checked, hang from it.
//! A line that was seen before costs one look-up.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use signal::relabel::relabel;
use signal::{
    Exemplar, HistogramSample, HistogramSeries, Labels, LabelsBuilder, METRIC_NAME, Metadata, MetricBatch,
    MetricKind, ScrapeOptions, StartTimes, stale_nan,
};

use crate::exposition::text::{Format, Item, Reader, Word, example, number};
use crate::exposition::{Example, Exposition, Native, Parsed, describe, unknown};
use crate::exposition::{protobuf, series};
use crate::metrics::METRICS;

/// Families whose metadata is remembered of one target.
const FAMILIES: usize = 10_000;

/// A body, by its format.
pub enum Body<'a> {
    Text(&'a str, Format),
    Protobuf(Exposition),
}

/// What became of one exposition, whether it was taken or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Samples in the exposition.
    pub scraped: usize,
    /// Those that relabelling left.
    pub kept: usize,
    /// Series that were not in the scrape before.
    pub added: usize,
}

#[derive(Default)]
struct Slot {
    /// Empty if relabelling drops the series.
    labels: Labels,
    /// The scrape that had it last.
    last: u32,
    /// The metric this series is one of, if it may have a `_created` beside it; 0 otherwise.
    metric: u32,
    /// It is such a `_created`: it says when the others began, and is no series of its own.
    is_created: bool,
}

/// Raw text of a family's metadata, as last seen.
#[derive(Default)]
struct About {
    known: Option<Metadata>,
    /// It has changed in this scrape.
    changed: bool,
}

/// What is remembered of a target from scrape to scrape.
pub struct Intake {
    target: Labels,
    options: Arc<ScrapeOptions>,
    by_text: HashMap<Box<[u8]>, u32, ahash::RandomState>,
    by_labels: HashMap<Labels, u32, ahash::RandomState>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    metrics: HashMap<Labels, u32, ahash::RandomState>,
    last_metric: u32,
    families: HashMap<Box<str>, About, ahash::RandomState>,
    scrape: u32,
    /// Slots whose series are alive: they were in the last scrape, and end with it if they are not in the next.
    live: Vec<u32>,
    seen: Vec<u32>,
    /// Of the exposition that is read: metric → when it was created, in milliseconds.
    created: HashMap<u32, i64, ahash::RandomState>,
    /// Reused for the text of series that come in protobuf.
    key: Vec<u8>,
    pairs: Vec<(String, String)>,
}

impl Intake {
    pub fn new(target: Labels, options: Arc<ScrapeOptions>) -> Self {
        Intake {
            target,
            options,
            by_text: HashMap::default(),
            by_labels: HashMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            metrics: HashMap::default(),
            last_metric: 0,
            families: HashMap::default(),
            scrape: 0,
            live: Vec::new(),
            seen: Vec::new(),
            created: HashMap::default(),
            key: Vec::new(),
            pairs: Vec::new(),
        }
    }

    /// Takes an exposition that was read at `now`, in milliseconds. If it is refused, nothing of it is taken, and all
    /// series of the scrape before end.
    pub fn take(&mut self, body: Body<'_>, now: i64, counts: &mut Counts) -> Result<MetricBatch, String> {
        self.scrape = self.scrape.wrapping_add(1).max(1);
        self.seen.clear();
        self.created.clear();
        let mut batch = MetricBatch::default();
        // Slot of each series in the batch that may have a start.
        let mut starts: Vec<(u32, usize)> = Vec::new();
        match body {
            Body::Text(text, format) => self.text(text, format, now, &mut batch, &mut starts, counts)?,
            Body::Protobuf(e) => self.protobuf(e, now, &mut batch, counts)?,
        }
        for (metric, at) in starts {
            if let (Some(start), Some(s)) = (self.created.get(&metric), batch.series.get(at)) {
                let times = s.samples.iter().map(|s| (s.timestamp, *start)).collect();
                batch.starts.push(StartTimes { labels: s.labels.clone(), times });
            }
        }
        let scrape = self.scrape;
        for slot in self.live.iter().filter_map(|i| self.slots.get(*i as usize)) {
            if slot.last != scrape {
                batch.push(slot.labels.clone(), now, stale_nan());
            }
        }
        std::mem::swap(&mut self.live, &mut self.seen);
        for about in self.families.values_mut().filter(|a| a.changed) {
            about.changed = false;
            batch.metadata.extend(about.known.clone());
        }
        self.sweep();
        Ok(batch)
    }

    /// Texts that are remembered.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.by_text.len().max(self.slots.len())
    }

    /// Stale markers for all that is alive: the scrape failed, or the target is gone.
    pub fn end(&mut self, now: i64) -> MetricBatch {
        let mut batch = MetricBatch::default();
        for slot in self.live.drain(..).filter_map(|i| self.slots.get(i as usize)) {
            batch.push(slot.labels.clone(), now, stale_nan());
        }
        batch
    }

    fn text(
        &mut self,
        text: &str,
        format: Format,
        now: i64,
        batch: &mut MetricBatch,
        starts: &mut Vec<(u32, usize)>,
        counts: &mut Counts,
    ) -> Result<(), String> {
        let mut reader = Reader::new(text, format);
        // The family that the last TYPE was about.
        let mut family = (String::new(), MetricKind::Unknown);
        while let Some(item) = reader.next() {
            let line = reader.line();
            let fail = |what: &str| format!("line {line}: {what}");
            match item.map_err(|e| e.to_string())? {
                Item::About { word, family: name, text } => {
                    let kind = self.about(&name, word, text, format).map_err(fail)?;
                    if family.0 != name {
                        family.0.clear();
                        family.0.push_str(&name);
                    }
                    family.1 = kind;
                }
                Item::Sample(s) => {
                    counts.scraped += 1;
                    let slot = match self.by_text.get(s.series.as_bytes()) {
                        Some(slot) => *slot,
                        None => {
                            let mut pairs = std::mem::take(&mut self.pairs);
                            pairs.clear();
                            series::read(s.series, !format.is_text(), &mut pairs).map_err(fail)?;
                            let slot = self.learn(s.series.as_bytes(), &pairs, Some((&family, format)))?;
                            self.pairs = pairs;
                            slot
                        }
                    };
                    if let Some(found) = self.slots.get_mut(slot as usize)
                        && found.is_created
                    {
                        found.last = self.scrape;
                        self.created.insert(found.metric, (s.value * 1000.0).round() as i64);
                        continue;
                    }
                    let Some((labels, t)) = self.admit(slot, s.timestamp, now, counts)? else { continue };
                    if let Some(text) = s.example {
                        let e = example(text, false).map_err(fail)?;
                        batch.exemplars.push(exemplar(&labels, &e, t));
                    }
                    let metric = self.slots.get(slot as usize).map_or(0, |s| s.metric);
                    if metric != 0 {
                        starts.push((metric, batch.series.len()));
                    }
                    batch.push(labels, t, s.value);
                }
            }
        }
        Ok(())
    }

    fn protobuf(
        &mut self,
        e: Exposition,
        now: i64,
        batch: &mut MetricBatch,
        counts: &mut Counts,
    ) -> Result<(), String> {
        for m in e.metadata {
            self.described(m);
        }
        for Parsed { labels: pairs, value, timestamp, start, example } in e.samples {
            counts.scraped += 1;
            let slot = self.slot_of_pairs(&pairs)?;
            let Some((labels, t)) = self.admit(slot, timestamp, now, counts)? else { continue };
            if start != 0 {
                batch.starts.push(StartTimes { labels: labels.clone(), times: vec![(t, start)] });
            }
            batch.exemplars.extend(example.map(|e| exemplar(&labels, &e, t)));
            batch.push(labels, t, value);
        }
        for Native { labels: pairs, timestamp, start, histogram, examples } in e.histograms {
            counts.scraped += 1;
            let slot = self.slot_of_pairs(&pairs)?;
            let Some((labels, timestamp)) = self.admit(slot, timestamp, now, counts)? else { continue };
            batch.exemplars.extend(examples.iter().map(|e| exemplar(&labels, e, timestamp)));
            let sample = HistogramSample { timestamp, start, histogram };
            batch.histograms.push(HistogramSeries { labels, samples: vec![sample] });
        }
        Ok(())
    }

    fn slot_of_pairs(&mut self, pairs: &[(String, String)]) -> Result<u32, String> {
        // No text holds these bytes, so that a key of one format is never taken for one of another.
        self.key.clear();
        for (name, value) in pairs {
            self.key.extend_from_slice(name.as_bytes());
            self.key.push(0xff);
            self.key.extend_from_slice(value.as_bytes());
            self.key.push(0xfe);
        }
        if let Some(slot) = self.by_text.get(self.key.as_slice()) {
            return Ok(*slot);
        }
        let key = std::mem::take(&mut self.key);
        let slot = self.learn(&key, pairs, None);
        self.key = key;
        slot
    }

    /// The sample's labels and time, unless it is dropped or has already come.
    fn admit(
        &mut self,
        slot: u32,
        timestamp: Option<i64>,
        now: i64,
        counts: &mut Counts,
    ) -> Result<Option<(Labels, i64)>, String> {
        let scrape = self.scrape;
        let Some(s) = self.slots.get_mut(slot as usize) else { return Ok(None) };
        if s.labels.is_empty() {
            s.last = scrape;
            return Ok(None);
        }
        let timestamp = timestamp.filter(|_| self.options.honor_timestamps);
        let is_again = s.last == scrape;
        if is_again && timestamp.is_none() {
            // The first one stands, as in Prometheus.
            METRICS.duplicate_samples.inc();
            return Ok(None);
        }
        counts.kept += 1;
        let limit = self.options.limits.samples;
        if limit > 0 && counts.kept > limit {
            return Err("sample limit exceeded".to_owned());
        }
        if !is_again {
            if s.last == 0 || s.last != scrape.wrapping_sub(1) {
                counts.added += 1;
            }
            s.last = scrape;
            if timestamp.is_none() || self.options.track_timestamps_staleness {
                self.seen.push(slot);
            }
        }
        Ok(Some((s.labels.clone(), timestamp.unwrap_or(now))))
    }

    /// A series that is seen for the first time.
    fn learn(
        &mut self,
        text: &[u8],
        pairs: &[(String, String)],
        of: Option<(&(String, MetricKind), Format)>,
    ) -> Result<u32, String> {
        let name = pairs.iter().find(|(n, _)| n == METRIC_NAME).map_or("", |(_, v)| v.as_str());
        let mut pairs = std::borrow::Cow::Borrowed(pairs);
        let (mut metric, mut is_created) = (0, false);
        if let Some(((family, kind), format)) = of
            && let Some(suffix) = name.strip_prefix(family.as_str())
        {
            let own = match (kind, suffix) {
                (MetricKind::Histogram, "_bucket") => "le",
                (MetricKind::Summary, "") => "quantile",
                _ => "",
            };
            // As Prometheus 3 has it: `1` and `1.0` are one bound.
            if let Some(i) = pairs.iter().position(|(n, _)| n == own)
                && let Some(v) = number(&pairs[i].1)
            {
                pairs.to_mut()[i].1 = protobuf::number(v);
            }
            let counts = matches!(
                (kind, suffix),
                (MetricKind::Counter, "_total" | "_created")
                    | (MetricKind::Histogram, "_bucket" | "_count" | "_sum" | "_created")
                    | (MetricKind::Summary, "" | "_count" | "_sum" | "_created")
            );
            if counts && !format.is_text() {
                let whole = pairs.iter().filter(|(n, _)| n != METRIC_NAME && n != own);
                let whole = whole.map(|(n, v)| (n.as_str(), v.as_str()));
                let whole = Labels::from_pairs(whole.chain([(METRIC_NAME, family.as_str())]));
                metric = match self.metrics.get(&whole) {
                    Some(id) => *id,
                    None => {
                        self.last_metric += 1;
                        self.metrics.insert(whole, self.last_metric);
                        self.last_metric
                    }
                };
                is_created = suffix == "_created";
            }
        }
        let mut b = joined(&pairs, &self.target, self.options.honor_labels);
        let labels = if relabel(&self.options.metric_relabel, &mut b) { b.build() } else { Labels::empty() };
        if !labels.is_empty() && !is_created {
            self.check(&labels)?;
        }
        let slot = Slot { labels: labels.clone(), last: 0, metric, is_created };
        let known = if labels.is_empty() || is_created { None } else { self.by_labels.get(&labels) };
        let at = match known {
            Some(at) => *at,
            None => {
                let at = match self.free.pop() {
                    Some(at) => at,
                    None => {
                        self.slots.push(Slot::default());
                        self.slots.len() as u32 - 1
                    }
                };
                if let Some(s) = self.slots.get_mut(at as usize) {
                    *s = slot;
                }
                if !labels.is_empty() && !is_created {
                    self.by_labels.insert(labels, at);
                }
                at
            }
        };
        self.by_text.insert(text.into(), at);
        Ok(at)
    }

    fn check(&self, labels: &Labels) -> Result<(), String> {
        let limits = self.options.limits;
        let name = labels.metric_name();
        if name.is_empty() {
            return Err("metric name is missing in label set".to_owned());
        }
        let n = labels.len();
        if limits.labels > 0 && n > limits.labels {
            return Err(format!(
                "label_limit exceeded (metric: {name:?}, number of labels: {n}, limit: {})",
                limits.labels
            ));
        }
        for (label, value) in labels {
            let (l, limit) = (label.len(), limits.label_name);
            if limit > 0 && l > limit {
                return Err(format!(
                    "label_name_length_limit exceeded (metric: {name:?}, label name: {label:?}, length: {l}, limit: {limit})"
                ));
            }
            let (l, limit) = (value.len(), limits.label_value);
            if limit > 0 && l > limit {
                return Err(format!(
                    "label_value_length_limit exceeded (metric: {name:?}, label name: {label:?}, value: {value:?}, length: {l}, limit: {limit})"
                ));
            }
        }
        Ok(())
    }

    fn about(
        &mut self,
        name: &str,
        word: Word,
        text: &str,
        format: Format,
    ) -> Result<MetricKind, &'static str> {
        if !self.families.contains_key(name) {
            if self.families.len() >= FAMILIES {
                self.families.clear();
            }
            self.families.insert(name.into(), About::default());
        }
        let Some(about) = self.families.get_mut(name) else { return Ok(MetricKind::Unknown) };
        let known = about.known.get_or_insert_with(|| unknown(name));
        // Text without escapes is compared before it is copied.
        let is_same = match word {
            Word::Help => known.help == text,
            Word::Unit => known.unit == text,
            Word::Type => known.kind.as_str() == text,
        };
        if !is_same {
            let before = known.clone();
            describe(known, word, text, format)?;
            about.changed |= *known != before;
        }
        Ok(known.kind)
    }

    fn described(&mut self, m: Metadata) {
        match self.families.get_mut(m.family.as_str()) {
            Some(about) if about.known.as_ref() == Some(&m) => {}
            _ => {
                if self.families.len() >= FAMILIES {
                    self.families.clear();
                }
                let about = About { known: Some(m.clone()), changed: true };
                self.families.insert(m.family.into(), about);
            }
        }
    }

    /// Forgets texts that are not written any more, once they are more than those that are.
    fn sweep(&mut self) {
        let scrape = self.scrape;
        let slots = &mut self.slots;
        if self.by_text.len() <= 2 * slots.iter().filter(|s| s.last == scrape).count() + 256 {
            return;
        }
        let is_alive = |at: &u32| slots.get(*at as usize).is_some_and(|s| s.last == scrape);
        self.by_text.retain(|_, at| is_alive(at));
        self.by_labels.retain(|_, at| is_alive(at));
        let metrics: HashSet<u32> = slots.iter().filter(|s| s.last == scrape).map(|s| s.metric).collect();
        self.metrics.retain(|_, id| metrics.contains(id));
        self.free.clear();
        for (at, slot) in (0..).zip(slots).filter(|(_, s)| s.last != scrape) {
            *slot = Slot::default();
            self.free.push(at);
        }
    }
}

fn exemplar(series: &Labels, e: &Example, timestamp: i64) -> Exemplar {
    Exemplar {
        series: series.clone(),
        labels: Labels::from_pairs(e.labels.iter().map(|(n, v)| (n, v))),
        value: e.value,
        timestamp: e.timestamp.unwrap_or(timestamp),
    }
}

/// The sample's labels and the target's. Where both have one, one wins: the other is kept as `exported_…`, unless the
/// payload's are honoured.
fn joined(pairs: &[(String, String)], target: &Labels, honor_labels: bool) -> LabelsBuilder {
    let mut b = target.builder();
    for (name, value) in pairs {
        if honor_labels || target.get(name).is_none() {
            // An empty value is none: then the target's stands, if it has one.
            if !value.is_empty() || target.get(name).is_none() {
                b.set(name, value);
            }
            continue;
        }
        let mut kept = format!("exported_{name}");
        while target.get(&kept).is_some() || pairs.iter().any(|(n, _)| *n == kept) {
            kept.insert_str(0, "exported_");
        }
        b.set(&kept, value);
    }
    b
}
