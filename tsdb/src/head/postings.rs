//! The head's inverted index: label name → value → the series that have it. Series come and go one by one.
//!
//! Names and values stand here once for all series. Most values belong to few series: those are kept as a plain
//! list, which costs a tenth of a bitmap.

use ahash::RandomState;
use roaring::RoaringBitmap;
use signal::{Labels, Matcher};
use std::collections::HashMap;

use crate::index;

/// A list becomes a bitmap beyond this many series.
const FEW: usize = 64;

#[derive(Debug)]
enum Ids {
    One(u32),
    /// Ascending.
    Few(Vec<u32>),
    Many(Box<RoaringBitmap>),
}

impl Ids {
    fn insert(&mut self, id: u32) {
        match self {
            Ids::One(one) if *one == id => {}
            Ids::One(one) => *self = Ids::Few(vec![id.min(*one), id.max(*one)]),
            Ids::Few(list) => {
                if let Err(at) = list.binary_search(&id) {
                    if list.len() < FEW {
                        list.insert(at, id);
                    } else {
                        let mut all: RoaringBitmap = list.iter().copied().collect();
                        all.insert(id);
                        *self = Ids::Many(Box::new(all));
                    }
                }
            }
            Ids::Many(all) => {
                all.insert(id);
            }
        }
    }

    /// True if none is left.
    fn remove(&mut self, id: u32) -> bool {
        match self {
            Ids::One(one) => *one == id,
            Ids::Few(list) => {
                if let Ok(at) = list.binary_search(&id) {
                    list.remove(at);
                }
                list.is_empty()
            }
            Ids::Many(all) => {
                all.remove(id);
                all.is_empty()
            }
        }
    }

    fn len(&self) -> u64 {
        match self {
            Ids::One(_) => 1,
            Ids::Few(list) => list.len() as u64,
            Ids::Many(all) => all.len(),
        }
    }

    fn add_to(&self, out: &mut RoaringBitmap) {
        match self {
            Ids::One(id) => {
                out.insert(*id);
            }
            Ids::Few(list) => out.extend(list.iter().copied()),
            Ids::Many(all) => *out |= &**all,
        }
    }
}

type Values = HashMap<Box<str>, Ids, RandomState>;

#[derive(Debug, Default)]
pub(crate) struct Postings {
    all: RoaringBitmap,
    names: HashMap<Box<str>, Values, RandomState>,
}

impl Postings {
    pub(super) fn add(&mut self, id: u32, labels: &Labels) {
        self.all.insert(id);
        for (name, value) in labels {
            if !self.names.contains_key(name) {
                self.names.insert(name.into(), Values::default());
            }
            let values = self.names.get_mut(name).expect("just inserted");
            match values.get_mut(value) {
                Some(ids) => ids.insert(id),
                None => {
                    values.insert(value.into(), Ids::One(id));
                }
            }
        }
    }

    pub(super) fn remove(&mut self, id: u32, labels: &Labels) {
        self.all.remove(id);
        for (name, value) in labels {
            let Some(values) = self.names.get_mut(name) else { continue };
            if values.get_mut(value).is_some_and(|ids| ids.remove(id)) {
                values.remove(value);
            }
            if values.is_empty() {
                self.names.remove(name);
            }
        }
    }

    /// Gives back room that many removals left behind.
    pub(super) fn shrink(&mut self) {
        for values in self.names.values_mut().filter(|v| v.capacity() > 4 * v.len() + 64) {
            values.shrink_to_fit();
        }
    }

    /// Series for which every matcher holds.
    pub(crate) fn select(&self, matchers: &[Matcher]) -> RoaringBitmap {
        index::select(matchers, || self.all.clone(), |m, holds| self.listed(m, holds))
    }

    /// Series that have a value for which the matcher holds, or one for which it does not.
    fn listed(&self, m: &Matcher, holds: bool) -> RoaringBitmap {
        let mut out = RoaringBitmap::new();
        let Some(values) = self.names.get(m.name.as_str()) else { return out };
        match index::one_value(m, holds) {
            Some(value) => values.get(value).into_iter().for_each(|ids| ids.add_to(&mut out)),
            None => {
                let wanted = values.iter().filter(|(v, _)| m.matches(v) == holds);
                wanted.for_each(|(_, ids)| ids.add_to(&mut out));
            }
        }
        out
    }

    /// Values of one label with the number of series of each.
    pub(crate) fn value_counts(&self, name: &str) -> impl Iterator<Item = (&str, u64)> {
        self.names.get(name).into_iter().flatten().map(|(v, ids)| (&**v, ids.len()))
    }

    /// Names of labels with the number of their values.
    pub(crate) fn name_counts(&self) -> impl Iterator<Item = (&str, u64)> {
        self.names.iter().map(|(n, v)| (&**n, v.len() as u64))
    }

    /// `(name, value, series)` of every pair.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.names.iter().flat_map(|(n, values)| values.iter().map(|(v, ids)| (&**n, &**v, ids.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::tests::matchers;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn select_agrees_with_matching_each_series_that_is_left(
            sets in proptest::collection::vec((proptest::collection::vec(("[abc]", "[xyz]?"), 0..4), any::<bool>()), 0..200),
            matchers in matchers(),
        ) {
            let sets: Vec<(Labels, bool)> = sets.into_iter().map(|(l, gone)| (Labels::from_pairs(l), gone)).collect();
            let mut p = Postings::default();
            sets.iter().enumerate().for_each(|(i, (l, _))| p.add(i as u32, l));
            sets.iter().enumerate().filter(|(_, (_, gone))| *gone).for_each(|(i, (l, _))| p.remove(i as u32, l));
            p.shrink();
            let expect: Vec<u32> = (0..sets.len() as u32)
                .filter(|i| !sets[*i as usize].1)
                .filter(|i| matchers.iter().all(|m| m.matches(sets[*i as usize].0.get(&m.name).unwrap_or(""))))
                .collect();
            prop_assert_eq!(p.select(&matchers).into_iter().collect::<Vec<_>>(), expect);
        }
    }
}
