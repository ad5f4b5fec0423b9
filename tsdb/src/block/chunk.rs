//! One chunk of a series: values in one place, timestamps in another, so that many series share them.

use signal::Sample;

use crate::codec::{StreamState, decode_stream, take};

/// Samples in a chunk at most. Large enough for `pco` to learn a distribution, small enough to decode for one query.
pub(crate) const SAMPLES: usize = 8192;

const CONSTANT: u8 = 0;
const PCO: u8 = 1;
const STREAM: u8 = 2;

/// Picks the smallest of three codings; all are exact to the bit.
pub(crate) fn encode_values(samples: &[Sample]) -> Vec<u8> {
    let Some(first) = samples.first() else { return vec![CONSTANT] };
    if samples.iter().all(|s| s.value.to_bits() == first.value.to_bits()) {
        let mut out = vec![CONSTANT];
        out.extend_from_slice(&first.value.to_bits().to_le_bytes());
        return out;
    }
    let mut stream = vec![STREAM];
    let mut state = StreamState::default();
    samples.iter().for_each(|s| state.push(&mut stream, 0, s.value));
    let values: Vec<f64> = samples.iter().map(|s| s.value).collect();
    // Below a few dozen values pco's own header outweighs what it saves.
    if samples.len() >= 32 {
        let packed = pco::standalone::simple_compress(&values, &pco::ChunkConfig::default())
            .expect("the default configuration suits any chunk of this size");
        if packed.len() + 1 < stream.len() {
            let mut out = vec![PCO];
            out.extend(packed);
            return out;
        }
    }
    stream
}

pub(crate) fn decode_values(mut data: &[u8], count: usize) -> Option<Vec<f64>> {
    let kind = *take(&mut data, 1)?.first()?;
    let values = match kind {
        CONSTANT if count == 0 => Vec::new(),
        CONSTANT => {
            let bits = u64::from_le_bytes(take(&mut data, 8)?.try_into().ok()?);
            vec![f64::from_bits(bits); count]
        }
        PCO => pco::standalone::simple_decompress::<f64>(data).ok()?,
        STREAM => {
            let mut v = Vec::with_capacity(count.min(SAMPLES));
            decode_stream(data, u32::try_from(count).ok()?, |_, value| v.push(value))?;
            v
        }
        _ => return None,
    };
    (values.len() == count).then_some(values)
}

pub(crate) fn encode_times(times: &[i64]) -> Vec<u8> {
    let mut stream = vec![STREAM];
    let mut state = StreamState::default();
    times.iter().for_each(|t| state.push(&mut stream, *t, 0.0));
    if times.len() >= 32 {
        let packed = pco::standalone::simple_compress(times, &pco::ChunkConfig::default())
            .expect("the default configuration suits any chunk of this size");
        if packed.len() + 1 < stream.len() {
            let mut out = vec![PCO];
            out.extend(packed);
            return out;
        }
    }
    stream
}

pub(crate) fn decode_times(mut data: &[u8], count: usize) -> Option<Vec<i64>> {
    let times = match *take(&mut data, 1)?.first()? {
        PCO => pco::standalone::simple_decompress::<i64>(data).ok()?,
        STREAM => {
            let mut v = Vec::with_capacity(count.min(SAMPLES));
            decode_stream(data, u32::try_from(count).ok()?, |t, _| v.push(t))?;
            v
        }
        _ => return None,
    };
    (times.len() == count).then_some(times)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn values_and_times_round_trip_bit_exactly(
            raw in proptest::collection::vec((any::<i64>(), prop_oneof![
                any::<u64>(), Just(signal::STALE_NAN_BITS), (0..100u64).prop_map(|n| (n as f64).to_bits())]), 0..300),
        ) {
            let samples: Vec<Sample> =
                raw.iter().map(|(t, v)| Sample { timestamp: *t, value: f64::from_bits(*v) }).collect();
            let times: Vec<i64> = raw.iter().map(|(t, _)| *t).collect();
            let values = decode_values(&encode_values(&samples), samples.len()).expect("decodes");
            prop_assert!(values.iter().zip(&raw).all(|(v, (_, bits))| v.to_bits() == *bits));
            prop_assert_eq!(decode_times(&encode_times(&times), times.len()), Some(times));
        }

        #[test]
        fn any_bytes_are_refused_or_read(data in proptest::collection::vec(any::<u8>(), 0..100)) {
            decode_values(&data, 10);
            decode_times(&data, 10);
        }
    }
}
