//! Kinds made by CustomResourceDefinitions.
//!
//! The road of a definition: its row is in `kinds/apiextensions.rs`, judged by [`check`] and [`structural`]; [`lifecycle`]
//! accepts its names, so that it is established; then the watch cache gives it to the [`Table`], which compiles it
//! ([`schema`], [`columns`], [`names`]) and serves it. An object of such a kind gets its [`shape`] when it comes in
//! and when it is read from the store, is judged by [`values`] and [`rules`].
//!
//! A definition that changes is compiled anew, and watches of its objects end: clients come back and see it.

pub(crate) mod check;
pub(crate) mod columns;
pub(crate) mod conversion;
mod format;
pub(crate) mod lifecycle;
mod names;
pub(crate) mod publish;
pub(crate) mod rules;
pub(crate) mod schema;
pub(crate) mod shape;
mod structural;
pub(crate) mod table;
pub(crate) mod values;
pub(crate) mod webhook_check;

use std::sync::Arc;

use apimachinery::schema::{Schemas, Type};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::body::twice::Twice;
use crate::error::{ApiError, Result};
use crate::kinds::{Kind, Served};
use crate::object;
use crate::options::FieldValidation;
use crate::validation::Errors;
use columns::Column;
use schema::Schema;

pub(crate) use table::Table;

/// A definition as it is served.
pub(crate) struct Custom {
    pub(crate) index: usize,
    pub(crate) list_kind: String,
    pub(crate) versions: Vec<Version>,
    /// The number of the version that is written.
    pub(crate) storage: usize,
    /// Who else knows how versions become each other: a `clientConfig`.
    pub(crate) webhook: Option<Value>,
    /// Being deleted: nothing new is made.
    pub(crate) terminating: bool,
    /// What it was compiled from.
    generation: i64,
    uid: String,
    /// Cancelled when another definition takes its place.
    pub(crate) ended: CancellationToken,
}

/// One version of a definition.
pub(crate) struct Version {
    pub(crate) kind: &'static Kind,
    pub(crate) served: bool,
    /// What clients are told that use it.
    pub(crate) warning: Option<String>,
    pub(crate) schema: Schema,
    /// Its rules, if it has any.
    pub(crate) judge: Option<rules::Judge>,
    /// The schema as it was written.
    pub(crate) raw: Value,
    pub(crate) types: (Schemas, Type),
    pub(crate) columns: Vec<Column>,
    pub(crate) scale: Option<Scale>,
    /// Dotted paths that field selectors may name in this version.
    pub(crate) selectable: Vec<String>,
}

/// Where the numbers of the scale subresource are: dotted paths without the first dot.
pub(crate) struct Scale {
    pub(crate) spec: String,
    pub(crate) status: String,
    pub(crate) selector: Option<String>,
}

/// A version of a definition, held for a request.
#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) custom: Arc<Custom>,
    number: usize,
}

impl Held {
    /// The version that is written.
    fn storage_version(&self) -> Held {
        Held { custom: self.custom.clone(), number: self.custom.storage }
    }
}

impl std::ops::Deref for Held {
    type Target = Version;

    fn deref(&self) -> &Version {
        &self.custom.versions[self.number]
    }
}

/// The condition of this type.
pub(crate) fn condition<'a>(definition: &'a Value, ty: &str) -> Option<&'a Value> {
    object::list(definition, "status.conditions").iter().find(|c| c["type"] == *ty)
}

fn is_true(definition: &Value, ty: &str) -> bool {
    condition(definition, ty).is_some_and(|c| c["status"] == "True")
}

