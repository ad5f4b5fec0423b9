//! The stream of a series' native histograms: each against the one before.
//!
//! A sample is a byte of flags (1: the layout is written out, 2: the start time differs from the one before,
//! bits 2–3: the hint), the zigzag change of the time's step, then start and layout if so flagged, then the numbers:
//! zero count, count, sum, positive counts, negative counts. A number is a code byte: 0 equal to its predecessor;
//! 1–64 the non-zero middle bytes of the XOR with it, as in the float stream; 65 a zigzag difference of whole
//! numbers follows; 128 and above such a difference in seven bits. Growing whole counts so cost a byte or two each.

use std::sync::Arc;

use signal::histogram::{Bucket, ResetHint};
use signal::{FloatHistogram, HistogramSample};

use super::{get_uvarint, get_varint, put_uvarint, put_varint, take};

const LAYOUT: u8 = 1;
const START: u8 = 2;
const WIDE_DIFFERENCE: u8 = 65;
/// Buckets of one side that a decoder believes in.
const MOST_BUCKETS: u64 = 1 << 16;

/// The state that both ends of a stream keep.
#[derive(Clone, Debug, Default)]
pub(crate) struct HistogramState {
    pub(crate) count: u32,
    step: i64,
    last: Option<HistogramSample>,
}

fn whole(v: f64) -> Option<i64> {
    (v.fract() == 0.0 && v.abs() < 9e15 && !(v == 0.0 && v.is_sign_negative())).then_some(v as i64)
}

fn put_number(out: &mut Vec<u8>, v: f64, before: f64) {
    let xor = v.to_bits() ^ before.to_bits();
    if xor == 0 {
        out.push(0);
    } else if let (Some(a), Some(b)) = (whole(v), whole(before)) {
        let difference = a - b;
        if (-64..64).contains(&difference) {
            out.push(0x80 | ((difference << 1) ^ (difference >> 63)) as u8);
        } else {
            out.push(WIDE_DIFFERENCE);
            put_varint(out, difference);
        }
    } else {
        let tail = (xor.trailing_zeros() / 8) as usize;
        let len = 8 - (xor.leading_zeros() / 8) as usize - tail;
        out.push((1 + 8 * tail + len - 1) as u8);
        out.extend_from_slice(xor.to_le_bytes().get(tail..tail + len).unwrap_or(&[]));
    }
}

fn get_number(data: &mut &[u8], before: f64) -> Option<f64> {
    let code = *take(data, 1)?.first()?;
    match code {
        0 => Some(before),
        0x80.. => {
            let z = i64::from(code & 0x7f);
            Some((whole(before)? + ((z >> 1) ^ -(z & 1))) as f64)
        }
        WIDE_DIFFERENCE => Some(whole(before)?.checked_add(get_varint(data)?)? as f64),
        _ => {
            let (tail, len) = (usize::from(code - 1) / 8, usize::from(code - 1) % 8 + 1);
            let mut xor = [0u8; 8];
            xor.get_mut(tail..tail + len)?.copy_from_slice(take(data, len)?);
            Some(f64::from_bits(before.to_bits() ^ u64::from_le_bytes(xor)))
        }
    }
}

fn put_float(out: &mut Vec<u8>, v: f64) {
    out.extend_from_slice(&v.to_bits().to_le_bytes());
}

fn get_float(data: &mut &[u8]) -> Option<f64> {
    Some(f64::from_bits(u64::from_le_bytes(take(data, 8)?.try_into().ok()?)))
}

fn same_layout(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    let indices =
        |a: &[Bucket], b: &[Bucket]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.index == b.index);
    a.schema == b.schema
        && a.zero_threshold.to_bits() == b.zero_threshold.to_bits()
        && a.bounds == b.bounds
        && indices(&a.positive, &b.positive)
        && indices(&a.negative, &b.negative)
}

fn put_indices(out: &mut Vec<u8>, buckets: &[Bucket]) {
    put_uvarint(out, buckets.len() as u64);
    let mut last = 0i64;
    for b in buckets {
        put_varint(out, i64::from(b.index) - last);
        last = i64::from(b.index);
    }
}

fn get_indices(data: &mut &[u8]) -> Option<Vec<Bucket>> {
    let n = get_uvarint(data).filter(|n| *n <= MOST_BUCKETS)?;
    let mut last = 0i64;
    (0..n)
        .map(|_| {
            last = last.checked_add(get_varint(data)?)?;
            Some(Bucket { index: i32::try_from(last).ok()?, count: 0.0 })
        })
        .collect()
}

/// All numbers of a histogram in the order in which they are written.
fn numbers(h: &mut FloatHistogram) -> impl Iterator<Item = &mut f64> {
    let buckets = h.positive.iter_mut().chain(&mut h.negative).map(|b| &mut b.count);
    [&mut h.zero_count, &mut h.count, &mut h.sum].into_iter().chain(buckets)
}

impl HistogramState {
    pub(crate) fn last(&self) -> Option<&HistogramSample> {
        self.last.as_ref()
    }

