//! Expressions of ValidatingAdmissionPolicies against the schemas of the kinds they match: what cannot be there is told
//! in `status.typeChecking`
//! (apiserver: pkg/admission/plugin/policy/validating/typechecking.go; kubernetes: pkg/controller/validatingadmissionpolicystatus).

use std::collections::BTreeSet;
use std::sync::Arc;

use expression::{Type, escape};
use serde_json::{Map, Value, json};

use super::compile;
use crate::custom::publish;
use crate::error::Result;
use crate::follow::Changes;
use crate::kinds::{self, Served, policies::GROUP};
use crate::registry::{Part, WriteContext};
use crate::server::ApiServer;
use crate::{object, openapi};

/// Kinds that one rule's expressions are checked against.
const MAX_KINDS: usize = 10;
/// Schemas are deeper only where they hold themselves.
const MAX_DEPTH: usize = 24;
const MANAGER: &str = "validatingadmissionpolicy-status";

fn policies() -> Served {
    kinds::by_resource(GROUP, "validatingadmissionpolicies").expect("policies are a kind")
}

/// Checks policies as they come until the server stops.
pub(crate) async fn run(server: Arc<ApiServer>) {
    let mut changes = Changes::of(&server, &[policies().index]);
    while changes.next(&server).await {
        if let Err(e) = look(&server).await {
            tracing::warn!(error = %e.message, "the types of a policy's expressions could not be told");
            changes.again();
        }
    }
}

