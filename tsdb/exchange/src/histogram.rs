//! Chunks of native histograms: one layout of buckets for all, then numbers as differences (whole ones) or as what
//! differs (fractions). Only the latter are written: counts are held as floats here.

use std::sync::Arc;

use signal::histogram::{Bucket, ResetHint, Span};
use signal::{FloatHistogram, HistogramSample};

use crate::bits::{BitReader, BitWriter};
use crate::varbit::{int, put_int, put_uint, uint};
use crate::xor::Xor;

/// Buckets of one side that are believed; the widest schema has 16,384 of all finite floats above zero for each sign.
const MOST_BUCKETS: u64 = 1 << 19;

/// What all histograms of a chunk share.
struct Layout {
    schema: i32,
    zero_threshold: f64,
    positive: Vec<Span>,
    negative: Vec<Span>,
    bounds: Arc<[f64]>,
}

/// The indexes of all buckets in spans.
fn indexes(spans: &[Span]) -> Option<Vec<i32>> {
    let total: u64 = spans.iter().map(|(_, n)| u64::from(*n)).sum();
    if total > MOST_BUCKETS {
        return None;
    }
    let mut out = Vec::with_capacity(total as usize);
    let mut at = 0i32;
    for (gap, n) in spans {
        at = at.checked_add(*gap)?;
        for _ in 0..*n {
            out.push(at);
            at = at.checked_add(1)?;
        }
    }
    Some(out)
}

fn put_threshold(out: &mut BitWriter, t: f64) {
    if t == 0.0 {
        return out.bits(0, 8);
    }
    // A power of two has no fraction; its exponent, of a value from ½ to 1, has a byte's room.
    let bits = t.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i64 - 1022;
    if bits & ((1 << 52) - 1) == 0 && t > 0.0 && (-242..=11).contains(&exponent) {
        return out.bits((exponent + 243) as u64, 8);
    }
    out.bits(255, 8);
    out.bits(bits, 64);
}

fn threshold(r: &mut BitReader<'_>) -> Option<f64> {
    Some(match r.bits(8)? {
        0 => 0.0,
        255 => f64::from_bits(r.bits(64)?),
        n => 0.5 * f64::powi(2.0, n as i32 - 243),
    })
}

fn put_bound(out: &mut BitWriter, b: f64) {
    let thousandths = b * 1000.0;
    let rounded = thousandths.round();
    if (0.0..=33_554_430.0).contains(&thousandths) && rounded / 1000.0 == b {
        return put_uint(out, rounded as u64 + 1);
    }
    out.bits(0, 1);
    out.bits(b.to_bits(), 64);
}

fn bound(r: &mut BitReader<'_>) -> Option<f64> {
    Some(match uint(r)? {
        0 => f64::from_bits(r.bits(64)?),
        n => (n - 1) as f64 / 1000.0,
    })
}

fn put_spans(out: &mut BitWriter, spans: &[Span]) {
    put_uint(out, spans.len() as u64);
    for (gap, n) in spans {
        put_uint(out, u64::from(*n));
        put_int(out, i64::from(*gap));
    }
}

fn spans(r: &mut BitReader<'_>) -> Option<Vec<Span>> {
    let n = uint(r)?;
    // Each has two bits at least.
    if n > r.left() as u64 {
        return None;
    }
    (0..n)
        .map(|_| {
            let length = u32::try_from(uint(r)?).ok()?;
            Some((i32::try_from(int(r)?).ok()?, length))
        })
        .collect()
}

fn layout(r: &mut BitReader<'_>) -> Option<Layout> {
    let zero_threshold = threshold(r)?;
    let schema = i32::try_from(int(r)?).ok()?;
    let (positive, negative) = (spans(r)?, spans(r)?);
    let mut bounds = Vec::new();
    if schema == signal::histogram::CUSTOM_SCHEMA {
        let n = uint(r)?;
        if n > r.left() as u64 {
            return None;
        }
        for _ in 0..n {
            bounds.push(bound(r)?);
        }
    }
    Some(Layout { schema, zero_threshold, positive, negative, bounds: bounds.into() })
}

