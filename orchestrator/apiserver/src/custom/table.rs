//! Which custom kinds there are now. The watch cache writes here, in the order of revisions; everybody reads.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::Value;

use super::{Custom, is_true};
use crate::kinds::{ALL, Kind, Served};
use crate::object;

/// The custom kinds of a server.
#[derive(Default)]
pub(crate) struct Table(RwLock<State>);

#[derive(Default)]
struct State {
    /// By number, which begins behind that of the built-in kinds. A name keeps its number.
    slots: Vec<Slot>,
    /// `group/plural` → place in `slots`.
    places: HashMap<Box<str>, usize>,
    /// Counts changes.
    epoch: u64,
}

struct Slot {
    path: Box<str>,
    /// The row it had last, for those who read what was.
    kind: Option<&'static Kind>,
    custom: Option<Arc<Custom>>,
}

/// What is to be done after a definition changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Nothing,
    /// Objects under this number are read from the store again; they lie behind this path.
    Load(usize, Box<str>),
    /// Objects under this number are served no more.
    Drop(usize),
}

impl Table {
    /// Notes what a definition is now; `gone` if it was deleted.
    pub(crate) fn define(&self, o: &Value, gone: bool) -> Effect {
        let text = |p: &str| object::text(o, p).unwrap_or_default();
        let path: Box<str> = format!("{}/{}", text("spec.group"), text("spec.names.plural")).into();
        let established = is_true(o, "Established");
        let mut state = self.0.write();
        let place = match state.places.get(&path) {
            Some(place) => *place,
            None if gone || !established => return Effect::Nothing,
            None => {
                let place = state.slots.len();
                state.slots.push(Slot { path: path.clone(), kind: None, custom: None });
                state.places.insert(path.clone(), place);
                place
            }
        };
        let index = ALL.len() + place;
        let old = state.slots[place].custom.clone();
        if gone || !established {
            let Some(old) = old else { return Effect::Nothing };
            state.slots[place].custom = None;
            state.epoch += 1;
            old.ended.cancel();
            return Effect::Drop(index);
        }
        let same = old.as_ref().is_some_and(|c| {
            c.generation == object::int(o, "metadata.generation").unwrap_or(0)
                && c.uid == text("metadata.uid")
                && c.terminating == super::is_terminating(o)
        });
        if same {
            return Effect::Nothing;
        }
        let Some(custom) = Custom::compile(o, index) else {
            tracing::error!(
                name = object::name(o),
                "too many kinds were defined in this process; this one is not served"
            );
            return Effect::Nothing;
        };
        state.slots[place].kind = Some(custom.storage().kind);
        state.slots[place].custom = Some(Arc::new(custom));
        state.epoch += 1;
        if let Some(old) = old {
            old.ended.cancel();
        }
        Effect::Load(index, path)
    }

    /// Drops all definitions but those of these names.
    pub(crate) fn keep(&self, names: &HashSet<String>) {
        let mut state = self.0.write();
        let mut dropped = 0;
        for slot in &mut state.slots {
            let (group, plural) = slot.path.split_once('/').unwrap_or_default();
            if !names.contains(&format!("{plural}.{group}"))
                && let Some(old) = slot.custom.take()
            {
                old.ended.cancel();
                dropped += 1;
            }
        }
        state.epoch += dropped;
    }

    /// How often the kinds have changed.
    pub(crate) fn epoch(&self) -> u64 {
        self.0.read().epoch
    }

    pub(crate) fn find(&self, group: &str, version: &str, resource: &str) -> Option<Served> {
        let custom = self.named(&format!("{group}/{resource}"))?;
        let number = custom.version(version).filter(|n| custom.versions[*n].served)?;
        Some(custom.serve(number))
    }

    /// The definition of `group/plural`, if it is served.
    pub(crate) fn named(&self, path: &str) -> Option<Arc<Custom>> {
        let state = self.0.read();
        state.slots[*state.places.get(path)?].custom.clone()
    }

    /// The number of `group/plural`, if there is such a kind or was one.
    pub(crate) fn index(&self, path: &str) -> Option<usize> {
        self.0.read().places.get(path).map(|place| ALL.len() + place)
    }

    pub(crate) fn at(&self, index: usize) -> Option<Arc<Custom>> {
        self.0.read().slots.get(index.checked_sub(ALL.len())?)?.custom.clone()
    }

    /// The row that a number has or had last.
    pub(crate) fn row(&self, index: usize) -> Option<&'static Kind> {
        self.0.read().slots.get(index.checked_sub(ALL.len())?)?.kind
    }

    /// All definitions that are served, by group and plural.
    pub(crate) fn all(&self) -> Vec<Arc<Custom>> {
        let state = self.0.read();
        let mut all: Vec<(&str, &Arc<Custom>)> =
            state.slots.iter().filter_map(|s| Some((&*s.path, s.custom.as_ref()?))).collect();
        all.sort_by_key(|(path, _)| *path);
        all.into_iter().map(|(_, c)| c.clone()).collect()
    }

    /// Every kind in every version that is served.
    pub(crate) fn served(&self) -> Vec<Served> {
        self.all().iter().flat_map(Custom::served).collect()
    }
}
