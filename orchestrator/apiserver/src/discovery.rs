//! Which groups, versions and resources there are, in the classic and the aggregated form; those of other servers
//! among them, as they were heard last.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::aggregator;
use crate::body;
use crate::componentstatus;
use crate::kinds::{self, Served};
use crate::server::ApiServer;

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// A resource that is no stored kind: reviews and the like.
pub(crate) struct Virtual {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) resource: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) namespaced: bool,
    verbs: &'static [&'static str],
    short: &'static [&'static str],
}

const fn review(
    group: &'static str,
    resource: &'static str,
    kind: &'static str,
    namespaced: bool,
) -> Virtual {
    Virtual { group, version: "v1", resource, kind, namespaced, verbs: &["create"], short: &[] }
}

pub(crate) const VIRTUAL: [Virtual; 8] = [
    review("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview", false),
    review("authentication.k8s.io", "tokenreviews", "TokenReview", false),
    review("authorization.k8s.io", "localsubjectaccessreviews", "LocalSubjectAccessReview", true),
    review("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview", false),
    review("authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview", false),
    review("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview", false),
    review("", "bindings", "Binding", true),
    Virtual {
        group: "",
        version: "v1",
        resource: componentstatus::RESOURCE,
        kind: "ComponentStatus",
        namespaced: false,
        verbs: &["get", "list"],
        short: &["cs"],
    },
];

const PROXY_VERBS: &[&str] = &["create", "delete", "get", "patch", "update"];

/// Subresource, kind, group of the kind, version of the kind, verbs.
type Sub = (&'static str, &'static str, &'static str, &'static str, &'static [&'static str]);

fn subresources(s: &Served) -> Vec<Sub> {
    let mut all: Vec<Sub> = Vec::new();
    if s.kind.status {
        all.push(("status", s.kind.kind, "", "", &["get", "patch", "update"]));
    }
    if s.kind.scale {
        all.push(("scale", "Scale", "autoscaling", "v1", &["get", "patch", "update"]));
    }
    match s.kind.builtin() {
        "namespaces" => all.push(("finalize", "Namespace", "", "", &["update"])),
        "serviceaccounts" => all.push(("token", "TokenRequest", "authentication.k8s.io", "v1", &["create"])),
        "pods" => {
            all.push(("attach", "PodAttachOptions", "", "", &["create", "get"]));
            all.push(("binding", "Binding", "", "", &["create"]));
            all.push(("eviction", "Eviction", "policy", "v1", &["create"]));
            all.push(("ephemeralcontainers", "Pod", "", "", &["get", "patch", "update"]));
            all.push(("exec", "PodExecOptions", "", "", &["create", "get"]));
            all.push(("log", "Pod", "", "", &["get"]));
            all.push(("portforward", "PodPortForwardOptions", "", "", &["create", "get"]));
            all.push(("proxy", "PodProxyOptions", "", "", PROXY_VERBS));
            all.push(("resize", "Pod", "", "", &["get", "patch", "update"]));
        }
        "nodes" => all.push(("proxy", "NodeProxyOptions", "", "", PROXY_VERBS)),
        "services" => all.push(("proxy", "ServiceProxyOptions", "", "", PROXY_VERBS)),
        _ => {}
    }
    all
}

/// A group with its versions, preferred first.
fn groups(server: &ApiServer) -> Vec<(String, Vec<String>)> {
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    let mut add = |group: &str, version: &str| {
        if group.is_empty() {
            return;
        }
        match all.iter_mut().find(|(g, _)| g == group) {
            Some((_, vs)) => {
                if !vs.iter().any(|v| v == version) {
                    vs.push(version.to_owned());
                }
            }
            None => all.push((group.to_owned(), vec![version.to_owned()])),
        }
    };
    // kubectl shows groups in this order.
    for g in ["apps", "events.k8s.io", "authentication.k8s.io", "authorization.k8s.io", "autoscaling"] {
        let of = kinds::served().filter(|s| s.group == g).map(|s| s.version);
        for v in of.chain(VIRTUAL.iter().filter(|v| v.group == g).map(|v| v.version)) {
            add(g, v);
        }
    }
    for s in server.served() {
        add(s.group, s.version);
    }
    for l in &server.config.local_apis {
        add(&l.group, &l.version);
    }
    let remotes = server.aggregator.remotes();
    for r in remotes.iter() {
        add(&r.group, &r.version);
    }
    // Upstream's order; what has the same priority stays as it came.
    all.sort_by_cached_key(|(group, versions)| {
        let far = remotes.iter().filter(|r| r.group == *group).map(|r| r.group_priority);
        let own = versions.iter().filter(|v| server.aggregator.find(group, v).is_none());
        let own = own.map(|v| aggregator::priority(group, v).0);
        Reverse(far.chain(own).max())
    });
    all
}