/// The spans of all buckets that any of the histograms has.
fn union(all: &[HistogramSample], side: impl Fn(&FloatHistogram) -> &[Bucket]) -> Vec<Span> {
    let mut indexes: Vec<i32> = all.iter().flat_map(|s| side(&s.histogram)).map(|b| b.index).collect();
    indexes.sort_unstable();
    indexes.dedup();
    let buckets: Vec<Bucket> = indexes.into_iter().map(|index| Bucket { index, count: 1.0 }).collect();
    FloatHistogram::to_spans(&buckets).0
}

/// Counts of these buckets, 0 where there is none.
fn counts<'a>(indexes: &'a [i32], buckets: &'a [Bucket]) -> impl Iterator<Item = f64> + 'a {
    let mut buckets = buckets.iter().peekable();
    indexes.iter().map(move |i| buckets.next_if(|b| b.index == *i).map_or(0.0, |b| b.count))
}

/// How many of the histograms, from the first on, can stand in one chunk, of `most` at most.
pub(crate) fn run(all: &[HistogramSample], most: usize) -> usize {
    let fits = |w: &[HistogramSample]| {
        let (a, b) = (&w[0].histogram, &w[1].histogram);
        !a.is_stale()
            && !b.is_stale()
            && b.hint != ResetHint::Reset
            && (a.hint == ResetHint::Gauge) == (b.hint == ResetHint::Gauge)
            && a.schema == b.schema
            && a.zero_threshold == b.zero_threshold
            && a.bounds == b.bounds
            // Within a chunk, readers take it that counting goes on.
            && (b.hint == ResetHint::Gauge || !b.is_reset_after(a))
    };
    let cut = all.windows(2).take(most.saturating_sub(1)).position(|w| !fits(w));
    cut.map_or(all.len().min(most), |n| n + 1)
}

/// A chunk of float histograms, all of one [`run`].
pub(crate) fn encode(all: &[HistogramSample]) -> Vec<u8> {
    let n = u16::try_from(all.len()).expect("chunks are cut far shorter");
    let is_gauge = all.first().is_some_and(|s| s.histogram.hint == ResetHint::Gauge);
    let mut header = n.to_be_bytes().to_vec();
    header.push(if is_gauge { 0b1100_0000 } else { 0 });
    let mut out = BitWriter::after(header);
    let (positive, negative) = (union(all, |h| &h.positive), union(all, |h| &h.negative));
    let both = [indexes(&positive).unwrap_or_default(), indexes(&negative).unwrap_or_default()];
    let (mut t, mut delta) = (0i64, 0i64);
    let mut numbers: Vec<Xor> = Vec::new();
    for (i, s) in all.iter().enumerate() {
        let h = &s.histogram;
        let of_buckets = counts(&both[0], &h.positive).chain(counts(&both[1], &h.negative));
        let values = [h.count, h.zero_count, h.sum].into_iter().chain(of_buckets);
        if i == 0 {
            put_threshold(&mut out, h.zero_threshold);
            put_int(&mut out, i64::from(h.schema));
            put_spans(&mut out, &positive);
            put_spans(&mut out, &negative);
            if h.is_custom() {
                put_uint(&mut out, h.bounds.len() as u64);
                h.bounds.iter().for_each(|b| put_bound(&mut out, *b));
            }
            put_int(&mut out, s.timestamp);
            for v in values {
                out.bits(v.to_bits(), 64);
                numbers.push(Xor::new(v));
            }
        } else {
            let next = s.timestamp.wrapping_sub(t);
            put_int(&mut out, next.wrapping_sub(delta));
            delta = next;
            for (x, v) in numbers.iter_mut().zip(values) {
                x.put(&mut out, v);
            }
        }
        t = s.timestamp;
    }
    out.bytes()
}

/// One side's buckets that hold something.
fn side(indexes: &[i32], counts: impl Iterator<Item = f64>) -> Vec<Bucket> {
    let all = indexes.iter().zip(counts).map(|(index, count)| Bucket { index: *index, count });
    all.filter(|b| b.count != 0.0).collect()
}

