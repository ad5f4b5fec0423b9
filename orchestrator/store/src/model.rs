//! What the store keeps and tells.

use bytes::Bytes;

/// A key with its current (or, in a range at a revision, its then) value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Bytes,
    /// The revision that created it.
    pub create_revision: u64,
    /// The revision that last wrote it.
    pub mod_revision: u64,
    /// How often it was written since its creation, from 1.
    pub version: u64,
}

/// One change. Every revision is exactly one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub revision: u64,
    pub key: Bytes,
    /// `None`: the key was deleted.
    pub value: Option<Bytes>,
    pub create_revision: u64,
    pub version: u64,
    /// The revision that wrote the key before this one; 0 if the key was new.
    pub prev_revision: u64,
}

/// What part of the keys to read.
#[derive(Clone, Debug, Default)]
pub struct Range {
    pub prefix: Bytes,
    /// Begin behind this key.
    pub after: Option<Bytes>,
    /// At most so many; 0 is no limit.
    pub limit: usize,
    /// As of this revision; `None` is now.
    pub revision: Option<u64>,
}

impl Range {
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Range { prefix: prefix.into(), ..Range::default() }
    }
}

/// What a range holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeResult {
    pub items: Vec<KeyValue>,
    /// There are keys behind the last one given.
    pub more: bool,
    /// The revision read at.
    pub revision: u64,
}
