//! What expressions see of a request.

use std::sync::{Arc, Weak};

use apimachinery::user::UserInfo;
use expression::{Failure, Object, Type, Value as Cel, Variables, library_type};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::compile::Named;
use crate::admission::attributes::Attributes;
use crate::kinds::Served;
use crate::server::{Access, ApiServer};
use crate::webhook::Subject;
use crate::{object, review};

/// What one expression may cost, and all of a policy for one request (apiserver: pkg/apis/cel/config.go).
pub(crate) const PER_CALL: u64 = 1_000_000;
pub(crate) const BUDGET: u64 = 10_000_000;

/// A request as a policy with a parameter sees it.
pub(crate) struct Scope<'a> {
    object: Cel,
    old: Cel,
    request: Cel,
    namespace: Cel,
    params: Cel,
    authorizer: Option<Cel>,
    variables: &'a [Named],
    /// What variables came to; each is worked out once.
    made: Mutex<Vec<Option<Result<Cel, Failure>>>>,
    budget: Mutex<u64>,
}

/// A write as a rule matched it: old and new objects are in this version.
pub(crate) struct Seen<'a> {
    pub(crate) attributes: &'a Attributes<'a>,
    pub(crate) served: &'a Served,
    /// What a subresource takes.
    pub(crate) subject: Option<Subject>,
}

impl<'a> Scope<'a> {
    pub(crate) fn new(
        server: &ApiServer,
        seen: &Seen<'_>,
        new: Option<&Value>,
        params: Option<&Value>,
        variables: &'a [Named],
    ) -> Scope<'a> {
        let a = seen.attributes;
        let any = |o: Option<&Value>| o.map_or(Cel::Null, |o| Cel::of_json(o, &Type::Dyn));
        let spaces = crate::kinds::by_resource("", "namespaces").expect("namespaces are a kind");
        let namespace = server.cache.get(spaces.index, a.namespace).filter(|_| !a.namespace.is_empty());
        Scope {
            object: any(new),
            old: any(a.old),
            request: Cel::of_json(&request(seen), &Type::Dyn),
            namespace: any(namespace.map(|n| n.value()).as_ref()),
            params: any(params),
            authorizer: a.user.map(|u| Authorizer::whole(server.policies.server(), u)),
            variables,
            made: Mutex::new(vec![None; variables.len()]),
            budget: Mutex::new(BUDGET),
        }
    }

    /// Evaluates an expression within what is left to spend.
    pub(crate) fn run(&self, n: &Named) -> Result<Cel, String> {
        let program = n.program.as_ref().map_err(|e| format!("compilation error: {e}"))?;
        self.evaluate(program).map_err(|e| e.to_string())
    }

    pub(crate) fn evaluate(&self, program: &expression::Program) -> Result<Cel, Failure> {
        let left = *self.budget.lock();
        if left == 0 {
            return Err(Failure::Error(
                "validation failed due to running out of cost budget, no further validation rules will be run".to_owned(),
            ));
        }
        let (result, cost) = program.run(self, PER_CALL.min(left));
        let mut budget = self.budget.lock();
        *budget = budget.saturating_sub(cost);
        result
    }
}

impl Variables for Scope<'_> {
    fn get(&self, name: &str) -> Option<Result<Cel, Failure>> {
        Some(Ok(match name {
            "object" => self.object.clone(),
            "oldObject" => self.old.clone(),
            "request" => self.request.clone(),
            "namespaceObject" => self.namespace.clone(),
            "params" => self.params.clone(),
            "authorizer" => self.authorizer.clone()?,
            "variables" => return Some(self.all_variables()),
            _ => return None,
        }))
    }
}

impl Scope<'_> {
    /// Those that have a value; the rest is absent, and whoever asks for one of them fails.
    fn all_variables(&self) -> Result<Cel, Failure> {
        let mut pairs = Vec::new();
        for (i, n) in self.variables.iter().enumerate() {
            let known = self.made.lock()[i].clone();
            let value = match known {
                Some(v) => v,
                None => {
                    // Variables that name each other do so backwards: this one is not there while it is made.
                    self.made.lock()[i] = Some(Err(Failure::Error(format!("no such key: {}", n.name))));
                    let v = self.run(n).map_err(Failure::Error);
                    self.made.lock()[i] = Some(v.clone());
                    v
                }
            };
            if let Ok(v) = value {
                pairs.push((n.name.as_str().into(), v));
            }
        }
        Ok(Cel::Map(Arc::new(pairs)))
    }
}

fn request(seen: &Seen<'_>) -> Value {
    let a = seen.attributes;
    let kind = |s: &Served| match seen.subject {
        Some((group, version, kind)) => json!({"group": group, "version": version, "kind": kind}),
        None => json!({"group": s.group, "version": s.version, "kind": s.kind.kind}),
    };
    let resource = |s: &Served| json!({"group": s.group, "version": s.version, "resource": s.kind.resource});
    json!({
        "kind": kind(seen.served), "resource": resource(seen.served), "subResource": a.subresource,
        "requestKind": kind(a.served), "requestResource": resource(a.served), "requestSubResource": a.subresource,
        "name": a.name, "namespace": a.namespace, "operation": a.operation.text(),
        "userInfo": a.user.map_or_else(|| json!({}), review::user_json),
        "dryRun": a.dry_run, "options": a.options(),
    })
}

/// The authorizer library: asks whether somebody may do something
/// (apiserver: pkg/cel/library/authz.go).
#[derive(Debug)]
struct Authorizer {
    server: Weak<ApiServer>,
    user: UserInfo,
    step: Step,
}

