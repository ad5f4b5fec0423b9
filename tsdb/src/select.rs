//! The read path: which series, then their samples from blocks, the head being flushed, and the head.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use signal::{
    HistogramSample, Labels, Sample, Select, Selected, SeriesColumns, SeriesIter, SeriesSource, SourceError,
    Summary,
};

use crate::block::{Block, Reader};
use crate::db::{State, Tsdb};
use crate::error::Error;
use crate::head::{Cells, Data, HistogramRun, Run};
use crate::merge::{Columns, Extras, starts_of};
use crate::tombstones::{Ranges, Tombstones};

/// Distinct timestamp columns that are looked through for one that a series can share.
const SHARED: usize = 64;

/// Bytes that lists of series, label names and values may hold.
const NAMES: usize = 256 << 20;

/// Where a series' samples lie. Blocks first, oldest order first; what stands later wins.
#[derive(Default)]
pub(crate) struct Parts {
    /// Which reader, which series of its block, and what of it is deleted.
    pub(crate) blocks: Vec<BlockPart>,
    pub(crate) heads: Vec<HeadPart>,
}

impl Parts {
    /// Adds all that is in the range, in no order.
    pub(crate) fn read(
        &self,
        readers: &mut [Reader],
        start: i64,
        end: i64,
        columns: &mut Columns,
        extras: &mut Extras,
    ) -> Result<(), Error> {
        for (reader, id, deleted) in &self.blocks {
            let Some(reader) = readers.get_mut(*reader as usize) else { continue };
            reader.read_kept(*id, (start, end), deleted.as_ref(), columns, extras)?;
        }
        for part in &self.heads {
            part.read(start, end, columns, extras);
        }
        Ok(())
    }
}

pub(crate) type BlockPart = (u32, u32, Option<Ranges>);

/// What a head holds of a series.
pub(crate) struct HeadPart {
    runs: Vec<Run>,
    late: Vec<Sample>,
    extra: Option<HeadExtra>,
}

/// Histograms and start times of a series in a head.
struct HeadExtra {
    runs: Vec<HistogramRun>,
    late: Vec<HistogramSample>,
    starts: Vec<(i64, i64)>,
}

impl HeadPart {
    /// `None` if there is nothing in the range.
    fn of(data: &Data, cells: &Cells, select: &Select) -> Option<Self> {
        let (runs, late) = data.read(cells, select.start, select.end);
        let extra = data.extra_ref().map(|e| {
            let (runs, late) = e.read(select.start, select.end);
            HeadExtra { runs, late, starts: e.starts().to_vec() }
        });
        let histograms = extra.as_ref().is_some_and(|e| !e.runs.is_empty() || !e.late.is_empty());
        (!runs.is_empty() || !late.is_empty() || histograms).then_some(HeadPart { runs, late, extra })
    }

    /// Bytes of memory, about: collected lists begin with room for four.
    fn size(&self) -> usize {
        4 * size_of::<Self>() + self.runs.iter().map(Run::size).sum::<usize>() + size_of_val(&*self.late)
    }

    pub(crate) fn read(&self, start: i64, end: i64, columns: &mut Columns, extras: &mut Extras) {
        for run in &self.runs {
            run.decode(|s| {
                if (start..=end).contains(&s.timestamp) {
                    columns.push(s.timestamp, s.value);
                }
            });
        }
        self.late.iter().for_each(|s| columns.push(s.timestamp, s.value));
        let Some(extra) = &self.extra else { return };
        for run in &extra.runs {
            run.decode(|s| {
                if (start..=end).contains(&s.timestamp) {
                    extras.push(s);
                }
            });
        }
        extra.late.iter().for_each(|s| extras.push(s.clone()));
        extras.push_starts(&extra.starts);
    }
}

/// Series that match, found in all places before the first is read.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) readers: Vec<Reader>,
    pub(crate) series: Vec<(Labels, Parts)>,
    by_labels: HashMap<Labels, u32, ahash::RandomState>,
    /// Bytes of what is above, and of labels that only we have; both at most `limit`.
    held: usize,
    labels: usize,
    limit: usize,
}

impl Found {
    /// Counts what a series takes here.
    fn charge(&mut self, held: usize, labels: usize) -> Result<(), SourceError> {
        self.held += held;
        self.labels += labels;
        if self.held + self.labels > self.limit {
            return Err(SourceError::Limit(format!(
                "the list of {} series takes more than {} bytes",
                self.series.len(),
                self.limit
            )));
        }
        Ok(())
    }

