//! Words of a text: what the sidecar indexes, what goes to the bloom filters, and what a substring needs.
//!
//! A token is a run of ASCII letters, digits, `_` and bytes above 127, in lower case. A token of [`ID`] bytes or
//! more that holds a digit is an *id*: it is nearly unique, would fill the dictionary, and goes to the bloom filter.
//! Any token that contains an id is itself an id, so the rule holds for substrings too.

/// From this length on a token with a digit is an id.
const ID: usize = 16;
/// Longer tokens that are no ids are cut; a block with one is always a candidate.
pub(crate) const LONGEST: usize = 64;

fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80
}

/// Tokens as they stand in the text, with their place.
pub(crate) fn split(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + text.get(at..)?.iter().position(|b| is_token_byte(*b))?;
        let len = text.get(start..)?.iter().position(|b| !is_token_byte(*b)).unwrap_or(text.len() - start);
        at = start + len;
        Some((start, text.get(start..at)?))
    })
}

pub(crate) fn is_id(token: &[u8]) -> bool {
    token.len() >= ID && token.iter().any(u8::is_ascii_digit)
}

pub(crate) fn is_hex(token: &[u8]) -> bool {
    token.iter().all(u8::is_ascii_hexdigit)
}

pub(crate) fn lower(token: &[u8]) -> String {
    String::from_utf8_lossy(token).to_ascii_lowercase()
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

/// What any text with this substring must have. Lower case: the index knows no other.
pub(crate) fn needs(needle: &str) -> Vec<(Place, String)> {
    let bytes = needle.as_bytes();
    split(bytes)
        .map(|(at, token)| {
            let place = match (at == 0, at + token.len() == bytes.len()) {
                (true, true) => Place::Within,
                (true, false) => Place::End,
                (false, true) => Place::Start,
                (false, false) => Place::Whole,
            };
            (place, lower(token))
        })
        .collect()
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

/// A bloom filter over ids: 16 bits and 6 probes each, about one false answer in 2,000.
pub(crate) fn bloom(hashes: &std::collections::HashSet<u64>) -> Vec<u8> {
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

    #[test]
    fn substrings_and_what_they_need() {
        assert_eq!(needs("error"), [(Place::Within, "error".to_owned())]);
        assert_eq!(
            needs("code=500 in"),
            [
                (Place::End, "code".to_owned()),
                (Place::Whole, "500".to_owned()),
                (Place::Start, "in".to_owned())
            ]
        );
        assert_eq!(needs(" : "), []);
        assert!(is_id(b"4bf92f3577b34da6a3ce929d0e0e4736") && !is_id(b"internationalization"));
    }

    #[test]
    fn a_bloom_filter_never_denies_what_it_holds() {
        let all: std::collections::HashSet<u64> = (0..1000u64).map(|i| hash(&i.to_le_bytes())).collect();
        let bits = bloom(&all);
        assert!(all.iter().all(|h| bloom_may_have(&bits, *h)));
        let wrong = (1000..11_000u64).filter(|i| bloom_may_have(&bits, hash(&i.to_le_bytes()))).count();
        assert!(wrong < 50, "{wrong}");
    }
}
