//! What the parts of a pod must look like: handlers, sources of variables, security contexts, and what else there is;
//! affinity and spreading in [`placement`], sources of volumes in [`volumes`]
//! (kubernetes: pkg/apis/core/validation/validation.go).

mod placement;
mod volumes;

use std::collections::HashSet;

use apimachinery::name;
use serde_json::Value;

use super::check::At;
use crate::object;
use crate::validation::Errors;

pub(super) use placement::{affinity, node_selector, selector, spreading};
pub(super) use volumes::{driver_name, source, volume};

pub(super) const PORT: &str = "must be between 1 and 65535, inclusive";
const ID: &str = "must be between 0 and 2147483647, inclusive";

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
    let source = At::new(v, at);
    source.of("name").name(name::dns_subdomain, errors);
    source.of("key").must_be_name(name::config_key, errors);
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

pub(super) fn env_from(c: &At<'_>, errors: &mut Errors) {
    let at = c.of("envFrom").path;
    for e in c.each("envFrom") {
        super::pod_validation::variable(&e.of("prefix"), errors);
        let sources = ["configMapRef", "secretRef"].map(|s| e.of(s));
        let given = sources.iter().filter(|s| s.given());
        for source in given.clone() {
            source.of("name").must_be_name(name::dns_subdomain, errors);
        }
        // Upstream does not say which.
        match given.count() {
            0 => errors.invalid(at.as_str(), "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(at.as_str(), "", "may not have more than one field specified at a time"),
        }
    }
}

/// How a volume is mounted; some of it is told of at the list, as upstream does.
pub(super) fn mount(m: &At<'_>, list: &str, privileged: bool, errors: &mut Errors) {
    descending(m.text("subPath"), &format!("{list}.subPath"), errors);
    let expression = m.of("subPathExpr");
    if !expression.str().is_empty() {
        if !m.text("subPath").is_empty() {
            expression.invalid("subPathExpr and subPath are mutually exclusive", errors);
        }
        descending(expression.str(), &format!("{list}.subPathExpr"), errors);
    }
    let propagation = m.of("mountPropagation").renamed(format!("{list}.mountPropagation"));
    propagation.one_of(&["Bidirectional", "HostToContainer", "None"], errors);
    if propagation.str() == "Bidirectional" && !privileged {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        propagation.forbidden(detail, errors);
    }
    let recursive = m.of("recursiveReadOnly").renamed(format!("{list}.recursiveReadOnly"));
    recursive.one_of(&["Disabled", "Enabled", "IfPossible"], errors);
    if matches!(recursive.str(), "Enabled" | "IfPossible") {
        if !m.flag("readOnly") {
            recursive.forbidden("may only be specified when readOnly is true", errors);
        }
        if !matches!(propagation.str(), "" | "None") {
            let detail = "may only be specified when mountPropagation is None or not specified";
            recursive.forbidden(detail, errors);
        }
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
pub(super) fn security(c: &Value, at: &str, host_users: bool, errors: &mut Errors) {
    let Some(context) = object::get(c, "securityContext") else { return };
    let at = format!("{at}.securityContext");
    ids(context, &at, &["runAsUser", "runAsGroup"], errors);
    one_of(context, &at, "procMount", &["Default", "Unmasked"], errors);
    if host_users && context["procMount"] == "Unmasked" {
        let detail = "`hostUsers` must be false to use `Unmasked`";
        errors.invalid(format!("{at}.procMount"), "Unmasked", detail);
    }
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
    const SYSCTL: &str = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
    let field = format!("{at}.securityContext");
    let none = Value::Null;
    let context = object::get(spec, "securityContext").unwrap_or(&none);
    ids(context, &field, &["fsGroup", "runAsUser", "runAsGroup"], errors);
    for (i, g) in object::list(context, "supplementalGroups").iter().enumerate() {
        if !g.as_i64().is_some_and(|g| (0..=i64::from(i32::MAX)).contains(&g)) {
            errors.invalid(format!("{field}.supplementalGroups[{i}]"), g, ID);
        }
    }
    if spec["shareProcessNamespace"] == true && spec["hostPID"] == true {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(format!("{field}.shareProcessNamespace"), &spec["shareProcessNamespace"], detail);
    }
    let mut names = HashSet::new();
    for s in At::new(context, field.as_str()).each("sysctls") {
        let n = s.of("name");
        if n.required(errors) {
            let segment = |p: &str| {
                let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
                let b = p.as_bytes();
                b.first().is_some_and(|c| plain(*c))
                    && b.last().is_some_and(|c| plain(*c))
                    && b.iter().all(|c| plain(*c) || matches!(c, b'-' | b'_'))
            };
            if n.str().len() > 253 || !n.str().split(['.', '/']).all(segment) {
                n.invalid(SYSCTL, errors);
            } else if names.contains(n.str()) {
                errors.duplicate(n.path.as_str(), n.str());
            }
        }
        let network = n.str().replace('/', ".").starts_with("net.");
        let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."]
            .iter()
            .any(|p| n.str().replace('/', ".").starts_with(p))
            || n.str().replace('/', ".") == "kernel.sem";
        for (shared, bad) in [("hostNetwork", network), ("hostIPC", ipc)] {
            if bad && spec[shared] == true {
                n.invalid(&format!("may not be specified when '{shared}' is true"), errors);
            }
        }
        names.insert(n.str());
    }
    one_of(context, &field, "fsGroupChangePolicy", &["Always", "OnRootMismatch"], errors);
    profile(context, &field, "seccompProfile", "seccomp", errors);
    profile(context, &field, "appArmorProfile", "AppArmor", errors);
    one_of(context, &field, "supplementalGroupsPolicy", &["Merge", "Strict"], errors);
}

/// Conditions that make a pod ready, and gates that hold it.
pub(super) fn gates(spec: &At<'_>, errors: &mut Errors) {
    for gate in spec.each("readinessGates") {
        gate.of("conditionType").name(name::qualified_name, errors);
    }
    let mut seen = HashSet::new();
    for gate in spec.each("schedulingGates") {
        let n = gate.of("name").renamed(gate.path);
        n.name(name::qualified_name, errors);
        if !seen.insert(n.str()) {
            errors.duplicate(n.path.as_str(), n.str());
        }
    }
}

pub(super) fn host_aliases(spec: &At<'_>, errors: &mut Errors) {
    for alias in spec.each("hostAliases") {
        alias.of("ip").address(errors);
        for host in alias.each("hostnames") {
            host.name(name::dns_subdomain, errors);
        }
    }
}

const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCHES_LEN: usize = 2048;

/// Who resolves a pod's names.
pub(super) fn dns(spec: &At<'_>, errors: &mut Errors) {
    let config = spec.of("dnsConfig");
    let (servers, searches) = (config.of("nameservers"), config.of("searches"));
    if spec.text("dnsPolicy") == "None" {
        if !config.given() {
            let detail = "must provide `dnsConfig` when `dnsPolicy` is None";
            return errors.required(config.path.as_str(), detail);
        }
        if config.len("nameservers") == 0 {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return errors.required(servers.path.as_str(), detail);
        }
    }
    if config.len("nameservers") > NAMESERVERS_MAX {
        servers.invalid(&format!("must not have more than {NAMESERVERS_MAX} nameservers"), errors);
    }
    servers.items().for_each(|s| {
        s.address(errors);
    });
    if config.len("searches") > SEARCHES_MAX {
        searches.invalid(&format!("must not have more than {SEARCHES_MAX} search paths"), errors);
    }
    let length: usize = config.each("searches").map(|s| s.str().len() + 1).sum();
    if length.saturating_sub(1) > SEARCHES_LEN {
        searches.invalid(
            &format!(
                "must not have more than {SEARCHES_LEN} characters (including spaces) in the search list"
            ),
            errors,
        );
    }
    for search in searches.items() {
        // The root, and names below it, may end in a dot; other records have underscores.
        let plain = search.str().strip_suffix('.').unwrap_or(search.str());
        if search.str() != "."
            && let Err(why) = name::dns_subdomain(&plain.replace('_', "a"))
        {
            errors.invalid(search.path.as_str(), plain, &why);
        }
    }
    for option in config.each("options") {
        if option.text("name").is_empty() {
            errors.required(option.path.as_str(), "must not be empty");
        }
    }
}

#[cfg(test)]
mod tests;
