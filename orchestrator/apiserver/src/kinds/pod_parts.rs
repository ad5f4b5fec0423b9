//! What the parts of a pod must look like: handlers, sources of variables, security contexts, and what else there is;
//! affinity and spreading in [`placement`], sources of volumes in [`volumes`]
//! (kubernetes: pkg/apis/core/validation/validation.go).

mod placement;
mod volumes;

use std::collections::HashSet;

use apimachinery::name;
use serde_json::Value;

use crate::object;
use crate::validation::Errors;

pub(super) use placement::{affinity, selector, spreading};
pub(super) use volumes::volume;

pub(super) const PORT: &str = "must be between 1 and 65535, inclusive";
const ID: &str = "must be between 0 and 2147483647, inclusive";
const KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

fn text<'a>(v: &'a Value, key: &str) -> &'a str {
    v[key].as_str().unwrap_or_default()
}

fn required(v: &Value, at: &str, key: &str, errors: &mut Errors) {
    if text(v, key).is_empty() {
        errors.required(format!("{at}.{key}"), "");
    }
}

pub(super) fn one_of(v: &Value, at: &str, key: &str, supported: &[&str], errors: &mut Errors) {
    if let Some(given) = v[key].as_str()
        && !supported.contains(&given)
    {
        errors.not_supported(format!("{at}.{key}"), given, supported);
    }
}

pub(super) fn port(v: &Value, at: &str, errors: &mut Errors) {
    match v {
        Value::String(n) => {
            if let Err(e) = name::port_name(n) {
                errors.invalid(at, n.as_str(), &e);
            }
        }
        v => {
            let n = v.as_i64().unwrap_or(0);
            if !(1..=65535).contains(&n) {
                errors.invalid(at, n, PORT);
            }
        }
    }
}

/// A path below a directory.
fn descending(path: &str, at: &str, errors: &mut Errors) {
    if path.starts_with('/') {
        errors.invalid(at, path, "must be a relative path");
    }
    no_backsteps(path, at, errors);
}

fn no_backsteps(path: &str, at: &str, errors: &mut Errors) {
    if path.split('/').any(|part| part == "..") {
        errors.invalid(at, path, "must not contain '..'");
    }
}

fn config_key(v: &Value, at: &str, errors: &mut Errors) {
    let key = text(v, "key");
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if key.is_empty() {
        errors.required(format!("{at}.key"), "");
    } else if !key.bytes().all(plain) || key == "." || key.starts_with("..") {
        errors.invalid(format!("{at}.key"), key, KEY);
    }
}

/// What a probe or a hook does: exactly one of its kinds.
pub(super) fn handler(h: &Value, at: &str, kinds: &[&str], grace: Option<i64>, errors: &mut Errors) {
    let mut given = kinds.iter().filter(|k| object::get(h, k).is_some());
    let Some(kind) = given.next() else { return errors.required(at, "must specify a handler type") };
    for second in given {
        errors.forbidden(format!("{at}.{second}"), "may not specify more than 1 handler type");
    }
    let (action, at) = (&h[*kind], format!("{at}.{kind}"));
    match *kind {
        "exec" if object::list(action, "command").is_empty() => {
            errors.required(format!("{at}.command"), "");
        }
        "httpGet" => {
            required(action, &at, "path", errors);
            port(&action["port"], &format!("{at}.port"), errors);
            one_of(action, &at, "scheme", &["HTTP", "HTTPS"], errors);
            for header in object::list(action, "httpHeaders") {
                let n = text(header, "name");
                if n.is_empty() || !n.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
                    errors.invalid(format!("{at}.httpHeaders"), n, "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')");
                }
            }
        }
        "tcpSocket" | "grpc" => port(&action["port"], &format!("{at}.port"), errors),
        "sleep" => {
            let seconds = action["seconds"].as_i64().unwrap_or(0);
            if seconds < 0 || grace.is_some_and(|g| seconds > g) {
                let g = grace.unwrap_or(0);
                let detail =
                    format!("must be non-negative and less than terminationGracePeriodSeconds ({g})");
                errors.invalid(at, seconds, &detail);
            }
        }
        _ => {}
    }
}

pub(super) fn lifecycle(c: &Value, at: &str, grace: Option<i64>, errors: &mut Errors) {
    for hook in ["postStart", "preStop"] {
        if let Some(h) = object::get(&c["lifecycle"], hook) {
            let at = format!("{at}.lifecycle.{hook}");
            handler(h, &at, &["exec", "httpGet", "tcpSocket", "sleep"], grace, errors);
        }
    }
}

