//! What mutating policies make of an object: by an apply configuration, or by a JSON patch
//! (apiserver: pkg/admission/plugin/policy/mutating).

use apimachinery::fieldset;
use expression::{Type, Value as Cel};
use serde_json::{Value, json};

use super::compile::{self, Named};
use super::scope::{self, Params, Scope};
use super::{Binding, Matches, Policy, Seen};
use crate::admission::attributes::Attributes;
use crate::admission::reinvocation::{Plugin, Rounds};
use crate::error::{ApiError, Result};
use crate::kinds::Served;
use crate::managed;
use crate::object;
use crate::patch;
use crate::read;
use crate::server::ApiServer;
use crate::webhook::config::is_exempt;

pub(super) struct Mutation {
    json_patch: bool,
    expression: Named,
}

impl Mutation {
    pub(super) fn parse(m: &Value, known: &[(&str, Type)]) -> Mutation {
        let json_patch = object::text(m, "patchType") == Some("JSONPatch");
        let inner = &m[if json_patch { "jsonPatch" } else { "applyConfiguration" }];
        Mutation {
            json_patch,
            expression: compile::list(std::slice::from_ref(inner), "expression", known).remove(0),
        }
    }

    fn apply(&self, scope: &Scope<'_>, served: &Served, o: &Value) -> std::result::Result<Value, String> {
        let said =
            |e: String| format!("expression '{}' resulted in error: {e}", self.expression.source.trim());
        let made = scope.run(&self.expression).map_err(said)?;
        if self.json_patch {
            let Cel::List(steps) = &made else { return Err(said("no such overload".to_owned())) };
            let steps: Vec<Value> = steps.iter().map(|s| s.to_json().unwrap_or(Value::Null)).collect();
            let patch = Value::Array(steps).to_string();
            return patch::untyped(o, patch::JSON_PATCH, patch.as_bytes()).map_err(|e| e.message);
        }
        let mut applied = made.to_json().ok_or_else(|| said("no such overload".to_owned()))?;
        if !applied.is_object() {
            return Err(said("must evaluate to Object".to_owned()));
        }
        for key in ["apiVersion", "kind"] {
            applied[key] = o[key].clone();
        }
        let (schemas, ty) = managed::type_of(served).ok_or("the kind has no schema")?;
        Ok(fieldset::merge(schemas, &ty, o, &applied))
    }
}

impl ApiServer {
    /// Lets mutating policies change an object; whether any did.
    pub(crate) async fn mutate_by_policies(
        &self,
        a: &Attributes<'_>,
        o: &mut Value,
        rounds: &mut Rounds,
    ) -> Result<bool> {
        if !self.config.admission.is_on("MutatingAdmissionPolicy") || a.user.is_none() || is_exempt(a) {
            return Ok(false);
        }
        let all = self.policies.current(&self.policies.mutating);
        let mut changed = false;
        rounds.begin(Plugin::Policies, Some(o));
        for policy in all.iter() {
            for binding in &policy.bindings {
                let key = (policy.name.as_str(), binding.name.as_str());
                let narrowed = |m: &Matches| m.concern(&self.cache, a, Some(o)).is_some();
                let Some(served) = policy.matches.concern(&self.cache, a, Some(o)) else { continue };
                if !binding.matches.as_ref().is_none_or(narrowed) || !rounds.has_turn(Plugin::Policies, key) {
                    continue;
                }
                let made = {
                    let shown = self.show(&served, a, Some(o), None).await?;
                    let attributes = Attributes { old: shown.old.as_deref(), ..*a };
                    let seen = Seen { attributes: &attributes, served: &served, subject: None };
                    self.mutate_by_policy(
                        policy,
                        binding,
                        &seen,
                        shown.new.as_deref().unwrap_or(&Value::Null),
                    )
                };
                match made {
                    Ok(made) => {
                        let did = made.is_some();
                        if let Some(made) = made {
                            *o = self.take_back(a, &served, made).await?;
                            (a.served.kind.default)(o);
                        }
                        changed |= did;
                        rounds.had_turn(Plugin::Policies, key, did, policy.again);
                    }
                    Err(why) if policy.fail => {
                        let said = format!(
                            "policy '{}' with binding '{}' denied request: {why}",
                            policy.name, binding.name
                        );
                        let mut e = ApiError::forbidden(a.served, a.name, &said);
                        (e.code, e.reason) = (422, "Invalid".into());
                        return Err(e);
                    }
                    Err(why) => tracing::warn!(
                        policy = policy.name,
                        error = why,
                        "a mutating policy failed, going on"
                    ),
                }
            }
        }
        rounds.end(Plugin::Policies, Some(o));
        Ok(changed)
    }

    /// What a policy makes of an object that is shown in the version it matched; `None` if nothing.
    fn mutate_by_policy(
        &self,
        policy: &Policy,
        binding: &Binding,
        seen: &Seen<'_>,
        before: &Value,
    ) -> std::result::Result<Option<Value>, String> {
        let a = seen.attributes;
        let sets = match scope::params(self, a, policy.param_kind.as_ref(), &binding.object) {
            Params::None => vec![None],
            Params::Some(all) => all.into_iter().map(Some).collect(),
            Params::Skip => return Ok(None),
            Params::Missing(why) => return Err(format!("failed to configure binding: {why}")),
        };
        let mut o = before.clone();
        for params in &sets {
            // Each mutation sees what those before it made.
            for mutation in &policy.mutations {
                let scope = Scope::new(self, seen, Some(&o), params.as_ref(), &policy.variables);
                if policy.applies(&scope)? {
                    let made = mutation.apply(&scope, seen.served, &o)?;
                    let mut unknown = Vec::new();
                    let mut made = patch::conform(
                        seen.served,
                        made,
                        crate::options::FieldValidation::Ignore,
                        &mut unknown,
                    )
                    .map_err(|e| e.message)?;
                    (seen.served.kind.default)(&mut made);
                    o = read::render_value(seen.served, made);
                }
            }
        }
        let changed = o != *before;
        if changed {
            let key = format!("mutation.policy.admission.k8s.io/{}", policy.name);
            a.trail.annotate(
                key,
                json!({"policy": policy.name, "binding": binding.name, "mutated": true}).to_string(),
            );
        }
        Ok(changed.then_some(o))
    }
}
