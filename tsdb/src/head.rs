//! The head: live series in memory, each a few compressed runs of samples.
//!
//! A series is known by a number from its first sample until it has ended and its samples are in a block. It is
//! found by its labels, or by the key of the bytes in which a sender names it again and again. A flush takes the
//! samples away ([`Head::freeze`]) and leaves the series; [`Head::sweep`] then drops those that have ended.

mod cells;
mod data;
mod extra;
mod postings;

use hashbrown::HashTable;
use signal::{HistogramSample, Labels, Sample, is_stale_nan};
use xxhash_rust::xxh3::xxh3_64_with_seed;

pub(crate) use cells::Cells;
pub(crate) use data::{Data, Run};
pub(crate) use extra::HistogramRun;
pub(crate) use postings::Postings;

use crate::key::Key;
use crate::limits::Namespaces;

/// A series that brought nothing for this many flushes is dropped, as if it had ended.
const IDLE_FLUSHES: u8 = 2;
/// The label whose value is the namespace a series is counted for.
pub(crate) const NAMESPACE: &str = "namespace";

#[derive(Default)]
pub(crate) struct Head {
    /// By number; a free number has no labels.
    pub(crate) series: Vec<MemSeries>,
    by_labels: HashTable<u32>,
    by_key: HashTable<u32>,
    free: Vec<u32>,
    pub(crate) postings: Postings,
    /// What the samples stand in.
    pub(crate) cells: Cells,
    /// Room for one sample on its way there.
    scratch: Vec<u8>,
    /// Time range of the samples, if any.
    pub(crate) range: Option<(i64, i64)>,
    pub(crate) samples: u64,
    /// Bytes of sample data.
    pub(crate) bytes: usize,
    /// Series whose newest sample is a stale marker.
    pub(crate) dead: usize,
    pub(crate) namespaces: Namespaces,
    /// Series that were opened and dropped, ever.
    pub(crate) opened: u64,
    pub(crate) dropped: u64,
}

#[derive(Default)]
pub(crate) struct MemSeries {
    pub(crate) labels: Labels,
    /// Of the bytes in which its sender names it; nought if none does.
    key: Key,
    pub(crate) data: Data,
    /// The newest sample's time, also once it is flushed; `i64::MIN` before the first.
    pub(crate) newest: i64,
    /// What the log's values of this series are told as differences from, see [`crate::record`].
    pub(crate) anchor: crate::record::Anchor,
    /// The number of the namespace, for limits.
    pub(crate) namespace: u32,
    /// True once a synced log record defines the series.
    pub(crate) logged: bool,
    /// The newest sample is a stale marker.
    pub(crate) dead: bool,
    /// Flushes since the last sample.
    idle: u8,
}

/// A head's samples on their way into a block.
#[derive(Default)]
pub(crate) struct Frozen {
    /// In order of number.
    pub(crate) series: Vec<FrozenSeries>,
    pub(crate) cells: Cells,
    pub(crate) range: Option<(i64, i64)>,
}

pub(crate) struct FrozenSeries {
    id: u32,
    pub(crate) labels: Labels,
    pub(crate) data: Data,
}

impl Frozen {
    pub(crate) fn get(&self, id: u32) -> Option<&FrozenSeries> {
        self.series.binary_search_by_key(&id, |s| s.id).ok().and_then(|at| self.series.get(at))
    }
}

fn hash(labels: &Labels) -> u64 {
    // The seed keeps apart what is hashed here from the same bytes as a key. Who may write may also fill the head.
    xxh3_64_with_seed(labels.encoded(), 0x6c61_6265_6c73)
}

impl Head {
    pub(crate) fn find(&self, labels: &Labels) -> Option<u32> {
        self.by_labels.find(hash(labels), |id| self.get(*id).is_some_and(|s| s.labels == *labels)).copied()
    }

    pub(crate) fn find_key(&self, key: Key) -> Option<u32> {
        self.by_key.find(key.hash(), |id| self.get(*id).is_some_and(|s| s.key == key)).copied()
    }

    fn get(&self, id: u32) -> Option<&MemSeries> {
        self.series.get(id as usize)
    }