impl Custom {
    /// Compiles a definition; `None` if the process has too many kinds.
    fn compile(o: &Value, index: usize) -> Option<Custom> {
        let spec = &o["spec"];
        let text = |v: &Value, k: &str| v[k].as_str().unwrap_or_default().to_owned();
        let texts = |v: &Value, k: &str| -> Vec<String> {
            object::list(v, k).iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        // Names are served as they were accepted.
        let accepted = &o["status"]["acceptedNames"];
        let all = object::list(spec, "versions");
        let selectable = |v: &Value| -> Vec<String> {
            let paths = object::list(v, "selectableFields").iter().filter_map(|f| f["jsonPath"].as_str());
            paths.map(|p| p.trim_start_matches('.').to_owned()).collect()
        };
        let mut fields: Vec<String> = all.iter().flat_map(selectable).collect();
        fields.sort();
        fields.dedup();
        let version = |v: &Value| {
            let raw = v["schema"]["openAPIV3Schema"].clone();
            let schema = Schema::read(&raw);
            let scale = v["subresources"].get("scale").filter(|s| s.is_object());
            let kind = names::row(names::Row {
                group: text(spec, "group"),
                version: text(v, "name"),
                plural: text(accepted, "plural"),
                singular: text(accepted, "singular"),
                kind: text(accepted, "kind"),
                short: texts(accepted, "shortNames"),
                categories: texts(accepted, "categories"),
                namespaced: spec["scope"] == "Namespaced",
                status: v["subresources"]["status"].is_object(),
                scale: scale.is_some(),
                fields: fields.clone(),
            })?;
            let path = |s: &Value, k: &str| s[k].as_str().map(|p| p.trim_start_matches('.').to_owned());
            let default_warning = format!("{}/{} {} is deprecated", kind.group, kind.version, kind.kind);
            Some(Version {
                kind,
                served: v["served"] == true,
                warning: (v["deprecated"] == true)
                    .then(|| v["deprecationWarning"].as_str().map_or(default_warning, str::to_owned)),
                judge: rules::Judge::compile(&schema, true),
                schema,
                types: Schemas::of_structural(&raw),
                raw,
                columns: columns::read(object::list(v, "additionalPrinterColumns")),
                selectable: selectable(v),
                scale: scale.map(|s| Scale {
                    spec: path(s, "specReplicasPath").unwrap_or_default(),
                    status: path(s, "statusReplicasPath").unwrap_or_default(),
                    selector: path(s, "labelSelectorPath"),
                }),
            })
        };
        let versions = all.iter().map(version).collect::<Option<Vec<_>>>()?;
        Some(Custom {
            index,
            list_kind: text(accepted, "listKind"),
            storage: all.iter().position(|v| v["storage"] == true)?,
            versions,
            webhook: (spec["conversion"]["strategy"] == "Webhook")
                .then(|| spec["conversion"]["webhook"]["clientConfig"].clone()),
            terminating: is_terminating(o),
            generation: object::int(o, "metadata.generation").unwrap_or(0),
            uid: text(&o["metadata"], "uid"),
            ended: CancellationToken::new(),
        })
    }

    pub(crate) fn storage(&self) -> &Version {
        &self.versions[self.storage]
    }

    /// Any version that is served, or else the one that is written.
    pub(crate) fn any_served(self: &Arc<Self>) -> Served {
        let number = self.versions.iter().position(|v| v.served).unwrap_or(self.storage);
        self.clone().serve(number)
    }

    fn version(&self, name: &str) -> Option<usize> {
        self.versions.iter().position(|v| v.kind.version == name)
    }

    /// An object from the store, as its version's schema has it now, in the version that is written.
    pub(crate) fn on_read(&self, o: &mut Value) {
        let version = object::text(o, "apiVersion").and_then(|v| self.version(v.rsplit('/').next()?));
        let schema = &self.versions[version.unwrap_or(self.storage)].schema;
        shape::prune(schema, o);
        shape::default(schema, o);
        let storage = self.storage();
        if self.webhook.is_none() && version.is_some_and(|v| v != self.storage) {
            o["apiVersion"] = format!("{}/{}", storage.kind.group, storage.kind.version).into();
            shape::prune(&storage.schema, o);
            shape::default(&storage.schema, o);
        }
    }

    /// The versions that are served, the most grown-up first.
    pub(crate) fn served(self: &Arc<Self>) -> impl Iterator<Item = Served> {
        let mut order: Vec<usize> = (0..self.versions.len()).filter(|n| self.versions[*n].served).collect();
        order.sort_by_key(|n| std::cmp::Reverse(priority(self.versions[*n].kind.version)));
        let custom = self.clone();
        order.into_iter().map(move |number| custom.clone().serve(number))
    }

    fn serve(self: Arc<Self>, number: usize) -> Served {
        let kind = self.versions[number].kind;
        Served {
            kind,
            index: self.index,
            group: kind.group,
            version: kind.version,
            alias: None,
            custom: Some(Held { custom: self, number }),
        }
    }
}

fn is_terminating(definition: &Value) -> bool {
    is_true(definition, "Terminating") || object::is_deleting(definition)
}

/// How versions are ordered: v2, v1, v2beta1, v1beta1, v1alpha1, then the rest by name
/// (apimachinery: pkg/version/helpers.go).
pub(crate) fn priority(version: &str) -> (u8, u64, u64, std::cmp::Reverse<String>) {
    let other = (0, 0, 0, std::cmp::Reverse(version.to_owned()));
    let Some(rest) = version.strip_prefix('v') else { return other };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let Ok(major) = rest[..digits].parse() else { return other };
    let stable = std::cmp::Reverse(String::new());
    for (word, rank) in [("beta", 2), ("alpha", 1)] {
        if let Some(minor) = rest[digits..].strip_prefix(word) {
            return minor.parse().map_or(other, |minor| (rank, major, minor, stable));
        }
    }
    if rest.len() == digits { (3, major, 0, stable) } else { other }
}

/// A custom resource as a client wrote it → of the right kind and shape, in the version it was written in.
pub(crate) fn conform(
    served: &Served,
    held: &Held,
    written: (Value, Twice),
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Value> {
    let mut o = decode(served, held, written, validation, warnings)?;
    shape::default(&held.schema, &mut o);
    Ok(o)
}

/// As [`conform`], without defaults: who applies an object owns what it says and no more.
pub(crate) fn decode(
    served: &Served,
    held: &Held,
    (mut o, twice): (Value, Twice),
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Value> {
    let (kind, version) = (served.kind.kind, served.api_version());
    let given = (
        object::text(&o, "apiVersion").unwrap_or(&version).to_owned(),
        object::text(&o, "kind").unwrap_or(kind).to_owned(),
    );
    if given.0 != version {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({}) does not match the expected API version ({version})",
            given.0
        )));
    }
    if given.1 != kind {
        return Err(ApiError::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {kind}: unexpected kind",
            given.1, served.version
        )));
    }
    let mut unknown = shape::metadata(&held.schema, &mut o)?;
    unknown.extend(shape::prune(&held.schema, &mut o));
    let words = twice.told(unknown);
    match validation {
        FieldValidation::Strict if !words.is_empty() => {
            return Err(ApiError::bad_request(format!(
                "{kind} in version \"{}\" cannot be handled as a {kind}: strict decoding error: {}",
                served.version,
                words.join(", ")
            )));
        }
        FieldValidation::Warn => warnings.extend(words),
        _ => {}
    }
    shape::whole_numbers(&held.schema, &mut o);
    object::head(&mut o, kind, version);
    Ok(o)
}

