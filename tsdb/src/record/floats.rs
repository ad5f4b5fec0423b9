//! The floats of one append in columns: series numbers, counts, times, and values told as differences.
//!
//! A series' first value in a record is a difference from its *anchor*: the value that an earlier record, known to be
//! in the log, told whole. So a record that is lost takes no more than itself with it, or, if it set anchors, the
//! values that hang from them, at most [`MOST_AGE`] records; a reader knows which. Format: FORMAT.md, "WAL record".

use signal::Sample;

use crate::codec::{get_uvarint, get_varint, put_uvarint, put_varint, take};

/// Records of a series between two anchors.
const MOST_AGE: u8 = 48;
/// The base of a value that is told whole and becomes the anchor …
const ANCHOR: u32 = 0;
/// … or does not, because another record that does so is on its way.
const WHOLE: u32 = 1;
/// Codes from here on are differences of bits, those below of whole numbers.
const BITS: u8 = 16;
/// The largest whole numbers that a float holds one by one.
const WHOLE_NUMBERS: i64 = 1 << 53;

/// What the values of a series are told from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Anchor {
    value: f64,
    /// The record that told it, 0 if there is none.
    record: u32,
    age: u8,
    /// A record with a new anchor is on its way to the log.
    pending: bool,
}

impl Anchor {
    /// The record may be in the log or not: nothing hangs from it, nor from what it was to replace.
    pub(crate) fn give_up(&mut self) {
        *self = Anchor::default();
    }

    pub(crate) fn confirm(&mut self, record: u32, value: f64) {
        *self = Anchor { value, record, age: 0, pending: false };
    }
}

/// The floats of an append, admitted.
#[derive(Debug, Default)]
pub(crate) struct Floats {
    /// Of the record, never 0.
    pub(crate) record: u32,
    /// Series number and how many samples.
    pub(crate) series: Vec<(u32, u32)>,
    pub(crate) samples: Vec<Sample>,
    /// Series whose anchor this record sets, and to what.
    pub(crate) anchors: Vec<(u32, f64)>,
    codes: Vec<u8>,
    bytes: Vec<u8>,
    /// For the first value of each series: what it is told from, and for how many series that holds.
    bases: Vec<(u32, u32)>,
}

impl Floats {
    pub(crate) fn new(record: u32, series: usize, samples: usize) -> Self {
        Floats {
            record,
            series: Vec::with_capacity(series),
            samples: Vec::with_capacity(samples),
            codes: Vec::with_capacity(samples),
            bytes: Vec::with_capacity(4 * samples),
            ..Floats::default()
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, id: u32, anchor: &mut Anchor, samples: &[Sample]) {
        let Some(first) = samples.first() else { return };
        let (base, mut before) = if anchor.record != 0 && (anchor.age < MOST_AGE || anchor.pending) {
            anchor.age = anchor.age.saturating_add(1);
            (self.record.wrapping_sub(anchor.record).wrapping_add(WHOLE), anchor.value)
        } else if anchor.pending {
            (WHOLE, 0.0)
        } else {
            anchor.pending = true;
            self.anchors.push((id, first.value));
            (ANCHOR, 0.0)
        };
        match self.bases.last_mut() {
            Some((b, n)) if *b == base => *n += 1,
            _ => self.bases.push((base, 1)),
        }
        for s in samples {
            self.put(before, s.value);
            before = s.value;
        }
        self.series.push((id, samples.len() as u32));
        self.samples.extend_from_slice(samples);
    }

    #[inline]
    fn put(&mut self, before: f64, value: f64) {
        let xor = before.to_bits() ^ value.to_bits();
        if xor == 0 {
            self.codes.push(0);
            return;
        }
        if let (Some(a), Some(b)) = (whole(before), whole(value)) {
            let d = b - a;
            let z = ((d << 1) ^ (d >> 63)) as u64;
            let n = 8 - z.leading_zeros() as usize / 8;
            self.codes.push(n as u8);
            self.bytes.extend_from_slice(z.to_le_bytes().get(..n).unwrap_or(&[]));
        } else {
            let tail = (xor.trailing_zeros() / 8) as usize;
            let n = 8 - (xor.leading_zeros() / 8) as usize - tail;
            self.codes.push(BITS + (8 * tail + n - 1) as u8);
            self.bytes.extend_from_slice(xor.to_le_bytes().get(tail..tail + n).unwrap_or(&[]));
        }
    }

    pub(super) fn encode(&self, b: &mut Vec<u8>) {
        put_uvarint(b, self.series.len() as u64);
        if self.series.is_empty() {
            return;
        }
        // Numbers of neighbours follow each other: told as the step beyond one, most are nought.
        let mut last = -1i64;
        for (id, _) in &self.series {
            put_varint(b, i64::from(*id) - last - 1);
            last = i64::from(*id);
        }
        let single = self.samples.len() == self.series.len();
        b.push(u8::from(!single));
        if !single {
            self.series.iter().for_each(|(_, n)| put_uvarint(b, u64::from(*n)));
        }
        let first = self.samples.first().map_or(0, |s| s.timestamp);
        put_varint(b, first);
        let same = self.samples.iter().all(|s| s.timestamp == first);
        b.push(u8::from(!same));
        if !same {
            let mut last = first;
            for s in &self.samples {
                put_varint(b, s.timestamp.wrapping_sub(last));
                last = s.timestamp;
            }
        }
        put_uvarint(b, self.bases.len() as u64);
        for (base, n) in &self.bases {
            put_uvarint(b, u64::from(*base));
            put_uvarint(b, u64::from(*n));
        }
        b.extend_from_slice(&self.codes);
        b.extend_from_slice(&self.bytes);
    }
}

/// The number, if it is whole and small enough that differences are exact.
#[inline]
fn whole(v: f64) -> Option<i64> {
    let n = v as i64;
    // By bits, since -0.0 must stay what it is.
    ((n as f64).to_bits() == v.to_bits() && n.abs() < WHOLE_NUMBERS).then_some(n)
}

/// A series as the log's reader knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) id: u32,
    /// Record and value of the newest anchor and the one before it: a record that was written while the newest was
    /// on its way still hangs from the other.
    anchors: [(u32, f64); 2],
}

