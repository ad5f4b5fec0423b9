//! Values encrypted at rest: what lies under certain prefixes goes to the backend sealed and comes back open.
//!
//! AES-256-GCM with a key of its own for every write, derived (HKDF-SHA256) from the master key and 32 random bytes, so that
//! no number of writes wears a master key out (Kubernetes does so too: KMS v2, aes_extended_nonce). The store's key is
//! authenticated with the value: a sealed value moved under another name does not open. See FORMAT.md.

use std::sync::Arc;

use bytes::Bytes;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::rand::{SecureRandom, SystemRandom};

use crate::Error;

/// How a sealed value begins. No JSON does.
const MAGIC: &[u8] = b"\0binnacle-sealed-1\0";
const ID_LEN: usize = 8;
const SEED_LEN: usize = 32;
/// Bytes of a master key.
const KEY_LEN: usize = 32;

/// Master keys: the first seals, all open.
#[derive(Clone)]
pub struct Keys(Vec<MasterKey>);

#[derive(Clone)]
struct MasterKey {
    id: [u8; ID_LEN],
    secret: [u8; KEY_LEN],
}

impl Keys {
    /// A file of keys: one a line, 32 bytes in hexadecimal (`openssl rand -hex 32`); empty lines and `#` comments between.
    /// The error says which line is wrong, and never quotes it.
    pub fn parse(text: &str) -> Result<Keys, String> {
        let mut keys = Vec::new();
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let secret = unhex(line).ok_or_else(|| {
                format!("line {}: a key is 64 hexadecimal digits: make one by `openssl rand -hex 32`", n + 1)
            })?;
            let digest = ring::digest::digest(&ring::digest::SHA256, &secret);
            let mut id = [0; ID_LEN];
            id.copy_from_slice(digest.as_ref().get(..ID_LEN).unwrap_or(&[0; ID_LEN]));
            keys.push(MasterKey { id, secret });
        }
        if keys.is_empty() { Err("there is no key in it".to_owned()) } else { Ok(Keys(keys)) }
    }
}

fn unhex(text: &str) -> Option<[u8; KEY_LEN]> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    let digits = digits.filter(|d| d.len() == KEY_LEN * 2)?;
    let mut out = [0; KEY_LEN];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair.iter().fold(0, |b, d| b << 4 | d);
    }
    Some(out)
}

/// Seals what is written below some prefixes and opens whatever is sealed.
#[derive(Clone, Default)]
pub(crate) struct Sealer {
    keys: Option<Arc<Keys>>,
    prefixes: Arc<[Bytes]>,
}

impl Sealer {
    pub(crate) fn new(keys: Option<Keys>, prefixes: Vec<Bytes>) -> Self {
        Sealer { keys: keys.map(Arc::new), prefixes: prefixes.into() }
    }

    pub(crate) fn prefixes(&self) -> &[Bytes] {
        &self.prefixes
    }

    fn first(&self, key: &[u8]) -> Option<&MasterKey> {
        let keys = self.keys.as_ref()?;
        self.prefixes.iter().any(|p| key.starts_with(p)).then(|| keys.0.first())?
    }

    /// The value as it is to lie in the backend.
    pub(crate) fn seal(&self, key: &[u8], value: Bytes) -> Result<Bytes, Error> {
        let Some(master) = self.first(key) else { return Ok(value) };
        let random = SystemRandom::new();
        let (mut seed, mut nonce) = ([0; SEED_LEN], [0; NONCE_LEN]);
        let failed = |_| Error::Unavailable("no random numbers, or no room for a cipher".to_owned());
        random.fill(&mut seed).map_err(failed)?;
        random.fill(&mut nonce).map_err(failed)?;
        let mut out = Vec::with_capacity(MAGIC.len() + ID_LEN + SEED_LEN + NONCE_LEN + value.len() + 16);
        for part in [MAGIC, &master.id, &seed, &nonce] {
            out.extend_from_slice(part);
        }
        let mut body = value.to_vec();
        let cipher = master.cipher(&seed);
        cipher
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(key), &mut body)
            .map_err(failed)?;
        out.extend_from_slice(&body);
        Ok(out.into())
    }

    /// The value as it was written.
    pub(crate) fn open(&self, key: &[u8], value: Bytes) -> Result<Bytes, Error> {
        let Some(sealed) = value.strip_prefix(MAGIC) else { return Ok(value) };
        let name = || String::from_utf8_lossy(key).into_owned();
        let cut = || Error::Corrupt(format!("the sealed value of {} is cut off", name()));
        let (id, rest) = sealed.split_first_chunk::<ID_LEN>().ok_or_else(cut)?;
        let (seed, rest) = rest.split_first_chunk::<SEED_LEN>().ok_or_else(cut)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(cut)?;
        let keys = self.keys.iter().flat_map(|k| &k.0);
        let Some(master) = keys.into_iter().find(|k| k.id == *id) else {
            let id: String = id.iter().map(|b| format!("{b:02x}")).collect();
            return Err(Error::Key { name: name(), id });
        };
        let mut body = body.to_vec();
        let opened = master
            .cipher(seed)
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(key), &mut body)
            .map_err(|_| Error::Corrupt(format!("the sealed value of {} was changed", name())))?;
        Ok(Bytes::copy_from_slice(opened))
    }

    /// Whether this value should be written again: it is open, or sealed by a key that is no longer the first.
    pub(crate) fn is_outdated(&self, key: &[u8], stored: &[u8]) -> bool {
        match self.first(key) {
            None => false,
            Some(master) => stored.strip_prefix(MAGIC).is_none_or(|s| !s.starts_with(&master.id)),
        }
    }
}

