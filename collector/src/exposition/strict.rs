//! The rules of OpenMetrics 1.0 about families: what may stand in one, in which order, with which values.
//! Prometheus does not look at them when it scrapes; who wants to know whether an exposition is right does.
//!
//! Source: OpenMetrics 1.0, sections "Data Model" and "Text format"; all of its parser cases pass.

use std::collections::HashSet;

use signal::{METRIC_NAME, MetricKind};

use super::text::{Line, Word, number};

type Pairs = [(String, String)];

/// Reads along, and says which rule is broken.
#[derive(Default)]
pub(crate) struct Rules {
    /// Names that samples of earlier families have or may have, and those families.
    taken: HashSet<String>,
    family: Option<Family>,
}

struct Family {
    name: String,
    kind: MetricKind,
    unit: Option<String>,
    has_type: bool,
    has_help: bool,
    has_samples: bool,
    /// Those before the current one.
    groups: HashSet<Vec<(String, String)>>,
    group: Option<Group>,
}

/// The samples of one metric: those that differ in nothing but name, `le`, `quantile` and state.
struct Group {
    labels: Vec<(String, String)>,
    timestamp: Option<i64>,
    seen: HashSet<Vec<(String, String)>>,
    points: Points,
}

/// What one histogram or summary has said so far.
#[derive(Default)]
struct Points {
    bound: Option<f64>,
    bucket: Option<f64>,
    /// The bucket up to +Inf.
    all: Option<f64>,
    count: Option<f64>,
    sum: Option<f64>,
    negative: bool,
}

impl Family {
    fn new(name: String) -> Self {
        Family {
            name,
            kind: MetricKind::Unknown,
            unit: None,
            has_type: false,
            has_help: false,
            has_samples: false,
            groups: HashSet::new(),
            group: None,
        }
    }

    fn suffixes(&self) -> &'static [&'static str] {
        match self.kind {
            MetricKind::Counter => &["_total", "_created"],
            MetricKind::Histogram => &["_bucket", "_count", "_sum", "_created"],
            MetricKind::GaugeHistogram => &["_bucket", "_gcount", "_gsum"],
            MetricKind::Summary => &["", "_count", "_sum", "_created"],
            MetricKind::Info => &["_info"],
            MetricKind::Gauge | MetricKind::StateSet | MetricKind::Unknown => &[""],
        }
    }

    fn unit_fits(&self) -> Result<(), &'static str> {
        let Some(unit) = self.unit.as_deref().filter(|u| !u.is_empty()) else { return Ok(()) };
        if matches!(self.kind, MetricKind::Info | MetricKind::StateSet) {
            return Err("this type has no unit");
        }
        match self.name.strip_suffix(unit) {
            Some(before) if before.ends_with('_') => Ok(()),
            _ => Err("the family's name does not end with its unit"),
        }
    }
}

pub(crate) fn kind(text: &str) -> Option<MetricKind> {
    Some(match text {
        "counter" => MetricKind::Counter,
        "gauge" => MetricKind::Gauge,
        "histogram" => MetricKind::Histogram,
        "gaugehistogram" => MetricKind::GaugeHistogram,
        "summary" => MetricKind::Summary,
        "info" => MetricKind::Info,
        "stateset" => MetricKind::StateSet,
        "unknown" => MetricKind::Unknown,
        _ => return None,
    })
}

impl Rules {
    pub(crate) fn about(&mut self, word: Word, family: &str, text: &str) -> Result<(), &'static str> {
        if self.family.as_ref().is_none_or(|f| f.name != family) {
            self.finish()?;
            self.family = Some(Family::new(family.to_owned()));
        }
        let Some(f) = &mut self.family else { return Ok(()) };
        if f.has_samples {
            return Err("what is said about a family stands before its samples");
        }
        let again = match word {
            Word::Type => std::mem::replace(&mut f.has_type, true),
            Word::Help => std::mem::replace(&mut f.has_help, true),
            Word::Unit => f.unit.replace(text.to_owned()).is_some(),
        };
        if again {
            return Err("a family has one TYPE, HELP and UNIT at most");
        }
        if word == Word::Type {
            f.kind = kind(text).ok_or("not a type")?;
        }
        f.unit_fits()
    }

    pub(crate) fn sample(&mut self, labels: &Pairs, line: &Line<'_>) -> Result<(), &'static str> {
        let name = labels.iter().find(|(n, _)| n == METRIC_NAME).map_or("", |(_, v)| v.as_str());
        let suffix = self.family.as_ref().and_then(|f| {
            let suffix = name.strip_prefix(f.name.as_str())?;
            f.suffixes().contains(&suffix).then(|| suffix.to_owned())
        });
        let suffix = match suffix {
            Some(s) => s,
            None => {
                self.finish()?;
                self.family = Some(Family::new(name.to_owned()));
                String::new()
            }
        };
        let Some(f) = &mut self.family else { return Ok(()) };
        f.has_samples = true;
        f.sample(&suffix, labels, line)
    }

    /// Ends the family: what it should have had must be there by now.
    pub(crate) fn finish(&mut self) -> Result<(), &'static str> {
        let Some(mut f) = self.family.take() else { return Ok(()) };
        f.end_group()?;
        // Its own name too, so that no other family is called so.
        let mut names: Vec<String> = f.suffixes().iter().map(|s| format!("{}{s}", f.name)).collect();
        names.push(f.name);
        names.sort();
        names.dedup();
        if names.iter().any(|n| self.taken.contains(n)) {
            return Err("a family stands twice, or its samples' names are another's");
        }
        self.taken.extend(names);
        Ok(())
    }
}

