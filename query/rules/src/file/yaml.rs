//! The shape of a rule file, with the places of what can be wrong.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_saphyr::Spanned;

/// Line and column, from one; zero if the file does not say it.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    line: u64,
    column: u64,
}

impl Place {
    /// This, or another if this is not known.
    pub(super) fn or(self, other: Place) -> Place {
        if self.line == 0 { other } else { self }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Values may be written without quotes, and may be nothing.
pub(super) type Texts = BTreeMap<String, Option<String>>;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileYaml {
    groups: Option<Vec<Spanned<GroupYaml>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupYaml {
    pub(super) name: Option<String>,
    pub(super) interval: Option<String>,
    pub(super) query_offset: Option<String>,
    pub(super) limit: Option<usize>,
    pub(super) rules: Option<Vec<Spanned<Option<RuleYaml>>>>,
    pub(super) labels: Option<Texts>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleYaml {
    pub(super) record: Option<Spanned<Option<String>>>,
    pub(super) alert: Option<Spanned<Option<String>>>,
    pub(super) expr: Option<Spanned<Option<String>>>,
    #[serde(rename = "for")]
    pub(super) hold: Option<String>,
    pub(super) keep_firing_for: Option<String>,
    pub(super) labels: Option<Texts>,
    pub(super) annotations: Option<Texts>,
}

pub(super) fn placed<T>(s: Spanned<T>) -> (Place, T) {
    (Place { line: s.referenced.line(), column: s.referenced.column() }, s.value)
}

pub(super) fn read(text: &str) -> Result<Vec<(Place, GroupYaml)>, String> {
    let file: FileYaml = document(text)?.unwrap_or_default();
    Ok(file.groups.unwrap_or_default().into_iter().map(placed).collect())
}

/// The first document of a text; `None` if it has none.
pub(crate) fn document<T: DeserializeOwned>(text: &str) -> Result<Option<T>, String> {
    let mut bytes = text.as_bytes();
    let mut documents = serde_saphyr::read::<_, Option<T>>(&mut bytes);
    Ok(documents.next().transpose().map_err(|e| worded(&e))?.flatten())
}

/// As Go's YAML library says it, as far as it says the same.
fn worded(e: &serde_saphyr::Error) -> String {
    let e = e.without_snippet();
    let line = e.location().map_or(0, |l| l.line());
    match e {
        serde_saphyr::Error::SerdeUnknownField { field, expected, .. } => {
            let kind = match expected {
                all if all.contains(&"groups") => "rulefmt.RuleGroups",
                all if all.contains(&"expr") && all.contains(&"record") => "rulefmt.Rule",
                all if all.contains(&"rules") => "rulefmt.RuleGroup",
                all if all.contains(&"tests") => "main.unitTestFile",
                all if all.contains(&"input_series") => "main.testGroup",
                all if all.contains(&"alertname") => "main.alertTestCase",
                all if all.contains(&"exp_labels") => "main.alert",
                all if all.contains(&"exp_samples") => "main.promqlTestCase",
                all if all.contains(&"series") => "main.series",
                _ => "main.sample",
            };
            format!("yaml: unmarshal errors:\n  line {line}: field {field} not found in type {kind}")
        }
        serde_saphyr::Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().unwrap_or("");
            format!("yaml: unmarshal errors:\n  line {line}: mapping key {key:?} already defined")
        }
        e => format!("yaml: {e}"),
    }
}
