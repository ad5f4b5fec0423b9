//! What a request asks for: path and query, read once
//! (apiserver: pkg/endpoints/request/requestinfo.go).

use http::{HeaderMap, Method, header};

use crate::error::{ApiError, Result};
use crate::protobuf;

/// A request in the words of authorization.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestInfo {
    pub(crate) is_resource: bool,
    pub(crate) path: String,
    pub(crate) verb: String,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) name: String,
    /// What stands behind the subresource, for proxies.
    pub(crate) rest: String,
}

impl RequestInfo {
    pub(crate) fn parse(method: &Method, path: &str, query: &Query) -> RequestInfo {
        let mut info = RequestInfo {
            path: path.to_owned(),
            verb: method.as_str().to_ascii_lowercase(),
            ..Default::default()
        };
        let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
        let rest: &[&str] = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                info.version = (*version).to_owned();
                rest
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                info.group = (*group).to_owned();
                info.version = (*version).to_owned();
                rest
            }
            _ => return info,
        };
        info.is_resource = true;
        let (rest, watch) = match rest {
            ["watch", rest @ ..] => (rest, true),
            rest => (rest, false),
        };
        let rest: &[&str] = match rest {
            // `namespaces/x` is the namespace itself, as are its own subresources.
            ["namespaces", ns, third, tail @ ..] if !matches!(*third, "status" | "finalize") => {
                info.namespace = (*ns).to_owned();
                info.resource = (*third).to_owned();
                tail
            }
            ["namespaces", ns, tail @ ..] => {
                info.namespace = (*ns).to_owned();
                info.resource = "namespaces".to_owned();
                info.name = (*ns).to_owned();
                info.subresource = tail.first().map_or("", |s| s).to_owned();
                &[]
            }
            [resource, tail @ ..] => {
                info.resource = (*resource).to_owned();
                tail
            }
            [] => &[],
        };
        if let [name, tail @ ..] = rest {
            info.name = decode(name);
            if let [sub, more @ ..] = tail {
                info.subresource = (*sub).to_owned();
                info.rest = more.join("/");
            }
        }
        info.verb = match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if info.name.is_empty() => "deletecollection",
            Method::DELETE => "delete",
            Method::GET | Method::HEAD if watch || query.flag("watch") && info.subresource.is_empty() => {
                "watch"
            }
            Method::GET | Method::HEAD if info.name.is_empty() => "list",
            Method::GET | Method::HEAD => "get",
            _ => "",
        }
        .to_owned();
        info
    }
}

/// The pairs of a query string, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: &str) -> Query {
        let pairs = query.split('&').filter(|p| !p.is_empty()).map(|p| {
            let (k, v) = p.split_once('=').unwrap_or((p, ""));
            (decode(&k.replace('+', " ")), decode(&v.replace('+', " ")))
        });
        Query(pairs.collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.0.iter().any(|(k, v)| k == name && !matches!(v.as_str(), "false" | "0" | "False" | "f"))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(k, _)| k == name)
    }
}

/// Percent-decoding; what is no escape stays.
pub(crate) fn decode(s: &str) -> String {
    let b = s.as_bytes();
    let mut out = Vec::with_capacity(b.len());
    let mut i = 0;
    while i < b.len() {
        let hex = (b[i] == b'%').then(|| b.get(i + 1..i + 3)).flatten();
        match hex.and_then(|h| std::str::from_utf8(h).ok()).and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(v) => {
                out.push(v);
                i += 3;
            }
            None => {
                out.push(b[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A resource version as a number; empty is 0.
pub(crate) fn parse_revision(s: &str) -> Result<u64> {
    if s.is_empty() {
        return Ok(0);
    }
    s.parse().map_err(|_| ApiError::bad_request(format!("invalid resource version {s:?}: must be a number")))
}

/// In which shape a client wants its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Object,
    Table,
    /// `PartialObjectMetadata(List)`
    Metadata,
}

impl Shape {
    pub(crate) fn negotiate(headers: &HeaderMap) -> Result<Shape> {
        let Some(accept) = headers.get(header::ACCEPT).and_then(|a| a.to_str().ok()) else {
            return Ok(Shape::Object);
        };
        for media in accept.split(',') {
            let mut parts = media.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            if kind != protobuf::MEDIA_TYPE && !protobuf::is_json(kind) {
                continue;
            }
            let wanted = parts.find_map(|p| p.strip_prefix("as="));
            match wanted {
                // A table is no message.
                Some("Table") if kind == protobuf::MEDIA_TYPE => {}
                None => return Ok(Shape::Object),
                Some("Table") => return Ok(Shape::Table),
                Some("PartialObjectMetadata" | "PartialObjectMetadataList") => return Ok(Shape::Metadata),
                Some(_) => {}
            }
        }
        let message = "only the following media types are accepted: application/json, application/json;as=Table;v=v1;g=meta.k8s.io, application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
        Err(ApiError::not_acceptable(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_info() {
        let check = |method: Method, uri: &str, expect: &str| {
            let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
            let i = RequestInfo::parse(&method, path, &Query::parse(query));
            let got = format!(
                "{} {}/{} {}:{}/{}/{}",
                i.verb, i.group, i.version, i.namespace, i.resource, i.name, i.subresource
            );
            assert_eq!(got, expect, "{uri}");
        };
        check(Method::GET, "/api/v1/pods", "list /v1 :pods//");
        check(Method::GET, "/api/v1/pods?watch=true", "watch /v1 :pods//");
        check(Method::GET, "/api/v1/namespaces/a/pods/b", "get /v1 a:pods/b/");
        check(Method::GET, "/api/v1/namespaces/a/pods/b/log?follow=true", "get /v1 a:pods/b/log");
        check(Method::POST, "/apis/apps/v1/namespaces/a/deployments", "create apps/v1 a:deployments//");
        check(
            Method::DELETE,
            "/apis/apps/v1/namespaces/a/deployments",
            "deletecollection apps/v1 a:deployments//",
        );
        check(
            Method::PUT,
            "/apis/apps/v1/namespaces/a/deployments/x/scale",
            "update apps/v1 a:deployments/x/scale",
        );
        check(Method::GET, "/api/v1/namespaces", "list /v1 :namespaces//");
        check(Method::GET, "/api/v1/namespaces/a", "get /v1 a:namespaces/a/");
        check(Method::PUT, "/api/v1/namespaces/a/finalize", "update /v1 a:namespaces/a/finalize");
        check(Method::GET, "/api/v1/watch/namespaces/a/pods", "watch /v1 a:pods//");
        check(Method::GET, "/healthz", "get / ://");
        check(Method::GET, "/apis/apps/v1", "get / ://");
    }
}
