//! Label and field selectors: parsing, printing, matching
//! (apimachinery: pkg/labels/selector.go, pkg/fields/selector.go).

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

/// Why a selector cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("unable to parse requirement: {0}")]
    Requirement(String),
    #[error("{0}")]
    Field(String),
}

/// How a label's value is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `a=b`, `a in (b,c)`
    In(Vec<String>),
    /// `a!=b`, `a notin (b,c)`; also true where the label is absent
    NotIn(Vec<String>),
    /// `a`
    Exists,
    /// `!a`
    DoesNotExist,
    /// `a>1`
    GreaterThan(i64),
    /// `a<1`
    LessThan(i64),
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        match &self.operator {
            Operator::In(vs) => value.is_some_and(|v| vs.iter().any(|x| x == v)),
            Operator::NotIn(vs) => value.is_none_or(|v| vs.iter().all(|x| x != v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan(n) => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > *n),
            Operator::LessThan(n) => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < *n),
        }
    }
}

/// Conditions that must all hold. [`Selector::everything`] has none; [`Selector::nothing`] never holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    pub requirements: Vec<Requirement>,
    nothing: bool,
}

impl Selector {
    pub fn everything() -> Self {
        Selector::default()
    }

    pub fn nothing() -> Self {
        Selector { requirements: Vec::new(), nothing: true }
    }

    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// From a query string's text: `app=web,tier in (a, b),!old`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut p = Parser { rest: text.trim() };
        let mut requirements = Vec::new();
        if p.rest.is_empty() {
            return Ok(Selector::everything());
        }
        loop {
            requirements.push(p.requirement().map_err(SelectorError::Requirement)?);
            p.space();
            if p.rest.is_empty() {
                break;
            }
            if !p.take(",") {
                return Err(SelectorError::Requirement(format!(
                    "found '{}', expected: ',' or 'end of string'",
                    p.word()
                )));
            }
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Selector { requirements, nothing: false })
    }

    /// From the map form that Services and ReplicationControllers have. An empty map selects everything.
    pub fn from_map<K: AsRef<str>, V: AsRef<str>>(map: impl IntoIterator<Item = (K, V)>) -> Self {
        let mut requirements: Vec<_> = map
            .into_iter()
            .map(|(k, v)| Requirement {
                key: k.as_ref().to_owned(),
                operator: Operator::In(vec![v.as_ref().to_owned()]),
            })
            .collect();
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Selector { requirements, nothing: false }
    }

    /// From an API object's selector. An absent one selects nothing, an empty one everything.
    pub fn from_label_selector(selector: Option<&LabelSelector>) -> Result<Self, SelectorError> {
        let Some(s) = selector else { return Ok(Selector::nothing()) };
        let mut out = Selector::from_map(s.match_labels.iter().flatten());
        for e in s.match_expressions.iter().flatten() {
            out.requirements.push(expression(&e.key, &e.operator, e.values.clone().unwrap_or_default())?);
        }
        out.requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(out)
    }

    /// As [`Selector::from_label_selector`], from its JSON.
    pub fn from_json(selector: Option<&Value>) -> Result<Self, SelectorError> {
        let Some(s) = selector.filter(|s| !s.is_null()) else { return Ok(Selector::nothing()) };
        let labels = s.get("matchLabels").and_then(Value::as_object);
        let mut out = Selector::from_map(
            labels.into_iter().flatten().map(|(k, v)| (k, v.as_str().unwrap_or_default())),
        );
        for e in s.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let text = |n| e.get(n).and_then(Value::as_str).unwrap_or_default();
            let values = e.get("values").and_then(Value::as_array).into_iter().flatten();
            let values = values.map(|v| v.as_str().unwrap_or_default().to_owned()).collect();
            out.requirements.push(expression(text("key"), text("operator"), values)?);
        }
        out.requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(out)
    }

    /// Whether an object with these labels is meant. `get` gives a label's value.
    pub fn matches_with<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(get(&r.key)))
    }

    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|k| labels.get(k).map(String::as_str))
    }

    /// As [`Selector::matches`] for the optional labels that typed objects have.
    pub fn matches_labels(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.matches_with(|k| labels.and_then(|l| l.get(k)).map(String::as_str))
    }

    /// Over the JSON of `metadata.labels`.
    pub fn matches_json(&self, labels: Option<&Value>) -> bool {
        self.matches_with(|k| labels.and_then(|l| l.get(k)).and_then(Value::as_str))
    }
}