async fn look(server: &ApiServer) -> Result<()> {
    let served = policies();
    let generation = |o: &Value| object::int(o, "metadata.generation").unwrap_or(0);
    for o in server.cache.list(served.index, None).objects {
        let o = o.value();
        if object::int(&o, "status.observedGeneration").unwrap_or(0) >= generation(&o) {
            continue;
        }
        let warnings = check(server, &o)?;
        let checked = if warnings.is_empty() { json!({}) } else { json!({"expressionWarnings": warnings}) };
        let mut ctx = WriteContext::default();
        MANAGER.clone_into(&mut ctx.options.field_manager);
        let mut apply = |old: &Value| {
            let mut new = old.clone();
            // A newer one is looked at next.
            if generation(old) == generation(&o) {
                let status = object::child(&mut new, "status");
                status["observedGeneration"] = generation(&o).into();
                status["typeChecking"] = checked.clone();
            }
            Ok(new)
        };
        match server.update(&served, "", object::name(&o), &ctx, Part::Status, &mut apply).await {
            Err(e) if e.code != 404 => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// `expressionWarnings`
fn check(server: &ApiServer, policy: &Value) -> Result<Vec<Value>> {
    let matched = matched(server, policy);
    if matched.is_empty() {
        return Ok(Vec::new());
    }
    let mut definitions = openapi::definitions()?;
    definitions.extend(publish::definitions(server, None));
    let schemas = Schemas(&definitions);
    let param = object::get(policy, "spec.paramKind");
    let params = param.map(|p| {
        let text = |k: &str| object::text(p, k).unwrap_or_default();
        let (group, version) = text("apiVersion").rsplit_once('/').unwrap_or(("", text("apiVersion")));
        schemas.kind(group, version, text("kind")).unwrap_or(Type::Dyn)
    });
    // A kind and the variables its expressions may use.
    let known: Vec<_> = matched
        .iter()
        .filter_map(|(group, version, kind)| {
            let ty = schemas.kind(group, version, kind)?;
            let mut variables = Vec::new();
            for v in object::list(policy, "spec.variables") {
                let known = compile::environment_of(&variables, &ty, params.as_ref());
                variables.extend(compile::list(std::slice::from_ref(v), "expression", &known));
            }
            let name = format!("{group}/{version}, Kind={kind}");
            let name = name.strip_prefix('/').map_or(name.clone(), str::to_owned);
            Some((name, compile::environment_of(&variables, &ty, params.as_ref())))
        })
        .collect();
    let mut warnings = Vec::new();
    for (i, v) in object::list(policy, "spec.validations").iter().enumerate() {
        for key in ["expression", "messageExpression"] {
            let Some(source) = object::text(v, key).filter(|s| !s.is_empty()) else { continue };
            let wrong = known.iter().filter_map(|(kind, environment)| {
                let e = expression::compile(source, environment).err()?;
                Some(format!("{kind}: {e}"))
            });
            let wrong: Vec<String> = wrong.collect();
            if !wrong.is_empty() {
                let at = format!("spec.validations[{i}].{key}");
                warnings.push(json!({"fieldRef": at, "warning": wrong.join("\n")}));
            }
        }
    }
    Ok(warnings)
}

/// Group, version and kind of all that rules name without wildcards.
fn matched(server: &ApiServer, policy: &Value) -> BTreeSet<(String, String, String)> {
    let mut found = BTreeSet::new();
    for rule in object::list(policy, "spec.matchConstraints.resourceRules") {
        let texts = |key: &str| -> Vec<&str> {
            let mut all: Vec<&str> = object::list(rule, key).iter().filter_map(Value::as_str).collect();
            all.sort_unstable();
            all
        };
        let (groups, versions) = (texts("apiGroups"), texts("apiVersions"));
        if groups.iter().chain(&versions).any(|t| t.contains('*')) {
            continue;
        }
        let mut count = 0;
        for group in &groups {
            for version in &versions {
                for resource in texts("resources").into_iter().filter(|r| !r.contains(['*', '/'])) {
                    let Some(s) = server.find_kind(group, version, resource) else { continue };
                    found.insert((s.group.to_owned(), s.version.to_owned(), s.kind.kind.to_owned()));
                    count += 1;
                    if count == MAX_KINDS {
                        return found;
                    }
                }
            }
        }
    }
    found
}

/// Definitions of OpenAPI as types of expressions.
struct Schemas<'a>(&'a Map<String, Value>);

impl Schemas<'_> {
    fn kind(&self, group: &str, version: &str, kind: &str) -> Option<Type> {
        let is = |v: &Value| v["group"] == *group && v["version"] == *version && v["kind"] == *kind;
        let of = |d: &Value| object::list(d, "x-kubernetes-group-version-kind").iter().any(is);
        let definition = self.0.values().find(|d| of(d))?;
        Some(self.type_of(definition, kind, 0))
    }

    fn type_of(&self, s: &Value, name: &str, depth: usize) -> Type {
        if depth > MAX_DEPTH {
            return Type::Dyn;
        }
        if let Some(reference) = s["$ref"].as_str().or_else(|| s["allOf"][0]["$ref"].as_str()) {
            let target = reference.rsplit('/').next().unwrap_or_default();
            return match target.rsplit('.').next() {
                Some("Quantity") => Type::string(),
                Some("Time" | "MicroTime") => Type::Timestamp,
                Some("IntOrString") => Type::Dyn,
                // They hold themselves.
                Some("JSONSchemaProps") => Type::Dyn,
                _ => self.0.get(target).map_or(Type::Dyn, |t| self.type_of(t, name, depth + 1)),
            };
        }
        if s["x-kubernetes-int-or-string"] == true || s["format"] == "int-or-string" {
            return Type::Dyn;
        }
        match s["type"].as_str() {
            Some("object") => {
                let inner = &s["additionalProperties"];
                match s["properties"].as_object().filter(|p| !p.is_empty()) {
                    Some(properties) => {
                        let field = |(k, p): (&String, &Value)| {
                            Some((escape(k)?, self.type_of(p, &format!("{name}.{k}"), depth + 1)))
                        };
                        Type::object(name, properties.iter().filter_map(field))
                    }
                    None if inner.is_object() => {
                        let value = self.type_of(inner, &format!("{name}.@values"), depth + 1);
                        Type::map(Type::string(), value)
                    }
                    None => Type::Dyn,
                }
            }
            Some("array") => Type::list(self.type_of(&s["items"], &format!("{name}.@items"), depth + 1)),
            Some("string") => match s["format"].as_str() {
                Some("date" | "date-time") => Type::Timestamp,
                Some("duration") => Type::Duration,
                Some("byte") => Type::Bytes(None),
                _ => Type::string(),
            },
            Some("integer") => Type::Int,
            Some("number") => Type::Double,
            Some("boolean") => Type::Bool,
            _ => Type::Dyn,
        }
    }
}
