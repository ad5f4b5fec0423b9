//! Relabelling: rules that rewrite, keep or drop label sets (Prometheus: model/relabel).

use std::fmt;

use md5::{Digest, Md5};
use regex::Regex;

use crate::LabelsBuilder;

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Replace,
    Keep,
    Drop,
    KeepEqual,
    DropEqual,
    HashMod,
    LabelMap,
    LabelDrop,
    LabelKeep,
    Lowercase,
    Uppercase,
}

impl Action {
    /// From Prometheus' word for it, in any case.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word.to_ascii_lowercase().as_str() {
            "replace" => Action::Replace,
            "keep" => Action::Keep,
            "drop" => Action::Drop,
            "keepequal" => Action::KeepEqual,
            "dropequal" => Action::DropEqual,
            "hashmod" => Action::HashMod,
            "labelmap" => Action::LabelMap,
            "labeldrop" => Action::LabelDrop,
            "labelkeep" => Action::LabelKeep,
            "lowercase" => Action::Lowercase,
            "uppercase" => Action::Uppercase,
            _ => return None,
        })
    }
}

/// One rule, checked.
#[derive(Clone)]
pub struct Rule {
    action: Action,
    source: Vec<String>,
    separator: String,
    regex: Regex,
    target: String,
    replacement: String,
    modulus: u64,
}

/// The parts of a rule as they are written, with Prometheus' defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Parts {
    pub action: Action,
    pub source_labels: Vec<String>,
    pub separator: String,
    /// Matches the whole value.
    pub regex: String,
    pub target_label: String,
    pub replacement: String,
    pub modulus: u64,
}

impl Default for Parts {
    fn default() -> Self {
        Parts {
            action: Action::Replace,
            source_labels: Vec::new(),
            separator: ";".to_owned(),
            regex: "(.*)".to_owned(),
            target_label: String::new(),
            replacement: "$1".to_owned(),
            modulus: 0,
        }
    }
}

/// A rule that cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RuleError {
    #[error("relabel configuration for {0:?} action requires 'target_label' value")]
    NoTarget(Action),
    #[error("relabel configuration for hashmod requires non-zero modulus")]
    NoModulus,
    #[error("relabel configuration for labelmap action requires a 'replacement' that can be a label's name")]
    NoReplacement,
    #[error("{0:?} action requires only 'source_labels' and `target_label`, and no other fields")]
    TooMuch(Action),
    #[error("{0:?} action requires only 'regex', and no other fields")]
    OnlyRegex(Action),
    #[error("invalid regular expression: {0}")]
    Regex(String),
}

impl Rule {
    pub fn new(p: Parts) -> Result<Rule, RuleError> {
        use Action::{
            DropEqual, HashMod, KeepEqual, LabelDrop, LabelKeep, LabelMap, Lowercase, Replace, Uppercase,
        };
        let d = Parts::default();
        let plain = p.regex == d.regex && p.separator == d.separator && p.modulus == 0;
        match p.action {
            HashMod if p.modulus == 0 => return Err(RuleError::NoModulus),
            Replace | HashMod | Lowercase | Uppercase | KeepEqual | DropEqual
                if p.target_label.is_empty() =>
            {
                return Err(RuleError::NoTarget(p.action));
            }
            LabelMap if p.replacement.is_empty() => return Err(RuleError::NoReplacement),
            KeepEqual | DropEqual if !plain || p.replacement != d.replacement => {
                return Err(RuleError::TooMuch(p.action));
            }
            LabelDrop | LabelKeep
                if !p.source_labels.is_empty()
                    || !p.target_label.is_empty()
                    || p.separator != d.separator
                    || p.modulus != 0
                    || p.replacement != d.replacement =>
            {
                return Err(RuleError::OnlyRegex(p.action));
            }
            _ => {}
        }
        let regex =
            Regex::new(&format!("^(?s:{})$", p.regex)).map_err(|e| RuleError::Regex(e.to_string()))?;
        Ok(Rule {
            action: p.action,
            source: p.source_labels,
            separator: p.separator,
            regex,
            target: p.target_label,
            replacement: p.replacement,
            modulus: p.modulus,
        })
    }

    fn expand(&self, template: &str, value: &str) -> Option<String> {
        let found = self.regex.captures(value)?;
        let mut out = String::new();
        found.expand(template, &mut out);
        Some(out)
    }

    /// `false` if the set is dropped.
    fn apply(&self, labels: &mut LabelsBuilder) -> bool {
        let mut value = String::new();
        for (i, name) in self.source.iter().enumerate() {
            if i > 0 {
                value.push_str(&self.separator);
            }
            value.push_str(labels.get(name).unwrap_or(""));
        }
        match self.action {
            Action::Keep => return self.regex.is_match(&value),
            Action::Drop => return !self.regex.is_match(&value),
            Action::KeepEqual => return labels.get(&self.target).unwrap_or("") == value,
            Action::DropEqual => return labels.get(&self.target).unwrap_or("") != value,
            Action::Replace => {
                let (Some(target), Some(new)) =
                    (self.expand(&self.target, &value), self.expand(&self.replacement, &value))
                else {
                    return true;
                };
                if !target.is_empty() {
                    labels.set(&target, &new);
                }
            }
            Action::Lowercase => {
                labels.set(&self.target, &value.to_lowercase());
            }
            Action::Uppercase => {
                labels.set(&self.target, &value.to_uppercase());
            }
            Action::HashMod => {
                let hash = Md5::digest(value.as_bytes());
                let low = hash.iter().skip(8).fold(0u64, |n, b| n << 8 | u64::from(*b));
                labels.set(&self.target, &(low % self.modulus).to_string());
            }
            Action::LabelMap => {
                let mapped: Vec<(String, String)> = labels
                    .pairs()
                    .filter_map(|(n, v)| Some((self.expand(&self.replacement, n)?, v.to_owned())))
                    .collect();
                for (name, value) in mapped.iter().filter(|(n, _)| !n.is_empty()) {
                    labels.set(name, value);
                }
            }
            Action::LabelDrop => {
                labels.retain(|name| !self.regex.is_match(name));
            }
            Action::LabelKeep => {
                labels.retain(|name| self.regex.is_match(name));
            }
        }
        true
    }
}

