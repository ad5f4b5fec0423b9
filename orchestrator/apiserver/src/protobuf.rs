//! Protobuf bodies of what typed clients send in no other form: kubectl auth, create, drain, autoscale.
//! Answers are JSON, which those clients accept. The tables know the fields kubectl's generators write.
//!
//! The field numbers are upstream's (k8s.io/api: authentication, authorization, policy; meta/v1 generated.proto).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::error::{ApiError, Result};

pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
const MAGIC: &[u8] = b"k8s\0";
/// Messages here nest four deep.
const MAX_DEPTH: usize = 8;

enum Kind {
    Text,
    Int,
    Bool,
    /// A number whose zero means absent.
    NonZero,
    Texts,
    /// A map of strings.
    Map,
    /// A map of bytes, base64 in JSON.
    BytesMap,
    IntOrString,
    Messages(&'static [Field]),
    Message(&'static [Field]),
}

struct Field(u32, &'static str, Kind);

static META: [Field; 8] = [
    Field(1, "name", Kind::Text),
    Field(2, "generateName", Kind::Text),
    Field(3, "namespace", Kind::Text),
    Field(5, "uid", Kind::Text),
    Field(6, "resourceVersion", Kind::Text),
    Field(11, "labels", Kind::Map),
    Field(12, "annotations", Kind::Map),
    Field(14, "finalizers", Kind::Texts),
];
static RESOURCE: [Field; 7] = [
    Field(1, "namespace", Kind::Text),
    Field(2, "verb", Kind::Text),
    Field(3, "group", Kind::Text),
    Field(4, "version", Kind::Text),
    Field(5, "resource", Kind::Text),
    Field(6, "subresource", Kind::Text),
    Field(7, "name", Kind::Text),
];
static URL: [Field; 2] = [Field(1, "path", Kind::Text), Field(2, "verb", Kind::Text)];
static ACCESS: [Field; 5] = [
    Field(1, "resourceAttributes", Kind::Message(&RESOURCE)),
    Field(2, "nonResourceAttributes", Kind::Message(&URL)),
    Field(3, "user", Kind::Text),
    Field(4, "groups", Kind::Texts),
    Field(6, "uid", Kind::Text),
];
static ACCESS_REVIEW: [Field; 2] =
    [Field(1, "metadata", Kind::Message(&META)), Field(2, "spec", Kind::Message(&ACCESS))];
static RULES: [Field; 1] = [Field(1, "namespace", Kind::Text)];
static RULES_REVIEW: [Field; 2] =
    [Field(1, "metadata", Kind::Message(&META)), Field(2, "spec", Kind::Message(&RULES))];
static SELF_REVIEW: [Field; 1] = [Field(1, "metadata", Kind::Message(&META))];
static BOUND: [Field; 4] = [
    Field(1, "kind", Kind::Text),
    Field(2, "apiVersion", Kind::Text),
    Field(3, "name", Kind::Text),
    Field(4, "uid", Kind::Text),
];
static TOKEN: [Field; 3] = [
    Field(1, "audiences", Kind::Texts),
    Field(3, "boundObjectRef", Kind::Message(&BOUND)),
    Field(4, "expirationSeconds", Kind::Int),
];
static TOKEN_REQUEST: [Field; 2] =
    [Field(1, "metadata", Kind::Message(&META)), Field(2, "spec", Kind::Message(&TOKEN))];
static REVIEWED: [Field; 2] = [Field(1, "token", Kind::Text), Field(2, "audiences", Kind::Texts)];
static TOKEN_REVIEW: [Field; 2] =
    [Field(1, "metadata", Kind::Message(&META)), Field(2, "spec", Kind::Message(&REVIEWED))];
static PRECONDITIONS: [Field; 2] = [Field(1, "uid", Kind::Text), Field(2, "resourceVersion", Kind::Text)];
static DELETE: [Field; 5] = [
    Field(1, "gracePeriodSeconds", Kind::Int),
    Field(2, "preconditions", Kind::Message(&PRECONDITIONS)),
    Field(3, "orphanDependents", Kind::Bool),
    Field(4, "propagationPolicy", Kind::Text),
    Field(5, "dryRun", Kind::Texts),
];
static EVICTION: [Field; 2] =
    [Field(1, "metadata", Kind::Message(&META)), Field(2, "deleteOptions", Kind::Message(&DELETE))];
/// A kind whose second field is its spec or data.
const fn meta() -> Field {
    Field(1, "metadata", Kind::Message(&META))
}
static CONFIG_MAP: [Field; 4] = [
    meta(),
    Field(2, "data", Kind::Map),
    Field(3, "binaryData", Kind::BytesMap),
    Field(4, "immutable", Kind::Bool),
];
static SECRET: [Field; 5] = [
    meta(),
    Field(2, "data", Kind::BytesMap),
    Field(3, "type", Kind::Text),
    Field(4, "stringData", Kind::Map),
    Field(5, "immutable", Kind::Bool),
];
static RULE: [Field; 5] = [
    Field(1, "verbs", Kind::Texts),
    Field(2, "apiGroups", Kind::Texts),
    Field(3, "resources", Kind::Texts),
    Field(4, "resourceNames", Kind::Texts),
    Field(5, "nonResourceURLs", Kind::Texts),
];
static SELECTOR: [Field; 1] = [Field(1, "matchLabels", Kind::Map)];
static AGGREGATION: [Field; 1] = [Field(1, "clusterRoleSelectors", Kind::Messages(&SELECTOR))];
static ROLE: [Field; 3] = [
    meta(),
    Field(2, "rules", Kind::Messages(&RULE)),
    Field(3, "aggregationRule", Kind::Message(&AGGREGATION)),
];
static SUBJECT: [Field; 4] = [
    Field(1, "kind", Kind::Text),
    Field(2, "apiGroup", Kind::Text),
    Field(3, "name", Kind::Text),
    Field(4, "namespace", Kind::Text),
];
static ROLE_REF: [Field; 3] =
    [Field(1, "apiGroup", Kind::Text), Field(2, "kind", Kind::Text), Field(3, "name", Kind::Text)];
static ROLE_BINDING: [Field; 3] =
    [meta(), Field(2, "subjects", Kind::Messages(&SUBJECT)), Field(3, "roleRef", Kind::Message(&ROLE_REF))];
static SERVICE_PORT: [Field; 5] = [
    Field(1, "name", Kind::Text),
    Field(2, "protocol", Kind::Text),
    Field(3, "port", Kind::Int),
    Field(4, "targetPort", Kind::IntOrString),
    Field(5, "nodePort", Kind::NonZero),
];
static SERVICE_SPEC: [Field; 7] = [
    Field(1, "ports", Kind::Messages(&SERVICE_PORT)),
    Field(2, "selector", Kind::Map),
    Field(3, "clusterIP", Kind::Text),
    Field(4, "type", Kind::Text),
    Field(5, "externalIPs", Kind::Texts),
    Field(7, "sessionAffinity", Kind::Text),
    Field(10, "externalName", Kind::Text),
];
static SERVICE: [Field; 2] = [meta(), Field(2, "spec", Kind::Message(&SERVICE_SPEC))];
static CONTAINER_PORT: [Field; 4] = [
    Field(1, "name", Kind::Text),
    Field(2, "hostPort", Kind::NonZero),
    Field(3, "containerPort", Kind::Int),
    Field(4, "protocol", Kind::Text),
];
static CONTAINER: [Field; 6] = [
    Field(1, "name", Kind::Text),
    Field(2, "image", Kind::Text),
    Field(3, "command", Kind::Texts),
    Field(4, "args", Kind::Texts),
    Field(5, "workingDir", Kind::Text),
    Field(6, "ports", Kind::Messages(&CONTAINER_PORT)),
];
static POD_SPEC: [Field; 2] =
    [Field(2, "containers", Kind::Messages(&CONTAINER)), Field(3, "restartPolicy", Kind::Text)];
static TEMPLATE: [Field; 2] = [meta(), Field(2, "spec", Kind::Message(&POD_SPEC))];
static DEPLOYMENT_SPEC: [Field; 3] = [
    Field(1, "replicas", Kind::Int),
    Field(2, "selector", Kind::Message(&SELECTOR)),
    Field(3, "template", Kind::Message(&TEMPLATE)),
];
static DEPLOYMENT: [Field; 2] = [meta(), Field(2, "spec", Kind::Message(&DEPLOYMENT_SPEC))];
static SCALE_TARGET: [Field; 3] =
    [Field(1, "kind", Kind::Text), Field(2, "name", Kind::Text), Field(3, "apiVersion", Kind::Text)];
static METRIC_TARGET: [Field; 2] = [Field(1, "type", Kind::Text), Field(4, "averageUtilization", Kind::Int)];
static RESOURCE_METRIC: [Field; 2] =
    [Field(1, "name", Kind::Text), Field(2, "target", Kind::Message(&METRIC_TARGET))];
static METRIC: [Field; 2] =
    [Field(1, "type", Kind::Text), Field(4, "resource", Kind::Message(&RESOURCE_METRIC))];
static HPA_SPEC: [Field; 4] = [
    Field(1, "scaleTargetRef", Kind::Message(&SCALE_TARGET)),
    Field(2, "minReplicas", Kind::Int),
    Field(3, "maxReplicas", Kind::Int),
    Field(4, "metrics", Kind::Messages(&METRIC)),
];
static HPA: [Field; 2] = [meta(), Field(2, "spec", Kind::Message(&HPA_SPEC))];
static HPA1_SPEC: [Field; 4] = [
    Field(1, "scaleTargetRef", Kind::Message(&SCALE_TARGET)),
    Field(2, "minReplicas", Kind::Int),
    Field(3, "maxReplicas", Kind::Int),
    Field(4, "targetCPUUtilizationPercentage", Kind::Int),
];
static HPA1: [Field; 2] = [meta(), Field(2, "spec", Kind::Message(&HPA1_SPEC))];
static TYPE_META: [Field; 2] = [Field(1, "apiVersion", Kind::Text), Field(2, "kind", Kind::Text)];

/// A body → JSON.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value> {
    let bad = || ApiError::bad_request("the request body is no Kubernetes protobuf object");
    let envelope = bytes.strip_prefix(MAGIC).ok_or_else(bad)?;
    let (mut meta, mut raw): (&[u8], &[u8]) = (&[], &[]);
    let mut r = Reader(envelope);
    while !r.0.is_empty() {
        match r.field().ok_or_else(bad)? {
            (1, Wire::Bytes(b)) => meta = b,
            (2, Wire::Bytes(b)) => raw = b,
            _ => {}
        }
    }
    let mut out = message(meta, &TYPE_META, 0).ok_or_else(bad)?;
    let kind = out.get("kind").and_then(Value::as_str).unwrap_or_default();
    let fields: &[Field] = match kind {
        "Namespace" | "ServiceAccount" | "SelfSubjectReview" => &SELF_REVIEW,
        "ConfigMap" => &CONFIG_MAP,
        "Secret" => &SECRET,
        "Role" | "ClusterRole" => &ROLE,
        "RoleBinding" | "ClusterRoleBinding" => &ROLE_BINDING,
        "Service" => &SERVICE,
        "Deployment" => &DEPLOYMENT,
        "HorizontalPodAutoscaler" if out.get("apiVersion").is_some_and(|v| v == "autoscaling/v1") => &HPA1,
        "HorizontalPodAutoscaler" => &HPA,
        "SelfSubjectAccessReview" | "SubjectAccessReview" | "LocalSubjectAccessReview" => &ACCESS_REVIEW,
        "SelfSubjectRulesReview" => &RULES_REVIEW,
        "TokenRequest" => &TOKEN_REQUEST,
        "TokenReview" => &TOKEN_REVIEW,
        "Eviction" => &EVICTION,
        "DeleteOptions" => &DELETE,
        _ => {
            let message = format!(
                "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, not {MEDIA_TYPE} of a {kind}"
            );
            return Err(ApiError::new(415, "UnsupportedMediaType", message));
        }
    };
    out.extend(message(raw, fields, 0).ok_or_else(bad)?);
    Ok(Value::Object(out))
}

/// `None`: not well formed. Unknown fields are skipped.
fn message(bytes: &[u8], fields: &[Field], depth: usize) -> Option<Map<String, Value>> {
    if depth > MAX_DEPTH {
        return None;
    }
    let mut out = Map::new();
    let mut r = Reader(bytes);
    while !r.0.is_empty() {
        let (number, wire) = r.field()?;
        let Some(Field(_, name, kind)) = fields.iter().find(|f| f.0 == number) else { continue };
        match (kind, wire) {
            (Kind::Text, Wire::Bytes(b)) => {
                let s = std::str::from_utf8(b).ok()?;
                // Upstream writes empty strings too; JSON leaves them out.
                if !s.is_empty() {
                    out.insert((*name).to_owned(), s.into());
                }
            }
            (Kind::Int, Wire::Varint(v)) => drop(out.insert((*name).to_owned(), (v as i64).into())),
            (Kind::NonZero, Wire::Varint(v)) => {
                if v != 0 {
                    out.insert((*name).to_owned(), (v as i64).into());
                }
            }
            (Kind::IntOrString, Wire::Bytes(b)) => {
                static EITHER: [Field; 3] =
                    [Field(1, "type", Kind::Int), Field(2, "int", Kind::Int), Field(3, "text", Kind::Text)];
                let either = message(b, &EITHER, depth + 1)?;
                let key = if either.get("type").is_some_and(|t| *t == 1) { "text" } else { "int" };
                out.insert((*name).to_owned(), either.get(key).cloned().unwrap_or_else(|| 0.into()));
            }
            (Kind::Messages(inner), Wire::Bytes(b)) => {
                let list = out.entry((*name).to_owned()).or_insert_with(|| Value::Array(Vec::new()));
                list.as_array_mut()?.push(Value::Object(message(b, inner, depth + 1)?));
            }
            (Kind::BytesMap, Wire::Bytes(b)) => {
                let (mut key, mut value): (&str, &[u8]) = ("", &[]);
                let mut pair = Reader(b);
                while !pair.0.is_empty() {
                    match pair.field()? {
                        (1, Wire::Bytes(k)) => key = std::str::from_utf8(k).ok()?,
                        (2, Wire::Bytes(v)) => value = v,
                        _ => {}
                    }
                }
                let map = out.entry((*name).to_owned()).or_insert_with(|| Value::Object(Map::new()));
                map.as_object_mut()?.insert(key.to_owned(), STANDARD.encode(value).into());
            }
            (Kind::Bool, Wire::Varint(v)) => drop(out.insert((*name).to_owned(), (v != 0).into())),
            (Kind::Texts, Wire::Bytes(b)) => {
                let s = std::str::from_utf8(b).ok()?;
                let list = out.entry((*name).to_owned()).or_insert_with(|| Value::Array(Vec::new()));
                list.as_array_mut()?.push(s.into());
            }
            (Kind::Map, Wire::Bytes(b)) => {
                static PAIR: [Field; 2] = [Field(1, "k", Kind::Text), Field(2, "v", Kind::Text)];
                let pair = message(b, &PAIR, depth + 1)?;
                let map = out.entry((*name).to_owned()).or_insert_with(|| Value::Object(Map::new()));
                let text = |k: &str| pair.get(k).and_then(Value::as_str).unwrap_or_default().to_owned();
                map.as_object_mut()?.insert(text("k"), text("v").into());
            }
            (Kind::Message(inner), Wire::Bytes(b)) => {
                out.insert((*name).to_owned(), Value::Object(message(b, inner, depth + 1)?));
            }
            _ => return None,
        }
    }
    Some(out)
}

enum Wire<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (a, b) = self.0.split_at_checked(n)?;
        self.0 = b;
        Some(a)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut v = 0u64;
        for i in 0..10 {
            let b = *self.take(1)?.first()?;
            v |= u64::from(b & 0x7f).checked_shl(7 * i)?;
            if b & 0x80 == 0 {
                return Some(v);
            }
        }
        None
    }

