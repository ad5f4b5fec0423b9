//! Webhook configurations, compiled once per change of them, and which of them a write concerns
//! (apiserver: pkg/admission/plugin/webhook/{generic/webhook.go,predicates}).

use std::sync::Arc;
use std::time::Duration;

use apimachinery::selector::Selector;
use parking_lot::Mutex;
use serde_json::Value;

use super::client::Peer;
use crate::admission::attributes::{Attributes, Operation};
use crate::admission::shown::matched;
use crate::cache::Cache;
use crate::kinds::{self, Served};
use crate::object;
use crate::policies::compile::{self, Named};

const GROUP: &str = "admissionregistration.k8s.io";

/// One of a webhook's rules.
#[derive(Debug)]
pub(crate) struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    /// `*`, `Cluster`, `Namespaced`
    scope: String,
}

impl Rule {
    pub(crate) fn parse(v: &Value) -> Rule {
        let list =
            |k: &str| object::list(v, k).iter().filter_map(|s| s.as_str().map(str::to_owned)).collect();
        Rule {
            operations: list("operations"),
            groups: list("apiGroups"),
            versions: list("apiVersions"),
            resources: list("resources"),
            scope: object::text(v, "scope").unwrap_or("*").to_owned(),
        }
    }

    pub(crate) fn matches(
        &self,
        operation: Operation,
        served: &Served,
        subresource: &str,
        namespace: &str,
    ) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|l| l == "*" || l == wanted);
        let resource = |r: &String| {
            let (res, sub) = r.split_once('/').unwrap_or((r, ""));
            (res == "*" || res == served.kind.resource) && (sub == "*" || sub == subresource)
        };
        let namespaced = served.kind.namespaced && !namespace.is_empty();
        has(&self.operations, operation.text())
            && has(&self.groups, served.group)
            && has(&self.versions, served.version)
            && self.resources.iter().any(resource)
            && match self.scope.as_str() {
                "Cluster" => !namespaced,
                "Namespaced" => namespaced,
                _ => true,
            }
    }
}

/// A webhook as it is called.
pub(crate) struct Hook {
    pub(crate) configuration: String,
    pub(crate) name: String,
    /// Why there is no peer: what the configuration lacks.
    pub(crate) peer: Result<Peer, String>,
    pub(crate) ignore_failure: bool,
    /// True if a dry run may call it.
    pub(crate) dry: bool,
    pub(crate) timeout: Duration,
    /// The version of AdmissionReview it is asked in.
    pub(crate) review: &'static str,
    /// Called again when others changed the object after it.
    pub(crate) again: bool,
    pub(crate) conditions: Vec<Named>,
    exact: bool,
    rules: Vec<Rule>,
    namespaces: Selector,
    objects: Selector,
}

impl Hook {
    fn parse(configuration: &str, v: &Value) -> Hook {
        let selector = |k: &str| {
            // What cannot be read was refused when it was written; it selects nothing.
            object::get(v, k).map_or_else(Selector::everything, |s| {
                Selector::from_json(Some(s)).unwrap_or_else(|_| Selector::nothing())
            })
        };
        let versions = object::list(v, "admissionReviewVersions");
        let first = versions.iter().find_map(|v| match v.as_str() {
            Some("v1") => Some("admission.k8s.io/v1"),
            Some("v1beta1") => Some("admission.k8s.io/v1beta1"),
            _ => None,
        });
        let seconds = object::int(v, "timeoutSeconds").and_then(|s| u64::try_from(s).ok()).unwrap_or(10);
        Hook {
            configuration: configuration.to_owned(),
            name: object::text(v, "name").unwrap_or_default().to_owned(),
            peer: Peer::from_client_config(&v["clientConfig"]),
            ignore_failure: object::text(v, "failurePolicy") == Some("Ignore"),
            dry: matches!(object::text(v, "sideEffects"), Some("None" | "NoneOnDryRun")),
            timeout: Duration::from_secs(seconds),
            review: first.unwrap_or("admission.k8s.io/v1"),
            again: object::text(v, "reinvocationPolicy") == Some("IfNeeded"),
            conditions: compile::list(
                object::list(v, "matchConditions"),
                "expression",
                &compile::environment(&[], false),
            ),
            exact: object::text(v, "matchPolicy") == Some("Exact"),
            rules: object::list(v, "rules").iter().map(Rule::parse).collect(),
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
        }
    }

    /// The resource as the webhook wants to see it, if this write concerns it.
    pub(super) fn concerns(&self, cache: &Cache, a: &Attributes<'_>, new: Option<&Value>) -> Option<Served> {
        let served = matched(a, self.exact, |s| {
            self.rules.iter().any(|r| r.matches(a.operation, s, a.subresource, a.namespace))
        })?;
        (self.selects_namespace(cache, a, new) && self.selects_object(a, new)).then_some(served)
    }

