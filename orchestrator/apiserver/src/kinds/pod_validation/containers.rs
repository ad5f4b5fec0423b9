//! What a pod's containers must look like: those that run, those that prepare, and those that come late
//! (kubernetes: pkg/apis/core/validation/validation.go validateContainerCommon).

use std::collections::HashSet;

use apimachinery::name;
use apimachinery::quantity::Quantity;
use serde_json::Value;

use super::super::check::{At, NEGATIVE};
use super::super::{pod_parts, resources};
use crate::object;
use crate::validation::Errors;

/// What the pod says that its containers depend on.
struct Pod<'a> {
    /// The volumes that are whole.
    volumes: &'a [&'a Value],
    claims: HashSet<&'a str>,
    restart: &'a str,
    grace: Option<i64>,
    host_users: bool,
}

const LATE: &str = "cannot be set for an Ephemeral Container";
const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;

pub(super) fn all(spec: &At<'_>, volumes: &[&Value], errors: &mut Errors) {
    let pod = Pod {
        volumes,
        claims: spec.each("resourceClaims").map(|c| c.text("name")).filter(|n| !n.is_empty()).collect(),
        restart: spec.text("restartPolicy"),
        grace: spec.int("terminationGracePeriodSeconds"),
        host_users: *spec.of("hostUsers").v != false,
    };
    if spec.len("containers") == 0 {
        errors.required(spec.of("containers").path, "");
    }
    let mut names = HashSet::new();
    let unique = |c: &At<'_>, names: &mut HashSet<String>, errors: &mut Errors| {
        let n = c.of("name");
        if !n.str().is_empty() && !names.insert(n.str().to_owned()) {
            errors.duplicate(n.path.as_str(), n.str());
        }
    };
    for c in spec.each("containers") {
        common(&c, &pod, errors);
        unique(&c, &mut names, errors);
        hooks(&c, &pod, errors);
        restart_policy(&c, errors);
    }
    host_ports(spec.each("containers"), errors);
    for c in spec.each("initContainers") {
        common(&c, &pod, errors);
        restart_policy(&c, errors);
        unique(&c, &mut names, errors);
        host_ports(std::iter::once(c.clone()), errors);
        if c.text("restartPolicy") == "Always" {
            hooks(&c, &pod, errors);
        } else {
            let detail = "may not be set for init containers without restartPolicy=Always";
            for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if let Some(at) = c.get(field) {
                    at.forbidden(detail, errors);
                }
            }
        }
    }
    let others = names.clone();
    for c in spec.each("ephemeralContainers") {
        common(&c, &pod, errors);
        unique(&c, &mut names, errors);
        late(&c, &others, errors);
    }
}

/// Containers that come late serve nobody.
fn late(c: &At<'_>, others: &HashSet<String>, errors: &mut Errors) {
    let target = c.of("targetContainerName");
    if !target.str().is_empty() && !others.contains(target.str()) {
        errors.not_found(target.path.as_str(), target.str());
    }
    for field in [
        "ports",
        "resources",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle",
        "restartPolicy",
        "resizePolicy",
    ] {
        let at = c.of(field);
        if at.given() && *at.v != serde_json::json!({}) {
            at.forbidden(LATE, errors);
        }
    }
    for mount in c.each("volumeMounts") {
        for field in ["subPath", "subPathExpr"] {
            if !mount.text(field).is_empty() {
                mount.of(field).forbidden(LATE, errors);
            }
        }
    }
}

fn common(c: &At<'_>, pod: &Pod<'_>, errors: &mut Errors) {
    c.of("name").must_be_name(name::dns_label, errors);
    c.of("image").required(errors);
    c.of("terminationMessagePolicy").one_of(&["File", "FallbackToLogsOnError"], errors);
    ports(c, errors);
    environment(c, errors);
    pod_parts::env_from(c, errors);
    mounts(c, pod, errors);
    devices(c, pod, errors);
    c.of("imagePullPolicy").must_be_one_of(&["Always", "IfNotPresent", "Never"], errors);
    requirements(&c.of("resources"), &pod.claims, errors);
    resize(c, pod, errors);
    pod_parts::security(c.v, &c.path, pod.host_users, errors);
}

fn ports(c: &At<'_>, errors: &mut Errors) {
    let mut names = HashSet::new();
    for port in c.each("ports") {
        let n = port.of("name");
        if !n.str().is_empty() {
            let found = name::port_name(n.str());
            if let Err(why) = &found {
                errors.invalid(n.path.as_str(), n.str(), why);
            } else if !names.insert(n.str()) {
                errors.duplicate(n.path.as_str(), n.str());
            }
        }
        let number = port.of("containerPort");
        match number.v.as_i64() {
            None | Some(0) => errors.required(number.path.as_str(), ""),
            Some(_) => number.port_number(errors),
        }
        if port.int("hostPort").is_some_and(|n| n != 0) {
            port.of("hostPort").port_number(errors);
        }
        port.of("protocol").one_of(&["SCTP", "TCP", "UDP"], errors);
    }
}

