//! Small partitions become larger ones: fewer files to ask, longer runs of one stream to pack, fewer dictionaries.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::block::Block;
use crate::config::Config;
use crate::db::LogIndex;
use crate::error::Error;
use crate::partition::{BLOCK_BYTES, Index, Meta, Partition, VERSION, Writer, temporary};

/// What is smaller than this counts as this large.
const LEAST: u64 = 1 << 20;

/// Which partitions to merge next: as many as the fan, of one order of size, that came in one after the other. Each record
/// is so rewritten about once for each order of size between a flush and the largest partition. None is ever made of what
/// came before and after another, so that records of one time keep their order. Gives positions in `all`.
fn plan(all: &[&Meta], config: &Config) -> Option<Vec<usize>> {
    let fan = config.merge_fan.max(2);
    let order = |m: &Meta| m.raw_bytes.max(LEAST).ilog(fan as u64);
    let mut as_they_came: Vec<usize> = (0..all.len()).collect();
    as_they_came.sort_by_key(|i| all.get(*i).map(|m| m.came()));
    let span = i64::try_from(config.merged_span.as_nanos()).unwrap_or(i64::MAX);
    as_they_came
        .windows(fan)
        .find(|w| {
            let metas: Vec<&Meta> = w.iter().filter_map(|i| all.get(*i).copied()).collect();
            let bytes: u64 = metas.iter().map(|m| m.raw_bytes).sum();
            let (min, max) = (metas.iter().map(|m| m.min).min(), metas.iter().map(|m| m.max).max());
            let time = max.unwrap_or(0).saturating_sub(min.unwrap_or(0));
            let like = metas.windows(2).all(|p| matches!(p, [a, b] if order(a) == order(b)));
            like && bytes <= config.merged_bytes && time <= span
        })
        .map(<[usize]>::to_vec)
}

/// Rows to leave out, by partition and block.
pub(crate) type Gone = HashMap<(usize, usize), Vec<bool>>;

