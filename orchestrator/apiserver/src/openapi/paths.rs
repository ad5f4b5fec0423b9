//! The paths of a group-version: which requests there are, with their parameters, bodies and answers, as upstream
//! publishes them. Generators of clients name their functions after the `operationId`s.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value, json};

use super::PREFIX;
use crate::discovery;
use crate::server::ApiServer;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const MEDIA: [&str; 3] = ["application/json", "application/yaml", crate::protobuf::MEDIA_TYPE];
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// Name, type and meaning of parameters of a query.
type Parameters = &'static [(&'static str, &'static str, &'static str)];

const ITEM: Parameters = &[(
    "pretty",
    "string",
    "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates a browser or command-line HTTP tool (curl and wget).",
)];
const LIST: Parameters = &[
    ("allowWatchBookmarks", "boolean", "allowWatchBookmarks requests watch events with type \"BOOKMARK\"."),
    ("continue", "string", "The continue option should be set when retrieving more results from the server."),
    (
        "fieldSelector",
        "string",
        "A selector to restrict the list of returned objects by their fields. Defaults to everything.",
    ),
    (
        "labelSelector",
        "string",
        "A selector to restrict the list of returned objects by their labels. Defaults to everything.",
    ),
    ("limit", "integer", "limit is a maximum number of responses to return for a list call."),
    (
        "resourceVersion",
        "string",
        "resourceVersion sets a constraint on what resource versions a request may be served from.",
    ),
    (
        "resourceVersionMatch",
        "string",
        "resourceVersionMatch determines how resourceVersion is applied to list calls.",
    ),
    ("sendInitialEvents", "boolean", "`sendInitialEvents=true` may be set together with `watch=true`."),
    ("timeoutSeconds", "integer", "Timeout for the list/watch call."),
    (
        "watch",
        "boolean",
        "Watch for changes to the described resources and return them as a stream of add, update, and remove notifications.",
    ),
];
const DRY_RUN: (&str, &str, &str) = (
    "dryRun",
    "string",
    "When present, indicates that modifications should not be persisted. Valid values are: All.",
);
const FIELD_MANAGER: (&str, &str, &str) = (
    "fieldManager",
    "string",
    "fieldManager is a name associated with the actor or entity that is making these changes.",
);
const FIELD_VALIDATION: (&str, &str, &str) = (
    "fieldValidation",
    "string",
    "fieldValidation instructs the server on how to handle objects in the request containing unknown or duplicate fields. Valid values are: Ignore, Warn, Strict.",
);
const WRITE: Parameters = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
const PATCH: Parameters = &[
    DRY_RUN,
    FIELD_MANAGER,
    FIELD_VALIDATION,
    (
        "force",
        "boolean",
        "Force is going to \"force\" Apply requests. It means user will re-acquire conflicting fields owned by other people.",
    ),
];
const DELETE: Parameters = &[
    DRY_RUN,
    ("gracePeriodSeconds", "integer", "The duration in seconds before the object should be deleted."),
    ("orphanDependents", "boolean", "Deprecated: please use the PropagationPolicy."),
    (
        "propagationPolicy",
        "string",
        "Whether and how garbage collection will be performed. Acceptable values are: 'Orphan', 'Background', 'Foreground'.",
    ),
];
const LOG: Parameters = &[
    (
        "container",
        "string",
        "The container for which to stream logs. Defaults to only container if there is one container in the pod.",
    ),
    ("follow", "boolean", "Follow the log stream of the pod. Defaults to false."),
    ("insecureSkipTLSVerifyBackend", "boolean", "The backend's certificate is not checked."),
    (
        "limitBytes",
        "integer",
        "If set, the number of bytes to read from the server before terminating the log output.",
    ),
    ("previous", "boolean", "Return previous terminated container logs. Defaults to false."),
    (
        "sinceSeconds",
        "integer",
        "A relative time in seconds before the current time from which to show logs.",
    ),
    (
        "stream",
        "string",
        "Specify which container log stream to return to the client. Acceptable values are \"All\", \"Stdout\" and \"Stderr\".",
    ),
    ("tailLines", "integer", "The number of lines from the end of the logs to show."),
    (
        "timestamps",
        "boolean",
        "If true, add an RFC3339 or RFC3339Nano timestamp at the beginning of every line of log output.",
    ),
];
const EXEC: Parameters = &[
    (
        "command",
        "string",
        "Command is the remote command to execute. argv array. Not executed within a shell.",
    ),
    (
        "container",
        "string",
        "Container in which to execute the command. Defaults to only container if there is only one container in the pod.",
    ),
    ("stderr", "boolean", "Redirect the standard error stream of the pod for this call."),
    ("stdin", "boolean", "Redirect the standard input stream of the pod for this call. Defaults to false."),
    ("stdout", "boolean", "Redirect the standard output stream of the pod for this call."),
    (
        "tty",
        "boolean",
        "TTY if true indicates that a tty will be allocated for the exec call. Defaults to false.",
    ),
];