    pub(crate) fn get_or_create(&mut self, labels: &Labels) -> u32 {
        let hashed = hash(labels);
        let series = &self.series;
        let same = |id: &u32| series.get(*id as usize).is_some_and(|s| s.labels == *labels);
        if let Some(id) = self.by_labels.find(hashed, same) {
            return *id;
        }
        let namespace = self.namespaces.enter(labels.get(NAMESPACE).unwrap_or(""));
        let new = MemSeries { labels: labels.clone(), newest: i64::MIN, namespace, ..MemSeries::default() };
        let id = match self.free.pop() {
            Some(id) => {
                if let Some(slot) = self.series.get_mut(id as usize) {
                    *slot = new;
                }
                id
            }
            None => {
                if self.series.len() == self.series.capacity() {
                    // Doubling would leave a third of it empty.
                    self.series.reserve_exact(64 + self.series.len() / 8);
                }
                self.series.push(new);
                (self.series.len() - 1) as u32
            }
        };
        self.opened += 1;
        self.postings.add(id, labels);
        let series = &self.series;
        let rehash = |id: &u32| series.get(*id as usize).map_or(0, |s| hash(&s.labels));
        self.by_labels.insert_unique(hashed, id, rehash);
        id
    }

    /// From now on the key stands for this series.
    pub(crate) fn set_key(&mut self, id: u32, key: Key) {
        let Some(s) = self.series.get_mut(id as usize) else { return };
        let old = std::mem::replace(&mut s.key, key);
        if old == key {
            return;
        }
        if !old.is_none()
            && let Ok(entry) = self.by_key.find_entry(old.hash(), |i| *i == id)
        {
            entry.remove();
        }
        let series = &self.series;
        let rehash = |id: &u32| series.get(*id as usize).map_or(0, |s| s.key.hash());
        self.by_key.insert_unique(key.hash(), id, rehash);
    }

    /// Series that have a number, ended ones included.
    pub(crate) fn len(&self) -> usize {
        self.series.len() - self.free.len()
    }

    #[inline]
    pub(crate) fn insert(&mut self, id: u32, sample: Sample) {
        let Some(series) = self.series.get_mut(id as usize) else { return };
        let grown = series.data.insert(&mut self.cells, &mut self.scratch, sample);
        series.data.bytes += grown as u32;
        self.bytes += grown;
        self.samples += 1;
        if sample.timestamp >= series.newest {
            series.newest = sample.timestamp;
            series.idle = 0;
            let dead = is_stale_nan(sample.value);
            if dead != series.dead {
                series.turn(dead, &mut self.dead);
            }
        }
        self.reach(sample.timestamp);
    }

    pub(crate) fn insert_histogram(&mut self, id: u32, sample: HistogramSample) {
        let Some(series) = self.series.get_mut(id as usize) else { return };
        let (t, dead) = (sample.timestamp, sample.histogram.is_stale());
        let newest_float = series.data.newest(&self.cells).map(|s| s.timestamp);
        let grown = series.data.extra().insert(sample, newest_float);
        series.data.bytes += grown as u32;
        self.bytes += grown;
        self.samples += 1;
        if t >= series.newest {
            series.newest = t;
            series.idle = 0;
            if dead != series.dead {
                series.turn(dead, &mut self.dead);
            }
        }
        self.reach(t);
    }

    /// A start time holds for samples from its own time on, until another is told.
    pub(crate) fn insert_start(&mut self, id: u32, t: i64, start: i64) {
        let Some(series) = self.series.get_mut(id as usize) else { return };
        let grown = series.data.extra().insert_start(t, start);
        series.data.bytes += grown as u32;
        self.bytes += grown;
    }

    #[inline]
    fn reach(&mut self, t: i64) {
        self.range = Some(self.range.map_or((t, t), |(a, b)| (a.min(t), b.max(t))));
    }

    /// Takes all samples out. The log must define every series anew from here on.
    pub(crate) fn freeze(&mut self) -> Frozen {
        let mut out =
            Frozen { range: self.range.take(), cells: std::mem::take(&mut self.cells), ..Frozen::default() };
        for (id, s) in self.series.iter_mut().enumerate() {
            s.logged = false;
            s.anchor = crate::record::Anchor::default();
            if s.data.is_empty() {
                s.idle = s.idle.saturating_add(1);
            } else {
                let data = std::mem::take(&mut s.data);
                out.series.push(FrozenSeries { id: id as u32, labels: s.labels.clone(), data });
            }
        }
        (self.samples, self.bytes) = (0, 0);
        out
    }

    /// Takes the samples of the series that have ended out. The log goes on as it is.
    pub(crate) fn freeze_dead(&mut self) -> Frozen {
        let mut out = Frozen { range: self.range, ..Frozen::default() };
        for (id, s) in self.series.iter_mut().enumerate() {
            if s.dead && !s.data.is_empty() {
                let data = s.data.move_out(&mut self.cells, &mut out.cells);
                self.bytes -= data.bytes as usize;
                self.samples = self.samples.saturating_sub(data.samples());
                out.series.push(FrozenSeries { id: id as u32, labels: s.labels.clone(), data });
            }
        }
        out
    }