/// Fills in what a custom resource's schema says of absent fields.
pub(crate) fn default(served: &Served, o: &mut Value) {
    if let Some(held) = &served.custom {
        shape::default(&held.schema, o);
    }
}

/// Judges a custom resource. `status` alone is judged where only that was written.
pub(crate) fn validate(held: &Held, o: &Value, old: Option<&Value>, errors: &mut Errors) {
    let mut wrong = Errors::default();
    values::validate(&held.schema, o, old, &mut wrong);
    if old.is_none_or(|old| old != o) {
        values::validate_lists(&held.schema, o, "", &mut wrong);
    }
    // Rules may rely on the schema.
    if let Some(judge) = held.judge.as_ref().filter(|_| wrong.is_empty()) {
        judge.judge(o, old, &mut wrong);
    }
    if let Some(scale) = &held.scale {
        let replicas = object::int(o, &scale.spec).unwrap_or(0);
        if replicas < 0 {
            wrong.invalid(&*scale.spec, replicas, "should be a non-negative integer");
        }
    }
    errors.append(wrong);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_their_order() {
        let mut all = [
            "v1alpha1",
            "foo1",
            "v10",
            "v2",
            "v1",
            "v11beta2",
            "v10beta3",
            "v3beta1",
            "v12alpha1",
            "v11alpha2",
            "foo10",
        ];
        all.sort_by_key(|v| std::cmp::Reverse(priority(v)));
        assert_eq!(
            all,
            [
                "v10",
                "v2",
                "v1",
                "v11beta2",
                "v10beta3",
                "v3beta1",
                "v12alpha1",
                "v11alpha2",
                "v1alpha1",
                "foo1",
                "foo10"
            ]
        );
    }
}
