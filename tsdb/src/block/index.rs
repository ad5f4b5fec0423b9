//! A block's index in memory: which series, where their chunks lie, and what is known of a chunk without reading it.

use signal::{Labels, Summary};

use super::ExtraRefs;
use crate::codec::{get_uvarint, get_varint, put_uvarint, put_varint, take};
use crate::index::Postings;

/// Labels of every so many series stand whole, so that one series is found without unpacking all before it.
const RESTART: usize = 16;

/// A timestamp column, shared by every chunk that was sampled at these times.
#[derive(Clone, Debug)]
pub(super) struct TimesRef {
    pub(super) offset: u64,
    pub(super) len: u32,
    pub(super) crc: u32,
    pub(super) count: u32,
    pub(super) min: i64,
    pub(super) max: i64,
}

/// The values of a chunk.
#[derive(Clone, Debug)]
pub(super) struct ChunkRef {
    pub(super) times: u32,
    pub(super) offset: u64,
    pub(super) len: u32,
    pub(super) crc: u32,
    pub(super) facts: ChunkFacts,
}

/// What functions over ranges can take instead of the values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ChunkFacts {
    /// Numbers that are not NaN, and their least, greatest and sum.
    count: u32,
    low: f64,
    high: f64,
    sum: f64,
    /// Of the numbers that are not NaN.
    first: f64,
    last: f64,
    /// How often a value was below the one before, and the sum of the ones before.
    resets: u32,
    dropped: f64,
    /// There are NaNs, stale markers among them.
    nan: bool,
}

impl ChunkFacts {
    pub(super) fn of(values: &[f64]) -> Self {
        let mut f = ChunkFacts {
            count: 0,
            low: f64::NAN,
            high: f64::NAN,
            sum: 0.0,
            first: f64::NAN,
            last: f64::NAN,
            resets: 0,
            dropped: 0.0,
            nan: false,
        };
        let mut c = 0.0;
        for v in values.iter().copied() {
            if v.is_nan() {
                f.nan = true;
                continue;
            }
            if f.count == 0 {
                f.first = v;
            } else if v < f.last {
                f.resets += 1;
                f.dropped += f.last;
            }
            f.count += 1;
            f.low = f.low.min(v);
            f.high = f.high.max(v);
            // Neumaier's sum, as the query language adds.
            let sum = f.sum + v;
            c += if f.sum.abs() >= v.abs() { (f.sum - sum) + v } else { (v - sum) + f.sum };
            f.sum = sum;
            f.last = v;
        }
        if c.is_finite() {
            f.sum += c;
        }
        f
    }

    /// As a summary of the samples from the first time to the last; `None` if a NaN is among them.
    pub(super) fn summary(&self, (first, last): (i64, i64)) -> Option<Summary> {
        (!self.nan && self.count > 0).then_some(Summary {
            count: u64::from(self.count),
            low: self.low,
            high: self.high,
            sum: self.sum,
            first: (first, self.first),
            last: (last, self.last),
            dropped: self.dropped,
        })
    }

    fn constant(value: f64, count: u32) -> Self {
        ChunkFacts {
            count,
            low: value,
            high: value,
            sum: value * f64::from(count),
            first: value,
            last: value,
            resets: 0,
            dropped: 0.0,
            nan: false,
        }
    }

    fn encode(&self, samples: u32, b: &mut Vec<u8>) {
        if !self.nan && self.count == samples && self.low.to_bits() == self.high.to_bits() {
            b.push(0);
            b.extend_from_slice(&self.low.to_bits().to_le_bytes());
            return;
        }
        b.push(1 + u8::from(self.nan));
        put_uvarint(b, u64::from(self.count));
        put_uvarint(b, u64::from(self.resets));
        let dropped = (self.resets > 0).then_some(self.dropped);
        for v in [self.low, self.high, self.sum, self.first, self.last].into_iter().chain(dropped) {
            b.extend_from_slice(&v.to_bits().to_le_bytes());
        }
    }

