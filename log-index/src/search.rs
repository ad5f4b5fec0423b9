//! Searching: which streams, which blocks, then each record itself.

use std::ops::ControlFlow;
use std::sync::Arc;

use signal::{Attributes, Labels, LogRecord, Matcher, Timestamp, TraceId};

use crate::codec::{decode_log, text};
use crate::db::LogIndex;
use crate::error::Error;
use crate::frame::Row;
use crate::head::Head;
use crate::progress::Progress;
use crate::tokens;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Oldest first.
    Forward,
    #[default]
    Backward,
}

/// What to look for. Everything must hold.
#[derive(Clone, Debug)]
pub struct Search {
    /// On the stream's labels.
    pub matchers: Vec<Matcher>,
    /// Inclusive.
    pub start: Timestamp,
    /// Exclusive.
    pub end: Timestamp,
    pub direction: Direction,
    /// Substrings of the body, case-sensitive.
    pub needles: Vec<String>,
    /// The record's trace id, or its text in the body.
    pub trace_id: Option<TraceId>,
    /// Counts what is read. A search that it ends gives what it has found until then.
    pub progress: Arc<Progress>,
}

impl Search {
    pub fn new(matchers: Vec<Matcher>, start: Timestamp, end: Timestamp) -> Self {
        Search {
            matchers,
            start,
            end,
            direction: Direction::Backward,
            needles: Vec::new(),
            trace_id: None,
            progress: Arc::default(),
        }
    }

    fn fits(&self, labels: &Labels) -> bool {
        self.matchers.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or("")))
    }
}

/// A stream with what is known of it in a time range; counts are those of whole blocks.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamInfo {
    pub labels: Labels,
    pub records: u64,
    pub bytes: u64,
    pub blocks: u64,
}

/// Records that may hold what is searched for, and their stream.
pub(crate) struct Candidates<'a> {
    pub(crate) labels: &'a Labels,
    pub(crate) resource: &'a Attributes,
    pub(crate) rows: &'a [Row],
}

/// A block of rows that is read when its turn comes.
enum Unit {
    Memory { labels: Labels, resource: Attributes, rows: Vec<Row> },
    Disk { partition: usize, block: usize },
}