    /// Drops the series that have ended, or that nobody wrote to for long, and have no samples here. No append may
    /// be under way and no frozen head be there: a number must not mean two series at once.
    /// Gives back how many were dropped.
    pub(crate) fn sweep(&mut self) -> usize {
        let mut dropped = 0;
        for id in 0..self.series.len() {
            let Some(s) = self.series.get_mut(id) else { break };
            if s.labels.is_empty()
                || !s.data.is_empty()
                || !(s.dead || s.idle >= IDLE_FLUSHES || s.newest == i64::MIN)
            {
                continue;
            }
            let s = std::mem::take(s);
            self.dead -= usize::from(s.dead);
            let id = id as u32;
            if let Ok(entry) = self.by_labels.find_entry(hash(&s.labels), |i| *i == id) {
                entry.remove();
            }
            if !s.key.is_none()
                && let Ok(entry) = self.by_key.find_entry(s.key.hash(), |i| *i == id)
            {
                entry.remove();
            }
            self.postings.remove(id, &s.labels);
            self.namespaces.leave(s.namespace);
            self.free.push(id);
            dropped += 1;
        }
        if dropped > 0 {
            self.dropped += dropped as u64;
            self.give_back();
        }
        dropped
    }

    /// Room that many dropped series left behind.
    fn give_back(&mut self) {
        // Numbers at the end can go; those in between are used again, the lowest first.
        let used = self.series.iter().rposition(|s| !s.labels.is_empty()).map_or(0, |at| at + 1);
        self.series.truncate(used);
        self.free.retain(|id| (*id as usize) < used);
        self.free.sort_unstable_by(|a, b| b.cmp(a));
        if self.series.capacity() > 2 * used + 64 {
            self.series.shrink_to_fit();
        }
        let series = &self.series;
        let (labels, keys) = (self.by_labels.len(), self.by_key.len());
        if self.by_labels.capacity() > 4 * labels + 64 {
            self.by_labels.shrink_to_fit(|id| series.get(*id as usize).map_or(0, |s| hash(&s.labels)));
        }
        if self.by_key.capacity() > 4 * keys + 64 {
            self.by_key.shrink_to_fit(|id| series.get(*id as usize).map_or(0, |s| s.key.hash()));
        }
        self.postings.shrink();
    }
}

impl MemSeries {
    #[cold]
    fn turn(&mut self, dead: bool, all_dead: &mut usize) {
        self.dead = dead;
        if dead {
            *all_dead += 1;
        } else {
            *all_dead -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use signal::{Matcher, stale_nan};

    fn labels(i: u32) -> Labels {
        Labels::from_pairs([("__name__", "m".to_owned()), ("pod", format!("p{i}"))])
    }

    #[test]
    fn ended_series_leave_with_the_flush_and_their_numbers_are_used_again() {
        let mut head = Head::default();
        for i in 0..100 {
            let id = head.get_or_create(&labels(i));
            head.set_key(id, Key::of(&[i as u8]));
            head.insert(id, Sample { timestamp: 1, value: 1.0 });
            if i % 2 == 0 {
                head.insert(id, Sample { timestamp: 2, value: stale_nan() });
            }
        }
        assert_eq!((head.len(), head.dead), (100, 50));
        let frozen = head.freeze();
        assert_eq!((frozen.series.len(), head.samples), (100, 0));
        // One speaks again before it is swept.
        let again = head.find(&labels(0)).expect("not swept yet");
        head.insert(again, Sample { timestamp: 3, value: 1.0 });
        assert_eq!(head.sweep(), 49);
        assert_eq!((head.len(), head.dead), (51, 0));
        assert_eq!(head.find(&labels(2)), None);
        assert_eq!(head.find_key(Key::of(&[2])), None);
        assert_eq!(head.find_key(Key::of(&[3])), Some(3));
        assert_eq!(head.postings.select(&[Matcher::equal("__name__", "m")]).len(), 51);
        let new = head.get_or_create(&labels(200));
        assert!(new < 100 && new % 2 == 0);
        assert_eq!(head.find(&labels(200)), Some(new));
    }

    #[test]
    fn a_key_moves_with_its_sender() {
        let mut head = Head::default();
        let id = head.get_or_create(&labels(0));
        head.set_key(id, Key::of(b"a"));
        head.set_key(id, Key::of(b"b"));
        assert_eq!((head.find_key(Key::of(b"a")), head.find_key(Key::of(b"b"))), (None, Some(id)));
    }

    #[test]
    fn a_series_is_small() {
        assert!(size_of::<MemSeries>() <= 136, "{}", size_of::<MemSeries>());
    }
}
