//! The read path: which series, then their samples from blocks, the head being flushed, and the head.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use signal::{HistogramSample, Labels, Sample, Select, SeriesColumns, SeriesIter, SeriesSource, SourceError};

use crate::block::{Block, Index};
use crate::db::Tsdb;
use crate::head::{Data, HistogramRun, Merge, Merged, Run, starts_of};

/// Where a series' samples lie. Blocks first, oldest order first; what stands later wins.
#[derive(Default)]
struct Parts {
    blocks: Vec<(Arc<Block>, Arc<Index>, u32)>,
    heads: Vec<(Vec<Run>, Vec<Sample>)>,
    extras: Vec<HeadExtra>,
}

/// Histograms and start times of a series in a head.
struct HeadExtra {
    runs: Vec<HistogramRun>,
    late: Vec<HistogramSample>,
    starts: Vec<(i64, i64)>,
}

impl Parts {
    fn read(&self, start: i64, end: i64) -> Result<Vec<Sample>, SourceError> {
        let mut merge = Merge::new();
        for (block, index, id) in &self.blocks {
            block.read(index, *id, start, end, |s| merge.push(s))?;
        }
        for (runs, late) in &self.heads {
            for run in runs {
                run.decode(|s| {
                    if (start..=end).contains(&s.timestamp) {
                        merge.push(s);
                    }
                });
            }
            late.iter().for_each(|s| merge.push(*s));
        }
        Ok(merge.finish())
    }

    fn read_extra(&self, start: i64, end: i64) -> Result<Merged, SourceError> {
        let mut merged = Merged::default();
        for (block, index, id) in &self.blocks {
            let starts = block.read_extra(index, *id, start, end, |s| merged.push(s))?;
            merged.push_starts(&starts);
        }
        for extra in &self.extras {
            for run in &extra.runs {
                run.decode(|s| {
                    if (start..=end).contains(&s.timestamp) {
                        merged.push(s);
                    }
                });
            }
            extra.late.iter().for_each(|s| merged.push(s.clone()));
            merged.push_starts(&extra.starts);
        }
        Ok(merged)
    }
}

fn add_head(labels: &Labels, data: &Data, select: &Select, out: &mut BTreeMap<Labels, Parts>) {
    let (runs, late) = data.read(select.start, select.end);
    let extra = data.extra_ref().map(|e| {
        let (runs, late) = e.read(select.start, select.end);
        HeadExtra { runs, late, starts: e.starts().to_vec() }
    });
    let histograms = extra.as_ref().is_some_and(|e| !e.runs.is_empty() || !e.late.is_empty());
    if !runs.is_empty() || !late.is_empty() || histograms {
        let parts = out.entry(labels.clone()).or_default();
        parts.heads.push((runs, late));
        parts.extras.extend(extra);
    }
}

impl Tsdb {
    fn parts(&self, select: &Select) -> Result<BTreeMap<Labels, Parts>, SourceError> {
        let mut out: BTreeMap<Labels, Parts> = BTreeMap::new();
        let blocks = {
            let state = self.state.read();
            let inside = |range: Option<(i64, i64)>| {
                range.is_some_and(|(min, max)| max >= select.start && min <= select.end)
            };
            let frozen = state.frozen.as_ref().filter(|f| inside(f.range));
            let head = Some(&state.head).filter(|h| inside(h.range));
            if frozen.is_some() || head.is_some() {
                for id in state.head.postings.select(&select.matchers) {
                    if let Some(s) = frozen.and_then(|f| f.get(id)) {
                        add_head(&s.labels, &s.data, select, &mut out);
                    }
                    if let Some(s) = head.and_then(|h| h.series.get(id as usize)) {
                        add_head(&s.labels, &s.data, select, &mut out);
                    }
                }
            }
            state.blocks.clone()
        };
        // The block list was taken together with the heads, so a flush that ends now is seen once, not twice or never.
        for block in blocks {
            if block.meta.max < select.start || block.meta.min > select.end {
                continue;
            }
            let index = block.index()?;
            for id in index.postings.select(&select.matchers) {
                if index.overlaps(id, select.start, select.end)
                    && let Some(entry) = index.series.get(id as usize)
                {
                    out.entry(entry.labels.clone()).or_default().blocks.push((
                        block.clone(),
                        index.clone(),
                        id,
                    ));
                }
            }
        }
        Ok(out)
    }

    /// Everything that matches, series by series: the door for SQL.
    pub fn scan(&self, select: &Select) -> Result<SeriesIter<'_>, SourceError> {
        self.select(select)
    }
}

impl SeriesSource for Tsdb {
    fn select<'a>(&'a self, select: &Select) -> Result<SeriesIter<'a>, SourceError> {
        let (start, end) = (select.start, select.end);
        Ok(Box::new(self.parts(select)?.into_iter().filter_map(move |(labels, parts)| {
            let read = parts.read(start, end).and_then(|s| Ok((s, parts.read_extra(start, end)?)));
            let (samples, extra) = match read {
                Ok(read) => read,
                Err(e) => return Some(Err(e)),
            };
            let (histograms, starts) = extra.finish();
            if samples.is_empty() && histograms.is_empty() {
                return None;
            }
            let (timestamps, values): (Vec<i64>, Vec<f64>) =
                samples.into_iter().map(|s| (s.timestamp, s.value)).unzip();
            let starts = starts_of(&timestamps, &starts);
            Some(Ok(SeriesColumns { labels, timestamps, values, starts, histograms }))
        })))
    }

    fn series(&self, select: &Select) -> Result<Vec<Labels>, SourceError> {
        Ok(self.parts(select)?.into_keys().collect())
    }

    fn label_names(&self, select: &Select) -> Result<Vec<String>, SourceError> {
        let mut names: BTreeSet<String> = BTreeSet::new();
        for labels in self.parts(select)?.keys() {
            for (n, _) in labels {
                if !names.contains(n) {
                    names.insert(n.to_owned());
                }
            }
        }
        Ok(names.into_iter().collect())
    }

    fn label_values(&self, name: &str, select: &Select) -> Result<Vec<String>, SourceError> {
        let mut values: BTreeSet<String> = BTreeSet::new();
        for labels in self.parts(select)?.keys() {
            if let Some(v) = labels.get(name)
                && !values.contains(v)
            {
                values.insert(v.to_owned());
            }
        }
        Ok(values.into_iter().collect())
    }
}
