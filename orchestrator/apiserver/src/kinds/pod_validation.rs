//! What a pod must look like (kubernetes: pkg/apis/core/validation/validation.go).

use std::collections::HashSet;

use apimachinery::name;
use apimachinery::quantity::Quantity;
use serde_json::Value;

use super::pod_parts;
use crate::object;
use crate::validation::Errors;

pub(super) fn validate(o: &Value, errors: &mut Errors) {
    validate_spec(&o["spec"], "spec", errors);
}

pub(super) fn validate_spec(spec: &Value, at: &str, errors: &mut Errors) {
    let volumes = validate_volumes(spec, at, errors);
    let mut names = HashSet::new();
    if object::list(spec, "containers").is_empty() {
        errors.required(format!("{at}.containers"), "");
    }
    for list in ["containers", "initContainers"] {
        for (i, c) in object::list(spec, list).iter().enumerate() {
            validate_container(
                c,
                &format!("{at}.{list}[{i}]"),
                &mut names,
                &volumes,
                (list == "initContainers", object::int(spec, "terminationGracePeriodSeconds")),
                errors,
            );
        }
    }
    match object::text(spec, "restartPolicy") {
        Some("Always" | "OnFailure" | "Never") => {}
        Some(other) if !other.is_empty() => {
            errors.not_supported(format!("{at}.restartPolicy"), other, &["Always", "OnFailure", "Never"]);
        }
        _ => errors.required(format!("{at}.restartPolicy"), ""),
    }
    match object::text(spec, "dnsPolicy") {
        Some("ClusterFirstWithHostNet" | "ClusterFirst" | "Default") | None => {}
        Some("None") => {
            if object::list(spec, "dnsConfig.nameservers").is_empty() {
                errors.required(
                    format!("{at}.dnsConfig.nameservers"),
                    "must provide at least one DNS nameserver when `dnsPolicy` is None",
                );
            }
        }
        Some(other) => errors.not_supported(
            format!("{at}.dnsPolicy"),
            other,
            &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"],
        ),
    }
    if let Some(n) = object::int(spec, "terminationGracePeriodSeconds")
        && n < 0
    {
        errors.invalid(
            format!("{at}.terminationGracePeriodSeconds"),
            n,
            "must be greater than or equal to 0",
        );
    }
    if let Some(n) = object::int(spec, "activeDeadlineSeconds")
        && !(1..=i64::from(i32::MAX)).contains(&n)
    {
        errors.invalid(
            format!("{at}.activeDeadlineSeconds"),
            n,
            "must be between 1 and 2147483647, inclusive",
        );
    }
    for field in ["nodeName", "serviceAccountName"] {
        if let Some(n) = object::text(spec, field).filter(|n| !n.is_empty())
            && let Err(e) = name::dns_subdomain(n)
        {
            errors.invalid(format!("{at}.{field}"), n, &e);
        }
    }
    for (k, v) in spec["nodeSelector"].as_object().into_iter().flatten() {
        let v = v.as_str().unwrap_or_default();
        if let Err(e) = name::qualified_name(k) {
            errors.invalid(format!("{at}.nodeSelector"), k.as_str(), &e);
        }
        if let Err(e) = name::label_value(v) {
            errors.invalid(format!("{at}.nodeSelector"), v, &e);
        }
    }
    for (i, t) in object::list(spec, "tolerations").iter().enumerate() {
        let at = format!("{at}.tolerations[{i}]");
        let (key, op) = (t["key"].as_str().unwrap_or_default(), t["operator"].as_str().unwrap_or_default());
        if key.is_empty() && op != "Exists" {
            errors.invalid(
                format!("{at}.operator"),
                op,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        if op == "Exists" && t["value"].as_str().is_some_and(|v| !v.is_empty()) {
            errors.invalid(
                format!("{at}.operator"),
                &t["value"],
                "value must be empty when `operator` is 'Exists'",
            );
        }
        if !matches!(op, "" | "Exists" | "Equal") {
            errors.not_supported(format!("{at}.operator"), op, &["Equal", "Exists"]);
        }
        if !key.is_empty()
            && let Err(e) = name::qualified_name(key)
        {
            errors.invalid(format!("{at}.key"), key, &e);
        }
        if object::get(t, "tolerationSeconds").is_some() && t["effect"] != "NoExecute" {
            let effect = t["effect"].as_str().unwrap_or_default();
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.invalid(format!("{at}.effect"), effect, detail);
        }
        if !matches!(t["effect"].as_str(), None | Some("" | "NoSchedule" | "PreferNoSchedule" | "NoExecute"))
        {
            errors.not_supported(
                format!("{at}.effect"),
                t["effect"].as_str().unwrap_or_default(),
                &["NoSchedule", "PreferNoSchedule", "NoExecute"],
            );
        }
    }
    pod_parts::pod_security(spec, at, errors);
    pod_parts::affinity(spec, at, errors);
    pod_parts::spreading(spec, at, errors);
    pod_parts::rest(spec, at, errors);
}

fn validate_volumes(spec: &Value, at: &str, errors: &mut Errors) -> HashSet<String> {
    let mut names = HashSet::new();
    for (i, v) in object::list(spec, "volumes").iter().enumerate() {
        let at = format!("{at}.volumes[{i}]");
        let n = v["name"].as_str().unwrap_or_default();
        if n.is_empty() {
            errors.required(format!("{at}.name"), "");
        } else if let Err(e) = name::dns_label(n) {
            errors.invalid(format!("{at}.name"), n, &e);
        } else if !names.insert(n.to_owned()) {
            errors.duplicate(format!("{at}.name"), n);
        }
        let sources: Vec<&String> = v
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(k, v)| *k != "name" && !v.is_null())
            .map(|(k, _)| k)
            .collect();
        if let [_, second, ..] = sources.as_slice() {
            errors.forbidden(format!("{at}.{second}"), "may not specify more than 1 volume type");
        }
        for (source, field) in [("secret", "secretName"), ("configMap", "name"), ("hostPath", "path")] {
            if let Some(s) = object::get(v, source)
                && object::text(s, field).is_none_or(str::is_empty)
            {
                errors.required(format!("{at}.{source}.{field}"), "");
            }
        }
        pod_parts::volume(v, &at, errors);
    }
    names
}

fn validate_container(
    c: &Value,
    at: &str,
    names: &mut HashSet<String>,
    volumes: &HashSet<String>,
    (init, grace): (bool, Option<i64>),
    errors: &mut Errors,
) {
    let n = c["name"].as_str().unwrap_or_default();
    if n.is_empty() {
        errors.required(format!("{at}.name"), "");
    } else if let Err(e) = name::dns_label(n) {
        errors.invalid(format!("{at}.name"), n, &e);
    } else if !names.insert(n.to_owned()) {
        errors.duplicate(format!("{at}.name"), n);
    }
    let image = c["image"].as_str().unwrap_or_default();
    if image.is_empty() {
        errors.required(format!("{at}.image"), "");
    } else if image.trim() != image {
        errors.invalid(format!("{at}.image"), image, "must not have leading or trailing whitespace");
    }
    match c["imagePullPolicy"].as_str() {
        Some("Always" | "IfNotPresent" | "Never") => {}
        Some(other) => {
            errors.not_supported(format!("{at}.imagePullPolicy"), other, &["Always", "IfNotPresent", "Never"])
        }
        None => errors.required(format!("{at}.imagePullPolicy"), ""),
    }
    validate_ports(c, at, errors);
    for (i, e) in object::list(c, "env").iter().enumerate() {
        let at = format!("{at}.env[{i}]");
        let n = e["name"].as_str().unwrap_or_default();
        if n.is_empty() {
            errors.required(format!("{at}.name"), "");
        } else if n.contains('=') || !n.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            errors.invalid(format!("{at}.name"), n, "a valid environment variable name must consist only of printable ASCII characters other than '='");
        }
        if let Some(from) = object::get(e, "valueFrom") {
            let sources = from.as_object().map_or(0, |m| m.values().filter(|v| !v.is_null()).count());
            if sources != 1 {
                let detail = if sources == 0 {
                    "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
                } else {
                    "may not have more than one field specified at a time"
                };
                errors.invalid(format!("{at}.valueFrom"), "", detail);
            }
            pod_parts::value_from(from, &format!("{at}.valueFrom"), errors);
            if e["value"].as_str().is_some_and(|v| !v.is_empty()) {
                errors.invalid(
                    format!("{at}.valueFrom"),
                    "",
                    "may not be specified when `value` is not empty",
                );
            }
        }
    }
    pod_parts::env_from(c, at, errors);
    pod_parts::security(c, at, errors);
    let privileged = c["securityContext"]["privileged"] == true;
    let mut paths = HashSet::new();
    for (i, m) in object::list(c, "volumeMounts").iter().enumerate() {
        let at = format!("{at}.volumeMounts[{i}]");
        let n = m["name"].as_str().unwrap_or_default();
        if n.is_empty() {
            errors.required(format!("{at}.name"), "");
        } else if !volumes.contains(n) {
            errors.not_found(format!("{at}.name"), n);
        }
        let path = m["mountPath"].as_str().unwrap_or_default();
        if path.is_empty() {
            errors.required(format!("{at}.mountPath"), "");
        } else if !paths.insert(path) {
            errors.invalid(format!("{at}.mountPath"), path, "must be unique");
        }
        pod_parts::mount(m, &at, privileged, errors);
    }
    match c["terminationMessagePolicy"].as_str() {
        None | Some("File" | "FallbackToLogsOnError") => {}
        Some(other) => errors.not_supported(
            format!("{at}.terminationMessagePolicy"),
            other,
            &["FallbackToLogsOnError", "File"],
        ),
    }
    validate_resources(&c["resources"], &format!("{at}.resources"), errors);
    let restartable = c["restartPolicy"] == "Always";
    if object::get(c, "lifecycle").is_some() {
        if init && !restartable {
            let detail = "may not be set for init containers without restartPolicy=Always";
            errors.forbidden(format!("{at}.lifecycle"), detail);
        }
        pod_parts::lifecycle(c, at, grace, errors);
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(p) = object::get(c, probe) {
            if init && !restartable {
                errors.forbidden(
                    format!("{at}.{probe}"),
                    "may not be set for init containers without restartPolicy=Always",
                );
            }
            validate_probe(p, &format!("{at}.{probe}"), probe != "readinessProbe", errors);
        }
    }
}

