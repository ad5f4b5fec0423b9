//! A label set, the identity of a series or a stream.
//!
//! One allocation per set: names and values stand length-prefixed in one buffer, sorted by name, as
//! Prometheus' `stringlabels` has it. Equality is one memcmp, cloning is one counter.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The label that holds a metric's name.
pub const METRIC_NAME: &str = "__name__";

/// A set of label pairs, sorted by name, names unique, no empty values (an empty value is an absent label).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// For each pair: name length, name, value length, value; lengths as LEB128.
    data: Option<Arc<[u8]>>,
}

impl Labels {
    pub const fn empty() -> Self {
        Labels { data: None }
    }

    /// From pairs in any order. A later pair wins over an earlier one of the same name; empty values vanish.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut pairs: Vec<(N, V)> = pairs.into_iter().collect();
        Self::from_ordered(&pairs).unwrap_or_else(|| {
            pairs.sort_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()));
            let next = pairs.iter().skip(1).map(Some).chain([None]);
            encode(pairs.iter().zip(next).filter_map(|((n, v), next)| {
                next.is_none_or(|(name, _)| name.as_ref() != n.as_ref()).then_some((n.as_ref(), v.as_ref()))
            }))
        })
    }

    /// From pairs in strictly ascending order of names: the short way. `None` if they are in another order.
    pub fn from_ordered<N: AsRef<str>, V: AsRef<str>>(pairs: &[(N, V)]) -> Option<Self> {
        pairs
            .is_sorted_by(|a, b| a.0.as_ref() < b.0.as_ref())
            .then(|| encode(pairs.iter().map(|(n, v)| (n.as_ref(), v.as_ref()))))
    }

    pub fn builder(&self) -> LabelsBuilder {
        LabelsBuilder { pairs: self.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect() }
    }

    pub fn iter(&self) -> Iter<'_> {
        Iter { rest: self.encoded() }
    }

    /// The value of a label, or `None` if the set does not have it.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// The metric's name, empty if there is none.
    pub fn metric_name(&self) -> &str {
        self.get(METRIC_NAME).unwrap_or("")
    }

    pub fn is_empty(&self) -> bool {
        self.data.is_none()
    }

    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// The canonical bytes of the set: what is hashed, compared and written to disk.
    pub fn encoded(&self) -> &[u8] {
        self.data.as_deref().unwrap_or(&[])
    }

    /// From canonical bytes, as [`Labels::encoded`] gave them. `None` if they are not well formed.
    pub fn from_encoded(data: &[u8]) -> Option<Self> {
        let mut rest = data;
        let mut last: Option<&str> = None;
        while !rest.is_empty() {
            let (name, r) = split_str(rest)?;
            let (_, r) = split_str(r)?;
            if last.is_some_and(|l| l >= name) {
                return None;
            }
            last = Some(name);
            rest = r;
        }
        Some(Labels { data: (!data.is_empty()).then(|| data.into()) })
    }

    /// A stable 64-bit hash of the set (ahash with fixed keys). Never written to disk.
    pub fn fingerprint(&self) -> u64 {
        let mut h = std::hash::BuildHasher::build_hasher(&ahash::RandomState::with_seeds(1, 2, 3, 4));
        h.write(self.encoded());
        h.finish()
    }

    /// Bytes of heap this set holds.
    pub fn heap_size(&self) -> usize {
        self.data.as_ref().map_or(0, |d| d.len() + 16)
    }
}

/// Pairs of a [`Labels`], in order of name.
#[derive(Clone)]
pub struct Iter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = split_str(self.rest)?;
        let (value, rest) = split_str(rest)?;
        self.rest = rest;
        Some((name, value))
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a str, &'a str);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

fn split_str(data: &[u8]) -> Option<(&str, &[u8])> {
    let (s, rest) = split_bytes(data)?;
    Some((std::str::from_utf8(s).ok()?, rest))
}

fn split_bytes(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut len = 0usize;
    for (i, b) in data.iter().enumerate().take(5) {
        len |= usize::from(b & 0x7f) << (7 * i);
        if b & 0x80 == 0 {
            return data.get(i + 1..)?.split_at_checked(len);
        }
    }
    None
}