impl MasterKey {
    fn cipher(&self, seed: &[u8; SEED_LEN]) -> LessSafeKey {
        struct Length;
        impl KeyType for Length {
            fn len(&self) -> usize {
                KEY_LEN
            }
        }
        let mut derived = [0; KEY_LEN];
        let info = [seed.as_slice()];
        let expanded = Salt::new(HKDF_SHA256, &[]).extract(&self.secret);
        let filled = expanded.expand(&info, Length).and_then(|okm| okm.fill(&mut derived));
        filled.expect("HKDF gives up to 255 blocks, this is one");
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &derived).expect("32 bytes are an AES-256 key"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(digits: &[&str]) -> Keys {
        let lines: Vec<String> = digits.iter().map(|d| d.repeat(64)).collect();
        Keys::parse(&lines.join("\n")).expect("keys")
    }

    fn sealer(digits: &[&str]) -> Sealer {
        Sealer::new(Some(keys(digits)), vec![Bytes::from("/registry/secrets/")])
    }

    const NAME: &[u8] = b"/registry/secrets/default/s";

    #[test]
    fn what_is_sealed_opens_again_and_only_there() {
        let s = sealer(&["a"]);
        let sealed = s.seal(NAME, Bytes::from("{\"data\":\"x\"}")).expect("sealed");
        assert!(!sealed.windows(4).any(|w| w == b"data"));
        assert_eq!(s.open(NAME, sealed.clone()).expect("opened"), "{\"data\":\"x\"}");
        assert_ne!(s.seal(NAME, Bytes::from("{\"data\":\"x\"}")).expect("sealed"), sealed);
        assert!(matches!(s.open(b"/registry/secrets/default/t", sealed.clone()), Err(Error::Corrupt(_))));
        for at in 0..sealed.len() {
            let mut changed = sealed.to_vec();
            changed[at] ^= 1;
            let opened = s.open(NAME, changed.into());
            assert!(!matches!(opened, Ok(v) if v == "{\"data\":\"x\"}"), "byte {at}");
        }
        for cut in MAGIC.len()..sealed.len() {
            assert!(s.open(NAME, sealed.slice(..cut)).is_err());
        }
    }

    #[test]
    fn only_what_is_asked_for_is_sealed() {
        let s = sealer(&["a"]);
        assert_eq!(s.seal(b"/registry/pods/default/p", Bytes::from("{}")).expect("kept"), "{}");
        assert_eq!(s.open(NAME, Bytes::from("{}")).expect("kept"), "{}");
        assert!(s.is_outdated(NAME, b"{}") && !s.is_outdated(b"/registry/pods/default/p", b"{}"));
    }

    #[test]
    fn keys_rotate() {
        let old = sealer(&["a"]).seal(NAME, Bytes::from("{}")).expect("sealed");
        let both = sealer(&["b", "a"]);
        assert_eq!(both.open(NAME, old.clone()).expect("opened"), "{}");
        assert!(both.is_outdated(NAME, &old));
        let new = both.seal(NAME, Bytes::from("{}")).expect("sealed");
        assert!(!both.is_outdated(NAME, &new));
        assert_eq!(sealer(&["b"]).open(NAME, new).expect("opened"), "{}");
        let wrong = sealer(&["b"]).open(NAME, old.clone()).expect_err("another key");
        assert!(wrong.to_string().contains("/registry/secrets/default/s"), "{wrong}");
        assert!(Sealer::default().open(NAME, old).is_err());
    }

    #[test]
    fn a_file_of_keys_is_checked() {
        for bad in ["", "# none\n", "abc", "zz", &"a".repeat(63)] {
            assert!(Keys::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(keys(&["a", "b"]).0.len(), 2);
    }
}
