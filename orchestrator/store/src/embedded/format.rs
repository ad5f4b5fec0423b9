//! What lies on disk: tables and records. Described in FORMAT.md.

use bytes::Bytes;
use redb::TableDefinition;

use crate::{Error, Event};

/// The format this code writes.
pub(super) const FORMAT: u64 = 1;

/// `format`, `revision`, `compacted`.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Key → [`Head`] of its newest version; deleted keys are absent.
pub(super) const CURRENT: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("current");
/// Revision → the change, as [`encode`] writes it.
pub(super) const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// Key and revision of every version that history still holds. 1: written, 0: deleted.
pub(super) const VERSIONS: TableDefinition<'_, (&[u8], u64), u8> = TableDefinition::new("versions");

/// Where a key's newest version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) create_revision: u64,
    pub(super) mod_revision: u64,
    pub(super) version: u64,
}

impl Head {
    pub(super) fn encode(self) -> [u8; 24] {
        let mut out = [0; 24];
        let parts = [self.create_revision, self.mod_revision, self.version];
        for (chunk, v) in out.chunks_exact_mut(8).zip(parts) {
            chunk.copy_from_slice(&v.to_le_bytes());
        }
        out
    }

    pub(super) fn decode(data: &[u8]) -> Result<Self, Error> {
        let mut r = Reader(data);
        match (r.u64(), r.u64(), r.u64(), r.0.is_empty()) {
            (Some(create_revision), Some(mod_revision), Some(version), true) => {
                Ok(Head { create_revision, mod_revision, version })
            }
            _ => Err(Error::Corrupt("a key's head is not 24 bytes".to_owned())),
        }
    }
}

/// A log record: kind, three numbers, key, value, CRC-32 of all that.
pub(super) fn encode(e: &Event) -> Vec<u8> {
    let value = e.value.as_deref().unwrap_or_default();
    let mut out = Vec::with_capacity(1 + 24 + 4 + e.key.len() + value.len() + 4);
    out.push(u8::from(e.value.is_some()));
    for n in [e.create_revision, e.version, e.prev_revision] {
        out.extend_from_slice(&n.to_le_bytes());
    }
    out.extend_from_slice(&(e.key.len() as u32).to_le_bytes());
    out.extend_from_slice(&e.key);
    out.extend_from_slice(value);
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

pub(super) fn decode(revision: u64, data: &[u8]) -> Result<Event, Error> {
    parse(revision, data)
        .ok_or_else(|| Error::Corrupt(format!("the record of revision {revision} fails its checksum")))
}

fn parse(revision: u64, data: &[u8]) -> Option<Event> {
    let (body, crc) = data.split_at_checked(data.len().checked_sub(4)?)?;
    if crc32fast::hash(body).to_le_bytes() != crc {
        return None;
    }
    let mut r = Reader(body);
    let kind = r.take(1)?.first().copied()?;
    let (create_revision, version, prev_revision) = (r.u64()?, r.u64()?, r.u64()?);
    let key_len = u32::from_le_bytes(r.take(4)?.try_into().ok()?);
    let key = Bytes::copy_from_slice(r.take(key_len as usize)?);
    let value = match kind {
        0 => None,
        1 => Some(Bytes::copy_from_slice(r.0)),
        _ => return None,
    };
    Some(Event { revision, key, value, create_revision, version, prev_revision })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (a, b) = self.0.split_at_checked(n)?;
        self.0 = b;
        Some(a)
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_round_trip(key in proptest::collection::vec(any::<u8>(), 0..50), value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200)), n: [u64; 3], revision: u64) {
            let e = Event { revision, key: key.into(), value: value.map(Bytes::from), create_revision: n[0], version: n[1], prev_revision: n[2] };
            let data = encode(&e);
            prop_assert_eq!(decode(revision, &data).expect("own record"), e);
            for cut in 0..data.len() {
                prop_assert!(decode(revision, &data[..cut]).is_err());
            }
        }

        #[test]
        fn heads_round_trip(n: [u64; 3]) {
            let h = Head { create_revision: n[0], mod_revision: n[1], version: n[2] };
            prop_assert_eq!(Head::decode(&h.encode()).expect("own head"), h);
        }
    }
}