/// The paths of a group-version, and the schemas they name.
pub(super) fn of(
    server: &ApiServer,
    all: &Map<String, Value>,
    group: &str,
    version: &str,
) -> (Map<String, Value>, BTreeSet<String>) {
    let mut out = Paths { all, by_kind: by_kind(all), paths: Map::new(), wanted: BTreeSet::new() };
    let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    for r in &discovery::resources_of(server, group, version) {
        let text = |field: &str| r[field].as_str();
        let (name, kind) = (text("name").unwrap_or_default(), text("kind").unwrap_or_default());
        let plural = name.split('/').next().unwrap_or_default();
        let custom = server.cache.customs.named(&format!("{group}/{plural}")).is_some();
        let resource = Resource {
            gvk: [text("group").unwrap_or(group), text("version").unwrap_or(version), kind],
            at: format!("{}{}", group_id(group, custom), camel(version)),
            namespaced: r["namespaced"] == true,
            verbs: r["verbs"].as_array().into_iter().flatten().filter_map(Value::as_str).collect(),
            custom,
        };
        let base =
            if resource.namespaced { format!("{root}/namespaces/{{namespace}}") } else { root.clone() };
        let scope = if resource.namespaced { "Namespaced" } else { "" };
        match name.split_once('/') {
            None => {
                let collection = [("get", "list"), ("post", "create"), ("delete", "deletecollection")];
                out.add(format!("{base}/{name}"), &resource, &collection, &format!("{scope}{kind}"));
                if resource.namespaced && resource.verbs.contains(&"list") {
                    out.add(
                        format!("{root}/{name}"),
                        &resource,
                        &[("get", "list")],
                        &format!("{kind}ForAllNamespaces"),
                    );
                }
                let one = [("get", "get"), ("put", "update"), ("patch", "patch"), ("delete", "delete")];
                out.add(format!("{base}/{name}/{{name}}"), &resource, &one, &format!("{scope}{kind}"));
            }
            Some((parent, sub)) => {
                // It is named after the resource, whatever its own kind.
                let parents = discovery::resources_of(server, group, version);
                let of = parents.iter().find(|p| p["name"] == parent).and_then(|p| p["kind"].as_str());
                let id = format!("{scope}{}{}", of.unwrap_or(kind), camel(sub));
                let methods = [("get", "get"), ("post", "create"), ("put", "update"), ("patch", "patch")];
                out.add(format!("{base}/{parent}/{{name}}/{sub}"), &resource, &methods, &id);
            }
        }
    }
    (out.paths, out.wanted)
}

struct Resource<'a> {
    gvk: [&'a str; 3],
    /// Group and version in an operation's name: `AppsV1`.
    at: String,
    namespaced: bool,
    verbs: Vec<&'a str>,
    custom: bool,
}

struct Paths<'a> {
    all: &'a Map<String, Value>,
    /// Names of schemas by group, version and kind.
    by_kind: HashMap<[&'a str; 3], &'a str>,
    paths: Map<String, Value>,
    wanted: BTreeSet<String>,
}

