//! What a search has to read: blocks of the head and of partitions that may hold what it looks for, in order.

use std::sync::Arc;

use memchr::memmem::Finder;
use signal::{Attributes, Labels};

use super::view::Rows;
use super::{BlockView, Direction, Search, parallel};
use crate::block::{Block, Builder, Name};
use crate::codec::{text, trace_of_span};
use crate::config::Kind;
use crate::db::LogIndex;
use crate::error::Error;
use crate::head::{Chunks, Head, Row, data};
use crate::partition::{BlockRef, Index, Partition};
use crate::tokens::{self, Need};

/// Rows of one stream of the head at most in one unit, so that several threads can share them.
const HEAD_ROWS: usize = 16_384;

/// Partitions that are asked at once where to look …
const READERS: usize = 4;
/// … if they take so many bytes; for less, threads are not worth their start.
const LARGE: u64 = 64 << 20;

enum Unit {
    Memory { labels: Labels, resource: Attributes, rows: Vec<Row>, chunks: Arc<Chunks> },
    Disk { partition: usize, block: usize },
}

pub(crate) struct Plan {
    kind: Kind,
    start: i64,
    end: i64,
    needles: Vec<Finder<'static>>,
    any: Vec<Vec<Finder<'static>>>,
    /// A trace's id, and how it stands in text.
    trace: Option<([u8; 16], Finder<'static>)>,
    partitions: Vec<(Arc<Partition>, Arc<Index>)>,
    units: Vec<Placed>,
}

/// A unit and where it stands among the others.
struct Placed {
    /// In nanoseconds.
    near: i64,
    /// In which order units came in, as far as that is known.
    rank: u32,
    unit: Unit,
}

/// What of the index a search is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Everything,
    /// The partition of this number.
    Partition(u64),
}

impl Plan {
    pub(crate) fn new(index: &LogIndex, s: &Search, over: Over) -> Result<Plan, Error> {
        let (start, end) = (s.start.nanos(), s.end.nanos());
        let near = |min: i64, max: i64| if s.direction == Direction::Backward { max } else { min };
        let mut in_memory: Vec<(i64, Unit)> = Vec::new();
        let mut partitions = {
            let state = index.state.read();
            let heads: [Option<&Head>; 2] = [state.frozen.as_deref(), Some(&state.head)];
            for head in heads.into_iter().flatten().filter(|_| over == Over::Everything) {
                let mut chunks = None;
                for stream in &head.streams {
                    if stream.max < start || stream.min >= end || !s.fits(&stream.labels) {
                        continue;
                    }
                    let rows: Vec<Row> =
                        stream.rows.iter().filter(|r| r.time >= start && r.time < end).copied().collect();
                    let chunks = chunks.get_or_insert_with(|| Arc::new(head.chunks.clone()));
                    in_memory.extend(rows.chunks(HEAD_ROWS).map(|rows| {
                        let min = rows.iter().map(|r| r.time).min().unwrap_or(0);
                        let max = rows.iter().map(|r| r.time).max().unwrap_or(0);
                        let unit = Unit::Memory {
                            labels: stream.labels.clone(),
                            resource: stream.resource.clone(),
                            rows: rows.to_vec(),
                            chunks: chunks.clone(),
                        };
                        (near(min, max), unit)
                    }));
                }
            }
            state.partitions.clone()
        };
        // Merged ones stand behind what was flushed after their records.
        partitions.sort_by_key(|p| p.meta.came());
        let mut on_disk: Vec<(i64, Unit)> = Vec::new();
        let mut plan = Plan {
            kind: index.config.kind,
            start,
            end,
            needles: s.needles.iter().map(|n| Finder::new(n).into_owned()).collect(),
            any: s.any.iter().map(|a| a.iter().map(|n| Finder::new(n).into_owned()).collect()).collect(),
            trace: s.trace_id.map(|t| (t.0, Finder::new(&t.to_string()).into_owned())),
            partitions: Vec::new(),
            units: Vec::new(),
        };
        let id = s.trace_id.map(|t| tokens::hash(t.to_string().as_bytes()));
        // Each list of alternatives, and every needle as a list of one.
        let mut needs: Vec<Vec<Vec<Need>>> = s.needles.iter().map(|n| vec![tokens::needs(n)]).collect();
        // The index knows small letters only.
        needs.extend(s.any.iter().chain(&s.folded).map(|a| a.iter().map(|n| tokens::needs(n)).collect()));
        let asked = |p: &Partition| over == Over::Everything || over == Over::Partition(p.meta.seq);
        let partitions: Vec<Arc<Partition>> =
            partitions.into_iter().filter(|p| asked(p) && p.meta.max >= start && p.meta.min < end).collect();
        // What says where to look is read from the disk: several partitions at a time wait less than one after another.
        let reads = !needs.is_empty() || id.is_some();
        let large = partitions.iter().map(|p| p.bytes).sum::<u64>() >= LARGE;
        let threads = if reads && large { READERS } else { 1 };
        let blocks = parallel::all(partitions.len(), threads, |i| {
            partitions.get(i).map(|p| Self::blocks(index, s, p, &needs, id))
        });
        for (partition, found) in partitions.into_iter().zip(blocks) {
            let found = found.expect("each partition was asked");
            // A deletion must know all that there is.
            let (index, may) = match over {
                Over::Everything => match index.sound(&s.progress, found)? {
                    Some(found) => found,
                    None => continue,
                },
                Over::Partition(_) => found?,
            };
            let at = plan.partitions.len();
            let wanted = index.blocks.iter().zip(may).enumerate().filter(|(_, (_, may))| *may);
            on_disk.extend(
                wanted.map(|(block, (b, _))| (near(b.min, b.max), Unit::Disk { partition: at, block })),
            );
            plan.partitions.push((partition, index));
        }
        let all = on_disk.into_iter().chain(in_memory).zip(0..);
        plan.units = all.map(|((near, unit), rank)| Placed { near, rank, unit }).collect();
        match s.direction {
            Direction::Backward => plan.units.sort_by_key(|u| std::cmp::Reverse((u.near, u.rank))),
            Direction::Forward => plan.units.sort_by_key(|u| (u.near, u.rank)),
        }
        Ok(plan)
    }