    fn decode(samples: u32, d: &mut &[u8]) -> Option<Self> {
        let kind = *take(d, 1)?.first()?;
        if kind == 0 {
            return Some(ChunkFacts::constant(float(d)?, samples));
        }
        let (count, resets) = (uint(d)?, uint(d)?);
        Some(ChunkFacts {
            count,
            resets,
            low: float(d)?,
            high: float(d)?,
            sum: float(d)?,
            first: float(d)?,
            last: float(d)?,
            dropped: if resets > 0 { float(d)? } else { 0.0 },
            nan: kind == 2,
        })
    }
}

fn float(d: &mut &[u8]) -> Option<f64> {
    Some(f64::from_bits(u64::from_le_bytes(take(d, 8)?.try_into().ok()?)))
}

fn uint(d: &mut &[u8]) -> Option<u32> {
    u32::try_from(get_uvarint(d)?).ok()
}

fn checksum(d: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(take(d, 4)?.try_into().ok()?))
}

/// Labels of all series, in order, each as what differs from the one before.
#[derive(Debug, Default)]
struct LabelTable {
    data: Vec<u8>,
    /// Where each group of [`RESTART`] begins.
    groups: Vec<u32>,
    count: usize,
    last: Vec<u8>,
}

impl LabelTable {
    fn push(&mut self, encoded: &[u8]) {
        let shared = if self.count.is_multiple_of(RESTART) {
            self.groups.push(self.data.len() as u32);
            0
        } else {
            self.last.iter().zip(encoded).take_while(|(a, b)| a == b).count()
        };
        put_uvarint(&mut self.data, shared as u64);
        put_uvarint(&mut self.data, (encoded.len() - shared) as u64);
        self.data.extend_from_slice(encoded.get(shared..).unwrap_or(&[]));
        self.last.clear();
        self.last.extend_from_slice(encoded);
        self.count += 1;
    }
}

/// Walks through labels; cheap where it goes forward.
#[derive(Default)]
pub(crate) struct LabelCursor {
    /// The series whose labels `bytes` are, counted from one; 0 if none is.
    at: usize,
    next: usize,
    bytes: Vec<u8>,
}

impl LabelCursor {
    pub(crate) fn labels(&mut self, index: &Index, series: u32) -> Option<Labels> {
        let wanted = series as usize + 1;
        let table = &index.labels;
        if wanted > table.count {
            return None;
        }
        let group = (wanted - 1) / RESTART;
        if self.at > wanted || self.at == 0 || (self.at - 1) / RESTART != group {
            self.at = group * RESTART;
            self.next = *table.groups.get(group)? as usize;
        }
        while self.at < wanted {
            let all = table.data.get(self.next..)?;
            let mut d = all;
            let shared = usize::try_from(get_uvarint(&mut d)?).ok()?;
            let rest = usize::try_from(get_uvarint(&mut d)?).ok()?;
            self.bytes.truncate(shared);
            self.bytes.extend_from_slice(take(&mut d, rest)?);
            self.next += all.len() - d.len();
            self.at += 1;
        }
        Labels::from_encoded(&self.bytes)
    }
}

/// A block's index in memory.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(super) times: Vec<TimesRef>,
    labels: LabelTable,
    /// Chunks of all series, one series after the other.
    chunks: Vec<ChunkRef>,
    /// Where each series' chunks end.
    ends: Vec<u32>,
    /// Of the few series that have more than floats.
    extras: std::collections::HashMap<u32, ExtraRefs, ahash::RandomState>,
    pub(crate) postings: Postings,
}

impl Index {
    pub(crate) fn series(&self) -> u32 {
        self.ends.len() as u32
    }

