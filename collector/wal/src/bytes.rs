//! Integers and byte strings as every format on top of the log writes them: LEB128, zigzag, length before bytes.
//!
//! Reading takes from the front of a slice and gives `None` where the bytes end too soon or are no such thing.

/// Seven bits a byte, lowest first; the high bit says that more follow.
#[inline]
pub fn put_uvarint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

#[inline]
pub fn get_uvarint(data: &mut &[u8]) -> Option<u64> {
    let mut v = 0u64;
    for i in 0..10 {
        let (&b, rest) = data.split_first()?;
        *data = rest;
        v |= u64::from(b & 0x7f).checked_shl(7 * i)?;
        if b & 0x80 == 0 {
            return Some(v);
        }
    }
    None
}

/// Zigzag: numbers near nought are short, whatever their sign.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, v: i64) {
    put_uvarint(out, ((v << 1) ^ (v >> 63)) as u64);
}

#[inline]
pub fn get_varint(data: &mut &[u8]) -> Option<i64> {
    let v = get_uvarint(data)?;
    Some((v >> 1) as i64 ^ -((v & 1) as i64))
}

/// The next `n` bytes.
#[inline]
pub fn take<'a>(data: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (a, rest) = data.split_at_checked(n)?;
    *data = rest;
    Some(a)
}

/// Their number, then the bytes.
#[inline]
pub fn put_bytes(out: &mut Vec<u8>, b: &[u8]) {
    put_uvarint(out, b.len() as u64);
    out.extend_from_slice(b);
}

#[inline]
pub fn get_bytes<'a>(data: &mut &'a [u8]) -> Option<&'a [u8]> {
    let n = usize::try_from(get_uvarint(data)?).ok()?;
    take(data, n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(u in any::<u64>(), i in any::<i64>(), b in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut out = Vec::new();
            put_uvarint(&mut out, u);
            put_varint(&mut out, i);
            put_bytes(&mut out, &b);
            let mut d = out.as_slice();
            prop_assert_eq!(get_uvarint(&mut d), Some(u));
            prop_assert_eq!(get_varint(&mut d), Some(i));
            prop_assert_eq!(get_bytes(&mut d), Some(b.as_slice()));
            prop_assert!(d.is_empty());
            // Cut anywhere, the last of them is missed, and nothing panics.
            for cut in 0..out.len() {
                let mut d = &out[..cut];
                let all = get_uvarint(&mut d).and_then(|_| get_varint(&mut d)).and_then(|_| get_bytes(&mut d).map(<[u8]>::len));
                prop_assert_eq!(all, None);
            }
        }

        #[test]
        fn anything_is_read_without_panic(b in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut d = b.as_slice();
            while get_bytes(&mut d).is_some() {}
            let mut d = b.as_slice();
            while get_varint(&mut d).is_some() {}
        }
    }
}