fn port_in_range(n: i64) -> bool {
    (1..=65535).contains(&n)
}

fn validate_ports(c: &Value, at: &str, errors: &mut Errors) {
    let mut names = HashSet::new();
    for (i, p) in object::list(c, "ports").iter().enumerate() {
        let at = format!("{at}.ports[{i}]");
        if let Some(n) = p["name"].as_str().filter(|n| !n.is_empty()) {
            if let Err(e) = name::port_name(n) {
                errors.invalid(format!("{at}.name"), n, &e);
            } else if !names.insert(n) {
                errors.duplicate(format!("{at}.name"), n);
            }
        }
        match p["containerPort"].as_i64() {
            None | Some(0) => errors.required(format!("{at}.containerPort"), ""),
            Some(n) if !port_in_range(n) => {
                errors.invalid(format!("{at}.containerPort"), n, "must be between 1 and 65535, inclusive");
            }
            Some(_) => {}
        }
        if let Some(n) = p["hostPort"].as_i64()
            && n != 0
            && !port_in_range(n)
        {
            errors.invalid(format!("{at}.hostPort"), n, "must be between 1 and 65535, inclusive");
        }
        if !matches!(p["protocol"].as_str(), None | Some("TCP" | "UDP" | "SCTP")) {
            errors.not_supported(
                format!("{at}.protocol"),
                p["protocol"].as_str().unwrap_or_default(),
                &["SCTP", "TCP", "UDP"],
            );
        }
    }
}