impl Paths<'_> {
    /// Adds a path with the methods (each with the verb that allows it) that its resource has.
    fn add(&mut self, path: String, r: &Resource<'_>, methods: &[(&str, &str)], id: &str) {
        let mut item = Map::new();
        let connect = ["exec", "attach", "portforward", "proxy", "log"]
            .into_iter()
            .find(|s| path.ends_with(&format!("/{s}")));
        for (method, verb) in methods.iter().filter(|(_, v)| r.verbs.contains(v)) {
            let mut op = self.operation(r, method, verb, connect);
            let prefix = match (*verb, connect) {
                (_, Some("exec" | "attach" | "portforward" | "proxy")) => format!("connect{}", camel(method)),
                ("get", _) => "read".to_owned(),
                ("update", _) => "replace".to_owned(),
                ("deletecollection", _) => "delete".to_owned(),
                (v, _) => v.to_owned(),
            };
            let many = if *verb == "deletecollection" { "Collection" } else { "" };
            op["operationId"] = format!("{prefix}{}{many}{id}", r.at).into();
            let tag = r.at.char_indices().map(|(i, c)| match c {
                c if c.is_uppercase() && i > 0 => format!("_{}", c.to_lowercase()),
                c => c.to_lowercase().to_string(),
            });
            op["tags"] = json!([tag.collect::<String>()]);
            item.insert((*method).to_owned(), op);
        }
        if item.is_empty() {
            return;
        }
        let mut parameters = Vec::new();
        for (name, what) in [
            ("name", format!("name of the {}", r.gvk[2])),
            ("namespace", "object name and auth scope, such as for teams and projects".to_owned()),
        ] {
            if path.contains(&format!("{{{name}}}")) {
                parameters.push(json!({"name": name, "in": "path", "required": true, "description": what,
                    "schema": {"type": "string", "uniqueItems": true}}));
            }
        }
        parameters.extend(query(ITEM));
        item.insert("parameters".to_owned(), parameters.into());
        self.paths.insert(path, Value::Object(item));
    }

    fn operation(&mut self, r: &Resource<'_>, method: &str, verb: &str, connect: Option<&str>) -> Value {
        let [group, version, kind] = r.gvk;
        let own = self.schema_of(group, version, kind);
        let status = self.named("Status");
        let (answer, codes): (Option<String>, &[u16]) = match verb {
            "list" => (self.schema_of(group, version, &format!("{kind}List")).or(own.clone()), &[200]),
            "create" => (own.clone(), &[200, 201, 202]),
            "update" | "patch" => (own.clone(), &[200, 201]),
            "delete" => (status, &[200, 202]),
            "deletecollection" => (status, &[200]),
            _ => (own.clone(), &[200]),
        };
        let mut responses = Map::new();
        for code in codes {
            let text = match code {
                200 => "OK",
                201 => "Created",
                _ => "Accepted",
            };
            let content = match connect {
                Some(_) => json!({"*/*": {"schema": {"type": "string"}}}),
                None => media(r.custom, answer.as_deref()),
            };
            responses.insert(code.to_string(), json!({"description": text, "content": content}));
        }
        responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
        let action = match (verb, connect) {
            (_, Some("exec" | "attach" | "portforward" | "proxy")) => "connect",
            ("create", _) => "post",
            ("update", _) => "put",
            (v, _) => v,
        };
        let mut op = json!({
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
            "responses": responses,
        });
        let parameters = match (verb, connect) {
            (_, Some("log")) => query(LOG),
            (_, Some("exec" | "attach")) => query(EXEC),
            (_, Some(_)) | ("get", _) => Vec::new(),
            ("list", _) => query(LIST),
            ("create" | "update", _) => query(WRITE),
            ("patch", _) => query(PATCH),
            ("deletecollection", _) => {
                let watched = ["allowWatchBookmarks", "watch"];
                query(DELETE)
                    .into_iter()
                    .chain(query(LIST).into_iter().filter(|p| !watched.iter().any(|w| p["name"] == *w)))
                    .collect()
            }
            _ => query(DELETE),
        };
        if !parameters.is_empty() {
            op["parameters"] = parameters.into();
        }
        let body = match (verb, connect) {
            (_, Some(_)) => None,
            ("create" | "update", _) => Some((media(r.custom, own.as_deref()), true)),
            ("delete" | "deletecollection", _) => {
                Some((media(false, self.named("DeleteOptions").as_deref()), false))
            }
            ("patch", _) => {
                // kubectl asks here which patches a kind takes.
                let schema = self.named("Patch");
                let taken = PATCHES.iter().filter(|m| !(r.custom && m.contains("strategic")));
                Some((
                    taken
                        .map(|m| ((*m).to_owned(), of_schema(schema.as_deref())))
                        .collect::<Map<_, _>>()
                        .into(),
                    true,
                ))
            }
            _ => None,
        };
        if let Some((content, required)) = body.filter(|_| method != "get") {
            op["requestBody"] = if required {
                json!({"content": content, "required": true})
            } else {
                json!({"content": content})
            };
        }
        op
    }

    /// The schema of a kind, by its name.
    fn schema_of(&mut self, group: &str, version: &str, kind: &str) -> Option<String> {
        let name = (*self.by_kind.get(&[group, version, kind])?).to_owned();
        self.wanted.insert(name.clone());
        Some(name)
    }

    /// A schema of apimachinery's.
    fn named(&mut self, name: &str) -> Option<String> {
        let name = format!("{META}.{name}");
        self.all.contains_key(&name).then(|| {
            self.wanted.insert(name.clone());
            name
        })
    }
}