/// Rules are equal if they are written alike.
impl PartialEq for Rule {
    fn eq(&self, o: &Self) -> bool {
        (self.action, &self.source, &self.separator, self.regex.as_str())
            == (o.action, &o.source, &o.separator, o.regex.as_str())
            && (&self.target, &self.replacement, self.modulus) == (&o.target, &o.replacement, o.modulus)
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} {}", self.action, self.source, self.regex.as_str())
    }
}

/// Applies the rules one after the other; `false` if one of them drops the set.
pub fn relabel(rules: &[Rule], labels: &mut LabelsBuilder) -> bool {
    rules.iter().all(|r| r.apply(labels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Labels;

    fn rule(action: &str, source: &[&str], rest: impl FnOnce(&mut Parts)) -> Rule {
        let mut p = Parts {
            action: Action::from_word(action).expect("an action"),
            source_labels: source.iter().map(|s| (*s).to_owned()).collect(),
            ..Parts::default()
        };
        rest(&mut p);
        Rule::new(p).expect("a rule")
    }

    fn check(rules: &[Rule], input: &[(&str, &str)], expect: Option<&[(&str, &str)]>) {
        let mut b = Labels::from_pairs(input.iter().copied()).builder();
        let kept = relabel(rules, &mut b);
        let expect = expect.map(|e| Labels::from_pairs(e.iter().copied()));
        assert_eq!(kept.then(|| b.build()), expect, "{rules:?} {input:?}");
    }

    #[test]
    fn each_action_does_its_part() {
        let r = rule("replace", &["a"], |p| {
            p.regex = "f(.*)".into();
            p.target_label = "d".into();
            p.replacement = "ch${1}-ch${1}".into();
        });
        check(&[r], &[("a", "foo")], Some(&[("a", "foo"), ("d", "choo-choo")]));
        let r = rule("replace", &["a", "b"], |p| {
            p.regex = "(.*);(.*)r".into();
            p.target_label = "${1}".into();
            p.replacement = "${2}$$".into();
        });
        check(
            std::slice::from_ref(&r),
            &[("a", "x"), ("b", "bar")],
            Some(&[("a", "x"), ("b", "bar"), ("x", "ba$")]),
        );
        check(&[r], &[("a", "x"), ("b", "no")], Some(&[("a", "x"), ("b", "no")]));
        // An empty replacement removes.
        let r = rule("replace", &["a"], |p| {
            p.target_label = "a".into();
            p.replacement = String::new();
        });
        check(&[r], &[("a", "x"), ("b", "y")], Some(&[("b", "y")]));
        let re = |action, regex: &str| rule(action, &["a"], |p| p.regex = regex.into());
        check(&[re("keep", "fo")], &[("a", "foo")], None);
        check(&[re("keep", "fo.")], &[("a", "foo")], Some(&[("a", "foo")]));
        check(&[re("drop", "f.*")], &[("a", "foo")], None);
        check(&[re("drop", "f.*")], &[("a", "f\no")], None);
        let eq = |action| rule(action, &["a"], |p| p.target_label = "b".into());
        check(&[eq("keepequal")], &[("a", "1"), ("b", "1")], Some(&[("a", "1"), ("b", "1")]));
        check(&[eq("keepequal")], &[("a", "1"), ("b", "2")], None);
        check(&[eq("dropequal")], &[("a", "1"), ("b", "1")], None);
        let r = rule("hashmod", &["c"], |p| {
            p.target_label = "d".into();
            p.modulus = 1000;
        });
        check(&[r], &[("c", "baz")], Some(&[("c", "baz"), ("d", "976")]));
        let r = rule("labelmap", &[], |p| p.regex = "__meta_(.*)".into());
        check(&[r], &[("__meta_x", "1")], Some(&[("__meta_x", "1"), ("x", "1")]));
        let r = rule("labeldrop", &[], |p| p.regex = "b.*".into());
        check(&[r], &[("a", "1"), ("bar", "2")], Some(&[("a", "1")]));
        let r = rule("labelkeep", &[], |p| p.regex = "b.*".into());
        check(&[r], &[("a", "1"), ("bar", "2")], Some(&[("bar", "2")]));
        let case = |action| rule(action, &["a"], |p| p.target_label = "b".into());
        check(&[case("lowercase")], &[("a", "BaR")], Some(&[("a", "BaR"), ("b", "bar")]));
        check(&[case("uppercase")], &[("a", "BaR")], Some(&[("a", "BaR"), ("b", "BAR")]));
    }

    #[test]
    fn rules_that_cannot_be_are_refused() {
        let check = |action: &str, f: fn(&mut Parts)| {
            let mut p = Parts { action: Action::from_word(action).expect("an action"), ..Parts::default() };
            f(&mut p);
            Rule::new(p).expect_err(action);
        };
        check("replace", |_| {});
        check("hashmod", |p| p.target_label = "a".into());
        check("labeldrop", |p| p.target_label = "a".into());
        check("keepequal", |p| p.modulus = 3);
        check("keep", |p| p.regex = "(".into());
    }
}
