//! What is audited: rules, the first that matches decides (audit.k8s.io/v1 Policy;
//! apiserver: pkg/audit/policy/checker.go).

use apimachinery::user::UserInfo;
use serde_json::Value;

use crate::object;
use crate::request::RequestInfo;

/// How much of a request is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    pub fn text(self) -> &'static str {
        match self {
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }

    /// `None` inside is upstream's level None.
    fn parse(s: &str) -> Option<Option<Level>> {
        match s {
            "None" => Some(None),
            "Metadata" => Some(Some(Level::Metadata)),
            "Request" => Some(Some(Level::Request)),
            "RequestResponse" => Some(Some(Level::RequestResponse)),
            _ => None,
        }
    }
}

/// When something is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }

    fn parse(s: &str) -> Option<Stage> {
        [Stage::RequestReceived, Stage::ResponseStarted, Stage::ResponseComplete, Stage::Panic]
            .into_iter()
            .find(|stage| stage.text() == s)
    }
}

#[derive(Clone, Debug, Default)]
struct Rule {
    level: Option<Level>,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<Resources>,
    namespaces: Vec<String>,
    urls: Vec<String>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, Default)]
struct Resources {
    group: String,
    resources: Vec<String>,
    names: Vec<String>,
}

/// What a rule decides of a request.
pub(crate) struct Decision<'a> {
    pub(crate) level: Level,
    pub(crate) omit_stages: &'a Vec<Stage>,
    pub(crate) omit_managed_fields: bool,
}

/// Rules in order.
#[derive(Clone, Debug)]
pub struct AuditPolicy {
    rules: Vec<Rule>,
}

/// What is written down if nobody says what: every write but those that only say that somebody lives, streams into
/// containers, and reads of secrets by people. Metadata only; an idle cluster writes nothing.
const DEFAULT: &str = r#"{"kind": "Policy", "apiVersion": "audit.k8s.io/v1", "omitStages": ["RequestReceived"], "rules": [
  {"level": "None", "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}, {"group": "", "resources": ["events"]},
    {"group": "events.k8s.io", "resources": ["events"]}]},
  {"level": "None", "resources": [{"group": "authentication.k8s.io"}, {"group": "authorization.k8s.io"}, {"group": "metrics.k8s.io"}]},
  {"level": "None", "users": ["system:binnacle", "system:kube-proxy"], "verbs": ["get", "list", "watch"]},
  {"level": "None", "users": ["system:binnacle"], "resources": [{"group": "", "resources": ["*/status"]},
    {"group": "apps", "resources": ["*/status"]}, {"group": "batch", "resources": ["*/status"]}, {"group": "policy", "resources": ["*/status"]},
    {"group": "autoscaling", "resources": ["*/status"]}, {"group": "discovery.k8s.io"}, {"group": "", "resources": ["endpoints"]}]},
  {"level": "None", "userGroups": ["system:nodes"], "verbs": ["get", "list", "watch"]},
  {"level": "None", "userGroups": ["system:nodes"], "resources": [{"group": "", "resources": ["nodes", "nodes/status", "pods/status", "serviceaccounts/token"]}]},
  {"level": "Metadata", "resources": [{"group": "", "resources": ["pods/exec", "pods/attach", "pods/portforward", "pods/proxy", "services/proxy", "nodes/proxy", "secrets"]}]},
  {"level": "None", "verbs": ["get", "list", "watch"]},
  {"level": "None", "nonResourceURLs": ["*"]},
  {"level": "Metadata"}]}"#;

impl Default for AuditPolicy {
    fn default() -> Self {
        let v = serde_json::from_str(DEFAULT).expect("the default policy is JSON");
        AuditPolicy::parse(&v).expect("the default policy is valid")
    }
}

