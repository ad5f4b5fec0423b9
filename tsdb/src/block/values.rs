//! A chunk's values: the smallest of a few codings, all exact to the bit.
//!
//! What a scrape brings is mostly constant, or decimal numbers of few digits: those become whole numbers, whose
//! differences are small. The few stale markers among them are taken out first, so that they do not spoil that.

use crate::codec::{StreamState, decode_stream, get_uvarint, get_varint, put_uvarint, put_varint, take};

/// Samples in a chunk at most. Large enough for `pco` to learn a distribution, small enough to decode for one query.
pub(crate) const SAMPLES: usize = 8192;

const CONSTANT: u8 = 0;
/// `pco`'s standalone format, of format versions 1 and 2.
const PCO: u8 = 1;
const STREAM: u8 = 2;
const PATCHED: u8 = 3;
const FLOATS: u8 = 4;
const DECIMALS: u8 = 5;
const LINE: u8 = 6;

/// Below so many values `pco`'s own header outweighs what it saves.
const FEW: usize = 24;
/// Powers of ten by which a decimal is tried to become whole.
const MOST_DIGITS: u8 = 9;
/// Whole numbers a float holds exactly.
const WHOLE: f64 = 9_007_199_254_740_992.0;

/// Appends the values.
pub(crate) fn encode_values(out: &mut Vec<u8>, values: &[f64]) {
    let Some(first) = values.first() else {
        out.push(CONSTANT);
        return;
    };
    if values.iter().all(|v| v.to_bits() == first.to_bits()) {
        out.push(CONSTANT);
        out.extend_from_slice(&first.to_bits().to_le_bytes());
        return;
    }
    let odd: Vec<usize> = (0..values.len()).filter(|i| values.get(*i).is_some_and(|v| v.is_nan())).collect();
    if odd.is_empty() || odd.len() > values.len() / 16 + 1 || odd.len() == values.len() {
        return encode_plain(out, values);
    }
    out.push(PATCHED);
    put_uvarint(out, odd.len() as u64);
    let mut before = 0;
    let mut plain = values.to_vec();
    let mut neighbour = values.iter().copied().find(|v| !v.is_nan()).unwrap_or(0.0);
    for i in 0..plain.len() {
        match plain.get_mut(i) {
            Some(v) if v.is_nan() => {
                put_uvarint(out, (i - before) as u64);
                out.extend_from_slice(&v.to_bits().to_le_bytes());
                before = i;
                *v = neighbour;
            }
            Some(v) => neighbour = *v,
            None => {}
        }
    }
    if plain.iter().all(|v| v.to_bits() == neighbour.to_bits()) {
        out.push(CONSTANT);
        out.extend_from_slice(&neighbour.to_bits().to_le_bytes());
    } else {
        encode_plain(out, &plain);
    }
}

fn encode_plain(out: &mut Vec<u8>, values: &[f64]) {
    let begin = out.len();
    out.push(STREAM);
    let mut state = StreamState::default();
    values.iter().for_each(|v| state.push(out, 0, *v));
    let mut consider = |candidate: Vec<u8>| {
        if candidate.len() < out.len() - begin {
            out.truncate(begin);
            out.extend_from_slice(&candidate);
        }
    };
    let decimals = decimals(values);
    if let Some((digits, whole)) = &decimals
        && let Some(line) = line(*digits, whole)
    {
        return consider(line);
    }
    if values.len() < FEW {
        return;
    }
    match decimals {
        Some((digits, whole)) => consider(pack(vec![DECIMALS, digits], &whole)),
        None => consider(pack(vec![FLOATS], values)),
    }
}

/// The values as whole numbers, and the power of ten they were multiplied by; `None` if that loses a bit.
fn decimals(values: &[f64]) -> Option<(u8, Vec<i64>)> {
    let mut digits = 0;
    let mut out = Vec::with_capacity(values.len());
    'again: loop {
        let power = 10f64.powi(i32::from(digits));
        out.clear();
        for v in values {
            let scaled = (v * power).round();
            let whole = scaled as i64;
            // Of the whole number, since -0.0 and NaN would pass otherwise.
            if scaled.abs() >= WHOLE || (whole as f64 / power).to_bits() != v.to_bits() {
                if digits == MOST_DIGITS || !v.is_finite() {
                    return None;
                }
                digits += 1;
                continue 'again;
            }
            out.push(whole);
        }
        return Some((digits, out));
    }
}

/// Values that grow by the same amount each time.
fn line(digits: u8, whole: &[i64]) -> Option<Vec<u8>> {
    let [first, second, ..] = whole else { return None };
    let step = second - first;
    if !whole.windows(2).all(|w| matches!(w, [a, b] if b - a == step)) {
        return None;
    }
    let mut out = vec![LINE, digits];
    put_varint(&mut out, *first);
    put_varint(&mut out, step);
    Some(out)
}

pub(super) fn pack<T: pco::data_types::Number>(mut out: Vec<u8>, numbers: &[T]) -> Vec<u8> {
    let fits = "the default configuration suits any chunk of this size, and memory can be written";
    let file = pco::wrapped::FileCompressor::default();
    file.write_header(&mut out).expect(fits);
    let mut chunk = file.chunk_compressor(numbers, &pco::ChunkConfig::default()).expect(fits);
    chunk.write_meta(&mut out).expect(fits);
    chunk.write_page(0, &mut out).expect(fits);
    out
}