    /// The series of these labels. `alone` if no other place has been looked at yet: then it must be a new one.
    fn parts(&mut self, labels: Labels, alone: bool) -> &mut Parts {
        let next = self.series.len() as u32;
        let at = if alone { next } else { *self.by_labels.entry(labels.clone()).or_insert(next) };
        if at == next {
            self.series.push((labels, Parts::default()));
        }
        let (_, parts) = self.series.get_mut(at as usize).expect("just found or added");
        parts
    }

    /// Makes what is there findable before a second place adds to it.
    fn join(&mut self) {
        if self.by_labels.len() < self.series.len() {
            self.by_labels.reserve(self.series.len());
            for (i, (labels, _)) in self.series.iter().enumerate().skip(self.by_labels.len()) {
                self.by_labels.insert(labels.clone(), i as u32);
            }
        }
    }

    fn add_block(
        &mut self,
        block: &Arc<Block>,
        select: &Select,
        tombstones: &Tombstones,
    ) -> Result<(), SourceError> {
        let alone = self.series.is_empty();
        let mut reader = Reader::new(block.clone())?;
        let index = reader.index.clone();
        let at = self.readers.len() as u32;
        let deleted = tombstones.in_block(&block.meta, &index)?;
        let (start, end) = (select.start.max(block.meta.min), select.end.min(block.meta.max));
        for id in index.postings.select(&select.matchers) {
            if index.overlaps(id, select.start, select.end) {
                let gone = deleted.as_ref().and_then(|d| d.of(id));
                if gone.as_ref().is_some_and(|g| g.cover(start, end)) {
                    continue;
                }
                let labels = reader.labels(id)?;
                let heap = labels.heap_size();
                self.parts(labels, alone).blocks.push((at, id, gone));
                self.charge(size_of::<(Labels, Parts)>() + 4 * size_of::<BlockPart>(), heap)?;
            }
        }
        self.readers.push(reader);
        self.join();
        Ok(())
    }

    /// The heads come first, so each of their series is a new one.
    fn add_heads(&mut self, state: &State, select: &Select) -> Result<(), SourceError> {
        let inside = |range: Option<(i64, i64)>| {
            range.is_some_and(|(min, max)| max >= select.start && min <= select.end)
        };
        let frozen = state.frozen.as_ref().filter(|f| inside(f.range));
        let head = Some(&state.head).filter(|h| inside(h.range));
        if frozen.is_none() && head.is_none() {
            return Ok(());
        }
        for id in state.head.postings.select(&select.matchers) {
            let frozen = frozen.and_then(|f| f.get(id).map(|s| (&s.labels, &s.data, &f.cells)));
            let head = head.and_then(|h| h.series.get(id as usize).map(|s| (&s.labels, &s.data, &h.cells)));
            let Some((labels, ..)) = frozen.or(head) else { continue };
            let both = frozen.into_iter().chain(head);
            let heads: Vec<HeadPart> =
                both.filter_map(|(_, data, cells)| HeadPart::of(data, cells, select)).collect();
            if !heads.is_empty() {
                let held = size_of::<(Labels, Parts)>() + heads.iter().map(HeadPart::size).sum::<usize>();
                self.series.push((labels.clone(), Parts { blocks: Vec::new(), heads }));
                self.charge(held, 0)?;
            }
        }
        self.join();
        Ok(())
    }
}

impl Tsdb {
    /// What matches, in order of labels.
    pub(crate) fn find(&self, select: &Select, limit: usize) -> Result<Found, SourceError> {
        let mut found = self.gather(select, limit)?;
        found.series.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(found)
    }

    fn gather(&self, select: &Select, limit: usize) -> Result<Found, SourceError> {
        let mut heads = Found { limit, ..Found::default() };
        let blocks = {
            let state = self.state.read();
            heads.add_heads(&state, select)?;
            state.blocks.clone()
        };
        // The block list was taken together with the heads, so a flush that ends now is seen once, not twice or never.
        let wanted = |b: &&Arc<Block>| b.meta.max >= select.start && b.meta.min <= select.end;
        for block in blocks.iter().filter(wanted) {
            heads.add_block(block, select, &self.tombstones)?;
        }
        Ok(heads)
    }