/// Reads a chunk; `is_float` says of which of the two kinds. `None` if it is cut short or impossible.
pub(crate) fn decode(data: &[u8], is_float: bool, mut sample: impl FnMut(HistogramSample)) -> Option<()> {
    let (header, rest) = data.split_first_chunk::<3>()?;
    let n = u16::from_be_bytes([header[0], header[1]]);
    let flag = header[2] & 0b1100_0000;
    if n == 0 {
        return Some(());
    }
    let mut r = BitReader::new(rest);
    let l = layout(&mut r)?;
    let (positive, negative) = (indexes(&l.positive)?, indexes(&l.negative)?);
    let buckets = positive.len() + negative.len();
    // Each has a bit at least in each sample; so a short chunk cannot claim many.
    if buckets > r.left() {
        return None;
    }
    let mut state = if is_float { State::float(&mut r, buckets)? } else { State::whole(&mut r, buckets)? };
    for i in 0..n {
        if i > 0 {
            state.next(&mut r, positive.len())?;
        }
        let hint = match flag {
            0b1100_0000 => ResetHint::Gauge,
            _ if i > 0 => ResetHint::NotReset,
            0b1000_0000 => ResetHint::Reset,
            0b0100_0000 => ResetHint::NotReset,
            _ => ResetHint::Unknown,
        };
        let [count, zero_count, sum] = state.head();
        let mut histogram = if signal::is_stale_nan(sum) {
            FloatHistogram::stale()
        } else {
            let mut counts = state.counts(positive.len());
            FloatHistogram {
                hint,
                schema: l.schema,
                zero_threshold: l.zero_threshold,
                zero_count,
                count,
                sum,
                positive: side(&positive, counts.by_ref().take(positive.len())),
                negative: side(&negative, counts),
                bounds: l.bounds.clone(),
            }
        };
        // Higher ones are reserved, and merge down.
        if histogram.schema > 8 && histogram.schema <= 52 {
            histogram.reduce(8);
        }
        sample(HistogramSample { timestamp: state.t(), start: 0, histogram: Arc::new(histogram) });
    }
    Some(())
}

/// The numbers of the sample read last.
enum State {
    Float { t: i64, delta: i64, numbers: Vec<Xor> },
    Whole(Whole),
}

struct Whole {
    t: i64,
    t_delta: i64,
    /// Count and zero count, each with its difference.
    head: [(i64, i64); 2],
    sum: Xor,
    /// Differences of neighbouring buckets, each with its own difference.
    buckets: Vec<(i64, i64)>,
}

impl State {
    fn float(r: &mut BitReader<'_>, buckets: usize) -> Option<State> {
        let t = int(r)?;
        let numbers =
            (0..3 + buckets).map(|_| Some(Xor::new(f64::from_bits(r.bits(64)?)))).collect::<Option<_>>()?;
        Some(State::Float { t, delta: 0, numbers })
    }

    fn whole(r: &mut BitReader<'_>, buckets: usize) -> Option<State> {
        let t = int(r)?;
        let head = [(uint(r)? as i64, 0), (uint(r)? as i64, 0)];
        let sum = Xor::new(f64::from_bits(r.bits(64)?));
        let buckets = (0..buckets).map(|_| Some((int(r)?, 0))).collect::<Option<_>>()?;
        Some(State::Whole(Whole { t, t_delta: 0, head, sum, buckets }))
    }

    fn next(&mut self, r: &mut BitReader<'_>, _positive: usize) -> Option<()> {
        match self {
            State::Float { t, delta, numbers } => {
                *delta = delta.wrapping_add(int(r)?);
                *t = t.wrapping_add(*delta);
                for (i, x) in numbers.iter_mut().enumerate() {
                    x.read(r)?;
                    // A marker has no buckets.
                    if i == 2 && signal::is_stale_nan(x.value) {
                        break;
                    }
                }
            }
            State::Whole(w) => {
                w.t_delta = w.t_delta.wrapping_add(int(r)?);
                w.t = w.t.wrapping_add(w.t_delta);
                for (n, delta) in &mut w.head {
                    *delta = delta.wrapping_add(int(r)?);
                    *n = n.wrapping_add(*delta);
                }
                w.sum.read(r)?;
                if signal::is_stale_nan(w.sum.value) {
                    return Some(());
                }
                for (n, delta) in &mut w.buckets {
                    *delta = delta.wrapping_add(int(r)?);
                    *n = n.wrapping_add(*delta);
                }
            }
        }
        Some(())
    }