const IN_ENVIRONMENT: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const IN_FILES: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// Fields that a version knows, whether or not they may stand where they are named.
const KNOWN: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "spec.restartPolicy", "spec.schedulerName", "status.phase"];

fn field_ref(f: &Value, at: &str, supported: &[&str], errors: &mut Errors) {
    let path = text(f, "fieldPath");
    if path.is_empty() {
        return errors.required(format!("{at}.fieldPath"), "");
    }
    let subscript = path.strip_suffix("']").and_then(|p| p.split_once("['"));
    match subscript {
        Some(("metadata.annotations" | "metadata.labels", key)) => {
            if let Err(e) = name::qualified_name(&key.to_lowercase()) {
                errors.invalid(at, key, &e);
            }
        }
        Some((path, _)) => errors.invalid(at, path, "does not support subscript"),
        None if supported.contains(&path) => {}
        None if KNOWN.contains(&path) || IN_ENVIRONMENT.contains(&path) => {
            errors.not_supported(format!("{at}.fieldPath"), path, supported);
        }
        None => {
            let detail = format!("error converting fieldPath: field label not supported: {path}");
            errors.invalid(format!("{at}.fieldPath"), path, &detail);
        }
    }
}

fn resource_ref(f: &Value, at: &str, errors: &mut Errors) {
    const RESOURCES: [&str; 6] = [
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    let resource = text(f, "resource");
    let huge = resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if resource.is_empty() {
        errors.required(format!("{at}.resource"), "");
    } else if !huge && !RESOURCES.contains(&resource) {
        errors.not_supported(format!("{at}.resource"), resource, &RESOURCES);
    }
    let divisor = text(f, "divisor");
    let kind = resource.split_once('.').map_or("", |(_, kind)| kind);
    let (fits, words) = match kind {
        "cpu" => (matches!(divisor, "" | "0" | "1" | "1m"), "1m and 1"),
        "memory" | "ephemeral-storage" => (
            matches!(divisor, "" | "0" | "1" | "1k" | "1M" | "1G" | "1T" | "1P" | "1E")
                || matches!(divisor, "1Ki" | "1Mi" | "1Gi" | "1Ti" | "1Pi" | "1Ei"),
            "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei",
        ),
        _ => return,
    };
    if !fits {
        let word = if kind == "ephemeral-storage" { "local ephemeral storage" } else { kind };
        let detail = format!("only divisor's values {words} are supported with the {word} resource");
        errors.invalid(format!("{at}.divisor"), resource, &detail);
    }
}

/// Where a variable's value comes from.
pub(super) fn value_from(from: &Value, at: &str, errors: &mut Errors) {
    if let Some(f) = object::get(from, "fieldRef") {
        field_ref(f, &format!("{at}.fieldRef"), &IN_ENVIRONMENT, errors);
    }
    if let Some(f) = object::get(from, "resourceFieldRef") {
        resource_ref(f, &format!("{at}.resourceFieldRef"), errors);
    }
    for source in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(s) = object::get(from, source) {
            config_key(s, &format!("{at}.{source}"), errors);
        }
    }
}

pub(super) fn env_from(c: &Value, at: &str, errors: &mut Errors) {
    for (i, e) in object::list(c, "envFrom").iter().enumerate() {
        let at = format!("{at}.envFrom[{i}]");
        let given: Vec<&str> =
            ["configMapRef", "secretRef"].into_iter().filter(|s| object::get(e, s).is_some()).collect();
        match given.as_slice() {
            [] => errors.invalid(at.as_str(), "", "must specify one of: `configMapRef` or `secretRef`"),
            [_] => {}
            _ => errors.invalid(at.as_str(), "", "may not have more than one field specified at a time"),
        }
        for source in given {
            let n = text(&e[source], "name");
            if n.is_empty() {
                errors.required(format!("{at}.{source}.name"), "");
            } else if let Err(why) = name::dns_subdomain(n) {
                errors.invalid(format!("{at}.{source}.name"), n, &why);
            }
        }
    }
}

