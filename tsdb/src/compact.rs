//! Merging small blocks into larger ones: fewer indexes to ask, longer chunks to compress.

use std::path::Path;
use std::sync::Arc;

use crate::block::{Block, Meta, SeriesData, Writer};
use crate::error::Error;
use crate::head::{Merge, Merged};

/// Blocks of one level whose oldest samples lie in the same span of this many milliseconds become one block.
const SPANS: [i64; 2] = [2 * 3_600_000, 24 * 3_600_000];

/// The next blocks to merge, by number; empty if none. Only spans that no sample can reach any more
/// (`settled_before`) are merged. Pure.
pub(crate) fn plan(blocks: &[Meta], settled_before: i64) -> Vec<u64> {
    for (level, span) in SPANS.into_iter().enumerate() {
        let mut windows: Vec<i64> = blocks.iter().map(|m| m.min.div_euclid(span)).collect();
        windows.sort_unstable();
        windows.dedup();
        for w in windows {
            let group: Vec<&Meta> =
                blocks.iter().filter(|m| m.level <= level as u32 && m.min.div_euclid(span) == w).collect();
            if group.len() >= 2
                && (w + 1) * span <= settled_before
                && group.iter().all(|m| m.max < settled_before)
            {
                return group.iter().map(|m| m.seq).collect();
            }
        }
    }
    Vec::new()
}

/// Merges blocks into a new one. `blocks` are in ascending order of `order`.
pub(crate) fn merge(
    dir: &Path,
    seq: u64,
    blocks: &[Arc<Block>],
) -> Result<Option<std::path::PathBuf>, Error> {
    let meta = Meta {
        seq,
        order: blocks.iter().map(|b| b.meta.order).max().unwrap_or(seq),
        level: blocks.iter().map(|b| b.meta.level).max().unwrap_or(0) + 1,
        sources: blocks.iter().map(|b| b.meta.seq).collect(),
        ..Meta::default()
    };
    let mut writer = Writer::create(dir, meta)?;
    let indexes = blocks.iter().map(|b| b.index()).collect::<Result<Vec<_>, _>>()?;
    let mut at = vec![0usize; blocks.len()];
    loop {
        // Every index is in order of labels: the smallest next one over all of them is the next series.
        let next = indexes.iter().zip(&at).filter_map(|(i, at)| i.series.get(*at)).map(|s| &s.labels).min();
        let Some(labels) = next.cloned() else { break };
        let (mut merged, mut extra) = (Merge::new(), Merged::default());
        for ((block, index), at) in blocks.iter().zip(&indexes).zip(&mut at) {
            if index.series.get(*at).is_some_and(|s| s.labels == labels) {
                block.read(index, *at as u32, i64::MIN, i64::MAX, |s| merged.push(s))?;
                let starts = block.read_extra(index, *at as u32, i64::MIN, i64::MAX, |s| extra.push(s))?;
                extra.push_starts(&starts);
                *at += 1;
            }
        }
        let (histograms, starts) = extra.finish();
        writer.add(&labels, &SeriesData { samples: merged.finish(), histograms, starts })?;
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settled_spans_are_merged() {
        let h = 3_600_000;
        let b = |seq, min, max| Meta { seq, min, max, ..Meta::default() };
        let blocks = [b(1, 0, h), b(2, h, 2 * h - 1), b(3, 2 * h, 3 * h)];
        assert_eq!(plan(&blocks, 2 * h), [1, 2]);
        assert_eq!(plan(&blocks, 2 * h - 1), [] as [u64; 0]);
    }
}
