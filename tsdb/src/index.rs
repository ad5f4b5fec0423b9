//! A block's inverted index: label name → value → the series that have it.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;
use signal::{Labels, MatchOp, Matcher};

use crate::codec::{get_uvarint, put_uvarint, take};

/// Shorter lists are written as differences.
const SHORT: u64 = 64;

/// Postings of all series 0..count.
#[derive(Debug, Default)]
pub(crate) struct Postings {
    count: u32,
    names: BTreeMap<Box<str>, BTreeMap<Box<str>, RoaringBitmap>>,
}

impl Postings {
    /// Adds the next series; gives back its number.
    pub(crate) fn add(&mut self, labels: &Labels) -> u32 {
        let id = self.count;
        for (name, value) in labels {
            if !self.names.contains_key(name) {
                self.names.insert(name.into(), BTreeMap::new());
            }
            let values = self.names.get_mut(name).expect("just inserted");
            match values.get_mut(value) {
                Some(ids) => {
                    ids.insert(id);
                }
                None => {
                    values.insert(value.into(), RoaringBitmap::from_iter([id]));
                }
            }
        }
        self.count += 1;
        id
    }

    /// Series for which every matcher holds.
    pub(crate) fn select(&self, matchers: &[Matcher]) -> RoaringBitmap {
        select(matchers, || self.all(), |m, holds| self.listed(m, holds))
    }

    fn all(&self) -> RoaringBitmap {
        (0..self.count).collect()
    }

    /// Series that have a value for which the matcher holds, or one for which it does not.
    fn listed(&self, m: &Matcher, holds: bool) -> RoaringBitmap {
        let Some(values) = self.names.get(m.name.as_str()) else { return RoaringBitmap::new() };
        match one_value(m, holds) {
            Some(value) => values.get(value).cloned().unwrap_or_default(),
            None => union(values.iter().filter(|(v, _)| m.matches(v) == holds).map(|(_, ids)| ids)),
        }
    }

    /// Bytes of memory, about.
    pub(crate) fn size(&self) -> usize {
        let lists = self.names.values().flatten();
        lists.map(|(v, ids)| v.len() + 64 + ids.serialized_size()).sum()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_uvarint(out, u64::from(self.count));
        put_uvarint(out, self.names.len() as u64);
        for (name, values) in &self.names {
            put_uvarint(out, name.len() as u64);
            out.extend_from_slice(name.as_bytes());
            put_uvarint(out, values.len() as u64);
            for (value, ids) in values {
                put_uvarint(out, value.len() as u64);
                out.extend_from_slice(value.as_bytes());
                // Most lists are short: then their differences take less than a bitmap's frame.
                if ids.len() < SHORT {
                    put_uvarint(out, ids.len() << 1);
                    let mut before = 0;
                    for id in ids {
                        put_uvarint(out, u64::from(id - before));
                        before = id;
                    }
                } else {
                    put_uvarint(out, (ids.serialized_size() as u64) << 1 | 1);
                    ids.serialize_into(&mut *out).expect("writing to memory cannot fail");
                }
            }
        }
    }

    /// `short` tells whether short lists are written as differences, which is so since block version 3.
    pub(crate) fn decode(data: &mut &[u8], short: bool) -> Option<Self> {
        let text = |data: &mut &[u8]| -> Option<Box<str>> {
            let n = usize::try_from(get_uvarint(data)?).ok()?;
            Some(std::str::from_utf8(take(data, n)?).ok()?.into())
        };
        let mut p = Postings { count: u32::try_from(get_uvarint(data)?).ok()?, names: BTreeMap::new() };
        for _ in 0..get_uvarint(data)? {
            let name = text(data)?;
            let mut values = BTreeMap::new();
            for _ in 0..get_uvarint(data)? {
                let value = text(data)?;
                let head = get_uvarint(data)?;
                let ids = if short && head & 1 == 0 {
                    let mut ids = RoaringBitmap::new();
                    let mut id = 0u32;
                    for _ in 0..head >> 1 {
                        id = id.checked_add(u32::try_from(get_uvarint(data)?).ok()?)?;
                        ids.insert(id);
                    }
                    ids
                } else {
                    let n = usize::try_from(if short { head >> 1 } else { head }).ok()?;
                    RoaringBitmap::deserialize_from(take(data, n)?).ok()?
                };
                values.insert(value, ids);
            }
            p.names.insert(name, values);
        }
        Some(p)
    }
}

/// Series for which every matcher holds, of `all`. `listed` gives those that have a value for which the matcher holds,
/// or one for which it does not.
pub(crate) fn select(
    matchers: &[Matcher],
    all: impl Fn() -> RoaringBitmap,
    listed: impl Fn(&Matcher, bool) -> RoaringBitmap,
) -> RoaringBitmap {
    // The cheapest first: an equality reads one list, everything else a dictionary.
    let mut order: Vec<&Matcher> = matchers.iter().collect();
    order.sort_by_key(|m| match m.op {
        MatchOp::Equal if !m.value.is_empty() => 0,
        MatchOp::Regex => 1,
        _ => 2,
    });
    let mut result: Option<RoaringBitmap> = None;
    for m in order {
        // Series without the label have the empty value: where that will do, those with a wrong one are taken away.
        let empty = m.matches_empty();
        let listed = listed(m, !empty);
        result = Some(match (result, empty) {
            (None, false) => listed,
            (None, true) => all() - listed,
            (Some(r), false) => r & listed,
            (Some(r), true) => r - listed,
        });
        if result.as_ref().is_some_and(RoaringBitmap::is_empty) {
            break;
        }
    }
    result.unwrap_or_else(all)
}

/// The only value for which the matcher holds, or does not, if there is just one.
pub(crate) fn one_value(m: &Matcher, holds: bool) -> Option<&str> {
    matches!((m.op, holds), (MatchOp::Equal, true) | (MatchOp::NotEqual, false)).then_some(m.value.as_str())
}

fn union<'a>(lists: impl Iterator<Item = &'a RoaringBitmap>) -> RoaringBitmap {
    let mut all = RoaringBitmap::new();
    lists.for_each(|l| all |= l);
    all
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Up to three matchers of names a to c and values of x, y and z.
    pub(crate) fn matchers() -> impl Strategy<Value = Vec<Matcher>> {
        let one = (
            "[abc]",
            0..4u8,
            prop_oneof!["[xyz]?", Just("x|y".to_owned()), Just(".*".to_owned()), Just(".+".to_owned())],
        )
            .prop_map(|(n, op, v)| {
                let op =
                    [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex][usize::from(op)];
                Matcher::new(n, op, v).expect("pattern")
            });
        proptest::collection::vec(one, 0..4)
    }

    proptest! {
        #[test]
        fn select_agrees_with_matching_each_series(
            sets in proptest::collection::vec(proptest::collection::vec(("[abc]", "[xyz]?"), 0..4), 0..20),
            matchers in matchers(),
        ) {
            let sets: Vec<Labels> = sets.into_iter().map(Labels::from_pairs).collect();
            let mut p = Postings::default();
            sets.iter().for_each(|l| { p.add(l); });
            let mut bytes = Vec::new();
            p.encode(&mut bytes);
            let p = Postings::decode(&mut bytes.as_slice(), true).expect("decodes");
            let expect: Vec<u32> = (0..sets.len() as u32)
                .filter(|i| matchers.iter().all(|m| m.matches(sets[*i as usize].get(&m.name).unwrap_or(""))))
                .collect();
            prop_assert_eq!(p.select(&matchers).into_iter().collect::<Vec<_>>(), expect);
        }
    }
}