pub(super) fn mount(m: &Value, at: &str, privileged: bool, errors: &mut Errors) {
    descending(text(m, "subPath"), &format!("{at}.subPath"), errors);
    let expression = text(m, "subPathExpr");
    if !expression.is_empty() {
        if !text(m, "subPath").is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.invalid(format!("{at}.subPathExpr"), expression, detail);
        }
        descending(expression, &format!("{at}.subPathExpr"), errors);
    }
    one_of(m, at, "mountPropagation", &["Bidirectional", "HostToContainer", "None"], errors);
    if m["mountPropagation"] == "Bidirectional" && !privileged {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        errors.forbidden(format!("{at}.mountPropagation"), detail);
    }
    let field = format!("{at}.recursiveReadOnly");
    match m["recursiveReadOnly"].as_str() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if m["readOnly"] != true {
                errors.forbidden(field.as_str(), "may only be specified when readOnly is true");
            }
            if !matches!(m["mountPropagation"].as_str(), None | Some("None")) {
                let detail = "may only be specified when mountPropagation is None or not specified";
                errors.forbidden(field, detail);
            }
        }
        Some(other) => errors.not_supported(field, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn ids(context: &Value, at: &str, keys: &[&str], errors: &mut Errors) {
    for key in keys {
        if let Some(n) = context[*key].as_i64()
            && !(0..=i64::from(i32::MAX)).contains(&n)
        {
            errors.invalid(format!("{at}.{key}"), n, ID);
        }
    }
}

fn profile(context: &Value, at: &str, key: &str, word: &str, errors: &mut Errors) {
    let Some(p) = object::get(context, key) else { return };
    let at = format!("{at}.{key}");
    let local = p["localhostProfile"].as_str();
    match (text(p, "type"), local) {
        ("", _) => errors.required(format!("{at}.type"), &format!("type is required when {key} is set")),
        ("Localhost", None) => {
            let detail = format!("must be set when {word} type is Localhost");
            errors.required(format!("{at}.localhostProfile"), &detail);
        }
        ("Localhost", Some(path)) if key == "seccompProfile" => {
            descending(path, &format!("{at}.localhostProfile"), errors);
        }
        ("Localhost", Some(_)) => {}
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("RuntimeDefault" | "Unconfined", Some(path)) => {
            let detail = format!("can only be set when {word} type is Localhost");
            errors.invalid(format!("{at}.localhostProfile"), path, &detail);
        }
        (other, _) => {
            errors.not_supported(format!("{at}.type"), other, &["Localhost", "RuntimeDefault", "Unconfined"])
        }
    }
}

/// A container's security context.
pub(super) fn security(c: &Value, at: &str, errors: &mut Errors) {
    let Some(context) = object::get(c, "securityContext") else { return };
    let at = format!("{at}.securityContext");
    ids(context, &at, &["runAsUser", "runAsGroup"], errors);
    one_of(context, &at, "procMount", &["Default", "Unmasked"], errors);
    profile(context, &at, "seccompProfile", "seccomp", errors);
    profile(context, &at, "appArmorProfile", "AppArmor", errors);
    if context["allowPrivilegeEscalation"] == false {
        if context["privileged"] == true {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid(at.as_str(), context, detail);
        }
        if object::list(context, "capabilities.add").iter().any(|c| c == "CAP_SYS_ADMIN") {
            let detail =
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid(at.as_str(), context, detail);
        }
    }
}

/// A pod's security context.
pub(super) fn pod_security(spec: &Value, at: &str, errors: &mut Errors) {
    let field = format!("{at}.securityContext");
    if spec["shareProcessNamespace"] == true && spec["hostPID"] == true {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(format!("{field}.shareProcessNamespace"), &spec["shareProcessNamespace"], detail);
    }
    let Some(context) = object::get(spec, "securityContext") else { return };
    ids(context, &field, &["fsGroup", "runAsUser", "runAsGroup"], errors);
    for (i, g) in object::list(context, "supplementalGroups").iter().enumerate() {
        if !g.as_i64().is_some_and(|g| (0..=i64::from(i32::MAX)).contains(&g)) {
            errors.invalid(format!("{field}.supplementalGroups[{i}]"), g, ID);
        }
    }
    one_of(context, &field, "fsGroupChangePolicy", &["Always", "OnRootMismatch"], errors);
    one_of(context, &field, "supplementalGroupsPolicy", &["Merge", "Strict"], errors);
    profile(context, &field, "seccompProfile", "seccomp", errors);
    profile(context, &field, "appArmorProfile", "AppArmor", errors);
    let mut names = HashSet::new();
    for (i, s) in object::list(context, "sysctls").iter().enumerate() {
        let (at, n) = (format!("{field}.sysctls[{i}].name"), text(s, "name"));
        if n.is_empty() {
            errors.required(at, "");
        } else if !names.insert(n) {
            errors.duplicate(at, n);
        }
    }
}

/// What else a pod's spec says: names, names of hosts, gates.
pub(super) fn rest(spec: &Value, at: &str, errors: &mut Errors) {
    for field in ["hostname", "subdomain"] {
        if let Some(n) = object::text(spec, field).filter(|n| !n.is_empty())
            && let Err(e) = name::dns_label(n)
        {
            errors.invalid(format!("{at}.{field}"), n, &e);
        }
    }
    for field in ["runtimeClassName", "priorityClassName"] {
        if let Some(n) = object::text(spec, field).filter(|n| !n.is_empty())
            && let Err(e) = name::dns_subdomain(n)
        {
            errors.invalid(format!("{at}.{field}"), n, &e);
        }
    }
    for (i, s) in object::list(spec, "imagePullSecrets").iter().enumerate() {
        required(s, &format!("{at}.imagePullSecrets[{i}]"), "name", errors);
    }
    for (i, g) in object::list(spec, "readinessGates").iter().enumerate() {
        let kind = text(g, "conditionType");
        if let Err(e) = name::qualified_name(kind) {
            errors.invalid(format!("{at}.readinessGates[{i}].conditionType"), kind, &e);
        }
    }
    let mut gates = HashSet::new();
    for (i, g) in object::list(spec, "schedulingGates").iter().enumerate() {
        let n = text(g, "name");
        if let Err(e) = name::qualified_name(n) {
            errors.invalid(format!("{at}.schedulingGates[{i}]"), n, &e);
        } else if !gates.insert(n) {
            errors.duplicate(format!("{at}.schedulingGates[{i}]"), n);
        }
    }
    for (i, h) in object::list(spec, "hostAliases").iter().enumerate() {
        let at = format!("{at}.hostAliases[{i}]");
        if text(h, "ip").parse::<std::net::IpAddr>().is_err() {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.invalid(format!("{at}.ip"), text(h, "ip"), detail);
        }
        for (j, n) in object::list(h, "hostnames").iter().enumerate() {
            let n = n.as_str().unwrap_or_default();
            if let Err(e) = name::dns_subdomain(n) {
                errors.invalid(format!("{at}.hostnames[{j}]"), n, &e);
            }
        }
    }
    let servers = object::list(spec, "dnsConfig.nameservers");
    if servers.len() > 3 {
        let given: Vec<&str> = servers.iter().filter_map(Value::as_str).collect();
        let detail = "must not have more than 3 nameservers";
        errors.invalid(format!("{at}.dnsConfig.nameservers"), &serde_json::json!(given), detail);
    }
    for (i, s) in servers.iter().enumerate() {
        let s = s.as_str().unwrap_or_default();
        if s.parse::<std::net::IpAddr>().is_err() {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.invalid(format!("{at}.dnsConfig.nameservers[{i}]"), s, detail);
        }
    }
    if let Some(os) = object::get(spec, "os") {
        match text(os, "name") {
            "" => errors.required(format!("{at}.os.name"), ""),
            "linux" | "windows" => {}
            other => errors.not_supported(format!("{at}.os.name"), other, &["linux", "windows"]),
        }
    }
    let mut used = HashSet::new();
    for list in ["initContainers", "containers"] {
        for (i, c) in object::list(spec, list).iter().enumerate() {
            for (j, p) in object::list(c, "ports").iter().enumerate() {
                let at = format!("{at}.{list}[{i}].ports[{j}]");
                let host = p["hostPort"].as_i64().unwrap_or(0);
                if host == 0 {
                    continue;
                }
                if spec["hostNetwork"] == true && p["containerPort"].as_i64() != Some(host) {
                    let detail = "must match `hostPort` when `hostNetwork` is true";
                    errors.invalid(format!("{at}.containerPort"), &p["containerPort"], detail);
                }
                let key = format!("{}/{}/{host}", text(p, "protocol"), text(p, "hostIP"));
                if list == "containers" && !used.insert(key.clone()) {
                    errors.duplicate(format!("{at}.hostPort"), key.as_str());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