    pub(super) fn chunks(&self, series: u32) -> &[ChunkRef] {
        let series = series as usize;
        let begin = series.checked_sub(1).map_or(Some(0), |i| self.ends.get(i).copied());
        let (Some(begin), Some(end)) = (begin, self.ends.get(series).copied()) else { return &[] };
        self.chunks.get(begin as usize..end as usize).unwrap_or(&[])
    }

    pub(super) fn extra(&self, series: u32) -> Option<&ExtraRefs> {
        self.extras.get(&series)
    }

    /// Samples of the chunks that touch the range.
    pub(crate) fn touched(&self, series: u32, start: i64, end: i64) -> u64 {
        let times = self.chunks(series).iter().filter_map(|c| self.times.get(c.times as usize));
        times.filter(|t| t.max >= start && t.min <= end).map(|t| u64::from(t.count)).sum()
    }

    /// True if the series may have samples in the range.
    pub(crate) fn overlaps(&self, series: u32, start: i64, end: i64) -> bool {
        let inside = |min: i64, max: i64| max >= start && min <= end;
        self.chunks(series)
            .iter()
            .any(|c| self.times.get(c.times as usize).is_some_and(|t| inside(t.min, t.max)))
            || self.extra(series).is_some_and(|e| e.histograms.iter().any(|h| inside(h.min, h.max)))
    }

    /// Bytes of memory, about.
    pub(crate) fn size(&self) -> usize {
        self.labels.data.len()
            + self.times.len() * size_of::<TimesRef>()
            + self.chunks.len() * size_of::<ChunkRef>()
            + self.ends.len() * 4
            + self.extras.len() * 100
            + self.postings.size()
    }

