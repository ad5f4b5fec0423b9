//! Merging small blocks into larger ones: fewer indexes to ask, longer chunks to compress.

use std::path::Path;
use std::sync::Arc;

use signal::Labels;

use crate::block::{Block, Meta, Reader, SeriesData, Writer};
use crate::error::Error;
use crate::merge::Extras;
use crate::tombstones::Tombstones;

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

/// Merges blocks into a new one, without what was deleted in them. `blocks` are in ascending order of `order`.
pub(crate) fn merge(
    dir: &Path,
    seq: u64,
    blocks: &[Arc<Block>],
    tombstones: &Tombstones,
) -> Result<Option<std::path::PathBuf>, Error> {
    let meta = Meta {
        seq,
        order: blocks.iter().map(|b| b.meta.order).max().unwrap_or(seq),
        level: blocks.iter().map(|b| b.meta.level).max().unwrap_or(0) + 1,
        sources: blocks.iter().map(|b| b.meta.seq).collect(),
        ..Meta::default()
    };
    let mut writer = Writer::create(dir, meta)?;
    let mut readers = blocks.iter().cloned().map(Reader::new).collect::<Result<Vec<_>, _>>()?;
    // The next series of each block.
    let mut next: Vec<(u32, Option<Labels>)> = Vec::new();
    let mut deleted = Vec::new();
    for reader in &mut readers {
        next.push((0, label_of(reader, 0)?));
        deleted.push(tombstones.in_block(&reader.block.meta, &reader.index)?);
    }
    let mut data = SeriesData::default();
    // Every block is in order of labels: the smallest next one over all of them is the next series.
    while let Some(labels) = next.iter().filter_map(|(_, l)| l.as_ref()).min().cloned() {
        data.columns.clear();
        let mut extras = Extras::default();
        for ((reader, (at, found)), deleted) in readers.iter_mut().zip(&mut next).zip(&deleted) {
            if found.as_ref() == Some(&labels) {
                let gone = deleted.as_ref().and_then(|d| d.of(*at));
                reader.read_kept(*at, (i64::MIN, i64::MAX), gone.as_ref(), &mut data.columns, &mut extras)?;
                *at += 1;
                *found = label_of(reader, *at)?;
            }
        }
        data.columns.settle();
        (data.histograms, data.starts) = extras.finish();
        writer.add(&labels, &data)?;
    }
    writer.finish()
}

fn label_of(reader: &mut Reader, series: u32) -> Result<Option<Labels>, Error> {
    if series < reader.index.series() { reader.labels(series).map(Some) } else { Ok(None) }
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
