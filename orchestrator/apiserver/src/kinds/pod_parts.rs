//! What the parts of a pod must look like: handlers, sources of variables, security contexts, affinity, spreading,
//! sources of volumes (kubernetes: pkg/apis/core/validation/validation.go).

use std::collections::HashSet;

use apimachinery::name;
use apimachinery::quantity::Quantity;
use serde_json::Value;

use crate::object;
use crate::validation::Errors;

pub(super) const PORT: &str = "must be between 1 and 65535, inclusive";
const ID: &str = "must be between 0 and 2147483647, inclusive";
const KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const SINGLE: &str = "must be specified single value when `operator` is 'Lt' or 'Gt'";
const VALUES: &str = "must be specified when `operator` is 'In' or 'NotIn'";
const NO_VALUES: &str = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";

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

/// The requirements of a label selector.
pub(super) fn selector(s: &Value, at: &str, errors: &mut Errors) {
    for (k, v) in s["matchLabels"].as_object().into_iter().flatten() {
        if let Err(e) = name::qualified_name(k) {
            errors.invalid(format!("{at}.matchLabels"), k.as_str(), &e);
        }
        if let Some(Err(e)) = v.as_str().map(name::label_value) {
            errors.invalid(format!("{at}.matchLabels"), v, &e);
        }
    }
    requirements(s, "matchExpressions", at, false, errors);
}