/// What decoding needs besides the bytes, kept from chunk to chunk.
#[derive(Default)]
pub(crate) struct Scratch {
    pco: pco::DecompressorScratch,
    whole: Vec<i64>,
}

/// Appends `count` numbers.
pub(super) fn unpack<T: pco::data_types::Number + Default>(
    data: &[u8],
    count: usize,
    scratch: &mut pco::DecompressorScratch,
    out: &mut Vec<T>,
) -> Option<()> {
    let (file, rest) = pco::wrapped::FileDecompressor::new(data).ok()?;
    let (chunk, rest) = file.chunk_decompressor::<T, _>(rest).ok()?;
    let mut page = chunk.page_decompressor_with_scratch(rest, count, scratch).ok()?;
    let begin = out.len();
    out.resize(begin + count, T::default());
    let progress = page.read(out.get_mut(begin..)?).ok()?;
    (progress.n_processed == count && progress.finished).then_some(())
}

/// Appends `count` values. `None` means that the bytes are not a chunk of so many.
pub(crate) fn decode_values(
    mut data: &[u8],
    count: usize,
    scratch: &mut Scratch,
    out: &mut Vec<f64>,
) -> Option<()> {
    if count > SAMPLES {
        return None;
    }
    let begin = out.len();
    match *take(&mut data, 1)?.first()? {
        CONSTANT if count == 0 => {}
        CONSTANT => {
            let bits = u64::from_le_bytes(take(&mut data, 8)?.try_into().ok()?);
            out.resize(begin + count, f64::from_bits(bits));
        }
        PCO => out.extend(pco::standalone::simple_decompress::<f64>(data).ok()?),
        STREAM => decode_stream(data, u32::try_from(count).ok()?, |_, value| out.push(value))?,
        FLOATS => unpack(data, count, &mut scratch.pco, out)?,
        DECIMALS => {
            let power = power(&mut data)?;
            scratch.whole.clear();
            unpack(data, count, &mut scratch.pco, &mut scratch.whole)?;
            out.extend(scratch.whole.iter().map(|w| *w as f64 / power));
        }
        LINE => {
            let power = power(&mut data)?;
            let (first, step) = (get_varint(&mut data)?, get_varint(&mut data)?);
            out.extend((0..count as i64).map(|i| first.wrapping_add(step.wrapping_mul(i)) as f64 / power));
        }
        PATCHED => {
            let n = usize::try_from(get_uvarint(&mut data)?).ok().filter(|n| *n <= count)?;
            let mut patches = Vec::with_capacity(n);
            let mut at = begin;
            for _ in 0..n {
                at = at.checked_add(usize::try_from(get_uvarint(&mut data)?).ok()?)?;
                patches.push((at, u64::from_le_bytes(take(&mut data, 8)?.try_into().ok()?)));
            }
            // Patches do not lie in patches: depth is bounded.
            if data.first() == Some(&PATCHED) {
                return None;
            }
            decode_values(data, count, scratch, out)?;
            for (at, bits) in patches {
                *out.get_mut(at)? = f64::from_bits(bits);
            }
        }
        _ => return None,
    }
    (out.len() - begin == count).then_some(())
}

fn power(data: &mut &[u8]) -> Option<f64> {
    let digits = *take(data, 1)?.first()?;
    (digits <= MOST_DIGITS).then(|| 10f64.powi(i32::from(digits)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(values: &[f64]) -> usize {
        let mut data = Vec::new();
        encode_values(&mut data, values);
        let mut got = vec![1.0];
        decode_values(&data, values.len(), &mut Scratch::default(), &mut got).expect("decodes");
        let bits = |v: &[f64]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(got.get(1..).unwrap_or(&[])), bits(values));
        data.len()
    }

    #[test]
    fn what_is_regular_is_small() {
        let stale = f64::from_bits(signal::STALE_NAN_BITS);
        let mut ended = vec![3.0; 500];
        ended.push(stale);
        assert!(check(&ended) < 24);
        assert!(check(&(0..1000).map(|i| f64::from(i) * 15.0).collect::<Vec<_>>()) < 12);
        assert!(check(&(0..1000).map(|i| f64::from(i * 7919 % 100) / 100.0).collect::<Vec<_>>()) < 1000);
        assert!(check(&[-0.0, 0.0, 1.0]) > 0);
        assert!(check(&[f64::INFINITY, 1.5, f64::NEG_INFINITY]) > 0);
    }

    proptest! {
        #[test]
        fn values_round_trip_bit_exactly(
            raw in proptest::collection::vec(prop_oneof![
                4 => (0..1000i64).prop_map(|n| n as f64 / 100.0),
                1 => any::<u64>().prop_map(f64::from_bits),
                1 => Just(f64::from_bits(signal::STALE_NAN_BITS)),
            ], 0..300),
        ) {
            check(&raw);
        }

        #[test]
        fn decimals_round_trip_bit_exactly(raw in proptest::collection::vec(any::<i32>(), 0..200), digits in 0..9i32) {
            let values: Vec<f64> = raw.iter().map(|n| f64::from(*n) / 10f64.powi(digits)).collect();
            check(&values);
        }

        #[test]
        fn any_bytes_are_refused_or_read(data in proptest::collection::vec(any::<u8>(), 0..100)) {
            decode_values(&data, 10, &mut Scratch::default(), &mut Vec::new());
        }
    }
}