fn group_object((name, versions): &(String, Vec<String>)) -> Value {
    let version = |v: &String| json!({"groupVersion": format!("{name}/{v}"), "version": v});
    json!({"name": name, "versions": versions.iter().map(version).collect::<Vec<_>>(), "preferredVersion": version(&versions[0])})
}

fn resource_list(server: &ApiServer, group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for s in server.served().into_iter().filter(|s| s.group == group && s.version == version) {
        let k = s.kind;
        let mut r = json!({"name": k.resource, "singularName": k.singular, "namespaced": k.namespaced, "kind": k.kind, "verbs": VERBS});
        if !k.short.is_empty() {
            r["shortNames"] = json!(k.short);
        }
        if !k.categories.is_empty() {
            r["categories"] = json!(k.categories);
        }
        resources.push(r);
        for (sub, kind, g, v, verbs) in subresources(&s) {
            let mut r = json!({"name": format!("{}/{sub}", k.resource), "singularName": "", "namespaced": k.namespaced, "kind": kind, "verbs": verbs});
            if !g.is_empty() {
                r["group"] = g.into();
                r["version"] = v.into();
            }
            resources.push(r);
        }
    }
    for v in VIRTUAL.iter().filter(|v| v.group == group && v.version == version) {
        let mut r = json!({"name": v.resource, "singularName": v.kind.to_lowercase(), "namespaced": v.namespaced, "kind": v.kind, "verbs": v.verbs});
        if !v.short.is_empty() {
            r["shortNames"] = json!(v.short);
        }
        resources.push(r);
    }
    for l in server.config.local_apis.iter().filter(|l| l.group == group && l.version == version) {
        resources.extend(l.resources.iter().cloned());
    }
    if resources.is_empty() {
        return None;
    }
    let gv = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": gv, "resources": resources}))
}

/// A classic resource list in the aggregated form: subresources stand under their resource.
fn aggregate(list: &Value, group: &str, version: &str) -> Value {
    let kind_of = |r: &Value| {
        let or = |k: &str, d: &str| r[k].as_str().unwrap_or(d).to_owned();
        json!({"group": or("group", group), "version": or("version", version), "kind": r["kind"]})
    };
    let mut out: Vec<Value> = Vec::new();
    for r in list["resources"].as_array().into_iter().flatten() {
        let name = r["name"].as_str().unwrap_or_default();
        match name.split_once('/') {
            None => {
                let scope = if r["namespaced"] == true { "Namespaced" } else { "Cluster" };
                let mut v = json!({"resource": name, "responseKind": kind_of(r), "scope": scope, "singularResource": r["singularName"], "verbs": r["verbs"]});
                for key in ["shortNames", "categories"] {
                    if let Some(x) = r.get(key) {
                        v[key] = x.clone();
                    }
                }
                out.push(v);
            }
            Some((parent, sub)) => {
                let entry = json!({"subresource": sub, "responseKind": kind_of(r), "verbs": r["verbs"]});
                if let Some(p) = out.iter_mut().find(|p| p["resource"] == parent) {
                    match p.get_mut("subresources").and_then(Value::as_array_mut) {
                        Some(l) => l.push(entry),
                        None => p["subresources"] = json!([entry]),
                    }
                }
            }
        }
    }
    json!({"version": version, "resources": out, "freshness": "Current"})
}

fn aggregated_list(server: &ApiServer, group: &str, version: &str) -> Option<Value> {
    let Some(remote) = server.aggregator.find(group, version) else {
        return resource_list(server, group, version).map(|l| aggregate(&l, group, version));
    };
    let known = server.aggregator.known(&remote.name);
    let mut list = aggregate(known.resources.as_deref().unwrap_or(&Value::Null), group, version);
    if !known.fresh {
        list["freshness"] = "Stale".into();
    }
    Some(list)
}

