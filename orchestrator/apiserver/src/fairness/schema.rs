//! A FlowSchema, ready to be asked (apiserver: pkg/util/flowcontrol/rule.go).

use std::sync::OnceLock;

use apimachinery::user::UserInfo;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use serde_json::Value;

use crate::metrics::flow;
use crate::object;
use crate::request::RequestInfo;

/// One FlowSchema.
#[derive(Debug, Default)]
pub(super) struct Schema {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) level: String,
    pub(super) level_uid: String,
    pub(super) precedence: i64,
    by: By,
    rules: Vec<Rule>,
    dispatched: OnceLock<Counter>,
    waited: OnceLock<Histogram>,
}

/// What tells one flow of a schema from another.
#[derive(Debug, Default)]
enum By {
    #[default]
    Nothing,
    User,
    Namespace,
}

#[derive(Debug)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<Resources>,
    urls: Vec<Urls>,
}

#[derive(Debug)]
enum Subject {
    User(String),
    Group(String),
    Account(String, String),
    Unknown,
}

#[derive(Debug)]
struct Resources {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    cluster: bool,
}

#[derive(Debug)]
struct Urls {
    verbs: Vec<String>,
    paths: Vec<String>,
}

fn texts(v: &Value, key: &str) -> Vec<String> {
    object::list(v, key).iter().filter_map(|s| s.as_str().map(str::to_owned)).collect()
}

fn any(list: &[String], wanted: &str) -> bool {
    list.iter().any(|l| l == "*" || l == wanted)
}

impl Schema {
    pub(super) fn parse(o: &Value) -> Schema {
        let text = |path: &str| object::text(o, path).unwrap_or_default().to_owned();
        Schema {
            name: object::name(o).to_owned(),
            uid: text("metadata.uid"),
            level: text("spec.priorityLevelConfiguration.name"),
            level_uid: String::new(),
            precedence: object::int(o, "spec.matchingPrecedence").unwrap_or(1000),
            by: match object::text(o, "spec.distinguisherMethod.type") {
                Some("ByUser") => By::User,
                Some("ByNamespace") => By::Namespace,
                _ => By::Nothing,
            },
            rules: object::list(o, "spec.rules").iter().map(Rule::parse).collect(),
            dispatched: OnceLock::new(),
            waited: OnceLock::new(),
        }
    }

    /// Counts a request that got a seat.
    pub(super) fn count(&self) {
        self.dispatched.get_or_init(|| flow::dispatched(&self.level, &self.name)).inc();
    }

    /// A request got its seat without waiting.
    pub(super) fn at_once(&self) {
        self.waited.get_or_init(|| flow::waits(&self.level, &self.name, true)).observe(0.0);
    }

    /// One that nothing matches, with a level of the same name.
    pub(super) fn named(name: &str, level_uid: String) -> Schema {
        Schema { name: name.to_owned(), level: name.to_owned(), level_uid, ..Schema::default() }
    }

    pub(super) fn matches(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        self.rules.iter().any(|r| r.subjects.iter().any(|s| s.is(user)) && r.covers(info))
    }

    pub(super) fn distinguish<'a>(&self, user: &'a UserInfo, info: &'a RequestInfo) -> &'a str {
        match self.by {
            By::Nothing => "",
            By::User => &user.name,
            By::Namespace => &info.namespace,
        }
    }
}

impl Rule {
    fn parse(v: &Value) -> Rule {
        Rule {
            subjects: object::list(v, "subjects").iter().map(Subject::parse).collect(),
            resources: object::list(v, "resourceRules").iter().map(Resources::parse).collect(),
            urls: object::list(v, "nonResourceRules")
                .iter()
                .map(|u| Urls { verbs: texts(u, "verbs"), paths: texts(u, "nonResourceURLs") })
                .collect(),
        }
    }

    fn covers(&self, info: &RequestInfo) -> bool {
        if info.is_resource {
            return self.resources.iter().any(|r| r.covers(info));
        }
        let path = |p: &String| match p.strip_suffix('*') {
            Some(prefix) => info.path.starts_with(prefix),
            None => *p == info.path,
        };
        self.urls.iter().any(|u| any(&u.verbs, &info.verb) && u.paths.iter().any(path))
    }
}

impl Subject {
    fn parse(v: &Value) -> Subject {
        let text = |path: &str| object::text(v, path).unwrap_or_default().to_owned();
        match object::text(v, "kind") {
            Some("User") => Subject::User(text("user.name")),
            Some("Group") => Subject::Group(text("group.name")),
            Some("ServiceAccount") => {
                Subject::Account(text("serviceAccount.namespace"), text("serviceAccount.name"))
            }
            _ => Subject::Unknown,
        }
    }

    fn is(&self, user: &UserInfo) -> bool {
        match self {
            Subject::User(name) => name == "*" || *name == user.name,
            Subject::Group(name) => name == "*" || user.in_group(name),
            Subject::Account(namespace, name) => user
                .name
                .strip_prefix("system:serviceaccount:")
                .and_then(|r| r.split_once(':'))
                .is_some_and(|(ns, n)| ns == namespace && (name == "*" || n == name)),
            Subject::Unknown => false,
        }
    }
}

impl Resources {
    fn parse(v: &Value) -> Resources {
        Resources {
            verbs: texts(v, "verbs"),
            groups: texts(v, "apiGroups"),
            resources: texts(v, "resources"),
            namespaces: texts(v, "namespaces"),
            cluster: object::flag(v, "clusterScope"),
        }
    }

    fn covers(&self, info: &RequestInfo) -> bool {
        let place =
            if info.namespace.is_empty() { self.cluster } else { any(&self.namespaces, &info.namespace) };
        let resource = if info.subresource.is_empty() {
            any(&self.resources, &info.resource)
        } else {
            any(&self.resources, &format!("{}/{}", info.resource, info.subresource))
        };
        place && resource && any(&self.verbs, &info.verb) && any(&self.groups, &info.group)
    }
}