    fn field(&mut self) -> Option<(u32, Wire<'a>)> {
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => self.take(8).map(|_| Wire::Fixed)?,
            2 => {
                let n = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(n)?)
            }
            5 => self.take(4).map(|_| Wire::Fixed)?,
            _ => return None,
        };
        Some((u32::try_from(tag >> 3).ok()?, wire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A length-delimited field.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, content.len() as u8];
        out.extend_from_slice(content);
        out
    }

    #[test]
    fn decodes_a_token_request() {
        let spec = [field(1, b"api"), field(3, &field(3, b"pod")), vec![4 << 3, 0x90, 0x1c]].concat();
        let raw = [field(1, &field(1, b"")), field(2, &spec)].concat();
        let meta = [field(1, b"authentication.k8s.io/v1"), field(2, b"TokenRequest")].concat();
        let whole = [MAGIC.to_vec(), field(1, &meta), field(2, &raw)].concat();
        let expect = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {},
            "spec": {"audiences": ["api"], "boundObjectRef": {"name": "pod"}, "expirationSeconds": 3600}});
        assert_eq!(decode(&whole).expect("decoded"), expect);
        for cut in 0..whole.len() {
            // Torn bodies are refused or read as far as they are whole; never a panic.
            let _ = decode(&whole[..cut]);
        }
    }
}