    pub(crate) fn push(&mut self, out: &mut Vec<u8>, s: &HistogramSample) {
        let h = &s.histogram;
        let last_t = self.last.as_ref().map_or(0, |l| l.timestamp);
        let last_start = self.last.as_ref().map_or(0, |l| l.start);
        let layout = self.last.as_ref().is_none_or(|l| !same_layout(&l.histogram, h));
        let hint = match h.hint {
            ResetHint::Unknown => 0,
            ResetHint::Reset => 1,
            ResetHint::NotReset => 2,
            ResetHint::Gauge => 3u8,
        };
        let start = s.start != last_start;
        out.push((u8::from(layout) * LAYOUT) | (u8::from(start) * START) | (hint << 2));
        let step = s.timestamp.wrapping_sub(last_t);
        put_varint(out, step.wrapping_sub(self.step));
        self.step = step;
        if start {
            put_varint(out, s.start.wrapping_sub(s.timestamp));
        }
        let mut before = FloatHistogram::default();
        if layout {
            put_varint(out, i64::from(h.schema));
            put_float(out, h.zero_threshold);
            put_uvarint(out, h.bounds.len() as u64);
            h.bounds.iter().for_each(|b| put_float(out, *b));
            put_indices(out, &h.positive);
            put_indices(out, &h.negative);
            before.positive = h.positive.iter().map(|b| Bucket { index: b.index, count: 0.0 }).collect();
            before.negative = h.negative.iter().map(|b| Bucket { index: b.index, count: 0.0 }).collect();
        } else if let Some(l) = &self.last {
            before = (*l.histogram).clone();
        }
        let mut now = (**h).clone();
        for (v, before) in numbers(&mut now).zip(numbers(&mut before)) {
            put_number(out, *v, *before);
        }
        self.last = Some(s.clone());
        self.count += 1;
    }
}

/// Reads a stream of `count` histograms. `None` means the bytes are not one.
pub(crate) fn decode_histograms(
    mut data: &[u8],
    count: u32,
    mut each: impl FnMut(HistogramSample),
) -> Option<()> {
    let d = &mut data;
    let (mut t, mut step, mut start) = (0i64, 0i64, 0i64);
    let mut h = FloatHistogram::default();
    for i in 0..count {
        let flags = *take(d, 1)?.first()?;
        if i == 0 && flags & LAYOUT == 0 {
            return None;
        }
        step = step.wrapping_add(get_varint(d)?);
        t = t.wrapping_add(step);
        if flags & START != 0 {
            start = t.wrapping_add(get_varint(d)?);
        }
        if flags & LAYOUT != 0 {
            let schema = i32::try_from(get_varint(d)?).ok()?;
            let zero_threshold = get_float(d)?;
            let n = get_uvarint(d).filter(|n| *n <= MOST_BUCKETS)?;
            let bounds: Option<Vec<f64>> = (0..n).map(|_| get_float(d)).collect();
            h = FloatHistogram {
                schema,
                zero_threshold,
                bounds: bounds?.into(),
                positive: get_indices(d)?,
                negative: get_indices(d)?,
                ..FloatHistogram::default()
            };
        }
        for v in numbers(&mut h) {
            *v = get_number(d, *v)?;
        }
        h.hint = match flags >> 2 & 3 {
            0 => ResetHint::Unknown,
            1 => ResetHint::Reset,
            2 => ResetHint::NotReset,
            _ => ResetHint::Gauge,
        };
        each(HistogramSample { timestamp: t, start, histogram: Arc::new(h.clone()) });
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(t: i64, start: i64, counts: &[(i32, f64)], sum: f64, gauge: bool) -> HistogramSample {
        let mut positive: Vec<Bucket> =
            counts.iter().map(|(index, count)| Bucket { index: *index, count: *count }).collect();
        positive.sort_by_key(|b| b.index);
        positive.dedup_by_key(|b| b.index);
        let h = FloatHistogram {
            hint: if gauge { ResetHint::Gauge } else { ResetHint::NotReset },
            schema: if gauge { signal::histogram::CUSTOM_SCHEMA } else { 3 },
            count: counts.iter().map(|c| c.1).sum(),
            sum,
            negative: positive.clone(),
            positive,
            bounds: if gauge { [1.0, 2.5].into() } else { [].into() },
            ..FloatHistogram::default()
        };
        HistogramSample { timestamp: t, start, histogram: Arc::new(h) }
    }

    #[test]
    fn growing_counts_cost_about_a_byte_each() {
        let (mut s, mut out) = (HistogramState::default(), Vec::new());
        for i in 0..100 {
            let counts: Vec<(i32, f64)> = (0..20).map(|b| (b, f64::from(i * (b + 1)))).collect();
            s.push(&mut out, &sample(i64::from(i) * 15_000, 0, &counts, f64::from(i) * 0.3, false));
        }
        assert!(out.len() < 100 * 55, "{}", out.len());
    }

    proptest! {
        #[test]
        fn streams_round_trip_bit_exactly(
            raw in proptest::collection::vec((any::<i64>(), 0..3i64,
                proptest::collection::vec((-20..20i32, prop_oneof![(0..1000u32).prop_map(f64::from), any::<f64>()]), 0..8),
                any::<f64>(), any::<bool>()), 0..40),
        ) {
            let samples: Vec<HistogramSample> =
                raw.iter().map(|(t, start, c, sum, g)| sample(*t, *start, c, *sum, *g)).collect();
            let (mut s, mut out) = (HistogramState::default(), Vec::new());
            samples.iter().for_each(|x| s.push(&mut out, x));
            let mut got = Vec::new();
            decode_histograms(&out, s.count, |x| got.push(x)).expect("decodes");
            prop_assert_eq!(got.len(), samples.len());
            for (a, b) in got.iter().zip(&samples) {
                prop_assert_eq!((a.timestamp, a.start, a.histogram.hint), (b.timestamp, b.start, b.histogram.hint));
                prop_assert_eq!(&a.histogram, &b.histogram);
            }
        }

        #[test]
        fn any_bytes_are_refused_or_read(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            decode_histograms(&data, 50, |_| ());
        }
    }
}