impl LogIndex {
    /// Calls `each` with every block of rows that may match, ordered by time of the blocks' near end: backward by
    /// their newest record, forward by their oldest. `each` is told the near end of the next block, and may stop.
    pub(crate) fn visit(
        &self,
        s: &Search,
        mut each: impl FnMut(Candidates<'_>, Option<i64>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let (start, end) = (s.start.nanos(), s.end.nanos());
        let mut units: Vec<(i64, Unit)> = Vec::new();
        let near = |min: i64, max: i64| if s.direction == Direction::Backward { max } else { min };
        let partitions = {
            let state = self.state.read();
            let heads: [Option<&Head>; 2] = [state.frozen.as_deref(), Some(&state.head)];
            for stream in heads.into_iter().flatten().flat_map(|h| &h.streams) {
                if stream.max < start || stream.min >= end || !s.fits(&stream.labels) {
                    continue;
                }
                let rows: Vec<Row> = stream
                    .rows
                    .iter()
                    .filter(|r| r.time >= start && r.time < end && may_hold(&r.data, &s.needles))
                    .cloned()
                    .collect();
                if let (Some(min), Some(max)) =
                    (rows.iter().map(|r| r.time).min(), rows.iter().map(|r| r.time).max())
                {
                    let unit = Unit::Memory {
                        labels: stream.labels.clone(),
                        resource: stream.resource.clone(),
                        rows,
                    };
                    units.push((near(min, max), unit));
                }
            }
            state.partitions.clone()
        };
        let id = s.trace_id.map(|t| tokens::hash(t.to_string().as_bytes()));
        let mut indexes = Vec::with_capacity(partitions.len());
        for (p, partition) in partitions.iter().enumerate() {
            indexes.push(None);
            if partition.meta.max < start || partition.meta.min >= end {
                continue;
            }
            let index = partition.index()?;
            let streams: Vec<bool> = index.streams.iter().map(|(l, _)| s.fits(l)).collect();
            if !streams.contains(&true) {
                continue;
            }
            let may = partition.candidates(&index, &s.needles, id)?;
            for (i, b) in index.blocks.iter().enumerate() {
                let wanted = b.max >= start
                    && b.min < end
                    && streams.get(b.stream as usize) == Some(&true)
                    && may.as_ref().is_none_or(|m| m.get(i) == Some(&true));
                if wanted {
                    units.push((near(b.min, b.max), Unit::Disk { partition: p, block: i }));
                }
            }
            if let Some(slot) = indexes.last_mut() {
                *slot = Some(index);
            }
        }
        match s.direction {
            Direction::Backward => units.sort_by_key(|(t, _)| std::cmp::Reverse(*t)),
            Direction::Forward => units.sort_by_key(|(t, _)| *t),
        }
        let nexts: Vec<Option<i64>> = units.iter().skip(1).map(|(t, _)| Some(*t)).chain([None]).collect();
        for ((_, unit), next) in units.into_iter().zip(nexts) {
            if s.progress.ended().is_some() {
                break;
            }
            let flow = match unit {
                Unit::Memory { labels, resource, rows } => {
                    s.progress.read(rows.len() as u64, rows.iter().map(|r| r.data.len() as u64).sum());
                    each(Candidates { labels: &labels, resource: &resource, rows: &rows }, next)
                }
                Unit::Disk { partition, block } => {
                    let (Some(p), Some(Some(index))) = (partitions.get(partition), indexes.get(partition))
                    else {
                        continue;
                    };
                    let Some(b) = index.blocks.get(block) else { continue };
                    let mut rows = p.rows(b)?;
                    s.progress.read(rows.len() as u64, b.raw_bytes());
                    rows.retain(|r| r.time >= start && r.time < end && may_hold(&r.data, &s.needles));
                    match index.streams.get(b.stream as usize) {
                        Some((labels, resource)) => each(Candidates { labels, resource, rows: &rows }, next),
                        None => continue,
                    }
                }
            };
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The first `limit` results in the search's direction. `each` decides on a record that the search's own
    /// conditions hold for, and says what to keep of it.
    pub fn search<T>(
        &self,
        s: &Search,
        limit: usize,
        mut each: impl FnMut(&Labels, LogRecord) -> Option<T>,
    ) -> Result<Vec<(Timestamp, T)>, Error> {
        let mut found: Vec<(i64, T)> = Vec::new();
        let backward = s.direction == Direction::Backward;
        let trim = |found: &mut Vec<(i64, T)>| {
            // Stable: records of one stream and time keep the order in which they came.
            if backward {
                found.sort_by_key(|(t, _)| std::cmp::Reverse(*t));
            } else {
                found.sort_by_key(|(t, _)| *t);
            }
            found.truncate(limit);
        };
        self.visit(s, |c, next| {
            let mut take = |r: &Row| {
                if let Some(record) = decode_log(r.time, &r.data)
                    && s.trace_id.is_none_or(|t| record.trace_id == t || record.body.contains(&t.to_string()))
                    && let Some(kept) = each(c.labels, record)
                {
                    found.push((r.time, kept));
                }
            };
            if backward {
                c.rows.iter().rev().for_each(&mut take)
            } else {
                c.rows.iter().for_each(&mut take)
            }
            if found.len() >= limit {
                trim(&mut found);
                // No later block can hold anything that would come before the last one kept.
                let last = found.last().map(|(t, _)| *t);
                let done = match (last, next) {
                    (Some(last), Some(next)) => {
                        if backward {
                            next < last
                        } else {
                            next > last
                        }
                    }
                    _ => false,
                };
                if done {
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        trim(&mut found);
        Ok(found.into_iter().map(|(t, v)| (Timestamp(t), v)).collect())
    }

    /// Every record that matches, block by block in no particular order; holds one block at a time.
    pub fn scan(
        &self,
        s: &Search,
        mut each: impl FnMut(&Labels, Vec<LogRecord>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.visit(s, |c, _| {
            let records =
                c.rows.iter().filter_map(|r| decode_log(r.time, &r.data)).filter(|r| {
                    s.trace_id.is_none_or(|t| r.trace_id == t || r.body.contains(&t.to_string()))
                });
            each(c.labels, records.collect())
        })
    }

    /// Streams with records in the range.
    pub fn streams(
        &self,
        matchers: &[Matcher],
        start: Timestamp,
        end: Timestamp,
    ) -> Result<Vec<StreamInfo>, Error> {
        let s = Search::new(matchers.to_vec(), start, end);
        let mut by_labels: std::collections::BTreeMap<Labels, StreamInfo> = Default::default();
        let mut add = |labels: &Labels, records: u64, bytes: u64| {
            let e = by_labels.entry(labels.clone()).or_insert_with(|| StreamInfo {
                labels: labels.clone(),
                records: 0,
                bytes: 0,
                blocks: 0,
            });
            e.records += records;
            e.bytes += bytes;
            e.blocks += 1;
        };
        let partitions = {
            let state = self.state.read();
            for h in [state.frozen.as_deref(), Some(&state.head)].into_iter().flatten() {
                for st in &h.streams {
                    if st.max >= start.nanos() && st.min < end.nanos() && s.fits(&st.labels) {
                        let bytes = st.rows.iter().map(|r| r.data.len() as u64).sum();
                        add(&st.labels, st.rows.len() as u64, bytes);
                    }
                }
            }
            state.partitions.clone()
        };
        for p in partitions.iter().filter(|p| p.meta.max >= start.nanos() && p.meta.min < end.nanos()) {
            let index = p.index()?;
            for b in index.blocks.iter().filter(|b| b.max >= start.nanos() && b.min < end.nanos()) {
                if let Some((labels, _)) = index.streams.get(b.stream as usize)
                    && s.fits(labels)
                {
                    add(labels, u64::from(b.count), b.raw_bytes());
                }
            }
        }
        Ok(by_labels.into_values().collect())
    }
}

fn may_hold(data: &[u8], needles: &[String]) -> bool {
    let body = text(data);
    // The body is UTF-8 because it was a string when it was encoded.
    needles.is_empty()
        || std::str::from_utf8(body).is_ok_and(|b| needles.iter().all(|n| b.contains(n.as_str())))
}
