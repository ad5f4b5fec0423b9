//! Collects what is wrong with an object, in upstream's words (apimachinery: pkg/util/validation/field).

use std::fmt;

use apimachinery::name::Faults;
use serde_json::{Value, json};

/// One finding: where, which kind of wrong, and the words after the path.
#[derive(Clone, Debug)]
struct Finding {
    field: String,
    reason: &'static str,
    body: String,
}

/// What is wrong with an object.
#[derive(Clone, Debug, Default)]
pub(crate) struct Errors {
    findings: Vec<Finding>,
}

impl Errors {
    fn add(&mut self, field: impl Into<String>, reason: &'static str, body: String) {
        self.findings.push(Finding { field: field.into(), reason, body });
    }

    pub(crate) fn required(&mut self, field: impl Into<String>, detail: &str) {
        let sep = if detail.is_empty() { "" } else { ": " };
        self.add(field, "FieldValueRequired", format!("Required value{sep}{detail}"));
    }

    /// One finding a sentence of `detail`.
    pub(crate) fn invalid<D: Detail + ?Sized>(
        &mut self,
        field: impl Into<String>,
        value: impl ToValue,
        detail: &D,
    ) {
        let (field, value) = (field.into(), value.text());
        for detail in detail.sentences() {
            let sep = if detail.is_empty() { "" } else { ": " };
            self.add(field.as_str(), "FieldValueInvalid", format!("Invalid value: {value}{sep}{detail}"));
        }
    }

    pub(crate) fn not_supported(&mut self, field: impl Into<String>, value: &str, supported: &[&str]) {
        self.not_supported_written(field, &format!("{value:?}"), supported);
    }

    /// As [`Errors::not_supported`], for a value that is written already.
    pub(crate) fn not_supported_written(
        &mut self,
        field: impl Into<String>,
        value: &str,
        supported: &[&str],
    ) {
        let list: Vec<_> = supported.iter().map(|s| format!("{s:?}")).collect();
        let body = format!("Unsupported value: {value}: supported values: {}", list.join(", "));
        self.add(field, "FieldValueNotSupported", body);
    }

    pub(crate) fn duplicate(&mut self, field: impl Into<String>, value: impl ToValue) {
        self.add(field, "FieldValueDuplicate", format!("Duplicate value: {}", value.text()));
    }

    pub(crate) fn duplicate_for(&mut self, field: impl Into<String>, value: impl ToValue, detail: &str) {
        self.add(field, "FieldValueDuplicate", format!("Duplicate value: {}: {detail}", value.text()));
    }

    pub(crate) fn forbidden(&mut self, field: impl Into<String>, detail: &str) {
        self.add(field, "FieldValueForbidden", format!("Forbidden: {detail}"));
    }

    pub(crate) fn not_found(&mut self, field: impl Into<String>, value: impl ToValue) {
        self.add(field, "FieldValueNotFound", format!("Not found: {}", value.text()));
    }

    pub(crate) fn not_found_for(&mut self, field: impl Into<String>, value: impl ToValue, detail: &str) {
        self.add(field, "FieldValueNotFound", format!("Not found: {}: {detail}", value.text()));
    }

    /// A value of the wrong type.
    pub(crate) fn type_invalid(&mut self, field: impl Into<String>, value: impl ToValue, detail: &str) {
        self.add(field, "FieldValueTypeInvalid", format!("Invalid value: {}: {detail}", value.text()));
    }

    /// As [`Errors::invalid`], where the value is too big to be told.
    pub(crate) fn invalid_omitted(&mut self, field: impl Into<String>, detail: &str) {
        self.add(field, "FieldValueInvalid", format!("Invalid value: {detail}"));
    }

    /// As [`Errors::not_supported`], for what need not be text.
    pub(crate) fn not_supported_value(
        &mut self,
        field: impl Into<String>,
        value: &Value,
        supported: &[&str],
    ) {
        self.not_supported_written(field, &value.to_string(), supported);
    }

    pub(crate) fn too_long(&mut self, field: impl Into<String>, max: u64) {
        let unit = if max == 1 { "byte" } else { "bytes" };
        self.add(field, "FieldValueTooLong", format!("Too long: may not be more than {max} {unit}"));
    }

    pub(crate) fn too_many(&mut self, field: impl Into<String>, actual: u64, max: u64) {
        let unit = if max == 1 { "item" } else { "items" };
        self.add(field, "FieldValueTooMany", format!("Too many: {actual}: must have at most {max} {unit}"));
    }

    pub(crate) fn append(&mut self, other: Errors) {
        self.findings.extend(other.findings);
    }

    /// What was found in a part that stands at `at`.
    pub(crate) fn append_under(&mut self, at: &str, other: Errors) {
        self.findings.extend(other.findings.into_iter().map(|f| {
            let field = match f.field.as_str() {
                "" | crate::custom::values::NOWHERE => at.to_owned(),
                inside => format!("{at}.{inside}"),
            };
            Finding { field, ..f }
        }));
    }

    /// Of several judgements the mildest.
    pub(crate) fn append_best(&mut self, all: Vec<Errors>) {
        if let Some(best) = all.into_iter().min_by_key(|e| e.findings.len()) {
            self.append(best);
        }
    }

    /// A value that may not change.
    pub(crate) fn immutable(&mut self, field: impl Into<String>, new: Option<&Value>, old: Option<&Value>) {
        if new != old {
            self.invalid(field, new.unwrap_or(&Value::Null), "field is immutable");
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.findings.is_empty()
    }

    pub(crate) fn causes(&self) -> Value {
        let causes =
            self.findings.iter().map(|f| json!({"reason": f.reason, "message": f.body, "field": f.field}));
        Value::Array(causes.collect())
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut seen: Vec<String> = Vec::new();
        for x in &self.findings {
            let text = format!("{}: {}", x.field, x.body);
            if !seen.contains(&text) {
                seen.push(text);
            }
        }
        match seen.as_slice() {
            [one] => f.write_str(one),
            many => write!(f, "[{}]", many.join(", ")),
        }
    }
}

/// What is wrong with a value.
pub(crate) trait Detail {
    fn sentences(&self) -> Vec<&str>;
}

impl Detail for str {
    fn sentences(&self) -> Vec<&str> {
        vec![self]
    }
}

impl Detail for String {
    fn sentences(&self) -> Vec<&str> {
        vec![self]
    }
}

impl Detail for Faults {
    fn sentences(&self) -> Vec<&str> {
        self.iter().collect()
    }
}

/// How a value stands in a message.
pub(crate) trait ToValue {
    fn text(&self) -> String;
}

impl ToValue for &str {
    fn text(&self) -> String {
        format!("{self:?}")
    }
}

impl ToValue for i64 {
    fn text(&self) -> String {
        self.to_string()
    }
}

impl ToValue for &Value {
    fn text(&self) -> String {
        match self {
            Value::Null => "null".to_owned(),
            v => v.to_string(),
        }
    }
}
