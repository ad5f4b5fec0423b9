//! Protobuf's wire format: tags, varints, lengths.

pub(super) enum Wire<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed64(u64),
    Fixed32,
}

/// What is left of a message.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (a, b) = self.0.split_at_checked(n)?;
        self.0 = b;
        Some(a)
    }

    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut v = 0u64;
        for i in 0..10 {
            let b = *self.take(1)?.first()?;
            v |= u64::from(b & 0x7f).checked_shl(7 * i)?;
            if b & 0x80 == 0 {
                return Some(v);
            }
        }
        None
    }

    /// A field's number and value.
    pub(super) fn field(&mut self) -> Option<(u32, Wire<'a>)> {
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(*self.take(8)?.first_chunk()?)),
            2 => {
                let n = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(n)?)
            }
            5 => self.take(4).map(|_| Wire::Fixed32)?,
            _ => return None,
        };
        Some((u32::try_from(tag >> 3).ok()?, wire))
    }
}

/// The last bytes of a field of a small message; empty if there are none.
pub(super) fn bytes(message: &[u8], number: u32) -> Option<&[u8]> {
    let mut found: &[u8] = &[];
    let mut r = Reader(message);
    while !r.0.is_empty() {
        if let (n, Wire::Bytes(b)) = r.field()?
            && n == number
        {
            found = b;
        }
    }
    Some(found)
}

pub(super) fn text(message: &[u8], number: u32) -> Option<&str> {
    std::str::from_utf8(bytes(message, number)?).ok()
}

/// The number in a field of a small message; 0 if there is none.
pub(super) fn number(message: &[u8], number: u32) -> Option<i64> {
    let mut found = 0;
    let mut r = Reader(message);
    while !r.0.is_empty() {
        if let (n, Wire::Varint(v)) = r.field()?
            && n == number
        {
            found = v as i64;
        }
    }
    Some(found)
}

fn varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

pub fn put_varint(out: &mut Vec<u8>, number: u32, v: u64) {
    varint(out, u64::from(number) << 3);
    varint(out, v);
}

pub(super) fn put_fixed64(out: &mut Vec<u8>, number: u32, v: u64) {
    varint(out, u64::from(number) << 3 | 1);
    out.extend_from_slice(&v.to_le_bytes());
}

pub fn put_bytes(out: &mut Vec<u8>, number: u32, b: &[u8]) {
    varint(out, u64::from(number) << 3 | 2);
    varint(out, b.len() as u64);
    out.extend_from_slice(b);
}
