//! A timestamp column, shared by every chunk that was sampled at these times.

use super::values::{SAMPLES, pack, unpack};
use crate::codec::{StreamState, decode_stream, get_varint, put_varint, take};

const PCO: u8 = 1;
const STREAM: u8 = 2;
/// First time and step of times at equal distances.
const EVEN: u8 = 3;
const PACKED: u8 = 4;

pub(crate) fn encode_times(times: &[i64]) -> Vec<u8> {
    if let [first, second, ..] = times {
        let step = second.wrapping_sub(*first);
        if times.windows(2).all(|w| matches!(w, [a, b] if b.wrapping_sub(*a) == step)) {
            let mut out = vec![EVEN];
            put_varint(&mut out, *first);
            put_varint(&mut out, step);
            return out;
        }
    }
    let mut stream = vec![STREAM];
    let mut state = StreamState::default();
    times.iter().for_each(|t| state.push(&mut stream, *t, 0.0));
    if times.len() >= 32 {
        let packed = pack(vec![PACKED], times);
        if packed.len() < stream.len() {
            return packed;
        }
    }
    stream
}

pub(crate) fn decode_times(mut data: &[u8], count: usize) -> Option<Vec<i64>> {
    if count > SAMPLES {
        return None;
    }
    let times = match *take(&mut data, 1)?.first()? {
        PCO => pco::standalone::simple_decompress::<i64>(data).ok()?,
        STREAM => {
            let mut v = Vec::with_capacity(count);
            decode_stream(data, u32::try_from(count).ok()?, |t, _| v.push(t))?;
            v
        }
        EVEN => {
            let (first, step) = (get_varint(&mut data)?, get_varint(&mut data)?);
            (0..count as i64).map(|i| first.wrapping_add(step.wrapping_mul(i))).collect()
        }
        PACKED => {
            let mut v = Vec::new();
            unpack(data, count, &mut pco::DecompressorScratch::default(), &mut v)?;
            v
        }
        _ => return None,
    };
    // Whoever reads a column searches in it.
    (times.len() == count && times.is_sorted()).then_some(times)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn times_round_trip(mut times in proptest::collection::vec(any::<i64>(), 0..200)) {
            times.sort_unstable();
            times.dedup();
            prop_assert_eq!(decode_times(&encode_times(&times), times.len()), Some(times));
        }

        #[test]
        fn any_bytes_are_refused_or_read(data in proptest::collection::vec(any::<u8>(), 0..100)) {
            decode_times(&data, 10);
        }
    }
}