/// Writes the records of `parts` that are not older than `oldest` nor gone to one new partition. `None` if none is left.
/// Whole blocks are taken over as they are where their records need not be mixed with others.
pub(crate) fn write(
    parts: &[Arc<Partition>],
    config: &Config,
    seq: u64,
    oldest: i64,
    gone: &Gone,
) -> Result<Option<Partition>, Error> {
    let mut indexes: Vec<Arc<Index>> = Vec::with_capacity(parts.len());
    for p in parts {
        indexes.push(p.index()?);
    }
    let meta = Meta {
        seq,
        log_before: parts.iter().map(|p| p.meta.log_before).max().unwrap_or(0),
        // With what they were made of: a deletion may come to the disk later than the next merge.
        merged: parts.iter().flat_map(|p| p.meta.merged.iter().copied().chain([p.meta.seq])).collect(),
        ..Meta::default()
    };
    let mut writer = Writer::create(&config.dir, config.kind, meta)?;
    let whole = gone.is_empty() && parts.iter().all(|p| p.meta.min >= oldest);
    writer.take_over(parts, whole)?;
    // A merge may have as many streams as blocks.
    let of_streams: Vec<Vec<Vec<usize>>> = indexes.iter().map(|i| i.blocks_of_streams()).collect();
    // Streams by labels, then resource; of each the places in the parts that have it.
    let mut streams: Vec<(usize, usize)> = Vec::new();
    for (p, index) in indexes.iter().enumerate() {
        streams.extend((0..index.streams.len()).map(|s| (p, s)));
    }
    let of = |(p, s): (usize, usize)| indexes.get(p).and_then(|i| i.streams.get(s));
    let key = |at| of(at).map(|(labels, resource)| (labels, format!("{resource:?}")));
    streams.sort_by_cached_key(|at| key(*at));
    for same in streams.chunk_by(|a, b| of(*a) == of(*b)) {
        let Some((labels, resource)) = same.first().and_then(|at| of(*at)) else { continue };
        // Blocks in order of their first record.
        let mut blocks = Vec::new();
        for (p, s) in same {
            let Some(index) = indexes.get(*p) else { continue };
            let own = of_streams.get(*p).and_then(|all| all.get(*s)).into_iter().flatten();
            blocks.extend(own.filter_map(|i| Some((*p, *i, index.blocks.get(*i)?))));
        }
        blocks.sort_by_key(|(p, _, b)| (b.min, *p));
        let bytes = blocks.iter().map(|(_, _, b)| b.raw_len as usize).sum();
        writer.stream(labels, resource, bytes, same)?;
        // A record is written once no later block can come before it.
        let mut open: Vec<(i64, usize, Rc<Block>, usize)> = Vec::new();
        let mut scratch = Vec::new();
        let mut write =
            |writer: &mut Writer, rows: &mut dyn Iterator<Item = (i64, usize, Rc<Block>, usize)>| {
                for (time, _, block, row) in rows {
                    scratch.clear();
                    block.encode_row(config.kind, row, &mut scratch)?;
                    writer.push(time, &scratch)?;
                }
                Ok::<(), Error>(())
            };
        // Records of one time stand in order of their parts.
        let mut before = (i64::MIN, 0);
        for (at, (p, i, b)) in blocks.iter().enumerate() {
            let done = open.partition_point(|(t, ..)| *t < b.min);
            write(&mut writer, &mut open.drain(..done))?;
            let Some(part) = parts.get(*p) else { continue };
            let after = blocks.get(at + 1).map_or((i64::MAX, usize::MAX), |(p, _, b)| (b.min, *p));
            let alone = before <= (b.min, *p) && (b.max, *p) <= after;
            // A stream's only block finds nothing to become larger with.
            let large = blocks.len() == 1 || parts.len() == 1 || b.raw_len as usize >= BLOCK_BYTES / 2;
            before = before.max((b.max, *p));
            let dropped = gone.get(&(*p, *i));
            if alone
                && large
                && part.version == VERSION
                && b.min >= oldest
                && dropped.is_none()
                && writer.may_copy()
            {
                write(&mut writer, &mut open.drain(..))?;
                writer.copy(*p, *i)?;
                continue;
            }
            let block = Rc::new(part.block(b)?);
            for (row, time) in block.times()?.iter().enumerate() {
                if *time >= oldest && dropped.and_then(|d| d.get(row)) != Some(&true) {
                    open.push((*time, *p, block.clone(), row));
                }
            }
            // Stable, and parts stand in the order they were written in: records of one time keep their order.
            open.sort_by_key(|(t, p, ..)| (*t, *p));
        }
        write(&mut writer, &mut open.drain(..))?;
    }
    let path = writer.finish()?;
    path.map(|p| Partition::open(p, config.kind)).transpose()
}

impl LogIndex {
    /// Merges partitions until none ought to be merged. Queries go on; parts that fail are left as they are, for good.
    pub fn merge(&self) -> Result<(), Error> {
        let _one = self.rewriting.lock();
        loop {
            let all: Vec<Arc<Partition>> =
                self.state.read().partitions.iter().filter(|p| !p.is_merging()).cloned().collect();
            let metas: Vec<&Meta> = all.iter().map(|p| &p.meta).collect();
            let Some(chosen) = plan(&metas, &self.config) else { return Ok(()) };
            let mut parts: Vec<Arc<Partition>> = chosen.iter().filter_map(|i| all.get(*i).cloned()).collect();
            parts.sort_by_key(|p| p.meta.came());
            parts.iter().for_each(|p| p.set_merging(true));
            let oldest = self.config.clock.now().saturating_sub(self.config.retention).nanos();
            let seq = self.next_seq();
            let merged = write(&parts, &self.config, seq, oldest, &Gone::new()).inspect_err(|_| {
                // The error at hand is the one to tell; what is left here goes at the next start.
                drop(std::fs::remove_file(temporary(&self.config.dir, seq)));
            })?;
            {
                let mut state = self.state.write();
                state.partitions.retain(|p| !parts.iter().any(|q| q.meta.seq == p.meta.seq));
                state.partitions.extend(merged.map(Arc::new));
            }
            for p in parts {
                // Queries that began before still read it through their open file.
                std::fs::remove_file(&p.path).map_err(Error::io(&p.path))?;
            }
        }
    }
}

#[cfg(test)]
mod tests;
