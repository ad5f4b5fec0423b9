//! May this user do this? Roles and bindings, compiled once per change of them; denied unless allowed.

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::selector::Selector;
use apimachinery::user::{MASTERS, UserInfo};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::cache::Cache;
use crate::kinds;
use crate::object;
use crate::server::Access;

/// One rule of a role.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rule {
    pub(crate) verbs: Vec<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) names: Vec<String>,
    pub(crate) urls: Vec<String>,
}

impl Rule {
    pub(crate) fn parse(v: &Value) -> Rule {
        let list =
            |k: &str| object::list(v, k).iter().filter_map(|s| s.as_str().map(str::to_owned)).collect();
        Rule {
            verbs: list("verbs"),
            groups: list("apiGroups"),
            resources: list("resources"),
            names: list("resourceNames"),
            urls: list("nonResourceURLs"),
        }
    }

    fn json(&self) -> Value {
        if self.urls.is_empty() {
            let mut v = json!({"verbs": self.verbs, "apiGroups": self.groups, "resources": self.resources});
            if !self.names.is_empty() {
                v["resourceNames"] = json!(self.names);
            }
            v
        } else {
            json!({"verbs": self.verbs, "nonResourceURLs": self.urls})
        }
    }

    pub(crate) fn allows(&self, a: &Access) -> bool {
        let resource = |r: &String| {
            if a.subresource.is_empty() {
                return r == "*" || *r == a.resource;
            }
            match r.split_once('/') {
                Some(("*", sub)) => sub == a.subresource,
                Some((res, sub)) => res == a.resource && sub == a.subresource,
                None => r == "*",
            }
        };
        any(&self.verbs, &a.verb)
            && any(&self.groups, &a.group)
            && self.resources.iter().any(resource)
            && (self.names.is_empty() || self.names.contains(&a.name))
    }

    fn allows_url(&self, verb: &str, path: &str) -> bool {
        any(&self.verbs, verb)
            && self.urls.iter().any(|u| match u.strip_suffix('*') {
                Some(prefix) => path.starts_with(prefix),
                None => u == path,
            })
    }
}

fn any(list: &[String], wanted: &str) -> bool {
    list.iter().any(|l| l == "*" || l == wanted)
}

type Rules = Arc<[Rule]>;

#[derive(Debug)]
struct Binding {
    /// `ClusterRoleBinding "b" of ClusterRole "r"`, as upstream tells of it.
    says: String,
    users: Vec<String>,
    groups: Vec<String>,
    rules: Rules,
}

impl Binding {
    fn binds(&self, user: &UserInfo) -> bool {
        self.users.contains(&user.name) || self.groups.iter().any(|g| user.in_group(g))
    }
}

#[derive(Debug, Default)]
struct Compiled {
    cluster: Vec<Binding>,
    namespaced: HashMap<String, Vec<Binding>>,
    cluster_roles: HashMap<String, Rules>,
    roles: HashMap<(String, String), Rules>,
}

pub(crate) struct Rbac {
    cache: Arc<Cache>,
    /// Numbers of roles, cluster roles, role bindings, cluster role bindings.
    kinds: [usize; 4],
    /// With the revisions of the last changes it was compiled from.
    compiled: Mutex<([u64; 4], Arc<Compiled>)>,
}

impl Rbac {
    pub(crate) fn new(cache: Arc<Cache>) -> Self {
        let index =
            |r: &str| kinds::by_resource("rbac.authorization.k8s.io", r).expect("rbac kinds are known").index;
        let kinds = ["roles", "clusterroles", "rolebindings", "clusterrolebindings"].map(index);
        Rbac { cache, kinds, compiled: Mutex::default() }
    }

    fn current(&self) -> Arc<Compiled> {
        let now = self.kinds.map(|k| self.cache.changed(k));
        let mut held = self.compiled.lock();
        if held.0 != now {
            *held = (now, Arc::new(self.compile()));
        }
        held.1.clone()
    }

    fn compile(&self) -> Compiled {
        let all = |i: usize| -> Vec<Value> {
            self.cache.list(self.kinds[i], None).objects.iter().map(|o| o.value()).collect()
        };
        let rules = |v: &Value| -> Vec<Rule> { object::list(v, "rules").iter().map(Rule::parse).collect() };
        let cluster_roles = all(1);
        let mut by_name: HashMap<String, Rules> = HashMap::new();
        for role in &cluster_roles {
            let mut own = rules(role);
            // Aggregated rules are worked out here, so that they are right at once.
            for s in object::list(role, "aggregationRule.clusterRoleSelectors") {
                let Ok(selector) = Selector::from_json(Some(s)) else { continue };
                let chosen =
                    cluster_roles.iter().filter(|r| selector.matches_json(object::get(r, "metadata.labels")));
                own.extend(chosen.flat_map(rules));
            }
            by_name.insert(object::name(role).to_owned(), own.into());
        }
        let roles: HashMap<(String, String), Rules> = all(0)
            .iter()
            .map(|r| ((object::namespace(r).to_owned(), object::name(r).to_owned()), rules(r).into()))
            .collect();
        let bind = |b: &Value| -> Option<Binding> {
            let name = object::text(b, "roleRef.name")?;
            let rules = match object::text(b, "roleRef.kind")? {
                "ClusterRole" => by_name.get(name)?,
                _ => roles.get(&(object::namespace(b).to_owned(), name.to_owned()))?,
            };
            let (mut users, mut groups) = (Vec::new(), Vec::new());
            for s in object::list(b, "subjects") {
                let name = s["name"].as_str().unwrap_or_default();
                match s["kind"].as_str() {
                    Some("User") => users.push(name.to_owned()),
                    Some("Group") => groups.push(name.to_owned()),
                    Some("ServiceAccount") => {
                        let ns = s["namespace"].as_str().unwrap_or_else(|| object::namespace(b));
                        users.push(format!("system:serviceaccount:{ns}:{name}"));
                    }
                    _ => {}
                }
            }
            let role = format!("{} {name:?}", object::text(b, "roleRef.kind").unwrap_or_default());
            let says = match object::namespace(b) {
                "" => format!("ClusterRoleBinding {:?} of {role}", object::name(b)),
                ns => format!("RoleBinding \"{}/{ns}\" of {role}", object::name(b)),
            };
            Some(Binding { says, users, groups, rules: rules.clone() })
        };
        let mut compiled =
            Compiled { cluster: all(3).iter().filter_map(bind).collect(), ..Default::default() };
        for b in all(2) {
            if let Some(binding) = bind(&b) {
                compiled.namespaced.entry(object::namespace(&b).to_owned()).or_default().push(binding);
            }
        }
        (compiled.cluster_roles, compiled.roles) = (by_name, roles);
        compiled
    }