    fn selects_namespace(&self, cache: &Cache, a: &Attributes<'_>, new: Option<&Value>) -> bool {
        namespace_labels(cache, a, new, &self.namespaces)
    }

    fn selects_object(&self, a: &Attributes<'_>, new: Option<&Value>) -> bool {
        selects_object(a, new, &self.objects)
    }
}

/// Whether the namespace of a write is selected; cluster-scoped objects always are, but namespaces themselves.
pub(crate) fn namespace_labels(
    cache: &Cache,
    a: &Attributes<'_>,
    new: Option<&Value>,
    selector: &Selector,
) -> bool {
    if selector.is_everything() {
        return true;
    }
    if a.served.kind.resource == "namespaces" && a.served.group.is_empty() {
        let o = new.or(a.old);
        return o.is_none_or(|o| selector.matches_json(object::get(o, "metadata.labels")));
    }
    if a.namespace.is_empty() {
        return true;
    }
    let spaces = kinds::by_resource("", "namespaces").expect("namespaces are a kind");
    match cache.get(spaces.index, a.namespace) {
        Some(ns) => selector.matches_with(|k| ns.label(k)),
        None => selector.matches_with(|_| None),
    }
}

/// Whether an object, as it was or as it will be, is selected.
pub(crate) fn selects_object(a: &Attributes<'_>, new: Option<&Value>, selector: &Selector) -> bool {
    selector.is_everything()
        || [new, a.old]
            .into_iter()
            .flatten()
            .any(|o| selector.matches_json(object::get(o, "metadata.labels")))
}

type Compiled = Mutex<(u64, Arc<[Hook]>)>;

/// All webhooks, mutating and validating, in the order they are called.
pub(crate) struct Hooks {
    cache: Arc<Cache>,
    mutating: (usize, Compiled),
    validating: (usize, Compiled),
}

impl Hooks {
    pub(crate) fn new(cache: Arc<Cache>) -> Self {
        let index = |r: &str| kinds::by_resource(GROUP, r).expect("configurations are a kind").index;
        let none = || Mutex::new((u64::MAX, Arc::from(Vec::new())));
        let mutating = (index("mutatingwebhookconfigurations"), none());
        let validating = (index("validatingwebhookconfigurations"), none());
        Hooks { cache, mutating, validating }
    }

    pub(super) fn mutating(&self) -> Arc<[Hook]> {
        self.current(&self.mutating)
    }

    pub(super) fn validating(&self) -> Arc<[Hook]> {
        self.current(&self.validating)
    }

    fn current(&self, (index, compiled): &(usize, Compiled)) -> Arc<[Hook]> {
        let now = self.cache.changed(*index);
        let mut held = compiled.lock();
        if held.0 != now {
            let mut hooks = Vec::new();
            for o in self.cache.list(*index, None).objects {
                let v = o.value();
                hooks.extend(object::list(&v, "webhooks").iter().map(|h| Hook::parse(o.name(), h)));
            }
            *held = (now, hooks.into());
        }
        held.1.clone()
    }
}

/// Configurations are never judged by what they configure: a webhook could lock itself in.
pub(crate) fn is_exempt(a: &Attributes<'_>) -> bool {
    a.served.group == GROUP
        && matches!(
            a.served.kind.resource,
            "mutatingwebhookconfigurations"
                | "validatingwebhookconfigurations"
                | "validatingadmissionpolicies"
                | "validatingadmissionpolicybindings"
                | "mutatingadmissionpolicies"
                | "mutatingadmissionpolicybindings"
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_match_as_upstreams() {
        let pods = kinds::by_resource("", "pods").expect("a kind");
        let nodes = kinds::by_resource("", "nodes").expect("a kind");
        let check = |resource: &str, scope: &str, served: &Served, sub: &str, ns: &str, expect: bool| {
            let rule =
                Rule::parse(&json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
                "resources": [resource], "scope": scope}));
            assert_eq!(
                rule.matches(Operation::Create, served, sub, ns),
                expect,
                "{resource} {scope} {sub} {ns}"
            );
            assert!(!rule.matches(Operation::Update, served, sub, ns));
        };
        check("pods", "*", &pods, "", "a", true);
        check("pods", "*", &pods, "exec", "a", false);
        check("pods/exec", "*", &pods, "exec", "a", true);
        check("pods/*", "*", &pods, "exec", "a", true);
        check("pods/*", "*", &pods, "", "a", true);
        check("*", "*", &pods, "", "a", true);
        check("*", "*", &pods, "status", "a", false);
        check("*/*", "*", &pods, "status", "a", true);
        check("*/scale", "*", &pods, "status", "a", false);
        check("*", "Cluster", &pods, "", "a", false);
        check("*", "Namespaced", &pods, "", "a", true);
        check("*", "Cluster", &nodes, "", "", true);
        check("*", "Namespaced", &nodes, "", "", false);
    }
}