impl AuditPolicy {
    /// Reads a Policy; words that are not known are errors.
    pub fn parse(v: &Value) -> Result<AuditPolicy, String> {
        if object::text(v, "kind") != Some("Policy")
            || object::text(v, "apiVersion") != Some("audit.k8s.io/v1")
        {
            return Err("the file holds no Policy of audit.k8s.io/v1".to_owned());
        }
        let known = |o: &Value, keys: &[&str], at: &str| match o.as_object() {
            None => Err(format!("{at}: a map is needed")),
            Some(m) => match m.keys().find(|k| !keys.contains(&k.as_str())) {
                Some(k) => Err(format!("{at}: unknown field {k:?}")),
                None => Ok(()),
            },
        };
        known(v, &["kind", "apiVersion", "metadata", "rules", "omitStages", "omitManagedFields"], "policy")?;
        let stages = |o: &Value, at: &str| -> Result<Vec<Stage>, String> {
            let all = object::list(o, "omitStages").iter();
            all.map(|s| {
                let s = s.as_str().unwrap_or_default();
                Stage::parse(s).ok_or_else(|| format!("{at}.omitStages: unknown stage {s:?}"))
            })
            .collect()
        };
        let everywhere = stages(v, "policy")?;
        let omit_managed = object::flag(v, "omitManagedFields");
        if object::list(v, "rules").is_empty() {
            return Err("rules: Required value: a policy needs at least one rule".to_owned());
        }
        let mut rules = Vec::new();
        for (i, r) in object::list(v, "rules").iter().enumerate() {
            let at = format!("rules[{i}]");
            let keys = [
                "level",
                "users",
                "userGroups",
                "verbs",
                "resources",
                "namespaces",
                "nonResourceURLs",
                "omitStages",
                "omitManagedFields",
            ];
            known(r, &keys, &at)?;
            let words = |o: &Value, k: &str| -> Vec<String> {
                object::list(o, k).iter().filter_map(|s| s.as_str().map(str::to_owned)).collect()
            };
            let level = object::text(r, "level").unwrap_or_default();
            let level = Level::parse(level).ok_or_else(|| {
                format!("{at}.level: Unsupported value: {level:?}: supported values: \"Metadata\", \"None\", \"Request\", \"RequestResponse\"")
            })?;
            let mut resources = Vec::new();
            for (j, g) in object::list(r, "resources").iter().enumerate() {
                known(g, &["group", "resources", "resourceNames"], &format!("{at}.resources[{j}]"))?;
                let one = Resources {
                    group: object::text(g, "group").unwrap_or_default().to_owned(),
                    resources: words(g, "resources"),
                    names: words(g, "resourceNames"),
                };
                if one.resources.is_empty() && !one.names.is_empty() {
                    return Err(format!(
                        "{at}.resources[{j}].resourceNames: using resourceNames requires at least one resource"
                    ));
                }
                resources.push(one);
            }
            let urls = words(r, "nonResourceURLs");
            if !urls.is_empty() && (!resources.is_empty() || !words(r, "namespaces").is_empty()) {
                return Err(format!(
                    "{at}.nonResourceURLs: rules cannot apply to both regular resources and non-resource URLs"
                ));
            }
            if let Some(u) = urls
                .iter()
                .find(|u| *u != "*" && (!u.starts_with('/') || u.trim_end_matches('*').contains('*')))
            {
                return Err(format!(
                    "{at}.nonResourceURLs: {u:?} must begin with / and have * only at its end"
                ));
            }
            let mut omit_stages = stages(r, &at)?;
            omit_stages.extend(everywhere.iter().copied());
            rules.push(Rule {
                level,
                users: words(r, "users"),
                groups: words(r, "userGroups"),
                verbs: words(r, "verbs"),
                resources,
                namespaces: words(r, "namespaces"),
                urls,
                omit_stages,
                omit_managed_fields: object::get(r, "omitManagedFields").map_or(omit_managed, |v| *v == true),
            });
        }
        Ok(AuditPolicy { rules })
    }

    /// `None` is that nothing is written down.
    pub(crate) fn decide(&self, user: &UserInfo, info: &RequestInfo) -> Option<Decision<'_>> {
        let rule = self.rules.iter().find(|r| r.matches(user, info))?;
        Some(Decision {
            level: rule.level?,
            omit_stages: &rule.omit_stages,
            omit_managed_fields: rule.omit_managed_fields,
        })
    }
}

impl Rule {
    fn matches(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        let has = |list: &[String], wanted: &str| list.is_empty() || list.iter().any(|l| l == wanted);
        if !has(&self.users, &user.name)
            || !(self.groups.is_empty() || self.groups.iter().any(|g| user.in_group(g)))
            || !has(&self.verbs, &info.verb)
        {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return self.matches_resource(info);
        }
        if !self.urls.is_empty() {
            return !info.is_resource
                && self.urls.iter().any(|u| match u.strip_suffix('*') {
                    Some(prefix) => info.path.starts_with(prefix),
                    None => *u == info.path,
                });
        }
        true
    }

    fn matches_resource(&self, info: &RequestInfo) -> bool {
        if !info.is_resource || !self.namespaces.is_empty() && !self.namespaces.contains(&info.namespace) {
            return false;
        }
        self.resources.is_empty()
            || self.resources.iter().any(|g| {
                g.group == info.group
                    && (g.resources.is_empty() || g.resources.iter().any(|r| covers(r, info)))
                    && (g.names.is_empty() || g.names.contains(&info.name))
            })
    }
}

