//! The stream in which the head keeps a series' newest samples.
//!
//! Stream: the first sample is a zigzag timestamp and eight bytes of value. Each further one is a control
//! byte, then, if its high bit is set, the zigzag change of the timestamp's step; then the bytes of
//! `bits XOR previous bits` that are not zero at either end. The control byte's low seven bits are 0 for an
//! equal value, else `1 + 8 * trailing zero bytes + (bytes - 1)`. A steady, unchanged series costs a byte a sample.

mod histogram;

pub(crate) use wal::bytes::{get_uvarint, get_varint, put_uvarint, put_varint, take};

pub(crate) use histogram::{HistogramState, decode_histograms};

/// The state that both ends of a stream keep.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StreamState {
    pub(crate) count: u32,
    pub(crate) last_t: i64,
    last_delta: i64,
    pub(crate) last_v: f64,
}

impl StreamState {
    pub(crate) fn push(&mut self, out: &mut Vec<u8>, t: i64, v: f64) {
        if self.count == 0 {
            put_varint(out, t);
            out.extend_from_slice(&v.to_bits().to_le_bytes());
        } else {
            let delta = t.wrapping_sub(self.last_t);
            let change = delta.wrapping_sub(self.last_delta);
            let xor = v.to_bits() ^ self.last_v.to_bits();
            let (code, bytes) = if xor == 0 {
                (0, 0..0)
            } else {
                let tail = (xor.trailing_zeros() / 8) as usize;
                let len = 8 - (xor.leading_zeros() / 8) as usize - tail;
                ((1 + 8 * tail + len - 1) as u8, tail..tail + len)
            };
            out.push(code | if change == 0 { 0 } else { 0x80 });
            if change != 0 {
                put_varint(out, change);
            }
            out.extend_from_slice(xor.to_le_bytes().get(bytes).unwrap_or(&[]));
            self.last_delta = delta;
        }
        (self.last_t, self.last_v) = (t, v);
        self.count += 1;
    }
}

/// Reads a stream of `count` samples. `None` inside means the bytes are not one.
pub(crate) fn decode_stream(mut data: &[u8], count: u32, mut each: impl FnMut(i64, f64)) -> Option<()> {
    let mut s = StreamState::default();
    for i in 0..count {
        if i == 0 {
            s.last_t = get_varint(&mut data)?;
            s.last_v = f64::from_bits(u64::from_le_bytes(take(&mut data, 8)?.try_into().ok()?));
        } else {
            let control = *take(&mut data, 1)?.first()?;
            if control & 0x80 != 0 {
                s.last_delta = s.last_delta.wrapping_add(get_varint(&mut data)?);
            }
            s.last_t = s.last_t.wrapping_add(s.last_delta);
            let code = usize::from(control & 0x7f);
            if code != 0 {
                let (tail, len) = ((code - 1) / 8, (code - 1) % 8 + 1);
                let mut xor = [0u8; 8];
                xor.get_mut(tail..tail + len)?.copy_from_slice(take(&mut data, len)?);
                s.last_v = f64::from_bits(s.last_v.to_bits() ^ u64::from_le_bytes(xor));
            }
        }
        each(s.last_t, s.last_v);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_steady_series_costs_a_byte_a_sample() {
        let (mut s, mut out) = (StreamState::default(), Vec::new());
        (0..120).for_each(|i| s.push(&mut out, i * 15_000, 1.0));
        assert!(out.len() < 140, "{}", out.len());
    }

    proptest! {
        #[test]
        fn integers_round_trip(v in any::<i64>()) {
            let mut out = Vec::new();
            put_varint(&mut out, v);
            prop_assert_eq!(get_varint(&mut out.as_slice()), Some(v));
        }

        #[test]
        fn streams_round_trip_bit_exactly(samples in proptest::collection::vec((any::<i64>(), any::<u64>()), 0..100)) {
            let (mut s, mut out) = (StreamState::default(), Vec::new());
            samples.iter().for_each(|(t, v)| s.push(&mut out, *t, f64::from_bits(*v)));
            let mut got = Vec::new();
            decode_stream(&out, s.count, |t, v| got.push((t, v.to_bits()))).expect("decodes");
            prop_assert_eq!(got, samples);
        }

        #[test]
        fn any_bytes_are_refused_or_read(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            decode_stream(&data, 50, |_, _| ());
        }
    }
}