fn validate_resources(r: &Value, at: &str, errors: &mut Errors) {
    let quantity =
        |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned).parse::<Quantity>().ok();
    for kind in ["limits", "requests"] {
        for (k, v) in r[kind].as_object().into_iter().flatten() {
            let at = format!("{at}.{kind}[{k}]");
            match quantity(v) {
                None => errors.invalid(at, v, "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"),
                Some(q) if q < Quantity::ZERO => errors.invalid(at, v, "must be greater than or equal to 0"),
                Some(_) if !k.contains('/') && !matches!(k.as_str(), "cpu" | "memory" | "ephemeral-storage") && !k.starts_with("hugepages-") => {
                    errors.invalid(at, k.as_str(), "must be a standard resource type or fully qualified");
                }
                Some(_) => {}
            }
        }
    }
    for (k, v) in r["requests"].as_object().into_iter().flatten() {
        if let (Some(request), Some(limit)) = (quantity(v), r["limits"].get(k).and_then(quantity))
            && request > limit
        {
            errors.invalid(
                format!("{at}.requests"),
                v,
                &format!("must be less than or equal to {k} limit of {limit}"),
            );
        }
    }
}

fn validate_probe(p: &Value, at: &str, one_success: bool, errors: &mut Errors) {
    pod_parts::handler(p, at, &["exec", "httpGet", "tcpSocket", "grpc"], None, errors);
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        if let Some(n) = p[field].as_i64()
            && n < 0
        {
            errors.invalid(format!("{at}.{field}"), n, "must be greater than or equal to 0");
        }
    }
    if one_success && p["successThreshold"].as_i64().is_some_and(|n| n != 1) {
        errors.invalid(format!("{at}.successThreshold"), &p["successThreshold"], "must be 1");
    }
    if let Some(n) = p["terminationGracePeriodSeconds"].as_i64() {
        let field = format!("{at}.terminationGracePeriodSeconds");
        match (one_success, n) {
            (false, n) => errors.invalid(field, n, "must not be set for readinessProbes"),
            (true, ..=0) => errors.invalid(field, n, "must be greater than 0"),
            _ => {}
        }
    }
}