fn push_str(out: &mut Vec<u8>, s: &str) {
    let mut len = s.len();
    while len >= 0x80 {
        out.push((len as u8 & 0x7f) | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend_from_slice(s.as_bytes());
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Labels {
    /// Pair by pair, as Prometheus orders series.
    fn cmp(&self, other: &Self) -> Ordering {
        // Names and values in turn, as bytes: UTF-8 orders as its characters do.
        let (mut a, mut b) = (self.encoded(), other.encoded());
        while let (Some((x, rest_a)), Some((y, rest_b))) = (split_bytes(a), split_bytes(b)) {
            match x.cmp(y) {
                Ordering::Equal => (a, b) = (rest_a, rest_b),
                other => return other,
            }
        }
        a.len().cmp(&b.len())
    }
}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.encoded());
    }
}

impl fmt::Display for Labels {
    /// As Prometheus prints a series: `name{a="b", c="d"}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.metric_name();
        f.write_str(name)?;
        let mut first = true;
        for (n, v) in self.iter().filter(|(n, _)| *n != METRIC_NAME) {
            f.write_str(if first { "{" } else { ", " })?;
            first = false;
            write!(f, "{n}={v:?}")?;
        }
        if !first {
            f.write_str("}")
        } else if name.is_empty() {
            f.write_str("{}")
        } else {
            Ok(())
        }
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Labels {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(iter: T) -> Self {
        Labels::from_pairs(iter)
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut m = s.serialize_map(None)?;
        for (n, v) in self {
            m.serialize_entry(n, v)?;
        }
        m.end()
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Labels;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of label names to values")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut a: A) -> Result<Labels, A::Error> {
                let mut b = LabelsBuilder::default();
                while let Some((n, v)) = a.next_entry::<String, String>()? {
                    b.set(&n, &v);
                }
                Ok(b.build())
            }
        }
        d.deserialize_map(V)
    }
}

/// Collects pairs, then makes a [`Labels`].
#[derive(Clone, Debug, Default)]
pub struct LabelsBuilder {
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    /// Sets a label; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        match self.pairs.iter_mut().find(|(n, _)| n == name) {
            Some((_, v)) => value.clone_into(v),
            None => self.pairs.push((name.to_owned(), value.to_owned())),
        }
        self
    }

    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.pairs.retain(|(n, _)| n != name);
        self
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(n, v)| n == name && !v.is_empty()).map(|(_, v)| v.as_str())
    }

    /// Those with a value, in no order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().filter(|(_, v)| !v.is_empty()).map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// Keeps the labels whose names are wanted.
    pub fn retain(&mut self, mut wanted: impl FnMut(&str) -> bool) -> &mut Self {
        self.pairs.retain(|(n, _)| wanted(n));
        self
    }

    pub fn build(&self) -> Labels {
        let mut pairs: Vec<&(String, String)> = self.pairs.iter().filter(|(_, v)| !v.is_empty()).collect();
        pairs.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        encode(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())))
    }
}

/// Names are unique and ascend.
fn encode<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Labels {
    let mut data = Vec::with_capacity(512);
    for (n, v) in pairs.filter(|(_, v)| !v.is_empty()) {
        push_str(&mut data, n);
        push_str(&mut data, v);
    }
    Labels { data: (!data.is_empty()).then(|| data.as_slice().into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sorted_unique_and_without_empty_values() {
        let l = Labels::from_pairs([("b", "2"), ("a", "1"), ("b", "3"), ("c", "")]);
        assert_eq!(l.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "3")]);
        assert_eq!(l.get("c"), None);
    }

    #[test]
    fn displays_as_prometheus_does() {
        let check = |pairs: &[(&str, &str)], expect: &str| {
            assert_eq!(Labels::from_pairs(pairs.iter().copied()).to_string(), expect);
        };
        check(&[], "{}");
        check(&[("__name__", "up")], "up");
        check(&[("__name__", "up"), ("job", "a\"b")], r#"up{job="a\"b"}"#);
    }

    proptest! {
        #[test]
        fn encoding_round_trips(pairs in proptest::collection::vec(("[a-z_]{1,8}", ".{0,200}"), 0..10)) {
            let l = Labels::from_pairs(pairs);
            prop_assert_eq!(Labels::from_encoded(l.encoded()), Some(l.clone()));
        }

        #[test]
        fn the_short_way_gives_the_same_set(pairs in proptest::collection::vec(("[a-c]{1,2}", "[xy]{0,1}"), 0..6)) {
            let mut b = LabelsBuilder::default();
            for (n, v) in &pairs {
                b.set(n, v);
            }
            prop_assert_eq!(Labels::from_pairs(pairs), b.build());
        }

        #[test]
        fn any_bytes_are_refused_or_canonical(data in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(l) = Labels::from_encoded(&data) {
                prop_assert_eq!(l.iter().map(|(n, v)| n.len() + v.len()).sum::<usize>() <= data.len(), true);
            }
        }
    }
}