    /// Which blocks of a partition may have what is looked for.
    fn blocks(
        index: &LogIndex,
        s: &Search,
        partition: &Partition,
        needs: &[Vec<Vec<Need>>],
        id: Option<u64>,
    ) -> Result<(Arc<Index>, Vec<bool>), Error> {
        let (start, end) = (s.start.nanos(), s.end.nanos());
        let blocks = partition.index()?;
        let streams: Vec<bool> = blocks.streams.iter().map(|(l, _)| s.fits(l)).collect();
        let mut may: Vec<bool> = blocks
            .blocks
            .iter()
            .map(|b| b.max >= start && b.min < end && streams.get(b.stream as usize) == Some(&true))
            .collect();
        // What only says where to look is not needed: without it more blocks are read.
        match (&s.trace_id, &blocks.traces) {
            (Some(id), Some(traces)) => {
                if let Some(entry) = index.help(traces.get(partition, &id.0))? {
                    let of_trace = entry.map_or(Vec::new(), |e| e.blocks);
                    let has = |b: usize| of_trace.binary_search(&(b as u32)).is_ok();
                    may.iter_mut().enumerate().for_each(|(b, may)| *may &= has(b));
                }
            }
            _ => drop(index.help(partition.prune(&blocks, &[], id, &mut may))?),
        }
        for alternatives in needs {
            index.help(partition.prune(&blocks, alternatives, None, &mut may))?;
        }
        Ok((blocks, may))
    }

    pub(crate) fn len(&self) -> usize {
        self.units.len()
    }

    /// The near end of a unit.
    pub(crate) fn near(&self, unit: usize) -> Option<i64> {
        self.units.get(unit).map(|u| u.near)
    }

    /// Of records with one time those of a lower rank came first.
    pub(crate) fn rank(&self, unit: usize) -> u32 {
        self.units.get(unit).map_or(0, |u| u.rank)
    }

    fn unit(&self, unit: usize) -> Option<&Unit> {
        self.units.get(unit).map(|u| &u.unit)
    }