/// A pod's spec stays, but for images, deadlines and more tolerations.
pub(super) fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    for list in ["containers", "initContainers"] {
        if object::list(&new["spec"], list).len() != object::list(&old["spec"], list).len() {
            return errors.forbidden(format!("spec.{list}"), "pod updates may not add or remove containers");
        }
    }
    let mut masked = new["spec"].clone();
    for list in ["containers", "initContainers"] {
        let images: Vec<(Value, Value)> = object::list(&old["spec"], list)
            .iter()
            .map(|c| (c["name"].clone(), c["image"].clone()))
            .collect();
        for (i, c) in object::list_mut(&mut masked, list).iter_mut().enumerate() {
            if let Some((name, image)) = images.get(i)
                && c["name"] == *name
            {
                c["image"] = image.clone();
            }
        }
    }
    let old_tolerations = object::list(&old["spec"], "tolerations");
    let grown = old_tolerations.iter().all(|t| object::list(&masked, "tolerations").contains(t));
    if let Value::Object(m) = &mut masked {
        object::copy(m, &old["spec"], "activeDeadlineSeconds");
        if grown {
            object::copy(m, &old["spec"], "tolerations");
        }
        if object::int(&old["spec"], "terminationGracePeriodSeconds").is_some_and(|n| n < 0) {
            object::copy(m, &old["spec"], "terminationGracePeriodSeconds");
        }
    }
    if masked != old["spec"] {
        errors.forbidden("spec", "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)");
    }
}