    pub(crate) fn allows(&self, user: &UserInfo, a: &Access) -> bool {
        if user.in_group(MASTERS) {
            return true;
        }
        let compiled = self.current();
        let local = compiled.namespaced.get(&a.namespace).filter(|_| !a.namespace.is_empty());
        let bindings = compiled.cluster.iter().chain(local.into_iter().flatten());
        bindings.filter(|b| b.binds(user)).any(|b| b.rules.iter().any(|r| r.allows(a)))
    }

    /// Which binding allows it, in upstream's words.
    pub(crate) fn why(&self, user: &UserInfo, a: &Access) -> Option<String> {
        let compiled = self.current();
        let local = compiled.namespaced.get(&a.namespace).filter(|_| !a.namespace.is_empty());
        let mut bindings = compiled.cluster.iter().chain(local.into_iter().flatten());
        let by = bindings.find(|b| b.binds(user) && b.rules.iter().any(|r| r.allows(a)))?;
        let whom = match by.groups.iter().find(|g| user.in_group(g)) {
            _ if by.users.contains(&user.name) => match user.name.strip_prefix("system:serviceaccount:") {
                Some(account) => format!("ServiceAccount {:?}", account.replace(':', "/")),
                None => format!("User {:?}", user.name),
            },
            Some(group) => format!("Group {group:?}"),
            None => String::new(),
        };
        Some(format!("RBAC: allowed by {} to {whom}", by.says))
    }

    pub(crate) fn allows_url(&self, user: &UserInfo, verb: &str, path: &str) -> bool {
        if user.in_group(MASTERS) {
            return true;
        }
        let compiled = self.current();
        compiled
            .cluster
            .iter()
            .filter(|b| b.binds(user))
            .any(|b| b.rules.iter().any(|r| r.allows_url(verb, path)))
    }

    /// The rules of a role, its aggregated ones among them.
    pub(crate) fn rules_in(&self, resource: &str, namespace: &str, name: &str) -> Option<Vec<Rule>> {
        let compiled = self.current();
        let found = match resource {
            "clusterroles" => compiled.cluster_roles.get(name),
            _ => compiled.roles.get(&(namespace.to_owned(), name.to_owned())),
        };
        found.map(|r| r.to_vec())
    }

    /// Everything a user's bindings give in a namespace.
    pub(crate) fn rules_of(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        let mut rules: Vec<Rule> = Vec::new();
        if user.in_group(MASTERS) {
            let every = || vec!["*".to_owned()];
            rules.push(Rule { verbs: every(), groups: every(), resources: every(), ..Rule::default() });
            rules.push(Rule { verbs: every(), urls: every(), ..Rule::default() });
        }
        let compiled = self.current();
        let local = compiled.namespaced.get(namespace).into_iter().flatten();
        for b in compiled.cluster.iter().chain(local).filter(|b| b.binds(user)) {
            rules.extend(b.rules.iter().cloned());
        }
        rules
    }

    /// What a user may do in a namespace, as SelfSubjectRulesReview lists it.
    pub(crate) fn rules(&self, user: &UserInfo, namespace: &str) -> (Vec<Value>, Vec<Value>) {
        let rules = self.rules_of(user, namespace);
        let (urls, resources): (Vec<_>, Vec<_>) = rules.iter().partition(|r| !r.urls.is_empty());
        (resources.into_iter().map(Rule::json).collect(), urls.into_iter().map(Rule::json).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let rule = Rule::parse(&json!({"verbs": ["get", "list"], "apiGroups": ["", "apps"],
            "resources": ["pods", "deployments/scale", "*/status"], "resourceNames": []}));
        let check = |verb: &str, group: &str, resource: &str, subresource: &str, expect: bool| {
            let a = Access {
                verb: verb.to_owned(),
                group: group.to_owned(),
                resource: resource.to_owned(),
                subresource: subresource.to_owned(),
                ..Access::default()
            };
            assert_eq!(rule.allows(&a), expect, "{verb} {group} {resource}/{subresource}");
        };
        check("get", "", "pods", "", true);
        check("get", "", "pods", "log", false);
        check("get", "", "pods", "status", true);
        check("delete", "", "pods", "", false);
        check("get", "batch", "pods", "", false);
        check("get", "apps", "deployments", "scale", true);
        check("get", "apps", "deployments", "", false);
    }

    #[test]
    fn urls() {
        let rule = Rule::parse(&json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/api/*"]}));
        assert!(rule.allows_url("get", "/healthz"));
        assert!(rule.allows_url("get", "/api/v1"));
        assert!(!rule.allows_url("get", "/metrics"));
        assert!(!rule.allows_url("post", "/healthz"));
    }
}