fn expression(key: &str, operator: &str, values: Vec<String>) -> Result<Requirement, SelectorError> {
    let operator = match operator {
        "In" => Operator::In(values),
        "NotIn" => Operator::NotIn(values),
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        // Node selectors only.
        "Gt" | "Lt" => {
            let n = values.first().and_then(|v| v.parse().ok()).ok_or_else(|| {
                SelectorError::Requirement(
                    "for 'Gt', 'Lt' operators, the value must be an integer".to_owned(),
                )
            })?;
            if operator == "Gt" { Operator::GreaterThan(n) } else { Operator::LessThan(n) }
        }
        other => {
            return Err(SelectorError::Requirement(format!(
                "\"{other}\" is not a valid label selector operator"
            )));
        }
    };
    Ok(Requirement { key: key.to_owned(), operator })
}

impl fmt::Display for Selector {
    /// As a query string has it, and as `status.selector` of a Scale.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            let k = &r.key;
            match &r.operator {
                Operator::In(v) if v.len() == 1 => write!(f, "{k}={}", v[0])?,
                Operator::NotIn(v) if v.len() == 1 => write!(f, "{k}!={}", v[0])?,
                Operator::In(v) => write!(f, "{k} in ({})", v.join(","))?,
                Operator::NotIn(v) => write!(f, "{k} notin ({})", v.join(","))?,
                Operator::Exists => f.write_str(k)?,
                Operator::DoesNotExist => write!(f, "!{k}")?,
                Operator::GreaterThan(n) => write!(f, "{k}>{n}")?,
                Operator::LessThan(n) => write!(f, "{k}<{n}")?,
            }
        }
        Ok(())
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, token: &str) -> bool {
        self.space();
        match self.rest.strip_prefix(token) {
            Some(r) => {
                self.rest = r;
                true
            }
            None => false,
        }
    }

    fn word(&mut self) -> &'a str {
        self.space();
        let end = self.rest.find(|c: char| c.is_whitespace() || "=!(),<>".contains(c));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let absent = self.take("!");
        let key = self.word();
        if key.is_empty() {
            return Err(format!("found '{}', expected: !, identifier, or 'end of string'", self.rest));
        }
        crate::name::qualified_name(key).map_err(|e| format!("<nil>: Invalid value: {key:?}: {e}"))?;
        let key = key.to_owned();
        if absent {
            return Ok(Requirement { key, operator: Operator::DoesNotExist });
        }
        self.space();
        let operator = if self.rest.is_empty() || self.rest.starts_with(',') {
            Operator::Exists
        } else if self.take("==") || self.take("=") {
            Operator::In(vec![self.value(&key)?])
        } else if self.take("!=") {
            Operator::NotIn(vec![self.value(&key)?])
        } else if self.take(">") {
            Operator::GreaterThan(
                self.word()
                    .parse()
                    .map_err(|_| "for 'Gt', 'Lt' operators, the value must be an integer".to_owned())?,
            )
        } else if self.take("<") {
            Operator::LessThan(
                self.word()
                    .parse()
                    .map_err(|_| "for 'Gt', 'Lt' operators, the value must be an integer".to_owned())?,
            )
        } else {
            match self.word() {
                "in" => Operator::In(self.values(&key)?),
                "notin" => Operator::NotIn(self.values(&key)?),
                other => return Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
            }
        };
        Ok(Requirement { key, operator })
    }

    fn value(&mut self, key: &str) -> Result<String, String> {
        let v = self.word();
        crate::name::label_value(v).map_err(|e| format!("values[0][{key}]: Invalid value: {v:?}: {e}"))?;
        Ok(v.to_owned())
    }

    fn values(&mut self, key: &str) -> Result<Vec<String>, String> {
        if !self.take("(") {
            return Err(format!("found '{}', expected: '('", self.rest));
        }
        let mut out = Vec::new();
        loop {
            out.push(self.value(key)?);
            if self.take(")") {
                out.sort();
                return Ok(out);
            }
            if !self.take(",") {
                return Err(format!("found '{}', expected: ',' or ')'", self.rest));
            }
        }
    }
}