fn by_kind(all: &Map<String, Value>) -> HashMap<[&str; 3], &str> {
    let mut out = HashMap::new();
    for (name, schema) in all {
        for k in schema["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
            let text = |field: &str| k[field].as_str().unwrap_or_default();
            out.entry([text("group"), text("version"), text("kind")]).or_insert(name.as_str());
        }
    }
    out
}

fn of_schema(schema: Option<&str>) -> Value {
    schema.map_or(json!({}), |s| json!({"schema": {"$ref": format!("{PREFIX}{s}")}}))
}

/// Custom resources have no protobuf.
fn media(custom: bool, schema: Option<&str>) -> Value {
    let all = MEDIA.iter().filter(|m| !(custom && m.contains("protobuf")));
    all.map(|m| ((*m).to_owned(), of_schema(schema))).collect::<Map<_, _>>().into()
}

fn query(parameters: Parameters) -> Vec<Value> {
    let one = |(name, ty, description): &(&str, &str, &str)| json!({"name": name, "in": "query", "description": description, "schema": {"type": ty, "uniqueItems": true}});
    parameters.iter().map(one).collect()
}

fn camel(s: &str) -> String {
    let mut chars = s.chars();
    chars.next().map_or(String::new(), |c| c.to_uppercase().chain(chars).collect())
}

/// `rbac.authorization.k8s.io` → `RbacAuthorization`; a custom group's words are reversed: `ComExampleStable`.
fn group_id(group: &str, custom: bool) -> String {
    if group.is_empty() {
        return "Core".to_owned();
    }
    let words = |s: &str| s.split('.').map(|w| camel(&w.replace('-', ""))).collect::<Vec<_>>();
    if custom {
        return words(group).into_iter().rev().collect();
    }
    words(group.strip_suffix(".k8s.io").unwrap_or(group)).concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_named_as_upstreams() {
        assert_eq!(group_id("", false), "Core");
        assert_eq!(group_id("rbac.authorization.k8s.io", false), "RbacAuthorization");
        assert_eq!(group_id("stable.example.com", true), "ComExampleStable");
        assert_eq!(camel("v1beta1"), "V1beta1");
    }
}
