//! Who is asked again about a write: policies and webhooks with the reinvocation policy `IfNeeded`, when others changed
//! the object after them. There are two rounds at most; in the second everything of our own runs again first
//! (apiserver: pkg/admission/{reinvocation.go,plugin/{webhook,policy}/mutating/reinvocationcontext.go}).

use std::collections::HashSet;

use serde_json::Value;

/// Policies and bindings, or configurations and webhooks, by their names.
type Key = (String, String);

/// What one plugin remembers from turn to turn.
#[derive(Default)]
pub(crate) struct Asked {
    /// The object as the plugin left it.
    left: Option<Value>,
    /// Those that may be asked again and saw the object as it is now.
    content: Vec<Key>,
    again: HashSet<Key>,
}

impl Asked {
    fn all_again(&mut self) {
        self.again.extend(self.content.drain(..));
    }

    /// The plugin's turn comes.
    fn begin(&mut self, second: bool, o: &Value) {
        if second && self.left.as_ref().is_some_and(|left| left != o) {
            self.all_again();
        }
    }

    fn end(&mut self, o: &Value) {
        let may_matter = !self.content.is_empty();
        self.left = may_matter.then(|| o.clone());
    }
}

/// Both rounds of one write.
#[derive(Default)]
pub(crate) struct Rounds {
    second: bool,
    changed: bool,
    policies: Asked,
    hooks: Asked,
}

#[derive(Clone, Copy)]
pub(crate) enum Plugin {
    Policies,
    Hooks,
}

impl Rounds {
    fn of(&mut self, plugin: Plugin) -> &mut Asked {
        match plugin {
            Plugin::Policies => &mut self.policies,
            Plugin::Hooks => &mut self.hooks,
        }
    }

    /// 0 or 1.
    pub(crate) fn number(&self) -> usize {
        usize::from(self.second)
    }

    pub(crate) fn begin(&mut self, plugin: Plugin, o: Option<&Value>) {
        let second = self.second;
        if let Some(o) = o {
            self.of(plugin).begin(second, o);
        }
    }

    pub(crate) fn end(&mut self, plugin: Plugin, o: Option<&Value>) {
        if let Some(o) = o {
            self.of(plugin).end(o);
        }
    }

    /// Whether this one has a turn in this round.
    pub(crate) fn has_turn(&mut self, plugin: Plugin, key: (&str, &str)) -> bool {
        !self.second || self.of(plugin).again.contains(&(key.0.to_owned(), key.1.to_owned()))
    }

    /// One had its turn: whether it changed the object, and may be asked again.
    pub(crate) fn had_turn(&mut self, plugin: Plugin, key: (&str, &str), changed: bool, again: bool) {
        if changed {
            self.of(plugin).all_again();
            self.changed = true;
        }
        if again {
            self.of(plugin).content.push((key.0.to_owned(), key.1.to_owned()));
        }
    }

    /// Ends a round; whether there is another.
    pub(crate) fn another(&mut self) -> bool {
        let another = self.changed && !self.second;
        self.second = true;
        another
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn who_saw_what_others_changed_is_asked_again_once() {
        let mut r = Rounds::default();
        let mut o = json!({"a": 1});
        let (first, second) = (("c", "first"), ("c", "second"));
        r.begin(Plugin::Hooks, Some(&o));
        assert!(r.has_turn(Plugin::Hooks, first));
        r.had_turn(Plugin::Hooks, first, true, true);
        r.had_turn(Plugin::Hooks, second, false, true);
        r.end(Plugin::Hooks, Some(&o));
        assert!(r.another(), "it changed something");
        r.begin(Plugin::Hooks, Some(&o));
        assert!(!r.has_turn(Plugin::Hooks, first), "nobody changed it after the first");
        assert!(!r.has_turn(Plugin::Hooks, second));
        r.end(Plugin::Hooks, Some(&o));
        assert!(!r.another());
        // What our own plugins changed counts as well.
        let mut r = Rounds::default();
        r.begin(Plugin::Policies, Some(&o));
        r.had_turn(Plugin::Policies, first, true, true);
        r.end(Plugin::Policies, Some(&o));
        assert!(r.another());
        o["a"] = 2.into();
        r.begin(Plugin::Policies, Some(&o));
        assert!(r.has_turn(Plugin::Policies, first));
    }
}
