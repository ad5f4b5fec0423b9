//! Admission by expressions: ValidatingAdmissionPolicy, MutatingAdmissionPolicy and their bindings
//! (apiserver: pkg/admission/plugin/policy).
//!
//! The road of a write: [`Policies`] holds policies compiled once per change of them ([`compile`]); those whose
//! constraints and binding match see it through [`scope`], parameter by parameter.

pub(crate) mod compile;
mod mutate;
pub(crate) mod rego;
mod scope;
pub(crate) mod typecheck;

use std::sync::{Arc, OnceLock, Weak};

use apimachinery::selector::Selector;
use expression::{Program, Value as Cel};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::admission::attributes::Attributes;
use crate::admission::metrics::policy_checked;
use crate::admission::shown::matched;
use crate::cache::Cache;
use crate::error::{ApiError, Result};
use crate::kinds::{self, Served, policies::GROUP};
use crate::object;
use crate::server::ApiServer;
use crate::webhook::Subject;
use crate::webhook::config::{Rule, is_exempt, namespace_labels, selects_object};

use compile::Named;
use scope::{Params, Scope};

pub(crate) use scope::Seen;

/// Which writes are concerned: of a policy, or narrowed by a binding.
struct Matches {
    /// Rules mean the versions they name and no others.
    exact: bool,
    rules: Vec<(Rule, Vec<String>)>,
    excluded: Vec<(Rule, Vec<String>)>,
    namespaces: Selector,
    objects: Selector,
}

impl Matches {
    fn parse(m: &Value) -> Matches {
        let selector = |k: &str| {
            object::get(m, k).map_or_else(Selector::everything, |s| {
                Selector::from_json(Some(s)).unwrap_or_else(|_| Selector::nothing())
            })
        };
        let rules = |k: &str| {
            let names = |r: &Value| -> Vec<String> {
                object::list(r, "resourceNames")
                    .iter()
                    .filter_map(|n| n.as_str().map(str::to_owned))
                    .collect()
            };
            object::list(m, k).iter().map(|r| (Rule::parse(r), names(r))).collect()
        };
        Matches {
            exact: object::text(m, "matchPolicy") == Some("Exact"),
            rules: rules("resourceRules"),
            excluded: rules("excludeResourceRules"),
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
        }
    }

    /// The resource as the rules name it, if this write concerns them.
    fn concern(&self, cache: &Cache, a: &Attributes<'_>, new: Option<&Value>) -> Option<Served> {
        let any = |rules: &[(Rule, Vec<String>)]| {
            matched(a, self.exact, |served| {
                rules.iter().any(|(r, names)| {
                    let named = names.is_empty() || names.iter().any(|n| n == a.name);
                    named && r.matches(a.operation, served, a.subresource, a.namespace)
                })
            })
        };
        let served = if self.rules.is_empty() { a.served.clone() } else { any(&self.rules)? };
        let concerned = any(&self.excluded).is_none()
            && namespace_labels(cache, a, new, &self.namespaces)
            && selects_object(a, new, &self.objects);
        concerned.then_some(served)
    }
}

/// A condition that must hold, and what is said where it does not.
struct Validation {
    rule: Named,
    message: Option<String>,
    message_program: Option<Program>,
    reason: Option<String>,
}

struct Binding {
    name: String,
    object: Value,
    matches: Option<Matches>,
    /// `Deny`, `Warn`, `Audit`
    actions: Vec<String>,
}

struct Policy {
    name: String,
    param_kind: Option<Value>,
    fail: bool,
    matches: Matches,
    conditions: Vec<Named>,
    variables: Vec<Named>,
    validations: Vec<Validation>,
    audits: Vec<(String, Named)>,
    mutations: Vec<mutate::Mutation>,
    /// Asked again when others changed the object after it.
    again: bool,
    bindings: Vec<Binding>,
}

impl Policy {
    fn parse(o: &Value, bindings: Vec<Binding>) -> Policy {
        let params = object::get(o, "spec.paramKind").is_some();
        let variables = compile::variables(o, params);
        let known = compile::environment(&variables, params);
        let bare = compile::environment(&[], params);
        let validation = |v: &Value| {
            let text = |k: &str| object::text(v, k).map(str::to_owned);
            Validation {
                rule: compile::list(std::slice::from_ref(v), "expression", &known).remove(0),
                message: text("message"),
                message_program: text("messageExpression").and_then(|m| expression::compile(&m, &known).ok()),
                reason: text("reason"),
            }
        };
        let audit = |v: &Value| {
            let key = object::text(v, "key").unwrap_or_default().to_owned();
            (key, compile::list(std::slice::from_ref(v), "valueExpression", &known).remove(0))
        };
        Policy {
            name: object::name(o).to_owned(),
            param_kind: object::get(o, "spec.paramKind").cloned(),
            fail: object::text(o, "spec.failurePolicy") != Some("Ignore"),
            matches: Matches::parse(&o["spec"]["matchConstraints"]),
            conditions: compile::list(object::list(o, "spec.matchConditions"), "expression", &bare),
            validations: object::list(o, "spec.validations").iter().map(validation).collect(),
            audits: object::list(o, "spec.auditAnnotations").iter().map(audit).collect(),
            mutations: object::list(o, "spec.mutations")
                .iter()
                .map(|m| mutate::Mutation::parse(m, &known))
                .collect(),
            again: object::text(o, "spec.reinvocationPolicy") == Some("IfNeeded"),
            variables,
            bindings,
        }
    }

