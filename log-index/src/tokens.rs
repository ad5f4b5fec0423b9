//! Words of a text: what the dictionary holds, what goes to the bloom filters, and what a substring needs.
//!
//! A token is a run of ASCII letters, digits, `_` and bytes above 127, in lower case. A token of [`ID`] bytes or
//! more that holds a digit is an *id*: it is nearly unique, would fill the dictionary, and goes to the bloom filter.
//! Any token that contains an id is itself an id, so the rule holds for substrings too. Ids with letters beyond `f`, and
//! words too long to be any, are in the dictionary as well while a block has few of them. A UUID is one id: tokens of
//! 8, 4, 4, 4 and 12 hexadecimal digits with a hyphen between each and the next.

use crate::column::IdAt;

/// From this length on a token with a digit is an id.
const ID: usize = 16;
/// Of a longer word in a substring the dictionary is not asked.
pub(crate) const LONGEST: usize = 64;

const TOKEN: u8 = 1;
const DIGIT: u8 = 2;
const NOT_HEX: u8 = 4;
const UPPER: u8 = 8;
const SPECIAL: u8 = 16;

static CLASS: [u8; 256] = {
    let mut all = [0; 256];
    let mut b = 0usize;
    while b < 256 {
        let c = b as u8;
        all[b] = match c {
            b'0'..=b'9' => TOKEN | DIGIT,
            b'a'..=b'f' => TOKEN,
            b'A'..=b'F' => TOKEN | UPPER,
            b'G'..=b'Z' => TOKEN | UPPER | NOT_HEX,
            b'g'..=b'z' | b'_' | 0x80.. => TOKEN | NOT_HEX,
            1..=4 | b'\n' => SPECIAL,
            _ => 0,
        };
        b += 1;
    }
    all
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Word,
    Id,
    Uuid,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'a> {
    pub(crate) start: usize,
    /// As it stands in the text.
    pub(crate) text: &'a [u8],
    pub(crate) kind: Kind,
    class: u8,
}

impl Token<'_> {
    pub(crate) fn is_hex(&self) -> bool {
        self.class & NOT_HEX == 0
    }

    /// How it can be taken out of the text.
    pub(crate) fn packable(&self) -> Option<IdAt> {
        let fits = match self.kind {
            Kind::Uuid => true,
            Kind::Id => matches!(self.text.len(), 16 | 32),
            Kind::Word => false,
        };
        (fits && self.class & (NOT_HEX | UPPER) == 0)
            .then_some(IdAt { start: self.start as u32, len: self.text.len() as u8 })
    }
}

/// Every token in order. `special` is set if a byte must be escaped when the text is packed.
#[inline]
pub(crate) fn each<'a>(text: &'a [u8], mut f: impl FnMut(Token<'a>), special: &mut bool) {
    let mut at = 0;
    let mut other = 0u8;
    while let Some(b) = text.get(at) {
        let class = CLASS[usize::from(*b)];
        if class & TOKEN == 0 {
            other |= class;
            at += 1;
            continue;
        }
        let start = at;
        let mut all = class;
        at += 1;
        while let Some(b) = text.get(at) {
            let class = CLASS[usize::from(*b)];
            if class & TOKEN == 0 {
                break;
            }
            all |= class;
            at += 1;
        }
        let len = at - start;
        let mut kind = if len >= ID && all & DIGIT != 0 { Kind::Id } else { Kind::Word };
        if len == 8
            && all & NOT_HEX == 0
            && text.get(at) == Some(&b'-')
            && let Some(class) = uuid(text.get(start..).unwrap_or(&[]))
        {
            (at, all, kind) = (start + 36, class, Kind::Uuid);
        }
        if let Some(token) = text.get(start..at) {
            f(Token { start, text: token, kind, class: all });
        }
    }
    *special |= other & SPECIAL != 0;
}

/// The classes of a UUID's digits if the text begins with one.
fn uuid(text: &[u8]) -> Option<u8> {
    let mut all = 0;
    for (i, b) in text.get(..36)?.iter().enumerate() {
        if matches!(i, 8 | 13 | 18 | 23) {
            (*b == b'-').then_some(())?;
        } else {
            all |= CLASS[usize::from(*b)];
            (CLASS[usize::from(*b)] & (TOKEN | NOT_HEX) == TOKEN).then_some(())?;
        }
    }
    text.get(36).is_none_or(|b| CLASS[usize::from(*b)] & TOKEN == 0).then_some(all)
}

/// How a part of a searched substring must stand in a block's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is a whole token.
    Whole,
    /// A token begins with it.
    Start,
    /// A token ends with it.
    End,
    /// A token contains it.
    Within,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) place: Place,
    /// In lower case: the index knows no other.
    pub(crate) text: Vec<u8>,
    pub(crate) hex: bool,
}

impl Word {
    /// It may be a part of a UUID, which as a whole is not in the dictionary.
    pub(crate) fn may_be_of_uuid(&self) -> bool {
        self.hex
            && self.text.len() <= 12
            && (self.place != Place::Whole || matches!(self.text.len(), 4 | 8 | 12))
    }
}

/// What any text with a substring must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Word(Word),
    Id {
        word: Word,
        hash: u64,
    },
    /// The UUID, or, where it stands at an end of the substring and may be less than a whole one, its parts.
    Uuid {
        hash: u64,
        parts: Vec<Word>,
    },
}

