//! Bits in a row, the highest of a byte first.

/// Writes bits.
#[derive(Default)]
pub(crate) struct BitWriter {
    bytes: Vec<u8>,
    /// Free bits in the last byte.
    free: u32,
}

impl BitWriter {
    /// Begins with these whole bytes.
    pub(crate) fn after(bytes: Vec<u8>) -> Self {
        BitWriter { bytes, free: 0 }
    }

    /// The lowest `n` bits of `value`, of 64 at most.
    pub(crate) fn bits(&mut self, value: u64, n: u32) {
        let mut left = n;
        while left > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let take = left.min(self.free);
            let part = (value >> (left - take)) & ((1 << take) - 1);
            if let Some(last) = self.bytes.last_mut() {
                *last |= (part << (self.free - take)) as u8;
            }
            self.free -= take;
            left -= take;
        }
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads bits; `None` is the end.
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    /// In bits.
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        BitReader { bytes, at: 0 }
    }

    pub(crate) fn bit(&mut self) -> Option<bool> {
        Some(self.bits(1)? == 1)
    }

    /// `n` bits, of 64 at most.
    pub(crate) fn bits(&mut self, n: u32) -> Option<u64> {
        let mut out = 0u64;
        let mut left = n;
        while left > 0 {
            let byte = u64::from(*self.bytes.get(self.at / 8)?);
            let here = 8 - (self.at % 8) as u32;
            let take = left.min(here);
            let part = (byte >> (here - take)) & ((1 << take) - 1);
            out = out << take | part;
            self.at += take as usize;
            left -= take;
        }
        Some(out)
    }

    /// As many bits as there are, at least.
    pub(crate) fn left(&self) -> usize {
        (self.bytes.len() * 8).saturating_sub(self.at)
    }

    /// A LEB128 number whose bytes stand at any bit.
    pub(crate) fn uvarint(&mut self) -> Option<u64> {
        let mut out = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.bits(8)?;
            out |= (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(out);
            }
        }
        None
    }

    /// The same with its sign in the lowest bit.
    pub(crate) fn varint(&mut self) -> Option<i64> {
        let n = self.uvarint()?;
        Some((n >> 1) as i64 ^ -((n & 1) as i64))
    }
}

pub(crate) fn put_uvarint(out: &mut BitWriter, mut n: u64) {
    while n >= 0x80 {
        out.bits(n & 0x7f | 0x80, 8);
        n >>= 7;
    }
    out.bits(n, 8);
}

pub(crate) fn put_varint(out: &mut BitWriter, n: i64) {
    put_uvarint(out, (n << 1 ^ n >> 63) as u64);
}

/// The same over plain bytes.
pub(crate) fn take_uvarint(data: &mut &[u8]) -> Option<u64> {
    let mut out = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = data.split_first()?;
        *data = rest;
        out |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(out);
        }
    }
    None
}

pub(crate) fn take_varint(data: &mut &[u8]) -> Option<i64> {
    let n = take_uvarint(data)?;
    Some((n >> 1) as i64 ^ -((n & 1) as i64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(parts in proptest::collection::vec((any::<u64>(), 1u32..=64), 0..50)) {
            let mut w = BitWriter::default();
            for (v, n) in &parts {
                w.bits(*v, *n);
            }
            let bytes = w.bytes();
            let mut r = BitReader::new(&bytes);
            for (v, n) in &parts {
                let mask = if *n == 64 { u64::MAX } else { (1 << n) - 1 };
                prop_assert_eq!(r.bits(*n), Some(v & mask));
            }
            prop_assert!(r.left() < 8);
        }

        #[test]
        fn numbers_of_any_length(n in any::<i64>(), u in any::<u64>()) {
            let mut w = BitWriter::default();
            w.bits(1, 3);
            put_varint(&mut w, n);
            put_uvarint(&mut w, u);
            let bytes = w.bytes();
            let mut r = BitReader::new(&bytes);
            r.bits(3);
            prop_assert_eq!((r.varint(), r.uvarint()), (Some(n), Some(u)));
        }
    }
}