    /// Of the records of a unit, before compression.
    pub(crate) fn bytes(&self, unit: usize) -> u64 {
        match self.unit(unit) {
            Some(Unit::Disk { partition, block }) => {
                let index = self.partitions.get(*partition).map(|(_, index)| index);
                index.and_then(|i| i.blocks.get(*block)).map_or(0, |b| u64::from(b.raw_len))
            }
            Some(Unit::Memory { rows, .. }) => rows.iter().map(Row::bytes).sum(),
            None => 0,
        }
    }

    /// Which block of its partition a unit is; `None` for those of the head.
    pub(crate) fn block(&self, unit: usize) -> Option<usize> {
        match self.unit(unit)? {
            Unit::Disk { block, .. } => Some(*block),
            Unit::Memory { .. } => None,
        }
    }

    /// The rows of a unit that the search's conditions hold for.
    pub(crate) fn view(&self, unit: usize) -> Result<BlockView<'_>, Error> {
        match self.unit(unit).expect("asked for the units there are") {
            Unit::Memory { labels, resource, rows, chunks } => {
                let mut builder = Builder::new(self.kind);
                let mut rows: Vec<&Row> = rows.iter().filter(|r| self.may_hold(data(chunks, r))).collect();
                // In order of time, as in a partition.
                rows.sort_by_key(|r| r.time);
                for r in rows {
                    // What is in the head was encoded here or checked when the log was read.
                    let _ = builder.push(r.time, data(chunks, r));
                }
                let rows = Rows::Range(0, builder.count() as u32);
                let block = builder.into_block();
                let rows = self.of_trace(&block, rows)?;
                BlockView::new(labels, resource, block, rows)
            }
            Unit::Disk { partition, block } => {
                let (p, index) = self.partitions.get(*partition).expect("units are of partitions there are");
                let b = index.blocks.get(*block).expect("units are of blocks there are");
                let (labels, resource) =
                    index.streams.get(b.stream as usize).ok_or_else(|| p.damaged("streams"))?;
                let block = p.block(b)?;
                let rows = self.rows(&block, b)?;
                BlockView::new(labels, resource, block, rows)
            }
        }
    }

    fn may_hold(&self, record: &[u8]) -> bool {
        if self.kind == Kind::Spans
            && let Some((id, _)) = &self.trace
            && trace_of_span(record) != Some(*id)
        {
            return false;
        }
        if self.needles.is_empty() && self.any.is_empty() {
            return true;
        }
        let body = text(record);
        self.needles.iter().all(|n| n.find(body).is_some())
            && self.any.iter().all(|a| a.iter().any(|n| n.find(body).is_some()))
    }

    fn rows(&self, block: &Block, b: &BlockRef) -> Result<Rows, Error> {
        let mut rows = if b.min >= self.start && b.max < self.end {
            Rows::Range(0, b.count)
        } else {
            let times = block.times()?;
            let from = times.partition_point(|t| *t < self.start);
            let to = times.partition_point(|t| *t < self.end);
            Rows::Range(from as u32, to.max(from) as u32)
        };
        if !self.needles.is_empty() || !self.any.is_empty() {
            for n in &self.needles {
                rows = rows.and(block.with_text(n)?);
                if rows.len() == 0 {
                    return Ok(rows);
                }
            }
            for a in &self.any {
                let mut some: Vec<u32> = Vec::new();
                for n in a {
                    some.extend(block.with_text(n)?);
                }
                some.sort_unstable();
                some.dedup();
                rows = rows.and(some);
            }
        }
        self.of_trace(block, rows)
    }

    fn of_trace(&self, block: &Block, rows: Rows) -> Result<Rows, Error> {
        let Some((id, hex)) = &self.trace else { return Ok(rows) };
        let mut some: Vec<u32> = match self.kind {
            Kind::Logs => block.with_text(hex)?,
            Kind::Spans => Vec::new(),
        };
        if let Some(c) = block.column(&Name::TraceId)? {
            some.extend((0..block.count()).filter(|r| c.wide(*r) == Some(*id)).map(|r| r as u32));
        }
        some.sort_unstable();
        some.dedup();
        Ok(rows.and(some))
    }
}