/// `/api`, `/apis` and what is below them without a resource. `None` if there is no such path.
pub(crate) fn respond(server: &ApiServer, path: &str, headers: &HeaderMap) -> Option<Response> {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    let wanted = aggregated_version(headers);
    match (parts.as_slice(), wanted) {
        (["api"], Some(v)) => {
            let core = aggregate(&resource_list(server, "", "v1")?, "", "v1");
            Some(aggregated(
                v,
                vec![json!({"metadata": {"creationTimestamp": null}, "versions": [core]})],
                headers,
            ))
        }
        (["apis"], Some(v)) => {
            let all = groups(server).into_iter().map(|(g, versions)| {
                let versions: Vec<Value> =
                    versions.iter().filter_map(|v| aggregated_list(server, &g, v)).collect();
                json!({"metadata": {"name": g, "creationTimestamp": null}, "versions": versions})
            });
            Some(aggregated(v, all.collect(), headers))
        }
        (["api"], None) => {
            let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
            plain(json!({"kind": "APIVersions", "versions": ["v1"],
                "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": host}]}))
        }
        (["apis"], None) => {
            let all: Vec<Value> = groups(server).iter().map(group_object).collect();
            plain(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": all}))
        }
        (["api", version], _) => plain(resource_list(server, "", version)?),
        (["apis", group], _) => {
            let all = groups(server);
            let mut g = group_object(all.iter().find(|(g, _)| g == group)?);
            g["kind"] = "APIGroup".into();
            g["apiVersion"] = "v1".into();
            plain(g)
        }
        (["apis", group, version], _) => plain(resource_list(server, group, version)?),
        _ => None,
    }
}

/// All paths without parameters, as `/` lists them.
pub(crate) fn paths(server: &ApiServer) -> Value {
    let mut all: BTreeSet<String> = [
        "/api",
        "/api/v1",
        "/apis",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/version",
    ]
    .map(str::to_owned)
    .into();
    for (g, versions) in groups(server) {
        all.insert(format!("/apis/{g}"));
        all.extend(versions.iter().map(|v| format!("/apis/{g}/{v}")));
    }
    json!({"paths": all})
}

/// All group-versions that are served here, as paths: `api/v1`, `apis/apps/v1`.
pub(crate) fn group_versions(server: &ApiServer) -> Vec<(String, String, String)> {
    let mut all = vec![("api/v1".to_owned(), String::new(), "v1".to_owned())];
    for (g, versions) in groups(server) {
        let own = versions.into_iter().filter(|v| server.aggregator.find(&g, v).is_none());
        all.extend(own.map(|v| (format!("apis/{g}/{v}"), g.clone(), v)));
    }
    all
}

pub(crate) fn resources_of(server: &ApiServer, group: &str, version: &str) -> Vec<Value> {
    let list = resource_list(server, group, version);
    list.and_then(|l| l["resources"].as_array().cloned()).unwrap_or_default()
}

fn plain(v: Value) -> Option<Response> {
    Some(body::json(200, v.to_string()))
}

/// `v2` or `v2beta1`, if the client asks for the aggregated form.
fn aggregated_version(headers: &HeaderMap) -> Option<&'static str> {
    let accept = headers.get(header::ACCEPT)?.to_str().ok()?;
    let media = accept.split(',').find(|m| m.contains("g=apidiscovery.k8s.io"))?;
    if media.contains("v=v2beta1") {
        Some("v2beta1")
    } else if media.contains("v=v2") {
        Some("v2")
    } else {
        None
    }
}

fn aggregated(version: &'static str, items: Vec<Value>, request: &HeaderMap) -> Response {
    let list = json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": items});
    let text = list.to_string();
    let etag = etag(text.as_bytes());
    let unchanged = request.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == etag.as_bytes());
    let mut r = if unchanged {
        let mut r = Response::new(Body::empty());
        *r.status_mut() = StatusCode::NOT_MODIFIED;
        r
    } else {
        body::json(200, text)
    };
    let media = match version {
        "v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        _ => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
    };
    let h = r.headers_mut();
    h.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    h.insert(header::VARY, HeaderValue::from_static("Accept"));
    if let Ok(v) = HeaderValue::from_str(&etag) {
        h.insert(header::ETAG, v);
    }
    r
}

pub(crate) fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", hash(bytes))
}

pub(crate) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02X}")).collect()
}