/// No two containers that run together have the same port of the node.
fn host_ports<'a>(containers: impl Iterator<Item = At<'a>>, errors: &mut Errors) {
    let mut used = HashSet::new();
    for port in containers.flat_map(|c| c.each("ports")) {
        let host = port.int("hostPort").unwrap_or(0);
        let key = format!("{}/{}/{host}", port.text("protocol"), port.text("hostIP"));
        if host != 0 && !used.insert(key.clone()) {
            errors.duplicate(port.of("hostPort").path, key.as_str());
        }
    }
}

/// A variable's name, or what it begins with.
pub(in crate::kinds) fn variable(at: &At<'_>, errors: &mut Errors) {
    let n = at.str();
    if n.contains('=') || !n.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        at.invalid("a valid environment variable name must consist only of printable ASCII characters other than '='", errors);
    }
}

fn environment(c: &At<'_>, errors: &mut Errors) {
    for e in c.each("env") {
        if e.of("name").required(errors) {
            variable(&e.of("name"), errors);
        }
        let Some(from) = e.get("valueFrom") else { continue };
        pod_parts::value_from(from.v, &from.path, errors);
        let sources = from.v.as_object().map_or(0, |m| m.values().filter(|v| !v.is_null()).count());
        let detail = match sources {
            0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
            _ if !e.text("value").is_empty() => "may not be specified when `value` is not empty",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        errors.invalid(from.path.as_str(), "", detail);
    }
}

fn mounts(c: &At<'_>, pod: &Pod<'_>, errors: &mut Errors) {
    let privileged = c.flag("securityContext.privileged");
    let mut paths = HashSet::new();
    let device = |field: &str, v: &str| !v.is_empty() && c.each("volumeDevices").any(|d| d.text(field) == v);
    for m in c.each("volumeMounts") {
        let (n, path) = (m.of("name"), m.of("mountPath"));
        n.required(errors);
        if !pod.volumes.iter().any(|v| v["name"] == n.str()) {
            errors.not_found(n.path.as_str(), n.str());
        }
        path.required(errors);
        if !paths.insert(path.str()) {
            path.invalid("must be unique", errors);
        }
        if device("name", n.str()) {
            n.invalid("must not already exist in volumeDevices", errors);
        }
        if device("devicePath", path.str()) {
            path.invalid("must not already exist as a path in volumeDevices", errors);
        }
        pod_parts::mount(&m, &c.of("volumeMounts").path, privileged, errors);
    }
}

fn devices(c: &At<'_>, pod: &Pod<'_>, errors: &mut Errors) {
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    let mounted = |field: &str, v: &str| !v.is_empty() && c.each("volumeMounts").any(|m| m.text(field) == v);
    for d in c.each("volumeDevices") {
        let (n, path) = (d.of("name"), d.of("devicePath"));
        n.required(errors);
        if names.contains(n.str()) {
            n.invalid("must be unique", errors);
        }
        match pod.volumes.iter().find(|v| v["name"] == n.str()) {
            None => errors.not_found(n.path.as_str(), n.str()),
            Some(v) if v.get("persistentVolumeClaim").is_none() && v.get("ephemeral").is_none() => {
                let detail =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                n.invalid(detail, errors);
            }
            Some(_) => {}
        }
        path.required(errors);
        if paths.contains(path.str()) {
            path.invalid("must be unique", errors);
        }
        if path.str().split('/').any(|part| part == "..") {
            path.invalid("can not contain backsteps ('..')", errors);
        } else {
            paths.insert(path.str());
        }
        if mounted("name", n.str()) {
            n.invalid("must not already exist in volumeMounts", errors);
        }
        if mounted("mountPath", path.str()) {
            path.invalid("must not already exist as a path in volumeMounts", errors);
        }
        if !n.str().is_empty() {
            names.insert(n.str());
        }
    }
}

/// What a container may use at most, or a pod more than its containers.
pub(super) fn limit(name: &str, amount: &At<'_>, errors: &mut Errors) {
    resources::container_name(name, amount, errors);
    resources::amount(name, amount, errors);
    huge_pages(name, amount, errors);
}

/// Pages come whole.
fn huge_pages(name: &str, amount: &At<'_>, errors: &mut Errors) {
    let Some(size) = name.strip_prefix("hugepages-") else { return };
    let Ok(size) = size.parse::<Quantity>() else { return };
    let n = amount.quantity().unwrap_or_default().value();
    if size.value() > 0 && n % size.value() != 0 {
        let shown = amount.quantity().unwrap_or_default().to_string();
        let detail = format!("{shown} is not positive integer multiple of {name}");
        errors.invalid(amount.path.as_str(), shown.as_str(), &detail);
    }
}

fn requirements(r: &At<'_>, claims: &HashSet<&str>, errors: &mut Errors) {
    for (name, amount) in r.entries("limits") {
        limit(name, &amount, errors);
    }
    let (requests, limits) = (r.of("requests"), r.of("limits"));
    for (name, amount) in r.entries("requests") {
        limit(name, &amount, errors);
        let Some(request) = amount.quantity() else { continue };
        let bound = limits.v.get(name).map(|v| At::new(v, "")).and_then(|at| at.quantity());
        let shown = request.to_string();
        match bound {
            Some(bound) if request != bound && !resources::overcommits(name) => {
                let detail = format!("must be equal to {name} limit of {bound}");
                errors.invalid(requests.path.as_str(), shown.as_str(), &detail);
            }
            Some(bound) if request > bound => {
                let detail = format!("must be less than or equal to {name} limit of {bound}");
                errors.invalid(requests.path.as_str(), shown.as_str(), &detail);
            }
            None if !resources::overcommits(name) => {
                let detail = "Limit must be set for non overcommitable resources";
                errors.required(limits.path.as_str(), detail);
            }
            _ => {}
        }
    }
    let any = |test: fn(&str) -> bool| {
        ["limits", "requests"].iter().any(|of| r.entries(of).any(|(name, _)| test(name)))
    };
    if any(resources::is_huge_page) && !any(|n| matches!(n, "cpu" | "memory")) {
        r.forbidden("HugePages require cpu or memory", errors);
    }
    claimed(r, claims, errors);
}

/// Devices that the pod claimed, by their names in the pod.
fn claimed(r: &At<'_>, claims: &HashSet<&str>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for claim in r.each("claims") {
        let n = claim.text("name");
        if n.is_empty() {
            errors.required(claim.path.as_str(), "");
            continue;
        }
        if !seen.insert((n, claim.text("request"))) {
            errors.duplicate(claim.path.as_str(), n);
        }
        if !claims.contains(n) {
            let mut all: Vec<&str> = claims.iter().copied().collect();
            all.sort_unstable();
            let end =
                if all.is_empty() { " which is empty".to_owned() } else { format!(": {}", all.join(", ")) };
            let detail = format!("must be one of the names in pod.spec.resourceClaims{end}");
            errors.not_found_for(claim.path.as_str(), n, &detail);
        }
    }
}