impl Known {
    pub(crate) fn new(id: u32) -> Self {
        Known { id, anchors: [(0, 0.0); 2] }
    }
}

/// The floats of a record as they stand in the log.
#[derive(Debug)]
pub(crate) struct Columns<'a> {
    record: u32,
    series: Vec<(u32, u32)>,
    times: Vec<i64>,
    bases: Vec<(u32, u32)>,
    codes: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> Columns<'a> {
    /// They are the rest of `b` up to what [`Columns::end`] says.
    pub(super) fn decode(record: u32, b: &mut &'a [u8]) -> Option<Columns<'a>> {
        // Each number takes at least a byte: what claims to be more than that is no record.
        let believable = |n: u64, b: &[u8]| usize::try_from(n).ok().filter(|n| *n <= b.len());
        let n = get_uvarint(b)?;
        let n = believable(n, b)?;
        let mut series = Vec::with_capacity(n);
        let mut times = Vec::new();
        let mut bases = Vec::new();
        if n == 0 {
            return Some(Columns { record, series, times, bases, codes: &[], bytes: &[] });
        }
        let mut last = -1i64;
        for _ in 0..n {
            last = last.checked_add(1)?.checked_add(get_varint(b)?)?;
            series.push((u32::try_from(last).ok()?, 1));
        }
        let mut samples = n as u64;
        if *take(b, 1)?.first()? != 0 {
            samples = 0;
            for (_, count) in &mut series {
                *count = u32::try_from(get_uvarint(b)?).ok()?;
                samples = samples.checked_add(u64::from(*count))?;
            }
        }
        let samples = believable(samples, b)?;
        let mut t = get_varint(b)?;
        if *take(b, 1)?.first()? == 0 {
            times.resize(samples, t);
        } else {
            times.reserve(samples);
            for _ in 0..samples {
                t = t.wrapping_add(get_varint(b)?);
                times.push(t);
            }
        }
        let runs = get_uvarint(b)?;
        for _ in 0..believable(runs, b)? {
            bases.push((u32::try_from(get_uvarint(b)?).ok()?, u32::try_from(get_uvarint(b)?).ok()?));
        }
        let codes = take(b, samples)?;
        let len = codes.iter().map(|c| bytes_of(*c).map(|r| r.1)).sum::<Option<usize>>()?;
        let bytes = take(b, len)?;
        Some(Columns { record, series, times, bases, codes, bytes })
    }

    pub(crate) fn samples(&self) -> usize {
        self.times.len()
    }

    /// Gives each sample with the series' number, and back how many hang from what is lost.
    pub(crate) fn read(mut self, known: &mut [Option<Known>], mut each: impl FnMut(u32, Sample)) -> u64 {
        let mut lost = 0;
        let mut bases = self.bases.iter();
        let (mut base, mut left) = (ANCHOR, 0);
        let mut at = 0;
        for (id, count) in &self.series {
            while left == 0 {
                match bases.next() {
                    Some((b, n)) => (base, left) = (*b, *n),
                    // More series than bases: what is no record says anything.
                    None => return lost + (self.times.len() - at) as u64,
                }
            }
            left -= 1;
            let mut series = known.get_mut(*id as usize).and_then(Option::as_mut);
            let mut before = match (base, &series) {
                (ANCHOR | WHOLE, _) => Some(0.0),
                (_, Some(k)) => {
                    let from = self.record.wrapping_sub(base.wrapping_sub(WHOLE));
                    k.anchors.iter().find(|(r, _)| *r == from && *r != 0).map(|(_, v)| *v)
                }
                (_, None) => None,
            };
            for i in 0..*count {
                let (code, time) = (self.codes.get(at).copied().unwrap_or(0), self.times.get(at).copied());
                at += 1;
                let difference = next(code, &mut self.bytes);
                before = before.and_then(|b| apply(b, code, difference));
                if i == 0
                    && base == ANCHOR
                    && let (Some(k), Some(v)) = (&mut series, before)
                {
                    k.anchors = [(self.record, v), k.anchors[0]];
                }
                match (&series, before, time) {
                    (Some(k), Some(value), Some(timestamp)) => each(k.id, Sample { timestamp, value }),
                    _ => lost += 1,
                }
            }
        }
        lost
    }
}