    /// While writing: the next series.
    pub(super) fn push(&mut self, labels: &Labels, chunks: Vec<ChunkRef>, extra: Option<ExtraRefs>) {
        self.postings.add(labels);
        self.labels.push(labels.encoded());
        self.chunks.extend(chunks);
        self.ends.push(self.chunks.len() as u32);
        if let Some(extra) = extra {
            self.extras.insert(self.ends.len() as u32 - 1, extra);
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut b = Vec::new();
        put_uvarint(&mut b, self.times.len() as u64);
        for t in &self.times {
            put_uvarint(&mut b, t.offset);
            put_uvarint(&mut b, u64::from(t.len));
            b.extend_from_slice(&t.crc.to_le_bytes());
            put_uvarint(&mut b, u64::from(t.count));
            put_varint(&mut b, t.min);
            put_varint(&mut b, t.max);
        }
        // Column by column: what is alike stands together.
        let (mut places, mut sums, mut facts, mut counts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut end, mut times) = (0, 0);
        for c in &self.chunks {
            put_varint(&mut places, i64::from(c.times) - times);
            put_varint(&mut places, c.offset as i64 - end);
            put_uvarint(&mut places, u64::from(c.len));
            times = i64::from(c.times);
            end = c.offset as i64 + i64::from(c.len);
            sums.extend_from_slice(&c.crc.to_le_bytes());
            let samples = self.times.get(c.times as usize).map_or(0, |t| t.count);
            c.facts.encode(samples, &mut facts);
        }
        let mut before = 0;
        for (i, end) in self.ends.iter().enumerate() {
            let extra = self.extras.get(&(i as u32));
            let head = extra.map_or(0, |e| 2 * e.histograms.len() + usize::from(e.starts.is_some()));
            put_uvarint(&mut counts, u64::from(end - before));
            put_uvarint(&mut counts, head as u64);
            if let Some(e) = extra {
                e.encode(&mut counts);
            }
            before = *end;
        }
        put_uvarint(&mut b, self.ends.len() as u64);
        put_uvarint(&mut b, self.chunks.len() as u64);
        for column in [&counts, &places, &sums, &facts, &self.labels.data] {
            put_uvarint(&mut b, column.len() as u64);
            b.extend_from_slice(column);
        }
        self.postings.encode(&mut b);
        b
    }

    pub(super) fn decode(mut d: &[u8], version: u32) -> Option<Index> {
        let d = &mut d;
        let mut index = Index::default();
        for _ in 0..get_uvarint(d)? {
            index.times.push(TimesRef {
                offset: get_uvarint(d)?,
                len: uint(d)?,
                crc: checksum(d)?,
                count: uint(d)?,
                min: get_varint(d)?,
                max: get_varint(d)?,
            });
        }
        if version < 3 {
            index.decode_series_v2(d, version)?;
            index.postings = Postings::decode(d, false)?;
            return Some(index);
        }
        let (series, chunks) = (uint(d)?, uint(d)?);
        let mut column = || {
            let n = usize::try_from(get_uvarint(d)?).ok()?;
            take(d, n)
        };
        let (mut counts, mut places, mut sums, mut facts) = (column()?, column()?, column()?, column()?);
        let labels = column()?;
        let mut end = 0u32;
        for i in 0..series {
            end = end.checked_add(uint(&mut counts)?)?;
            index.ends.push(end);
            let head = get_uvarint(&mut counts)?;
            if head > 0 {
                index.extras.insert(i, ExtraRefs::decode(head, &mut counts)?);
            }
        }
        if end != chunks {
            return None;
        }
        let (mut end, mut times) = (0i64, 0i64);
        for _ in 0..chunks {
            times = times.checked_add(get_varint(&mut places)?)?;
            let offset = end.checked_add(get_varint(&mut places)?)?;
            let len = uint(&mut places)?;
            end = offset.checked_add(i64::from(len))?;
            let times = u32::try_from(times).ok()?;
            let samples = index.times.get(times as usize)?.count;
            index.chunks.push(ChunkRef {
                times,
                offset: u64::try_from(offset).ok()?,
                len,
                crc: checksum(&mut sums)?,
                facts: ChunkFacts::decode(samples, &mut facts)?,
            });
        }
        index.labels = LabelTable::read(labels, series as usize)?;
        index.postings = Postings::decode(d, true)?;
        Some(index)
    }

    /// Versions 1 and 2 had all of a series together.
    fn decode_series_v2(&mut self, d: &mut &[u8], version: u32) -> Option<()> {
        let mut labels = Vec::new();
        for i in 0..uint(d)? {
            let shared = usize::try_from(get_uvarint(d)?).ok()?;
            let rest = usize::try_from(get_uvarint(d)?).ok()?;
            labels.truncate(shared);
            labels.extend_from_slice(take(d, rest)?);
            self.labels.push(&labels);
            for _ in 0..get_uvarint(d)? {
                let (times, offset) = (uint(d)?, get_uvarint(d)?);
                let (len, crc) = (uint(d)?, checksum(d)?);
                let (low, high, sum) = (float(d)?, float(d)?, float(d)?);
                // What that version did not know is not to be relied on: as if there were NaNs.
                let unknown = ChunkFacts::of(&[]);
                let facts = ChunkFacts { low, high, sum, nan: true, ..unknown };
                self.chunks.push(ChunkRef { times, offset, len, crc, facts });
            }
            self.ends.push(self.chunks.len() as u32);
            let head = if version >= 2 { get_uvarint(d)? } else { 0 };
            if head > 0 {
                self.extras.insert(i, ExtraRefs::decode(head, d)?);
            }
        }
        Some(())
    }
}

impl LabelTable {
    fn read(data: &[u8], count: usize) -> Option<Self> {
        let mut table = LabelTable { data: data.to_vec(), count, ..LabelTable::default() };
        let mut d = data;
        for i in 0..count {
            if i.is_multiple_of(RESTART) {
                table.groups.push((data.len() - d.len()) as u32);
            }
            get_uvarint(&mut d)?;
            let rest = usize::try_from(get_uvarint(&mut d)?).ok()?;
            take(&mut d, rest)?;
        }
        Some(table)
    }
}
