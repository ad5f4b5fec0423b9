//! XOR chunks: timestamps as differences of differences, values as what differs from the one before
//! (Pelkonen and others, "Gorilla", VLDB 2015; Prometheus: tsdb/docs/format/chunks.md).

use crate::bits::{BitReader, BitWriter, put_uvarint, put_varint};
use crate::varbit::{fits, signed};

/// Of one float in a row of floats.
#[derive(Clone, Copy)]
pub(crate) struct Xor {
    pub(crate) value: f64,
    /// Zero bits before and after what was written last; none was if the first is 0xff.
    leading: u32,
    trailing: u32,
}

impl Xor {
    pub(crate) fn new(value: f64) -> Self {
        Xor { value, leading: 0xff, trailing: 0 }
    }

    pub(crate) fn put(&mut self, out: &mut BitWriter, value: f64) {
        let delta = value.to_bits() ^ self.value.to_bits();
        self.value = value;
        if delta == 0 {
            return out.bits(0, 1);
        }
        // Five bits say how many zeros lead.
        let (leading, trailing) = (delta.leading_zeros().min(31), delta.trailing_zeros());
        if self.leading != 0xff && leading >= self.leading && trailing >= self.trailing {
            out.bits(0b10, 2);
            return out.bits(delta >> self.trailing, 64 - self.leading - self.trailing);
        }
        (self.leading, self.trailing) = (leading, trailing);
        let size = 64 - leading - trailing;
        out.bits(0b11, 2);
        out.bits(u64::from(leading), 5);
        // 64 does not fit, and 0 does not happen.
        out.bits(u64::from(size % 64), 6);
        out.bits(delta >> trailing, size);
    }

    pub(crate) fn read(&mut self, r: &mut BitReader<'_>) -> Option<f64> {
        if !r.bit()? {
            return Some(self.value);
        }
        if r.bit()? {
            self.leading = r.bits(5)? as u32;
            let size = match r.bits(6)? as u32 {
                0 => 64,
                n => n,
            };
            self.trailing = 64u32.checked_sub(self.leading + size)?;
        } else if self.leading == 0xff {
            return None;
        }
        let delta = r.bits(64 - self.leading - self.trailing)? << self.trailing;
        self.value = f64::from_bits(self.value.to_bits() ^ delta);
        Some(self.value)
    }
}

/// A chunk of these samples, of which there are 65,535 at most.
pub(crate) fn encode(times: &[i64], values: &[f64]) -> Vec<u8> {
    let n = u16::try_from(times.len()).expect("chunks are cut far shorter");
    let mut out = BitWriter::after(n.to_be_bytes().to_vec());
    let (mut t, mut delta) = (0i64, 0i64);
    let mut x = Xor::new(0.0);
    for (i, (time, value)) in times.iter().zip(values).enumerate() {
        if i == 0 {
            put_varint(&mut out, *time);
            out.bits(value.to_bits(), 64);
            x = Xor::new(*value);
        } else {
            let next = time.wrapping_sub(t);
            if i == 1 {
                put_uvarint(&mut out, next as u64);
            } else {
                let dod = next.wrapping_sub(delta);
                match [14, 17, 20].into_iter().zip(1..).find(|(n, _)| fits(dod, *n)) {
                    _ if dod == 0 => out.bits(0, 1),
                    Some((n, ones)) => {
                        out.bits((1 << (ones + 1)) - 2, ones + 1);
                        out.bits(dod as u64, n);
                    }
                    None => {
                        out.bits(0b1111, 4);
                        out.bits(dod as u64, 64);
                    }
                }
            }
            delta = next;
            x.put(&mut out, *value);
        }
        t = *time;
    }
    out.bytes()
}

/// Gives each sample; `None` if the chunk is cut short.
pub(crate) fn decode(data: &[u8], mut sample: impl FnMut(i64, f64)) -> Option<()> {
    let (n, rest) = data.split_first_chunk::<2>()?;
    let mut r = BitReader::new(rest);
    let (mut t, mut delta) = (0i64, 0i64);
    let mut x = Xor::new(0.0);
    for i in 0..u16::from_be_bytes(*n) {
        if i == 0 {
            t = r.varint()?;
            x = Xor::new(f64::from_bits(r.bits(64)?));
            sample(t, x.value);
            continue;
        }
        if i == 1 {
            delta = r.uvarint()? as i64;
        } else {
            let mut ones = 0;
            while ones < 4 && r.bit()? {
                ones += 1;
            }
            let dod = match ones {
                0 => 0,
                4 => r.bits(64)? as i64,
                n => {
                    let size = [14, 17, 20][n - 1];
                    signed(r.bits(size)?, size)
                }
            };
            delta = delta.wrapping_add(dod);
        }
        t = t.wrapping_add(delta);
        sample(t, x.read(&mut r)?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(samples: &[(i64, f64)]) {
        let (times, values): (Vec<i64>, Vec<f64>) = samples.iter().copied().unzip();
        let mut got = Vec::new();
        decode(&encode(&times, &values), |t, v| got.push((t, v.to_bits()))).expect("reads");
        let want: Vec<_> = samples.iter().map(|(t, v)| (*t, v.to_bits())).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn a_chunk_of_prometheus_is_read() {
        // Three samples, a second apart, of 1, 1 and 2, as written by hand from the format's description.
        let mut bytes = vec![0, 3];
        bytes.extend([0xd0, 0x0f]); // 1000
        bytes.extend(1f64.to_bits().to_be_bytes());
        bytes.extend([0xe8, 0x07]); // 1000 later
        // The same value (0), the same distance (0), and a value that differs (11) in 11 bits (001011) after one (00001).
        let delta = 1f64.to_bits() ^ 2f64.to_bits();
        assert_eq!((delta.leading_zeros(), delta.trailing_zeros()), (1, 52));
        bytes.extend([0b0011_0000, 0b1001_0111, 0b1111_1111, 0b1100_0000]);
        let mut got = Vec::new();
        decode(&bytes, |t, v| got.push((t, v))).expect("reads");
        assert_eq!(got, [(1000, 1.0), (2000, 1.0), (3000, 2.0)]);
        assert_eq!(encode(&[1000, 2000, 3000], &[1.0, 1.0, 2.0]), bytes);
    }

    #[test]
    fn markers_and_infinities_survive() {
        round_trip(&[
            (1, signal::stale_nan()),
            (2, f64::NAN),
            (3, f64::NEG_INFINITY),
            (4, -0.0),
            (90_000_000, 5.0),
        ]);
        round_trip(&[]);
        round_trip(&[(-5, 1.0)]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(samples in proptest::collection::vec((0i64..2_000_000, any::<f64>()), 0..200)) {
            let mut t = -1_000_000;
            let samples: Vec<_> = samples.into_iter().map(|(d, v)| { t += d; (t, v) }).collect();
            round_trip(&samples);
        }

        #[test]
        fn any_bytes_are_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..100)) {
            decode(&data, |_, _| {});
        }
    }
}