/// Where the bytes of a code stand in eight, and how many there are.
fn bytes_of(code: u8) -> Option<(usize, usize)> {
    match code {
        0..=8 => Some((0, usize::from(code))),
        BITS..80 => {
            let c = usize::from(code - BITS);
            let (tail, n) = (c / 8, c % 8 + 1);
            (tail + n <= 8).then_some((tail, n))
        }
        _ => None,
    }
}

fn next(code: u8, bytes: &mut &[u8]) -> u64 {
    let (tail, n) = bytes_of(code).unwrap_or((0, 0));
    let mut raw = [0u8; 8];
    if let (Some(taken), Some(to)) = (take(bytes, n), raw.get_mut(tail..tail + n)) {
        to.copy_from_slice(taken);
    }
    u64::from_le_bytes(raw)
}

fn apply(before: f64, code: u8, difference: u64) -> Option<f64> {
    if !(1..BITS).contains(&code) {
        return Some(f64::from_bits(before.to_bits() ^ difference));
    }
    let d = (difference >> 1) as i64 ^ -((difference & 1) as i64);
    Some(whole(before)?.checked_add(d)? as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Values as series have them: steps, noise, and anything.
    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            (-1000i64..1000).prop_map(|n| n as f64),
            any::<u64>().prop_map(f64::from_bits),
            Just(-0.0),
            Just((1u64 << 53) as f64),
            Just(signal::stale_nan()),
        ]
    }

    /// A record's series with their values, whether it reaches the log, and whether it is kept.
    type Told = (Vec<(u32, Vec<f64>)>, bool, bool);

    fn round(records: &[Told]) -> Result<(), TestCaseError> {
        let mut anchors = [Anchor::default(); 4];
        let mut known: Vec<Option<Known>> = (0..4).map(|i| Some(Known::new(i))).collect();
        for (i, (series, reaches, kept)) in records.iter().enumerate() {
            let number = i as u32 + 1;
            let mut floats = Floats::new(number, 0, 0);
            let mut expect = Vec::new();
            for (id, values) in series {
                let samples: Vec<Sample> = values
                    .iter()
                    .zip(1..)
                    .map(|(v, t)| Sample { timestamp: t * 7 + i as i64, value: *v })
                    .collect();
                floats.push(*id, &mut anchors[*id as usize], &samples);
                expect.extend(samples.iter().map(|s| (*id, s.timestamp, s.value.to_bits())));
            }
            let mut bytes = Vec::new();
            floats.encode(&mut bytes);
            for (id, v) in &floats.anchors {
                match reaches {
                    true => anchors[*id as usize].confirm(number, *v),
                    false => anchors[*id as usize].give_up(),
                }
            }
            if !(*reaches && *kept) {
                continue;
            }
            let b = &mut bytes.as_slice();
            let columns = Columns::decode(number, b).expect("decodes");
            prop_assert!(b.is_empty());
            let mut got = Vec::new();
            let lost = columns.read(&mut known, |id, s| got.push((id, s.timestamp, s.value.to_bits())));
            // What hangs from a lost record is missing and counted; what is there is right.
            prop_assert_eq!(got.len() as u64 + lost, expect.len() as u64);
            prop_assert!(got.iter().all(|g| expect.contains(g)));
            if records.iter().all(|(_, _, kept)| *kept) {
                prop_assert_eq!(got, expect);
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn values_round_trip_bit_exactly_whatever_is_lost(
            records in proptest::collection::vec(
                (proptest::collection::vec((0..4u32, proptest::collection::vec(value(), 1..4)), 0..6), any::<bool>(), prop::bool::weighted(0.9)),
                0..80,
            ),
        ) {
            round(&records)?;
        }

        #[test]
        fn any_bytes_are_refused_or_read(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(c) = Columns::decode(9, &mut data.as_slice()) {
                c.read(&mut [Some(Known::new(0)), None], |_, _| ());
            }
        }
    }

    #[test]
    fn steady_series_cost_next_to_nothing() {
        let mut anchors = vec![Anchor::default(); 1000];
        let mut sizes = Vec::new();
        for record in 1..=3u32 {
            let mut f = Floats::new(record, 0, 0);
            for id in 0..1000 {
                f.push(
                    id,
                    &mut anchors[id as usize],
                    &[Sample { timestamp: 5, value: 1e9 + f64::from(record) }],
                );
            }
            let mut bytes = Vec::new();
            f.encode(&mut bytes);
            sizes.push(bytes.len());
            f.anchors.iter().for_each(|(id, v)| anchors[*id as usize].confirm(record, *v));
        }
        assert!(sizes[0] > 5000 && sizes[1] < 3050 && sizes[2] < 3050, "{sizes:?}");
    }
}