    /// Everything that matches, series by series in order of the values of these labels, those without one first: the door
    /// for SQL.
    pub fn scan(&self, select: &Select, by: &[&str]) -> Result<SeriesIter<'_>, SourceError> {
        let mut found = self.gather(select, NAMES)?;
        let key = |l: &Labels, name: &&str| l.get(name).map(str::to_owned);
        found.series.sort_by_cached_key(|(l, _)| by.iter().map(|name| key(l, name)).collect::<Vec<_>>());
        Ok(Box::new(Series::new(found, select)))
    }

    /// Samples that match, about: those of whole chunks that the range touches, and of the heads an average.
    pub fn estimate(&self, select: &Select) -> Result<u64, SourceError> {
        let (mut samples, blocks) = {
            let state = self.state.read();
            let head = &state.head;
            let inside = head.range.is_some_and(|(min, max)| max >= select.start && min <= select.end);
            let series = if inside { head.postings.select(&select.matchers).len() } else { 0 };
            (series.saturating_mul(head.samples) / (head.len() as u64).max(1), state.blocks.clone())
        };
        for block in blocks.iter().filter(|b| b.meta.max >= select.start && b.meta.min <= select.end) {
            let index = Reader::new(block.clone())?.index;
            let series = index.postings.select(&select.matchers);
            samples += series.iter().map(|id| index.touched(id, select.start, select.end)).sum::<u64>();
        }
        Ok(samples)
    }
}

/// Reads the series that were found, one after the other.
struct Series {
    readers: Vec<Reader>,
    series: std::vec::IntoIter<(Labels, Parts)>,
    start: i64,
    end: i64,
    columns: Columns,
    /// Timestamp columns of earlier series: those that were scraped together have the same.
    shared: Vec<Arc<Vec<i64>>>,
    next: usize,
}

impl Series {
    fn new(found: Found, select: &Select) -> Self {
        Series {
            readers: found.readers,
            series: found.series.into_iter(),
            start: select.start,
            end: select.end,
            columns: Columns::default(),
            shared: Vec::new(),
            next: 0,
        }
    }

    fn read(&mut self, labels: Labels, parts: &Parts) -> Result<Option<SeriesColumns>, SourceError> {
        let (columns, mut extras) = (&mut self.columns, Extras::default());
        columns.clear();
        parts.read(&mut self.readers, self.start, self.end, columns, &mut extras)?;
        columns.settle();
        let (histograms, starts) = extras.finish();
        if columns.times.is_empty() && histograms.is_empty() {
            return Ok(None);
        }
        let starts = starts_of(&columns.times, &starts);
        let values = columns.values.clone();
        let timestamps = self.share();
        Ok(Some(SeriesColumns { labels, timestamps, values, starts, histograms }))
    }

    /// The timestamps just read, together with an earlier series if it has the same.
    fn share(&mut self) -> Arc<Vec<i64>> {
        let times = &self.columns.times;
        // The newest first: neighbours are most alike.
        let n = self.shared.len();
        let same = (0..n).map(|i| (self.next + n - 1 - i) % n).find_map(|i| {
            let known = self.shared.get(i)?;
            let ends = known.len() == times.len() && known.first() == times.first();
            (ends && known.last() == times.last() && **known == *times).then(|| known.clone())
        });
        same.unwrap_or_else(|| {
            let times = Arc::new(times.clone());
            match self.shared.get_mut(self.next) {
                Some(slot) => *slot = times.clone(),
                None => self.shared.push(times.clone()),
            }
            self.next = (self.next + 1) % SHARED;
            times
        })
    }
}

impl Iterator for Series {
    type Item = Result<SeriesColumns, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (labels, parts) = self.series.next()?;
            if let Some(read) = self.read(labels, &parts).transpose() {
                return Some(read);
            }
        }
    }
}

impl SeriesSource for Tsdb {
    fn select_within<'a>(&'a self, select: &Select, bytes: usize) -> Result<Selected<'a>, SourceError> {
        let found = self.find(select, bytes)?;
        let (count, held, labels) = (found.series.len(), found.held, found.labels);
        Ok(Selected { series: Box::new(Series::new(found, select)), count, held, labels })
    }

    fn summaries(
        &self,
        select: &Select,
        bytes: usize,
    ) -> Result<Option<Vec<(Labels, Summary)>>, SourceError> {
        self.summed_up(select, bytes)
    }

    fn series(&self, select: &Select) -> Result<Vec<Labels>, SourceError> {
        Ok(self.find(select, NAMES)?.series.into_iter().map(|(labels, _)| labels).collect())
    }

    fn label_names(&self, select: &Select) -> Result<Vec<String>, SourceError> {
        let mut names: BTreeSet<String> = BTreeSet::new();
        for (labels, _) in self.find(select, NAMES)?.series {
            for (n, _) in &labels {
                if !names.contains(n) {
                    names.insert(n.to_owned());
                }
            }
        }
        Ok(names.into_iter().collect())
    }

    fn label_values(&self, name: &str, select: &Select) -> Result<Vec<String>, SourceError> {
        let mut values: BTreeSet<String> = BTreeSet::new();
        for (labels, _) in self.find(select, NAMES)?.series {
            if let Some(v) = labels.get(name)
                && !values.contains(v)
            {
                values.insert(v.to_owned());
            }
        }
        Ok(values.into_iter().collect())
    }
}