/// `pods`, `pods/log`, `pods/*`, `*/scale`, `*`
fn covers(pattern: &str, info: &RequestInfo) -> bool {
    let full = if info.subresource.is_empty() {
        info.resource.clone()
    } else {
        format!("{}/{}", info.resource, info.subresource)
    };
    if pattern == "*" || pattern == full {
        return true;
    }
    match pattern.split_once('/') {
        Some(("*", sub)) => !info.subresource.is_empty() && sub == info.subresource,
        Some((of, "*")) => !info.subresource.is_empty() && of == info.resource,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Query;
    use http::Method;
    use serde_json::json;

    fn decide(policy: &AuditPolicy, user: &UserInfo, method: Method, path: &str) -> Option<Level> {
        let info = RequestInfo::parse(&method, path, &Query::parse(""));
        policy.decide(user, &info).map(|d| d.level)
    }

    #[test]
    fn the_first_rule_decides() {
        let policy = AuditPolicy::parse(&json!({"kind": "Policy", "apiVersion": "audit.k8s.io/v1", "rules": [
            {"level": "None", "users": ["bot"]},
            {"level": "RequestResponse", "resources": [{"group": "", "resources": ["pods"]}]},
            {"level": "Metadata", "resources": [{"group": "", "resources": ["pods/log", "*/status"]}]},
            {"level": "None", "resources": [{"group": "", "resources": ["configmaps"], "resourceNames": ["leader"]}]},
            {"level": "Request", "namespaces": ["kube-system"], "resources": [{"group": "", "resources": ["configmaps"]}]},
            {"level": "None", "userGroups": ["system:authenticated"], "nonResourceURLs": ["/api*", "/version"]},
            {"level": "Metadata", "verbs": ["delete"]}]}))
        .expect("a policy");
        let jane = UserInfo::new("jane", &[]);
        let check = |user: &UserInfo, method: Method, path: &str, expect: Option<Level>| {
            assert_eq!(decide(&policy, user, method, path), expect, "{path}");
        };
        let all = "/api/v1/namespaces/a/";
        check(&UserInfo::new("bot", &[]), Method::POST, "/api/v1/namespaces/a/pods", None);
        check(&jane, Method::POST, &format!("{all}pods"), Some(Level::RequestResponse));
        check(&jane, Method::GET, &format!("{all}pods/x/log"), Some(Level::Metadata));
        check(&jane, Method::PUT, &format!("{all}services/x/status"), Some(Level::Metadata));
        check(&jane, Method::GET, &format!("{all}configmaps/leader"), None);
        check(&jane, Method::GET, "/api/v1/namespaces/kube-system/configmaps/x", Some(Level::Request));
        check(&jane, Method::GET, &format!("{all}configmaps/x"), None);
        check(&jane, Method::GET, "/apis", None);
        check(&jane, Method::DELETE, &format!("{all}services/x"), Some(Level::Metadata));
        check(&jane, Method::GET, "/metrics", None);
    }

    #[test]
    fn an_idle_cluster_writes_nothing() {
        let p = AuditPolicy::default();
        let (node, own, jane) = (
            UserInfo::new("system:node:a", &["system:nodes"]),
            UserInfo::new("system:binnacle", &["system:masters"]),
            UserInfo::new("jane", &[]),
        );
        for (user, method, path) in [
            (&node, Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/a"),
            (&node, Method::PATCH, "/api/v1/nodes/a/status"),
            (&node, Method::PATCH, "/api/v1/namespaces/a/pods/x/status"),
            (&node, Method::POST, "/api/v1/namespaces/a/events"),
            (&own, Method::GET, "/api/v1/pods"),
            (&own, Method::PATCH, "/apis/apps/v1/namespaces/a/deployments/x/status"),
            (&jane, Method::GET, "/api/v1/pods"),
            (&jane, Method::GET, "/readyz"),
        ] {
            assert_eq!(decide(&p, user, method, path), None, "{path}");
        }
        for (user, method, path) in [
            (&jane, Method::POST, "/api/v1/namespaces/a/pods"),
            (&jane, Method::GET, "/api/v1/namespaces/a/secrets/x"),
            (&jane, Method::GET, "/api/v1/namespaces/a/pods/x/exec"),
            (&own, Method::POST, "/api/v1/namespaces/a/pods"),
        ] {
            assert_eq!(decide(&p, user, method, path), Some(Level::Metadata), "{path}");
        }
    }

    #[test]
    fn wrong_words_are_named() {
        let check = |rules: Value, part: &str| {
            let v = json!({"kind": "Policy", "apiVersion": "audit.k8s.io/v1", "rules": rules});
            let e = AuditPolicy::parse(&v).expect_err("wrong");
            assert!(e.contains(part), "{e}");
        };
        check(json!([]), "at least one rule");
        check(json!([{"level": "All"}]), "rules[0].level: Unsupported value: \"All\"");
        check(json!([{"level": "None", "user": ["a"]}]), "unknown field \"user\"");
        check(json!([{"level": "None", "omitStages": ["Never"]}]), "unknown stage");
        check(json!([{"level": "None", "nonResourceURLs": ["x"]}]), "must begin with /");
        check(
            json!([{"level": "None", "nonResourceURLs": ["/x"], "namespaces": ["a"]}]),
            "cannot apply to both",
        );
    }
}