    /// Whether all conditions hold; `Err`: one failed.
    fn applies(&self, scope: &Scope<'_>) -> std::result::Result<bool, String> {
        hold(&self.conditions, scope)
    }
}

/// Whether all conditions hold; `Err`: one failed, and none is false.
fn hold(conditions: &[Named], scope: &Scope<'_>) -> std::result::Result<bool, String> {
    let mut failed = None;
    for c in conditions {
        match scope.run(c) {
            Ok(Cel::Bool(false)) => return Ok(false),
            Ok(_) => {}
            Err(e) => failed = failed.or(Some(format!("expression '{}' resulted in error: {e}", c.source))),
        }
    }
    failed.map_or(Ok(true), Err)
}

type Compiled = Mutex<((u64, u64), Arc<[Policy]>)>;

/// All policies, compiled.
pub(crate) struct Policies {
    cache: Arc<Cache>,
    /// Asked by expressions whether somebody may do something.
    server: OnceLock<Weak<ApiServer>>,
    validating: (usize, usize, Compiled),
    mutating: (usize, usize, Compiled),
}

impl Policies {
    pub(crate) fn new(cache: Arc<Cache>) -> Self {
        let index = |r: &str| kinds::by_resource(GROUP, r).expect("policies are a kind").index;
        let of = |policies: &str, bindings: &str| {
            (index(policies), index(bindings), Mutex::new(((u64::MAX, u64::MAX), Arc::from(Vec::new()))))
        };
        Policies {
            cache,
            server: OnceLock::new(),
            validating: of("validatingadmissionpolicies", "validatingadmissionpolicybindings"),
            mutating: of("mutatingadmissionpolicies", "mutatingadmissionpolicybindings"),
        }
    }

    /// Says whom the authorizer library asks.
    pub(crate) fn belong_to(&self, server: &Arc<ApiServer>) {
        // A server is opened once.
        let _ = self.server.set(Arc::downgrade(server));
    }

    fn server(&self) -> Weak<ApiServer> {
        self.server.get().cloned().unwrap_or_default()
    }

    fn current(&self, (policies, bindings, compiled): &(usize, usize, Compiled)) -> Arc<[Policy]> {
        let now = (self.cache.changed(*policies), self.cache.changed(*bindings));
        let mut held = compiled.lock();
        if held.0 != now {
            let bound: Vec<Value> =
                self.cache.list(*bindings, None).objects.iter().map(|b| b.value()).collect();
            let mut all = Vec::new();
            for o in self.cache.list(*policies, None).objects {
                let of = bound.iter().filter(|b| object::text(b, "spec.policyName") == Some(o.name()));
                let of = of.map(|b| Binding {
                    name: object::name(b).to_owned(),
                    matches: object::get(b, "spec.matchResources").map(Matches::parse),
                    actions: object::list(b, "spec.validationActions")
                        .iter()
                        .filter_map(|a| a.as_str().map(str::to_owned))
                        .collect(),
                    object: b.clone(),
                });
                let of: Vec<Binding> = of.collect();
                // A policy that nobody binds does nothing.
                if !of.is_empty() {
                    all.push(Policy::parse(&o.value(), of));
                }
            }
            *held = (now, all.into());
        }
        held.1.clone()
    }
}

/// What a policy says of a write.
struct Verdict {
    message: String,
    reason: String,
    index: usize,
}

impl ApiServer {
    /// Whether a webhook's conditions hold for a write.
    pub(crate) fn conditions_hold(
        &self,
        conditions: &[Named],
        seen: &Seen<'_>,
        new: Option<&Value>,
    ) -> std::result::Result<bool, String> {
        if conditions.is_empty() {
            return Ok(true);
        }
        hold(conditions, &Scope::new(self, seen, new, None, &[]))
    }

    /// Judges a write by all validating policies that concern it; `subject` is the kind of what a subresource takes.
    pub(crate) async fn judge_by_policies(
        &self,
        a: &Attributes<'_>,
        new: Option<&Value>,
        subject: Option<Subject>,
    ) -> Result<()> {
        if !self.config.admission.is_on("ValidatingAdmissionPolicy") || a.user.is_none() || is_exempt(a) {
            return Ok(());
        }
        let all = self.policies.current(&self.policies.validating);
        for policy in all.iter() {
            let Some(served) = policy.matches.concern(&self.cache, a, new) else { continue };
            let shown = self.show(&served, a, new, subject).await?;
            let attributes = Attributes { old: shown.old.as_deref(), ..*a };
            let seen = Seen { attributes: &attributes, served: &served, subject };
            for binding in &policy.bindings {
                if binding.matches.as_ref().is_none_or(|m| m.concern(&self.cache, a, new).is_some()) {
                    let began = self.config.clock.monotonic();
                    let judged = self.judge_by(policy, binding, &seen, shown.new.as_deref());
                    let took = self.config.clock.monotonic().saturating_duration_since(began);
                    let action = judged.as_ref().map_or("deny", |action| action);
                    policy_checked(&policy.name, &binding.name, action, took);
                    judged?;
                }
            }
        }
        Ok(())
    }