impl Family {
    fn sample(&mut self, suffix: &str, labels: &Pairs, line: &Line<'_>) -> Result<(), &'static str> {
        let own = match (self.kind, suffix) {
            (MetricKind::Histogram | MetricKind::GaugeHistogram, "_bucket") => Some("le"),
            (MetricKind::Summary, "") => Some("quantile"),
            (MetricKind::StateSet, _) => Some(self.name.as_str()),
            _ => None,
        };
        let own = match own {
            None => None,
            Some(own) => {
                Some(labels.iter().find(|(n, _)| n == own).ok_or("a label is missing that this type needs")?)
            }
        };
        let may_have_example = matches!(
            (self.kind, suffix),
            (MetricKind::Counter, "_total") | (MetricKind::Histogram | MetricKind::GaugeHistogram, "_bucket")
        );
        if line.example.is_some() && !may_have_example {
            return Err("only counters and buckets have exemplars");
        }
        let mut group: Vec<(String, String)> = labels
            .iter()
            .filter(|l| l.0 != METRIC_NAME && own.is_none_or(|own| own.0 != l.0) && !l.1.is_empty())
            .cloned()
            .collect();
        group.sort();
        if self.group.as_ref().is_some_and(|g| g.labels != group) {
            self.end_group()?;
        }
        if self.group.is_none() && self.groups.contains(&group) {
            return Err("the samples of a metric stand together");
        }
        let group = self.group.get_or_insert_with(|| Group {
            labels: group,
            timestamp: line.timestamp,
            seen: HashSet::new(),
            points: Points::default(),
        });
        match (group.timestamp, line.timestamp) {
            (None, None) => {
                let mut all = labels.to_vec();
                all.sort();
                if !group.seen.insert(all) {
                    return Err("a sample stands twice");
                }
            }
            (Some(before), Some(now)) if now >= before => {
                if now > before {
                    std::mem::take(&mut group.points).finish(self.kind)?;
                }
                group.timestamp = Some(now);
            }
            (Some(_), Some(_)) => return Err("the timestamps of a metric go back"),
            _ => return Err("some samples of a metric have timestamps, some have not"),
        }
        group.points.take(self.kind, suffix, own.map(|(_, v)| v.as_str()), line.value)
    }

    fn end_group(&mut self) -> Result<(), &'static str> {
        let Some(g) = self.group.take() else { return Ok(()) };
        g.points.finish(self.kind)?;
        self.groups.insert(g.labels);
        Ok(())
    }
}

impl Points {
    fn take(
        &mut self,
        kind: MetricKind,
        suffix: &str,
        own: Option<&str>,
        value: f64,
    ) -> Result<(), &'static str> {
        let count = || {
            if value.is_nan() || value < 0.0 { Err("a count is not negative, nor NaN") } else { Ok(value) }
        };
        match (kind, suffix) {
            (MetricKind::Counter, "_total") => drop(count()?),
            (MetricKind::Info, _) if value != 1.0 => return Err("an info's value is 1"),
            (MetricKind::StateSet, _) if value != 0.0 && value != 1.0 => {
                return Err("a state's value is 0 or 1");
            }
            (MetricKind::Summary, "") => {
                let q = own.and_then(number).ok_or("a quantile is a number")?;
                if !(0.0..=1.0).contains(&q) {
                    return Err("a quantile is from 0 to 1");
                }
                if value < 0.0 {
                    return Err("a quantile's value is not negative");
                }
            }
            (MetricKind::Summary | MetricKind::Histogram, "_sum") => self.sum = Some(count()?),
            (MetricKind::GaugeHistogram, "_gsum") => {
                if value.is_nan() {
                    return Err("a sum is not NaN");
                }
                self.sum = Some(value);
            }
            (_, "_count" | "_gcount") => self.count = Some(count()?),
            (MetricKind::Histogram | MetricKind::GaugeHistogram, "_bucket") => {
                let le = own.unwrap_or_default();
                let bound = match le {
                    "+Inf" => f64::INFINITY,
                    _ => {
                        number(le).filter(|b| b.is_finite()).ok_or("a bucket's bound is a number or +Inf")?
                    }
                };
                if self.bound.is_some_and(|b| b >= bound) {
                    return Err("buckets are ordered by their bounds");
                }
                if self.bucket.is_some_and(|b| b > value) {
                    return Err("a bucket holds no less than the one before it");
                }
                self.bound = Some(bound);
                self.bucket = Some(count()?);
                self.negative |= bound < 0.0;
                if bound == f64::INFINITY {
                    self.all = Some(value);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(self, kind: MetricKind) -> Result<(), &'static str> {
        let is_gauge = kind == MetricKind::GaugeHistogram;
        if !is_gauge && kind != MetricKind::Histogram {
            return Ok(());
        }
        let said = self.bucket.or(self.count).or(self.sum).is_some();
        if said && self.all.is_none() {
            return Err("a histogram has a bucket up to +Inf");
        }
        if self.count.is_some() && self.count != self.all {
            return Err("a histogram's count is that of its last bucket");
        }
        // A histogram with negative observations has no sum, which would not be a counter.
        if self.negative && !is_gauge {
            return match self.sum {
                Some(_) => Err("a histogram with negative buckets has no sum"),
                None => Ok(()),
            };
        }
        if self.sum.is_some() != self.count.is_some() {
            return Err("a histogram has both sum and count, or neither");
        }
        if self.sum.is_some_and(|s| s < 0.0) && !self.negative {
            return Err("a sum is negative though no bucket is");
        }
        Ok(())
    }
}