fn resize(c: &At<'_>, pod: &Pod<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    // Upstream does not say which.
    let at = c.of("resizePolicy").path;
    for policy in c.each("resizePolicy") {
        let (resource, restart) = (policy.of("resourceName"), policy.of("restartPolicy"));
        if !seen.insert(resource.str()) {
            errors.duplicate(policy.path.as_str(), resource.str());
        }
        resource.renamed(at.as_str()).must_be_one_of(&["cpu", "memory"], errors);
        restart.clone().renamed(at.as_str()).must_be_one_of(&["NotRequired", "RestartContainer"], errors);
        if pod.restart == "Never" && restart.str() != "NotRequired" {
            let detail = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.invalid(at.as_str(), restart.str(), detail);
        }
    }
}

fn hooks(c: &At<'_>, pod: &Pod<'_>, errors: &mut Errors) {
    pod_parts::lifecycle(c.v, &c.path, pod.grace, errors);
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(p) = object::get(c.v, kind) {
            probe(p, &c.of(kind).path, kind != "readinessProbe", errors);
        }
    }
}

fn probe(p: &Value, at: &str, one_success: bool, errors: &mut Errors) {
    pod_parts::handler(p, at, &["exec", "httpGet", "tcpSocket", "grpc"], None, errors);
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        if let Some(n) = p[field].as_i64().filter(|n| *n < 0) {
            errors.invalid(format!("{at}.{field}"), n, NEGATIVE);
        }
    }
    let grace = format!("{at}.terminationGracePeriodSeconds");
    let seconds = p["terminationGracePeriodSeconds"].as_i64();
    if let Some(n) = seconds.filter(|n| *n <= 0) {
        errors.invalid(grace.as_str(), n, "must be greater than 0");
    }
    if one_success && p["successThreshold"].as_i64().is_some_and(|n| n != 1) {
        errors.invalid(format!("{at}.successThreshold"), &p["successThreshold"], "must be 1");
    }
    if let Some(n) = seconds.filter(|_| !one_success) {
        errors.invalid(grace, n, "must not be set for readinessProbes");
    }
}

/// When a container starts anew, apart from its pod.
fn restart_policy(c: &At<'_>, errors: &mut Errors) {
    let policy = c.of("restartPolicy");
    policy.one_of(&["Always", "Never", "OnFailure"], errors);
    let rules = c.of("restartPolicyRules");
    let n = c.len("restartPolicyRules");
    if n > 0 && !policy.given() {
        errors.required(policy.path.as_str(), "must specify restartPolicy when restart rules are used");
    }
    if n > RULES_MAX {
        errors.too_many(rules.path.as_str(), n as u64, RULES_MAX as u64);
    }
    for rule in rules.items() {
        rule.of("action").must_be_one_of(&["Restart"], errors);
        let codes = rule.of("exitCodes");
        if !codes.given() {
            errors.required(codes.path.as_str(), "must be specified");
            continue;
        }
        codes.of("operator").must_be_one_of(&["In", "NotIn"], errors);
        let values = codes.of("values");
        match codes.len("values") {
            0 => errors.required(values.path.as_str(), "must specify at least one exit code"),
            n if n > EXIT_CODES_MAX => {
                errors.too_many(values.path.as_str(), n as u64, EXIT_CODES_MAX as u64);
            }
            _ => {}
        }
    }
}