    /// What became of a write that may pass: `allow`, `warn` or `audit`.
    fn judge_by(
        &self,
        policy: &Policy,
        binding: &Binding,
        seen: &Seen<'_>,
        new: Option<&Value>,
    ) -> Result<&'static str> {
        let a = seen.attributes;
        let sets = match scope::params(self, a, policy.param_kind.as_ref(), &binding.object) {
            Params::None => vec![None],
            Params::Some(all) => all.into_iter().map(Some).collect(),
            Params::Skip => return Ok("allow"),
            Params::Missing(why) => {
                let why = format!("failed to configure binding: {why}");
                return if policy.fail { Err(refusal(policy, binding, a, &why, "")) } else { Ok("allow") };
            }
        };
        let mut verdicts = Vec::new();
        for params in &sets {
            let scope = Scope::new(self, seen, new, params.as_ref(), &policy.variables);
            match policy.applies(&scope) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(why) if policy.fail => {
                    verdicts.push(Verdict { message: why, reason: String::new(), index: 0 });
                    continue;
                }
                Err(_) => continue,
            }
            policy.validate(&scope, &mut verdicts);
            policy.annotate(&scope, a);
        }
        self.enforce(policy, binding, a, &verdicts)
    }

    fn enforce(
        &self,
        policy: &Policy,
        binding: &Binding,
        a: &Attributes<'_>,
        verdicts: &[Verdict],
    ) -> Result<&'static str> {
        let does = |action: &str| binding.actions.iter().any(|b| b == action);
        if verdicts.is_empty() {
            return Ok("allow");
        }
        if does("Audit") {
            let all: Vec<Value> = verdicts
                .iter()
                .map(|v| {
                    json!({"message": v.message, "policy": policy.name, "binding": binding.name,
                        "expressionIndex": v.index, "validationActions": binding.actions})
                })
                .collect();
            a.trail.annotate(
                "validation.policy.admission.k8s.io/validation_failure",
                Value::Array(all).to_string(),
            );
        }
        if does("Warn") {
            for v in verdicts {
                a.trail.warn(format!(
                    "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                    policy.name, binding.name, v.message
                ));
            }
        }
        match verdicts.first() {
            Some(v) if does("Deny") => Err(refusal(policy, binding, a, &v.message, &v.reason)),
            _ if does("Warn") => Ok("warn"),
            _ => Ok("audit"),
        }
    }
}

impl Policy {
    fn validate(&self, scope: &Scope<'_>, verdicts: &mut Vec<Verdict>) {
        for (index, v) in self.validations.iter().enumerate() {
            let source = v.rule.source.trim();
            let message = match scope.run(&v.rule) {
                Ok(Cel::Bool(true)) => continue,
                Ok(Cel::Bool(false)) => {
                    let made = v.message_program.as_ref().and_then(|p| scope.evaluate(p).ok());
                    let made = made.and_then(|m| m.as_str().map(|s| s.trim().to_owned()));
                    made.filter(|m| !m.is_empty() && !m.contains('\n'))
                        .or_else(|| v.message.as_ref().map(|m| m.trim().to_owned()))
                        .unwrap_or_else(|| format!("failed expression: {source}"))
                }
                _ if !self.fail => continue,
                Ok(_) => format!("expression '{source}' resulted in error: no such overload"),
                Err(e) => format!("expression '{source}' resulted in error: {e}"),
            };
            verdicts.push(Verdict { message, reason: v.reason.clone().unwrap_or_default(), index });
        }
    }

    fn annotate(&self, scope: &Scope<'_>, a: &Attributes<'_>) {
        for (key, n) in &self.audits {
            match scope.run(n) {
                Ok(Cel::String(s)) if !s.trim().is_empty() => {
                    a.trail.annotate(format!("{}/{key}", self.name), s.trim());
                }
                Ok(_) => {}
                Err(e) => tracing::warn!(
                    policy = self.name,
                    key,
                    error = e,
                    "an audit annotation could not be made"
                ),
            }
        }
    }
}

fn refusal(policy: &Policy, binding: &Binding, a: &Attributes<'_>, why: &str, reason: &str) -> ApiError {
    let said = format!(
        "ValidatingAdmissionPolicy '{}' with binding '{}' denied request: {why}",
        policy.name, binding.name
    );
    let mut e = ApiError::forbidden(a.served, a.name, &said);
    (e.code, e.reason) = match reason {
        "Forbidden" => (403, "Forbidden".into()),
        "Unauthorized" => (401, "Unauthorized".into()),
        "RequestEntityTooLarge" => (413, "RequestEntityTooLarge".into()),
        _ => (422, "Invalid".into()),
    };
    if let Some(d) = &mut e.details {
        d["causes"] = json!([{"message": said}]);
    }
    e
}
