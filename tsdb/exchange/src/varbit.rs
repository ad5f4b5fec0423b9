//! Numbers in as few bits as their size asks for, as histogram chunks have them (Prometheus: tsdb/docs/format/chunks.md,
//! "varbit").

use crate::bits::{BitReader, BitWriter};

/// How many bits a number may have after as many ones as its place here, and a zero.
const SIZES: [u32; 8] = [0, 3, 6, 9, 12, 18, 25, 56];

/// Whether `v` fits into `n` bits where the highest of them alone is positive.
pub(crate) fn fits(v: i64, n: u32) -> bool {
    -((1i64 << (n - 1)) - 1) <= v && v <= 1i64 << (n - 1)
}

/// The number that `bits`, of `n`, stands for.
pub(crate) fn signed(bits: u64, n: u32) -> i64 {
    if bits > 1 << (n - 1) { bits.wrapping_sub(1 << n) as i64 } else { bits as i64 }
}

fn put(out: &mut BitWriter, value: u64, size: Option<usize>) {
    match size {
        Some(i) => {
            out.bits((1 << (i + 1)) - 2, i as u32 + 1);
            out.bits(value, SIZES[i]);
        }
        None => {
            out.bits(0xff, 8);
            out.bits(value, 64);
        }
    }
}

pub(crate) fn put_int(out: &mut BitWriter, v: i64) {
    let size = if v == 0 { Some(0) } else { (1..SIZES.len()).find(|i| fits(v, SIZES[*i])) };
    put(out, v as u64, size);
}

pub(crate) fn put_uint(out: &mut BitWriter, v: u64) {
    put(out, v, (0..SIZES.len()).find(|i| v >> SIZES[*i] == 0));
}

/// The size of what follows: `None` within is 64 bits.
fn size(r: &mut BitReader<'_>) -> Option<u32> {
    for size in SIZES {
        if !r.bit()? {
            return Some(size);
        }
    }
    Some(64)
}

pub(crate) fn int(r: &mut BitReader<'_>) -> Option<i64> {
    match size(r)? {
        0 => Some(0),
        64 => Some(r.bits(64)? as i64),
        n => Some(signed(r.bits(n)?, n)),
    }
}

pub(crate) fn uint(r: &mut BitReader<'_>) -> Option<u64> {
    let n = size(r)?;
    r.bits(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_prometheus_own() {
        // (Prometheus: tsdb/chunkenc/varbit.go) 1, 5, 9, 13, 17, 24, 32, 64 and 72 bits.
        let check = |v: i64, bits: usize| {
            let mut w = BitWriter::default();
            put_int(&mut w, v);
            assert_eq!(w.bytes().len(), bits.div_ceil(8), "{v}");
        };
        for (v, bits) in [(0, 1), (4, 5), (-3, 5), (5, 9), (32, 9), (33, 13), (2048, 17), (131_072, 24)] {
            check(v, bits);
        }
        for (v, bits) in [(16_777_216, 32), (16_777_217, 64), (i64::MAX, 72), (i64::MIN, 72)] {
            check(v, bits);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(v in any::<i64>(), shift in 0u32..64, u in any::<u64>()) {
            let (v, u) = (v >> shift, u >> shift);
            let mut w = BitWriter::default();
            put_int(&mut w, v);
            put_uint(&mut w, u);
            let bytes = w.bytes();
            let mut r = BitReader::new(&bytes);
            prop_assert_eq!((int(&mut r), uint(&mut r)), (Some(v), Some(u)));
        }
    }
}
