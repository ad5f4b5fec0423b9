//! Searching: which streams, which blocks, then each record itself.

mod parallel;
mod plan;
mod view;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use signal::{Labels, LogRecord, Matcher, Timestamp, TraceId};

pub(crate) use plan::{Over, Plan};
pub use view::{AttributeView, BlockView, Status, TextData, TextsView};

use crate::db::LogIndex;
use crate::error::Error;
use crate::progress::Progress;

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
    /// Of each of these lists one must be a substring of the body; what an alternation of words needs.
    pub any: Vec<Vec<String>>,
    /// As `any`, with letters of any case (ASCII's only). Blocks that cannot have them are passed over; the records of
    /// others are not looked at for it.
    pub folded: Vec<Vec<String>>,
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
            any: Vec::new(),
            folded: Vec::new(),
            trace_id: None,
            progress: Arc::default(),
        }
    }

    pub(crate) fn fits(&self, labels: &Labels) -> bool {
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

impl LogIndex {
    /// Makes something of every block that may have records that match, with several threads, and hands it on one by
    /// one on this thread, in order of the blocks' near ends: backward by their newest record, forward by their oldest.
    /// `each` is called for blocks without a match too, so that it can end a search that finds nothing.
    pub fn map_blocks<T: Send>(
        &self,
        s: &Search,
        map: impl Fn(&BlockView<'_>) -> Result<T, Error> + Sync,
        mut each: impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.visit(s, |v| map(&v), |found, _, _| each(found))
    }

    /// As [`LogIndex::map_blocks`]; a view may be taken apart.
    pub fn map_views<T: Send>(
        &self,
        s: &Search,
        map: impl Fn(BlockView<'_>) -> Result<T, Error> + Sync,
        mut each: impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.visit(s, map, |found, _, _| each(found))
    }

    /// As [`LogIndex::map_views`]; `each` is also told the block's rank among those that came in before and after it,
    /// and the near end of the next block in nanoseconds.
    pub(crate) fn visit<T: Send>(
        &self,
        s: &Search,
        map: impl Fn(BlockView<'_>) -> Result<T, Error> + Sync,
        mut each: impl FnMut(T, u32, Option<i64>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let plan = Plan::new(self, s, Over::Everything)?;
        let mut failure = None;
        let one = |i: usize| {
            s.progress.ended().is_none().then(|| {
                let read = || {
                    let view = plan.view(i)?;
                    s.progress.read(view.count() as u64, plan.bytes(i));
                    map(view)
                };
                self.sound(&s.progress, read())
            })
        };
        parallel::in_order(plan.len(), one, |i, found| match found {
            None => ControlFlow::Break(()),
            Some(Ok(Some(found))) => each(found, plan.rank(i), plan.near(i + 1)),
            Some(Ok(None)) => ControlFlow::Continue(()),
            Some(Err(e)) => {
                failure = Some(e);
                ControlFlow::Break(())
            }
        });
        failure.map_or(Ok(()), Err)
    }

    /// The first `limit` results in the search's direction; those of one time in the order in which they came, or the
    /// reverse. `each` decides on a record that the search's own
    /// conditions hold for, and says what to keep of it.
    pub fn search<T: Send>(
        &self,
        s: &Search,
        limit: usize,
        each: impl Fn(&Labels, LogRecord) -> Option<T> + Sync,
    ) -> Result<Vec<(Timestamp, T)>, Error> {
        self.search_rows(s, limit, |v, i| Ok(each(v.labels(), v.log(i)?)))
    }

    /// As [`LogIndex::search`]; `each` gets a block and the number of a row in it.
    pub fn search_rows<T: Send>(
        &self,
        s: &Search,
        limit: usize,
        each: impl Fn(&BlockView<'_>, usize) -> Result<Option<T>, Error> + Sync,
    ) -> Result<Vec<(Timestamp, T)>, Error> {
        let mut found: Vec<((i64, u32), T)> = Vec::new();
        let backward = s.direction == Direction::Backward;
        let trim = |found: &mut Vec<((i64, u32), T)>| {
            // Stable: records of one stream and time keep the order in which they came.
            if backward {
                found.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
            } else {
                found.sort_by_key(|(at, _)| *at);
            }
            found.truncate(limit);
        };
        let of_block = |v: BlockView<'_>| {
            let mut kept: Vec<(i64, T)> = Vec::new();
            for i in 0..v.len() {
                let i = if backward { v.len() - 1 - i } else { i };
                if kept.len() >= limit {
                    break;
                }
                if let Some(t) = each(&v, i)? {
                    kept.push((v.time(i), t));
                }
            }
            Ok(kept)
        };
        self.visit(s, of_block, |kept, rank, next| {
            found.extend(kept.into_iter().map(|(t, v)| ((t, rank), v)));
            if found.len() >= limit {
                trim(&mut found);
                // No later block can hold anything that would come before the last one kept.
                let done = match (found.last(), next) {
                    (Some(((last, _), _)), Some(next)) => {
                        if backward {
                            next < *last
                        } else {
                            next > *last
                        }
                    }
                    _ => limit == 0,
                };
                if done {
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        trim(&mut found);
        Ok(found.into_iter().map(|((t, _), v)| (Timestamp(t), v)).collect())
    }

    /// Every record that matches, block by block in no particular order; holds a few blocks at a time.
    pub fn scan(
        &self,
        s: &Search,
        mut each: impl FnMut(&Labels, Vec<LogRecord>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let records = |v: &BlockView<'_>| {
            Ok((v.labels().clone(), (0..v.len()).map(|i| v.log(i)).collect::<Result<Vec<_>, _>>()?))
        };
        self.map_blocks(s, records, |(labels, records)| each(&labels, records))
    }

    /// Streams with records in the range.
    pub fn streams(
        &self,
        matchers: &[Matcher],
        start: Timestamp,
        end: Timestamp,
    ) -> Result<Vec<StreamInfo>, Error> {
        let s = Search::new(matchers.to_vec(), start, end);
        let mut by_labels: BTreeMap<Labels, StreamInfo> = BTreeMap::default();
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
                        add(&st.labels, st.rows.len() as u64, st.bytes as u64);
                    }
                }
            }
            state.partitions.clone()
        };
        for p in partitions.iter().filter(|p| p.meta.max >= start.nanos() && p.meta.min < end.nanos()) {
            let Some(index) = self.help(p.index())? else { continue };
            let fits: Vec<bool> = index.streams.iter().map(|(l, _)| s.fits(l)).collect();
            for b in index.blocks.iter().filter(|b| b.max >= start.nanos() && b.min < end.nanos()) {
                if fits.get(b.stream as usize) == Some(&true)
                    && let Some((labels, _)) = index.streams.get(b.stream as usize)
                {
                    add(labels, u64::from(b.count), u64::from(b.raw_len));
                }
            }
        }
        Ok(by_labels.into_values().collect())
    }
}
