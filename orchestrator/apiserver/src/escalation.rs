//! Nobody gives away what they do not have: roles and bindings may only grant rights their writer holds
//! (kubernetes: pkg/registry/rbac/validation/rule.go, pkg/registry/rbac/*/policybased).

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::user::{MASTERS, UserInfo};
use serde_json::Value;

use crate::error::{ApiError, Result};
use crate::kinds::{self, Served};
use crate::object;
use crate::rbac::Rule;
use crate::server::{Access, ApiServer};

const GROUP: &str = "rbac.authorization.k8s.io";

impl ApiServer {
    /// Refuses a role or binding that would give its writer, or others, more than the writer may.
    pub(crate) fn check_escalation(
        &self,
        served: &Served,
        user: &UserInfo,
        old: Option<&Value>,
        new: &Value,
    ) -> Result<()> {
        if served.group != GROUP || user.in_group(MASTERS) {
            return Ok(());
        }
        let kind = served.kind.builtin();
        let unchanged = |field: &str| old.is_some_and(|o| o.get(field) == new.get(field));
        let (namespace, name) = (object::namespace(new), object::name(new));
        let may = |verb: &str, resource: &str, name: &str| {
            let access = Access {
                verb: verb.to_owned(),
                group: GROUP.to_owned(),
                resource: resource.to_owned(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                ..Access::default()
            };
            self.decide(user, &access, None).allowed
        };
        let granted = match kind {
            "roles" | "clusterroles" => {
                if unchanged("rules") && unchanged("aggregationRule") || may("escalate", kind, name) {
                    return Ok(());
                }
                if object::get(new, "aggregationRule").is_some() && !unchanged("aggregationRule") {
                    let every = vec!["*".to_owned()];
                    let all = [
                        Rule {
                            verbs: every.clone(),
                            groups: every.clone(),
                            resources: every.clone(),
                            ..Rule::default()
                        },
                        Rule { verbs: every.clone(), urls: every, ..Rule::default() },
                    ];
                    if !missing(&self.rbac.rules_of(user, ""), &all).is_empty() {
                        let why = "must have cluster-admin privileges to use an aggregationRule";
                        return Err(ApiError::forbidden(served, name, why));
                    }
                }
                object::list(new, "rules").iter().map(Rule::parse).collect::<Vec<_>>()
            }
            _ => {
                if unchanged("roleRef") && unchanged("subjects") {
                    return Ok(());
                }
                let role = object::text(new, "roleRef.name").unwrap_or_default();
                let resource = match object::text(new, "roleRef.kind") {
                    Some("ClusterRole") => "clusterroles",
                    _ => "roles",
                };
                if may("bind", resource, role) {
                    return Ok(());
                }
                let ns = if resource == "roles" { namespace } else { "" };
                let Some(rules) = self.rbac.rules_in(resource, ns, role) else {
                    let of = kinds::by_resource(GROUP, resource).expect("roles are a kind");
                    return Err(ApiError::not_found(&of, role));
                };
                rules
            }
        };
        let missing = missing(&self.rbac.rules_of(user, namespace), &granted);
        if missing.is_empty() {
            return Ok(());
        }
        let why = format!(
            "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            quoted(&user.groups),
            describe(missing).join("\n"),
        );
        Err(ApiError::forbidden(served, name, &why))
    }
}

/// A right of one verb on one thing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Right {
    Resource { verb: String, group: String, resource: String, name: Option<String> },
    Url { verb: String, url: String },
}

fn rights(rule: &Rule) -> Vec<Right> {
    let mut out = Vec::new();
    for verb in &rule.verbs {
        for url in &rule.urls {
            out.push(Right::Url { verb: verb.clone(), url: url.clone() });
        }
        for group in &rule.groups {
            for resource in &rule.resources {
                let of = |name: Option<&String>| Right::Resource {
                    verb: verb.clone(),
                    group: group.clone(),
                    resource: resource.clone(),
                    name: name.cloned(),
                };
                if rule.names.is_empty() {
                    out.push(of(None));
                } else {
                    out.extend(rule.names.iter().map(|n| of(Some(n))));
                }
            }
        }
    }
    out
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|l| l == "*" || l == wanted)
}

fn covers(rule: &Rule, right: &Right) -> bool {
    match right {
        Right::Url { verb, url } => {
            has(&rule.verbs, verb)
                && rule
                    .urls
                    .iter()
                    .any(|u| u == url || u.strip_suffix('*').is_some_and(|prefix| url.starts_with(prefix)))
        }
        Right::Resource { verb, group, resource, name } => {
            let resources = rule.resources.iter().any(|r| {
                r == "*"
                    || r == resource
                    || r.strip_prefix("*/")
                        .is_some_and(|s| resource.split_once('/').is_some_and(|(_, sub)| sub == s))
            });
            let names = rule.names.is_empty() || name.as_ref().is_some_and(|n| rule.names.contains(n));
            has(&rule.verbs, verb) && has(&rule.groups, group) && resources && names
        }
    }
}

/// The rights in `granted` that `held` does not have.
fn missing(held: &[Rule], granted: &[Rule]) -> BTreeSet<Right> {
    let all = granted.iter().flat_map(rights);
    all.filter(|r| !held.iter().any(|h| covers(h, r))).collect()
}

/// `["a" "b"]`, as Go prints a list of quoted words.
fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|w| format!("{w:?}")).collect();
    format!("[{}]", words.join(" "))
}

/// Rights as rules again, with the verbs on one thing together.
fn describe(missing: BTreeSet<Right>) -> Vec<String> {
    let mut by_thing: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for right in missing {
        let (thing, verb) = match right {
            Right::Url { verb, url } => (format!("NonResourceURLs:[{url:?}]"), verb),
            Right::Resource { verb, group, resource, name } => {
                let names = name.map(|n| format!(", ResourceNames:[{n:?}]")).unwrap_or_default();
                (format!("APIGroups:[{group:?}], Resources:[{resource:?}]{names}"), verb)
            }
        };
        by_thing.entry(thing).or_default().push(verb);
    }
    by_thing.into_iter().map(|(thing, verbs)| format!("{{{thing}, Verbs:{}}}", quoted(&verbs))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(held: Value, granted: Value, expect: &[&str]) {
        assert_eq!(describe(missing(&[Rule::parse(&held)], &[Rule::parse(&granted)])), expect);
    }

    #[test]
    fn what_is_missing_is_named() {
        let pods = json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]});
        check(pods.clone(), pods.clone(), &[]);
        check(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}), pods.clone(), &[]);
        check(
            pods.clone(),
            json!({"verbs": ["get", "delete", "create"], "apiGroups": [""], "resources": ["pods", "secrets"]}),
            &[
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["create" "delete"]}"#,
                r#"{APIGroups:[""], Resources:["secrets"], Verbs:["create" "delete" "get"]}"#,
            ],
        );
        let named =
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]});
        check(pods.clone(), named.clone(), &[]);
        check(named, pods, &[r#"{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}"#]);
        check(
            json!({"verbs": ["get"], "nonResourceURLs": ["/api/*"]}),
            json!({"verbs": ["get"], "nonResourceURLs": ["/api/v1", "/metrics"]}),
            &[r#"{NonResourceURLs:["/metrics"], Verbs:["get"]}"#],
        );
        check(
            json!({"verbs": ["get"], "apiGroups": ["apps"], "resources": ["*/scale"]}),
            json!({"verbs": ["get"], "apiGroups": ["apps"], "resources": ["deployments/scale", "deployments"]}),
            &[r#"{APIGroups:["apps"], Resources:["deployments"], Verbs:["get"]}"#],
        );
    }
}
