//! Lines as they are packed: each ends with a line break, and random ids in hexadecimal are taken out and kept as
//! bytes, because no compressor makes thirty-two digits smaller than about nineteen bytes. Format: FORMAT.md, "Text".

use super::{Texts, buffer};

/// What stands in the place of sixteen digits …
const SHORT: u8 = 1;
/// … of thirty-two …
const LONG: u8 = 2;
/// … and of a UUID.
const UUID: u8 = 3;
/// The next byte stands for itself with bit 6 turned over.
const ESCAPE: u8 = 4;

/// Bytes that a packed line cannot hold as they are.
pub(crate) fn is_special(b: u8) -> bool {
    matches!(b, SHORT | LONG | UUID | ESCAPE | b'\n')
}

/// An id in a line: lower-case digits only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdAt {
    pub(crate) start: u32,
    /// 16 and 32: digits; 36: a UUID.
    pub(crate) len: u8,
}

/// Lines being packed.
#[derive(Default)]
pub(crate) struct Lines {
    pub(crate) packed: Vec<u8>,
    pub(crate) ids: Vec<u8>,
    /// Some byte is not itself.
    pub(crate) marked: bool,
}

impl Lines {
    /// Empty, with room for so many bytes.
    pub(crate) fn with_room(bytes: usize) -> Lines {
        Lines { packed: buffer::take(bytes), ..Lines::default() }
    }

    /// `special`: the line has bytes that must be escaped. `ids` are in order and do not overlap.
    pub(crate) fn push(&mut self, line: &[u8], special: bool, ids: &[IdAt]) {
        let mut at = 0;
        for id in ids {
            let start = id.start as usize;
            let Some(digits) = line.get(start..start + usize::from(id.len)) else { continue };
            self.plain(line.get(at..start).unwrap_or(&[]), special);
            self.marked = true;
            self.packed.push(match id.len {
                16 => SHORT,
                32 => LONG,
                _ => UUID,
            });
            let mut high = None;
            for d in digits.iter().filter(|d| **d != b'-') {
                let nibble = if d.is_ascii_digit() { d - b'0' } else { d - b'a' + 10 };
                match high.take() {
                    Some(h) => self.ids.push(h << 4 | nibble),
                    None => high = Some(nibble),
                }
            }
            at = start + digits.len();
        }
        self.plain(line.get(at..).unwrap_or(&[]), special);
        self.packed.push(b'\n');
    }

    fn plain(&mut self, text: &[u8], special: bool) {
        if !special {
            self.packed.extend_from_slice(text);
            return;
        }
        for b in text {
            if is_special(*b) {
                self.marked = true;
                self.packed.extend_from_slice(&[ESCAPE, b ^ 0x40]);
            } else {
                self.packed.push(*b);
            }
        }
    }
}

/// `None` if it is not what [`Lines`] wrote for `count` lines.
pub(super) fn unpack(packed: Vec<u8>, mut ids: &[u8], marked: bool, count: usize) -> Option<Texts> {
    let mut ends = Vec::with_capacity(count);
    if !marked {
        ends.extend(memchr::memchr_iter(b'\n', &packed).map(|e| e as u32));
        let whole = packed.last().is_none_or(|b| *b == b'\n');
        let data = String::from_utf8(packed).ok()?;
        return (ends.len() == count && whole).then_some(Texts { data, ends });
    }
    // Two digits stand for a byte; in place of each id there is a mark already.
    let mut data = buffer::take(packed.len() + ids.len() * 2 + ids.len() / 4);
    let mut rest = packed.as_slice();
    while !rest.is_empty() {
        let next = special(rest)?;
        let (plain, after) = rest.split_at_checked(next)?;
        data.extend_from_slice(plain);
        let (mark, after) = after.split_first()?;
        rest = after;
        match *mark {
            b'\n' => {
                ends.push(data.len() as u32);
                data.push(b'\n');
            }
            ESCAPE => {
                let (b, after) = rest.split_first()?;
                rest = after;
                data.push(b ^ 0x40);
            }
            mark => {
                let (id, left) = ids.split_at_checked(if mark == SHORT { 8 } else { 16 })?;
                ids = left;
                let mut digits = [0; 36];
                let mut n = 0;
                for (i, b) in id.iter().enumerate() {
                    if mark == UUID && matches!(i, 4 | 6 | 8 | 10) {
                        digits[n] = b'-';
                        n += 1;
                    }
                    digits[n] = HEX[usize::from(b >> 4)];
                    digits[n + 1] = HEX[usize::from(b & 15)];
                    n += 2;
                }
                data.extend_from_slice(&digits[..n]);
            }
        }
    }
    (ends.len() == count && ids.is_empty()).then_some(())?;
    buffer::give(packed);
    Some(Texts { data: String::from_utf8(data).ok()?, ends })
}

const HEX: [u8; 16] = *b"0123456789abcdef";

/// The first byte that stands for something else. Eight at a time: most bytes are above all of them.
fn special(data: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut at = 0;
    while let Some(word) = data.get(at..).and_then(|d| d.first_chunk::<8>()) {
        let w = u64::from_le_bytes(*word);
        // The high bit of each byte below 11 is set; those above the first one that is may be wrong.
        let low = w.wrapping_sub(ONES * 11) & !w & (ONES * 0x80);
        if low != 0 {
            let i = at + low.trailing_zeros() as usize / 8;
            if data.get(i).is_some_and(|b| is_special(*b)) {
                return Some(i);
            }
            at = i + 1;
        } else {
            at += 8;
        }
    }
    data.get(at..)?.iter().position(|b| is_special(*b)).map(|i| at + i)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens;
    use proptest::prelude::*;

    fn round(lines: &[String]) -> (Texts, usize) {
        let mut packed = Lines::default();
        let mut expect = Texts::default();
        for l in lines {
            let (mut ids, mut special) = (Vec::new(), false);
            tokens::each(l.as_bytes(), |t| ids.extend(t.packable()), &mut special);
            packed.push(l.as_bytes(), special, &ids);
            expect.push(l);
        }
        let len = packed.packed.len() + packed.ids.len();
        let got = unpack(packed.packed, &packed.ids, packed.marked, lines.len()).expect("unpacks");
        assert_eq!(got, expect);
        (got, len)
    }

    #[test]
    fn ids_are_taken_out_and_come_back() {
        let line = "trace=0af7651916cd43dd8448eb211c80319c span=b7ad6b7169203331 pod=550e8400-e29b-41d4-a716-446655440000";
        let (_, len) = round(&[line.to_owned()]);
        assert_eq!(len, line.len() - 84 + 3 + 40 + 1);
        // Upper case would not come back.
        let (_, len) = round(&["0AF7651916CD43DD8448EB211C80319C".to_owned()]);
        assert_eq!(len, 33);
    }

    proptest! {
        #[test]
        fn any_line_comes_back(lines in prop::collection::vec("([a-f0-9]{16}|[a-f0-9]{32}|[ -]|[a-z\u{0}-\u{c}é]|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}){0,12}", 0..9)) {
            round(&lines);
        }

        #[test]
        fn anything_is_refused_without_panic(packed in prop::collection::vec(0u8..12, 0..60), ids in prop::collection::vec(any::<u8>(), 0..40)) {
            drop(unpack(packed.clone(), &ids, true, 3));
            drop(unpack(packed, &ids, false, 3));
        }
    }
}