pub(crate) fn needs(needle: &str) -> Vec<Need> {
    let bytes = needle.as_bytes();
    let place = |start: usize, len: usize| match (start == 0, start + len == bytes.len()) {
        (true, true) => Place::Within,
        (true, false) => Place::End,
        (false, true) => Place::Start,
        (false, false) => Place::Whole,
    };
    let mut out = Vec::new();
    each(
        bytes,
        |t| {
            let whole = place(t.start, t.text.len());
            let word = || Word { place: whole, text: t.text.to_ascii_lowercase(), hex: t.is_hex() };
            out.push(match t.kind {
                Kind::Word => Need::Word(word()),
                Kind::Id => Need::Id { word: word(), hash: hash(t.text) },
                Kind::Uuid => {
                    let mut at = t.start;
                    let mut parts = Vec::new();
                    for p in t.text.split(|b| *b == b'-') {
                        parts.push(Word {
                            place: place(at, p.len()),
                            text: p.to_ascii_lowercase(),
                            hex: true,
                        });
                        at += p.len() + 1;
                    }
                    if whole == Place::Whole {
                        parts.clear();
                    }
                    Need::Uuid { hash: hash(t.text), parts }
                }
            });
        },
        &mut false,
    );
    out
}

/// 64 bits that never change: they are written to disk (FNV-1a, then a finalizer for spread).
pub(crate) fn hash(token: &[u8]) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325u64;
    for b in token {
        h = (h ^ u64::from(b.to_ascii_lowercase())).wrapping_mul(0x100_0000_01b3);
    }
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^ (h >> 33)
}

/// A bloom filter over ids, each once: 16 bits and 6 probes each, about one false answer in 2,000.
pub(crate) fn bloom(hashes: &[u64]) -> Vec<u8> {
    if hashes.is_empty() {
        return Vec::new();
    }
    let mut bits = vec![0u8; (hashes.len() * 2).next_multiple_of(8)];
    for h in hashes {
        for bit in probes(*h, bits.len()) {
            if let Some(byte) = bits.get_mut(bit / 8) {
                *byte |= 1 << (bit % 8);
            }
        }
    }
    bits
}

pub(crate) fn bloom_may_have(bits: &[u8], hash: u64) -> bool {
    !bits.is_empty()
        && probes(hash, bits.len()).all(|bit| bits.get(bit / 8).is_some_and(|b| b & (1 << (bit % 8)) != 0))
}

fn probes(hash: u64, bytes: usize) -> impl Iterator<Item = usize> {
    let (a, b) = (hash, hash.rotate_left(32) | 1);
    (0..6u64).map(move |i| (a.wrapping_add(b.wrapping_mul(i)) % (bytes as u64 * 8)) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<(String, Kind)> {
        let mut out = Vec::new();
        each(
            text.as_bytes(),
            |t| out.push((String::from_utf8_lossy(t.text).into_owned(), t.kind)),
            &mut false,
        );
        out
    }

    #[test]
    fn tokens_and_ids() {
        let check = |text: &str, expect: &[(&str, Kind)]| {
            let expect: Vec<_> = expect.iter().map(|(t, k)| ((*t).to_owned(), *k)).collect();
            assert_eq!(kinds(text), expect, "{text}");
        };
        check("a_b c-9 é", &[("a_b", Kind::Word), ("c", Kind::Word), ("9", Kind::Word), ("é", Kind::Word)]);
        check("internationalization", &[("internationalization", Kind::Word)]);
        check("4bf92f3577b34da6", &[("4bf92f3577b34da6", Kind::Id)]);
        let uuid = "550e8400-e29b-41d4-a716-446655440000";
        check(uuid, &[(uuid, Kind::Uuid)]);
        check(&format!("x={uuid}-y"), &[("x", Kind::Word), (uuid, Kind::Uuid), ("y", Kind::Word)]);
        assert_eq!(kinds(&format!("x{uuid}")).len(), 5);
        assert_eq!(kinds(&format!("{uuid}0")).len(), 5);
    }

    #[test]
    fn substrings_and_what_they_need() {
        let words = |needle: &str| -> Vec<(Place, String)> {
            let word = |n| match n {
                Need::Word(w) => (w.place, String::from_utf8_lossy(&w.text).into_owned()),
                n => panic!("{n:?}"),
            };
            needs(needle).into_iter().map(word).collect()
        };
        assert_eq!(words("Error"), [(Place::Within, "error".to_owned())]);
        assert_eq!(
            words("code=500 in"),
            [
                (Place::End, "code".to_owned()),
                (Place::Whole, "500".to_owned()),
                (Place::Start, "in".to_owned())
            ]
        );
        assert_eq!(words(" : "), []);
        let id = needs("4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(matches!(
            id.as_slice(),
            [Need::Id { word: Word { place: Place::Within, hex: true, .. }, .. }]
        ));
    }

    #[test]
    fn a_bloom_filter_never_denies_what_it_holds() {
        let all: Vec<u64> = (0..1000u64).map(|i| hash(&i.to_le_bytes())).collect();
        let bits = bloom(&all);
        assert!(all.iter().all(|h| bloom_may_have(&bits, *h)));
        let wrong = (1000..11_000u64).filter(|i| bloom_may_have(&bits, hash(&i.to_le_bytes()))).count();
        assert!(wrong < 50, "{wrong}");
    }
}