#[derive(Clone, Debug)]
enum Step {
    Whole,
    Path(String),
    Group(String),
    Resource(Access),
    Decision(bool),
}

impl Authorizer {
    fn whole(server: Weak<ApiServer>, user: &UserInfo) -> Cel {
        Cel::Opaque(Arc::new(Authorizer { server, user: user.clone(), step: Step::Whole }))
    }

    fn next(&self, step: Step) -> Cel {
        Cel::Opaque(Arc::new(Authorizer { server: self.server.clone(), user: self.user.clone(), step }))
    }
}

impl Object for Authorizer {
    fn type_name(&self) -> &'static str {
        let word = match self.step {
            Step::Whole => "authorizer",
            Step::Path(_) => "pathcheck",
            Step::Group(_) => "groupcheck",
            Step::Resource(_) => "resourcecheck",
            Step::Decision(_) => "decision",
        };
        match library_type(word) {
            Some(Type::Opaque(name)) => name,
            _ => "authorizer",
        }
    }

    fn call(&self, method: &str, args: &[Cel]) -> Option<Result<Cel, String>> {
        let text = |i: usize| args.get(i).and_then(Cel::as_str).map(str::to_owned);
        Some(Ok(match (&self.step, method) {
            (Step::Whole, "path") => self.next(Step::Path(text(0)?)),
            (Step::Whole, "group") => self.next(Step::Group(text(0)?)),
            (Step::Whole, "serviceAccount") => {
                let (ns, name) = (text(0)?, text(1)?);
                let groups = ["system:serviceaccounts", "system:authenticated"];
                let mut user = UserInfo::new(format!("system:serviceaccount:{ns}:{name}"), &groups);
                user.groups.push(format!("system:serviceaccounts:{ns}"));
                Authorizer::whole(self.server.clone(), &user)
            }
            (Step::Group(group), "resource") => self.next(Step::Resource(Access {
                group: group.clone(),
                resource: text(0)?,
                ..Access::default()
            })),
            (Step::Resource(access), "subresource" | "namespace" | "name") => {
                let mut access = access.clone();
                match method {
                    "subresource" => access.subresource = text(0)?,
                    "namespace" => access.namespace = text(0)?,
                    _ => access.name = text(0)?,
                }
                self.next(Step::Resource(access))
            }
            // Selectors narrow what is asked for; whoever may all may that.
            (Step::Resource(access), "fieldSelector" | "labelSelector") => {
                self.next(Step::Resource(access.clone()))
            }
            (Step::Resource(access), "check") => {
                let access = Access { verb: text(0)?, ..access.clone() };
                let Some(server) = self.server.upgrade() else {
                    return Some(Err("the server is stopping".to_owned()));
                };
                self.next(Step::Decision(server.authorize(&self.user, &access)))
            }
            (Step::Path(path), "check") => {
                let Some(server) = self.server.upgrade() else {
                    return Some(Err("the server is stopping".to_owned()));
                };
                self.next(Step::Decision(server.rbac.allows_url(&self.user, &text(0)?, path)))
            }
            (Step::Decision(yes), "allowed") => (*yes).into(),
            (Step::Decision(_), "errored") => false.into(),
            (Step::Decision(_), "reason" | "error") => "".into(),
            _ => return None,
        }))
    }
}

/// The parameters of a binding, or why there are none to judge by.
pub(crate) enum Params {
    /// The policy has none.
    None,
    Some(Vec<Value>),
    /// There are none, and that is fine.
    Skip,
    Missing(String),
}

pub(crate) fn params(
    server: &ApiServer,
    a: &Attributes<'_>,
    kind: Option<&Value>,
    binding: &Value,
) -> Params {
    let Some(kind) = kind else { return Params::None };
    let Some(reference) = object::get(binding, "spec.paramRef") else { return Params::None };
    let (api, name) = (
        object::text(kind, "apiVersion").unwrap_or_default(),
        object::text(kind, "kind").unwrap_or_default(),
    );
    let Some(served) = server.served().into_iter().find(|s| s.api_version() == api && s.kind.kind == name)
    else {
        return Params::Missing(format!(
            "failed to find resource referenced by paramKind: '{api}, Kind={name}'"
        ));
    };
    let namespace = match object::text(reference, "namespace") {
        _ if !served.kind.namespaced => String::new(),
        Some(ns) => ns.to_owned(),
        None if a.namespace.is_empty() => {
            return Params::Missing(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                    .to_owned(),
            );
        }
        None => a.namespace.to_owned(),
    };
    let found: Vec<Value> = match object::text(reference, "name") {
        Some(n) => {
            let key = crate::cache::object_key(served.kind, &namespace, n);
            server.cache.get(served.index, &key).map(|o| o.value()).into_iter().collect()
        }
        None => {
            let selector = apimachinery::selector::Selector::from_json(object::get(reference, "selector"));
            let within = served.kind.namespaced.then_some(namespace.as_str());
            let all = server.cache.list(served.index, within).objects;
            match selector {
                Ok(s) => all.iter().filter(|o| s.matches_with(|k| o.label(k))).map(|o| o.value()).collect(),
                Err(_) => Vec::new(),
            }
        }
    };
    match (found.is_empty(), object::text(reference, "parameterNotFoundAction")) {
        (false, _) => Params::Some(found),
        (true, Some("Allow")) => Params::Skip,
        (true, _) => Params::Missing(
            "no params found for policy binding with `Deny` parameterNotFoundAction".to_owned(),
        ),
    }
}
