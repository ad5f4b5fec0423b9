//! The read path: which series, then their samples from blocks, the head being flushed, and the head.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use signal::{Labels, Sample, Select, SeriesColumns, SeriesIter, SeriesSource, SourceError};

use crate::block::{Block, Index};
use crate::db::Tsdb;
use crate::head::{Head, Merge, Run};

/// Where a series' samples lie. Blocks first, oldest order first; what stands later wins.
#[derive(Default)]
struct Parts {
    blocks: Vec<(Arc<Block>, Arc<Index>, u32)>,
    heads: Vec<(Vec<Run>, Vec<Sample>)>,
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
}

fn add_head(head: &Head, select: &Select, out: &mut BTreeMap<Labels, Parts>) {
    if head.range.is_none_or(|(min, max)| max < select.start || min > select.end) {
        return;
    }
    for id in head.postings.select(&select.matchers) {
        let Some(series) = head.series.get(id as usize) else { continue };
        let (runs, late) = series.read(select.start, select.end);
        if !runs.is_empty() || !late.is_empty() {
            out.entry(series.labels.clone()).or_default().heads.push((runs, late));
        }
    }
}

impl Tsdb {
    fn parts(&self, select: &Select) -> Result<BTreeMap<Labels, Parts>, SourceError> {
        let mut out: BTreeMap<Labels, Parts> = BTreeMap::new();
        let blocks = {
            let state = self.state.read();
            if let Some(frozen) = &state.frozen {
                add_head(frozen, select, &mut out);
            }
            add_head(&state.head, select, &mut out);
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
            let samples = match parts.read(start, end) {
                Ok(s) if s.is_empty() => return None,
                Ok(s) => s,
                Err(e) => return Some(Err(e)),
            };
            let (timestamps, values) = samples.into_iter().map(|s| (s.timestamp, s.value)).unzip();
            Some(Ok(SeriesColumns { labels, timestamps, values }))
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