fn requirements(s: &Value, key: &str, at: &str, numbers: bool, errors: &mut Errors) {
    for (i, r) in object::list(s, key).iter().enumerate() {
        let at = format!("{at}.{key}[{i}]");
        let values = object::list(r, "values");
        match text(r, "operator") {
            "In" | "NotIn" if values.is_empty() => errors.required(format!("{at}.values"), VALUES),
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.forbidden(format!("{at}.values"), NO_VALUES);
            }
            "Gt" | "Lt" if numbers => {
                if values.len() != 1 {
                    errors.required(format!("{at}.values"), SINGLE);
                }
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(format!("{at}.operator"), other, "not a valid selector operator"),
        }
        if key == "matchExpressions"
            && let Err(e) = name::qualified_name(text(r, "key"))
        {
            errors.invalid(format!("{at}.key"), text(r, "key"), &e);
        }
    }
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

fn weight(w: &Value, at: &str, errors: &mut Errors) {
    let n = w["weight"].as_i64().unwrap_or(0);
    if !(1..=100).contains(&n) {
        errors.invalid(format!("{at}.weight"), n, "must be in the range 1-100");
    }
}

fn node_term(t: &Value, at: &str, errors: &mut Errors) {
    requirements(t, "matchExpressions", at, true, errors);
    requirements(t, "matchFields", at, true, errors);
}

fn pod_term(t: &Value, at: &str, errors: &mut Errors) {
    selector(&t["labelSelector"], &format!("{at}.labelSelector"), errors);
    selector(&t["namespaceSelector"], &format!("{at}.namespaceSelector"), errors);
    for n in object::list(t, "namespaces").iter().filter_map(Value::as_str) {
        if let Err(e) = name::dns_label(n) {
            errors.invalid(format!("{at}.namespace"), n, &e);
        }
    }
    topology_key(t, at, errors);
}

fn topology_key(t: &Value, at: &str, errors: &mut Errors) {
    let key = text(t, "topologyKey");
    if key.is_empty() {
        errors.required(format!("{at}.topologyKey"), "can not be empty");
    } else if let Err(e) = name::qualified_name(key) {
        errors.invalid(format!("{at}.topologyKey"), key, &e);
    }
}

pub(super) fn affinity(spec: &Value, at: &str, errors: &mut Errors) {
    let Some(affinity) = object::get(spec, "affinity") else { return };
    let at = format!("{at}.affinity");
    if let Some(node) = object::get(affinity, "nodeAffinity") {
        let at = format!("{at}.nodeAffinity");
        if let Some(required) = object::get(node, REQUIRED) {
            let at = format!("{at}.{REQUIRED}.nodeSelectorTerms");
            let terms = object::list(required, "nodeSelectorTerms");
            if terms.is_empty() {
                errors.required(at.as_str(), "must have at least one node selector term");
            }
            for (i, t) in terms.iter().enumerate() {
                node_term(t, &format!("{at}[{i}]"), errors);
            }
        }
        for (i, w) in object::list(node, PREFERRED).iter().enumerate() {
            let at = format!("{at}.{PREFERRED}[{i}]");
            weight(w, &at, errors);
            node_term(&w["preference"], &format!("{at}.preference"), errors);
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(a) = object::get(affinity, kind) else { continue };
        for (i, t) in object::list(a, REQUIRED).iter().enumerate() {
            pod_term(t, &format!("{at}.{kind}.{REQUIRED}[{i}]"), errors);
        }
        for (i, w) in object::list(a, PREFERRED).iter().enumerate() {
            let at = format!("{at}.{kind}.{PREFERRED}[{i}]");
            weight(w, &at, errors);
            pod_term(&w["podAffinityTerm"], &format!("{at}.podAffinityTerm"), errors);
        }
    }
}

pub(super) fn spreading(spec: &Value, at: &str, errors: &mut Errors) {
    const POSITIVE: &str = "must be greater than zero";
    let mut pairs = HashSet::new();
    for (i, c) in object::list(spec, "topologySpreadConstraints").iter().enumerate() {
        let at = format!("{at}.topologySpreadConstraints[{i}]");
        let skew = c["maxSkew"].as_i64().unwrap_or(0);
        if skew <= 0 {
            errors.invalid(format!("{at}.maxSkew"), skew, POSITIVE);
        }
        topology_key(c, &at, errors);
        let when = text(c, "whenUnsatisfiable");
        if !matches!(when, "DoNotSchedule" | "ScheduleAnyway") {
            let supported = ["DoNotSchedule", "ScheduleAnyway"];
            errors.not_supported(format!("{at}.whenUnsatisfiable"), when, &supported);
        }
        if !pairs.insert((text(c, "topologyKey"), when)) {
            let pair = format!("{{{}, {when}}}", text(c, "topologyKey"));
            errors.duplicate(format!("{at}.{{topologyKey, whenUnsatisfiable}}"), pair.as_str());
        }
        if let Some(n) = c["minDomains"].as_i64() {
            if n <= 0 {
                errors.invalid(format!("{at}.minDomains"), n, POSITIVE);
            }
            if when != "DoNotSchedule" {
                let detail =
                    format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}");
                errors.invalid(format!("{at}.minDomains"), n, &detail);
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            one_of(c, &at, policy, &["Honor", "Ignore"], errors);
        }
        selector(&c["labelSelector"], &format!("{at}.labelSelector"), errors);
    }
}

fn mode(v: &Value, at: &str, key: &str, errors: &mut Errors) {
    if let Some(n) = v[key].as_i64()
        && !(0..=0o777).contains(&n)
    {
        errors.invalid(format!("{at}.{key}"), n, MODE);
    }
}

/// Keys as files.
fn items(v: &Value, at: &str, errors: &mut Errors) {
    for (i, item) in object::list(v, "items").iter().enumerate() {
        let at = format!("{at}.items[{i}]");
        required(item, &at, "key", errors);
        required(item, &at, "path", errors);
        descending(text(item, "path"), &format!("{at}.path"), errors);
        mode(item, &at, "mode", errors);
    }
}

fn downward(v: &Value, at: &str, errors: &mut Errors) {
    // Upstream does not say which.
    for item in object::list(v, "items") {
        required(item, at, "path", errors);
        descending(text(item, "path"), &format!("{at}.path"), errors);
        mode(item, at, "mode", errors);
        match (object::get(item, "fieldRef"), object::get(item, "resourceFieldRef")) {
            (Some(f), None) => field_ref(f, &format!("{at}.fieldRef"), &IN_FILES, errors),
            (None, Some(f)) => {
                let at = format!("{at}.resourceFieldRef");
                required(f, &at, "containerName", errors);
                resource_ref(f, &at, errors);
            }
            (Some(_), Some(_)) => {
                errors.invalid(
                    at,
                    "resource",
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                );
            }
            (None, None) => errors.required(at, "one of fieldRef and resourceFieldRef is required"),
        }
    }
}

/// The source of a volume.
pub(super) fn volume(v: &Value, at: &str, errors: &mut Errors) {
    if let Some(d) = object::get(v, "emptyDir")
        && let Some(limit) = d["sizeLimit"].as_str().and_then(|s| s.parse::<Quantity>().ok())
        && limit < Quantity::ZERO
    {
        let detail = "SizeLimit field must be a valid resource quantity";
        errors.forbidden(format!("{at}.emptyDir.sizeLimit"), detail);
    }
    if let Some(h) = object::get(v, "hostPath") {
        let at = format!("{at}.hostPath");
        no_backsteps(text(h, "path"), &format!("{at}.path"), errors);
        const TYPES: [&str; 8] = [
            "",
            "BlockDevice",
            "CharDevice",
            "Directory",
            "DirectoryOrCreate",
            "File",
            "FileOrCreate",
            "Socket",
        ];
        one_of(h, &at, "type", &TYPES, errors);
    }
    for source in ["configMap", "secret"] {
        if let Some(s) = object::get(v, source) {
            let at = format!("{at}.{source}");
            mode(s, &at, "defaultMode", errors);
            items(s, &at, errors);
        }
    }
    if let Some(d) = object::get(v, "downwardAPI") {
        mode(d, &format!("{at}.downwardAPI"), "defaultMode", errors);
        downward(d, &format!("{at}.downwardAPI"), errors);
    }
    if let Some(c) = object::get(v, "persistentVolumeClaim") {
        required(c, &format!("{at}.persistentVolumeClaim"), "claimName", errors);
    }
    if let Some(n) = object::get(v, "nfs") {
        let at = format!("{at}.nfs");
        required(n, &at, "server", errors);
        required(n, &at, "path", errors);
        if !text(n, "path").starts_with('/') {
            errors.invalid(format!("{at}.path"), text(n, "path"), "must be an absolute path");
        }
    }
    if let Some(c) = object::get(v, "csi") {
        required(c, &format!("{at}.csi"), "driver", errors);
    }
    if let Some(p) = object::get(v, "projected") {
        projected(p, &format!("{at}.projected"), errors);
    }
}

fn projected(p: &Value, at: &str, errors: &mut Errors) {
    mode(p, at, "defaultMode", errors);
    for (i, s) in object::list(p, "sources").iter().enumerate() {
        let at = format!("{at}.sources[{i}]");
        let given: Vec<&String> =
            s.as_object().into_iter().flatten().filter(|(_, v)| !v.is_null()).map(|(k, _)| k).collect();
        if let [_, second, ..] = given.as_slice() {
            errors.forbidden(format!("{at}.{second}"), "may not specify more than 1 volume type");
        }
        for source in ["configMap", "secret"] {
            if let Some(s) = object::get(s, source) {
                let at = format!("{at}.{source}");
                required(s, &at, "name", errors);
                items(s, &at, errors);
            }
        }
        if let Some(d) = object::get(s, "downwardAPI") {
            downward(d, &format!("{at}.downwardAPI"), errors);
        }
        if let Some(t) = object::get(s, "serviceAccountToken") {
            let at = format!("{at}.serviceAccountToken");
            match t["expirationSeconds"].as_i64() {
                Some(n) if n < 600 => errors.invalid(
                    format!("{at}.expirationSeconds"),
                    n,
                    "may not specify a duration less than 10 minutes",
                ),
                Some(n) if n > 1 << 32 => errors.invalid(
                    format!("{at}.expirationSeconds"),
                    n,
                    "may not specify a duration larger than 2^32 seconds",
                ),
                _ => {}
            }
            required(t, &at, "path", errors);
            descending(text(t, "path"), &format!("{at}.path"), errors);
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
