//! Series in memory: the source of test scripts, and of anyone who wants PromQL over a few series.

use std::collections::{BTreeMap, BTreeSet};

use signal::{Labels, Select, SeriesColumns, SeriesIter, SeriesSource, SourceError};

#[derive(Clone, Debug, Default)]
pub struct MemorySeries {
    series: BTreeMap<Labels, (Vec<i64>, Vec<f64>)>,
}

/// A series, the samples wanted of it, and all of them.
type Found<'a> = (&'a Labels, std::ops::Range<usize>, &'a (Vec<i64>, Vec<f64>));

impl MemorySeries {
    /// Adds a sample; of two of the same time the last stays.
    pub fn push(&mut self, labels: &Labels, timestamp: i64, value: f64) {
        let s = self.series.entry(labels.clone()).or_default();
        if s.0.last().is_none_or(|t| *t < timestamp) {
            s.0.push(timestamp);
            s.1.push(value);
            return;
        }
        match s.0.binary_search(&timestamp) {
            Ok(at) => s.1[at] = value,
            Err(at) => {
                s.0.insert(at, timestamp);
                s.1.insert(at, value);
            }
        }
    }

    fn matching<'a>(&'a self, select: &Select) -> impl Iterator<Item = Found<'a>> + use<'a> {
        let select = select.clone();
        self.series.iter().filter_map(move |(l, s)| {
            let fits = select.matchers.iter().all(|m| m.matches(l.get(&m.name).unwrap_or("")));
            let lo = s.0.partition_point(|t| *t < select.start);
            let hi = s.0.partition_point(|t| *t <= select.end);
            (fits && lo < hi).then_some((l, lo..hi, s))
        })
    }
}

impl SeriesSource for MemorySeries {
    fn select<'a>(&'a self, select: &Select) -> Result<SeriesIter<'a>, SourceError> {
        Ok(Box::new(self.matching(select).map(|(labels, range, (t, v))| {
            Ok(SeriesColumns {
                labels: labels.clone(),
                timestamps: t[range.clone()].to_vec(),
                values: v[range].to_vec(),
            })
        })))
    }

    fn series(&self, select: &Select) -> Result<Vec<Labels>, SourceError> {
        Ok(self.matching(select).map(|(l, _, _)| l.clone()).collect())
    }

    fn label_names(&self, select: &Select) -> Result<Vec<String>, SourceError> {
        let names: BTreeSet<&str> =
            self.matching(select).flat_map(|(l, _, _)| l.iter().map(|(n, _)| n)).collect();
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    fn label_values(&self, name: &str, select: &Select) -> Result<Vec<String>, SourceError> {
        let values: BTreeSet<&str> = self.matching(select).filter_map(|(l, _, _)| l.get(name)).collect();
        Ok(values.into_iter().map(str::to_owned).collect())
    }
}