    fn t(&self) -> i64 {
        match self {
            State::Float { t, .. } => *t,
            State::Whole(w) => w.t,
        }
    }

    /// Count, zero count, sum.
    fn head(&self) -> [f64; 3] {
        match self {
            State::Float { numbers, .. } => [0, 1, 2].map(|i| numbers.get(i).map_or(0.0, |x: &Xor| x.value)),
            State::Whole(w) => [w.head[0].0 as f64, w.head[1].0 as f64, w.sum.value],
        }
    }

    /// Of all buckets, the positive ones first.
    fn counts(&self, positive: usize) -> impl Iterator<Item = f64> + '_ {
        let (floats, whole): (&[Xor], &[(i64, i64)]) = match self {
            State::Float { numbers, .. } => (numbers.get(3..).unwrap_or(&[]), &[]),
            State::Whole(w) => (&[], &w.buckets),
        };
        let mut sum = 0i64;
        let whole = whole.iter().enumerate().map(move |(i, (n, _))| {
            // Each side begins anew.
            sum = if i == positive { *n } else { sum.wrapping_add(*n) };
            sum as f64
        });
        floats.iter().map(|x| x.value).chain(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn h(count: f64, positive: &[(i32, f64)], negative: &[(i32, f64)]) -> FloatHistogram {
        let side = |b: &[(i32, f64)]| {
            b.iter().map(|(index, count)| Bucket { index: *index, count: *count }).collect()
        };
        FloatHistogram {
            schema: 2,
            zero_threshold: f64::powi(2.0, -128),
            zero_count: 1.0,
            count,
            sum: 4.5,
            positive: side(positive),
            negative: side(negative),
            ..FloatHistogram::default()
        }
    }

    fn samples(all: Vec<FloatHistogram>) -> Vec<HistogramSample> {
        let sample =
            |(i, h): (i64, _)| HistogramSample { timestamp: 1000 * i, start: 0, histogram: Arc::new(h) };
        (1..).zip(all).map(sample).collect()
    }

    fn round_trip(all: &[HistogramSample]) {
        let mut got = Vec::new();
        let mut rest = all;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(run(rest, 120));
            decode(&encode(now), true, |s| got.push(s)).expect("reads");
            rest = later;
        }
        assert_eq!(got, all);
    }

    #[test]
    fn chunks_are_cut_where_counting_begins_anew() {
        let all = samples(vec![
            h(3.0, &[(0, 1.0), (5, 1.0)], &[]),
            h(5.0, &[(0, 2.0), (1, 1.0), (5, 1.0)], &[(-3, 0.5)]),
            h(1.0, &[(1, 1.0)], &[]),
            FloatHistogram::stale(),
            h(2.0, &[(1, 1.0)], &[]),
        ]);
        assert_eq!(run(&all, 120), 2);
        assert_eq!(run(&all[2..], 120), 1);
        assert_eq!(run(&all, 1), 1);
        round_trip(&all);
    }

    #[test]
    fn custom_bounds_and_thresholds_survive() {
        let bounds: Arc<[f64]> = [-1.5, 0.005, 0.1, 2.5, 33_554.43, 1e9].as_slice().into();
        let custom = FloatHistogram {
            schema: signal::histogram::CUSTOM_SCHEMA,
            count: 2.0,
            sum: 1.0,
            positive: vec![Bucket { index: 1, count: 2.0 }],
            bounds,
            ..FloatHistogram::default()
        };
        round_trip(&samples(vec![custom]));
        for zero_threshold in [0.0, 1e-128, f64::powi(2.0, -243), 1024.0, 2048.0, 0.3] {
            round_trip(&samples(vec![FloatHistogram { zero_threshold, ..h(1.0, &[], &[]) }]));
        }
        let mut out = BitWriter::default();
        put_threshold(&mut out, f64::powi(2.0, -128));
        assert_eq!(out.bytes(), [116]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..200), is_float in any::<bool>()) {
            decode(&data, is_float, |_| {});
        }
    }
}