/// Conditions on an object's fields: `status.phase!=Running,spec.nodeName=a`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// Field, whether it must be equal, value.
    pub terms: Vec<(String, bool, String)>,
}

impl FieldSelector {
    pub fn everything() -> Self {
        FieldSelector::default()
    }

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for term in split_terms(text).into_iter().filter(|t| !t.is_empty()) {
            let (field, equal, value) = if let Some((f, v)) = term.split_once("!=") {
                (f, false, v)
            } else if let Some((f, v)) = term.split_once("==") {
                (f, true, v)
            } else if let Some((f, v)) = term.split_once('=') {
                (f, true, v)
            } else {
                return Err(SelectorError::Field(format!(
                    "invalid selector: '{text}'; can't understand '{term}'"
                )));
            };
            terms.push((field.trim().to_owned(), equal, unescape(value)));
        }
        Ok(FieldSelector { terms })
    }

    /// The value a field must have, if there is such a term.
    pub fn required(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|(f, equal, _)| f == field && *equal).map(|(_, _, v)| v.as_str())
    }

    /// `get` gives a field's value; a field an object lacks is the empty string.
    pub fn matches_with<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|(f, equal, v)| (get(f).unwrap_or("") == v) == *equal)
    }
}

/// Splits at commas that no backslash escapes.
fn split_terms(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            '\\' if !escaped => escaped = true,
            ',' if !escaped => {
                out.push(&text[start..i]);
                start = i + 1;
            }
            _ => escaped = false,
        }
    }
    out.push(&text[start..]);
    out
}

fn unescape(v: &str) -> String {
    let mut out = String::with_capacity(v.len());
    let mut chars = v.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_prints_and_matches() {
        let labels: BTreeMap<String, String> =
            [("app", "web"), ("tier", "a"), ("n", "5")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let check = |text: &str, printed: &str, matches: bool| {
            let s = Selector::parse(text).expect(text);
            assert_eq!(s.to_string(), printed, "{text}");
            assert_eq!(s.matches(&labels), matches, "{text}");
        };
        check("", "", true);
        check("app=web", "app=web", true);
        check("app==db", "app=db", false);
        check("app!=db", "app!=db", true);
        check("x!=db", "x!=db", true);
        check("tier in (b, a),app", "app,tier in (a,b)", true);
        check("tier notin (a)", "tier!=a", false);
        check("!x", "!x", true);
        check("n>4,n<6", "n>4,n<6", true);
        check("app=", "app=", false);
        for bad in ["=", "a in", "a in (b", "a b", "a=b c", "!", "a=b=c", "-a=b"] {
            assert!(Selector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn absent_selects_nothing_and_empty_everything() {
        let labels = BTreeMap::new();
        assert!(!Selector::from_label_selector(None).expect("selector").matches(&labels));
        assert!(
            Selector::from_label_selector(Some(&LabelSelector::default()))
                .expect("selector")
                .matches(&labels)
        );
    }

    #[test]
    fn fields() {
        let s = FieldSelector::parse("metadata.name=a,status.phase!=Running,x=a\\,b").expect("fields");
        assert_eq!(s.required("metadata.name"), Some("a"));
        assert!(s.matches_with(|f| match f {
            "metadata.name" => Some("a"),
            "x" => Some("a,b"),
            _ => None,
        }));
        assert!(FieldSelector::parse("oops").is_err());
    }
}
