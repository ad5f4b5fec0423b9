//! What a pod must look like (kubernetes: pkg/apis/core/validation/validation.go ValidatePodSpec); its containers in
//! [`containers`], what of it may change in [`update`].

mod containers;
mod update;

use std::collections::HashSet;

use apimachinery::name;
use serde_json::Value;

use super::check::At;
use super::pod_parts;
use crate::validation::Errors;

pub(super) use containers::variable;
pub(super) use update::validate_update;

pub(super) fn validate(o: &Value, errors: &mut Errors) {
    validate_spec(&o["spec"], "spec", errors);
    let spec = At::root(o).of("spec");
    for list in ["containers", "initContainers"] {
        for c in spec.each(list) {
            let image = c.of("image");
            if image.str().trim() != image.str() {
                image.invalid("must not have leading or trailing whitespace", errors);
            }
        }
    }
}

/// What only a new pod may not have.
pub(super) fn validate_new(o: &Value, errors: &mut Errors) {
    let spec = At::root(o).of("spec");
    if spec.len("ephemeralContainers") > 0 {
        spec.of("ephemeralContainers").forbidden("cannot be set on create", errors);
    }
    if !spec.text("nodeName").is_empty() && spec.len("schedulingGates") > 0 {
        let detail = "cannot be set until all schedulingGates have been cleared";
        spec.of("nodeName").forbidden(detail, errors);
    }
}

pub(super) fn validate_spec(spec: &Value, at: &str, errors: &mut Errors) {
    let whole = At::new(spec, at);
    let volumes = validate_volumes(&whole, errors);
    resource_claims(&whole, errors);
    containers::all(&whole, &volumes, errors);
    host_network(&whole, errors);
    whole.of("restartPolicy").must_be_one_of(&["Always", "OnFailure", "Never"], errors);
    whole.of("dnsPolicy").one_of(&["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"], errors);
    whole.of("nodeSelector").labels(errors);
    pod_parts::pod_security(spec, at, errors);
    pod_parts::affinity(spec, at, errors);
    pod_parts::dns(&whole, errors);
    pod_parts::gates(&whole, errors);
    pod_parts::spreading(spec, at, errors);
    host_users(&whole, errors);
    whole.of("terminationGracePeriodSeconds").not_negative(errors);
    whole.of("serviceAccountName").name_if(name::dns_subdomain, errors);
    whole.of("nodeName").name_if(name::dns_subdomain, errors);
    whole.of("activeDeadlineSeconds").between(1, i64::from(i32::MAX), errors);
    whole.of("hostname").name_if(name::dns_label, errors);
    whole.of("subdomain").name_if(name::dns_label, errors);
    tolerations(&whole, errors);
    pod_parts::host_aliases(&whole, errors);
    whole.of("priorityClassName").name_if(name::dns_subdomain, errors);
    whole.of("runtimeClassName").name_if(name::dns_subdomain, errors);
    whole.of("preemptionPolicy").one_of(&["PreemptLowerPriority", "Never"], errors);
    let overhead = whole.of("overhead").renamed(format!("{at}.overhead.limits"));
    for (name, amount) in overhead.entries("") {
        containers::limit(name, &amount, errors);
    }
    system(&whole, errors);
}

/// The volumes that are whole.
fn validate_volumes<'a>(spec: &At<'a>, errors: &mut Errors) -> Vec<&'a Value> {
    let (mut names, mut whole) = (HashSet::new(), Vec::new());
    for v in spec.each("volumes") {
        let mut found = Errors::default();
        pod_parts::volume(&v, &mut found);
        let n = v.of("name");
        n.must_be_name(name::dns_label, &mut found);
        if names.contains(n.str()) {
            found.duplicate(n.path.as_str(), n.str());
        }
        if found.is_empty() {
            names.insert(n.str());
            whole.push(v.v);
        }
        errors.append(found);
    }
    whole
}

fn resource_claims(spec: &At<'_>, errors: &mut Errors) {
    let mut names = HashSet::new();
    for claim in spec.each("resourceClaims") {
        let n = claim.of("name");
        if n.required(errors) {
            if names.insert(n.str()) {
                n.name(name::dns_label, errors);
            } else {
                errors.duplicate(n.path.as_str(), n.str());
            }
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"].map(|f| claim.of(f));
        match sources.iter().filter(|s| s.given()).count() {
            2 => claim.invalid(
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
                errors,
            ),
            0 => {
                claim.invalid("must specify one of: `resourceClaimName`, `resourceClaimTemplateName`", errors)
            }
            _ => {}
        }
        for source in sources.iter().filter(|s| s.given()) {
            source.name(name::dns_subdomain, errors);
        }
    }
}

/// On the node's network, a container's ports are the node's.
fn host_network(spec: &At<'_>, errors: &mut Errors) {
    for c in spec.each("containers").filter(|_| spec.flag("hostNetwork")) {
        for port in c.each("ports") {
            let host = port.of("hostPort");
            if host.v.as_i64().is_some_and(|n| n != 0) && host.v != port.of("containerPort").v {
                host.invalid("must match `containerPort` when `hostNetwork` is true", errors);
            }
        }
    }
}

/// A pod with users of its own shares nothing else of the node's.
fn host_users(spec: &At<'_>, errors: &mut Errors) {
    if *spec.of("hostUsers").v == false {
        for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")]
        {
            if spec.flag(field) {
                errors.forbidden(format!("{}.{shown}", spec.path), "when `pod.Spec.HostUsers` is false");
            }
        }
    }
}

pub(super) fn tolerations(spec: &At<'_>, errors: &mut Errors) {
    for t in spec.each("tolerations") {
        let (key, operator, effect) = (t.of("key"), t.of("operator"), t.of("effect"));
        key.name_if(name::qualified_name, errors);
        if key.str().is_empty() && operator.str() != "Exists" {
            let detail =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid(operator.path.as_str(), operator.str(), detail);
        }
        if t.of("tolerationSeconds").given() && effect.str() != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.invalid(effect.path.as_str(), effect.str(), detail);
        }
        match operator.str() {
            "" | "Equal" => {
                if let Err(why) = name::label_value(t.text("value")) {
                    let detail = why.iter().collect::<Vec<_>>().join(";");
                    errors.invalid(operator.path.as_str(), t.text("value"), &detail);
                }
            }
            "Exists" => {
                if !t.text("value").is_empty() {
                    errors.invalid(
                        operator.path.as_str(),
                        t.v,
                        "value must be empty when `operator` is 'Exists'",
                    );
                }
            }
            _ => operator.one_of(&["Equal", "Exists"], errors),
        }
        if !effect.str().is_empty() {
            effect.one_of(&["NoSchedule", "PreferNoSchedule", "NoExecute"], errors);
        }
    }
}

/// What a system lacks cannot be asked of it.
fn system(spec: &At<'_>, errors: &mut Errors) {
    const POD: [&str; 13] = [
        "securityContext.appArmorProfile",
        "securityContext.seLinuxOptions",
        "hostUsers",
        "hostPID",
        "hostIPC",
        "securityContext.seccompProfile",
        "securityContext.fsGroup",
        "securityContext.fsGroupChangePolicy",
        "securityContext.sysctls",
        "shareProcessNamespace",
        "securityContext.runAsUser",
        "securityContext.runAsGroup",
        "securityContext.supplementalGroups",
    ];
    const CONTAINER: [&str; 10] = [
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "capabilities",
        "readOnlyRootFilesystem",
        "privileged",
        "allowPrivilegeEscalation",
        "procMount",
        "runAsUser",
        "runAsGroup",
    ];
    let Some(os) = spec.get("os") else { return };
    let name = os.of("name");
    name.must_be_one_of(&["linux", "windows"], errors);
    let (pod, container, word): (&[&str], &[&str], &str) = match name.str() {
        "linux" => {
            let only = &["securityContext.windowsOptions"];
            (only, &["windowsOptions"], "windows options cannot be set for a linux pod")
        }
        "windows" => (&POD, &CONTAINER, "cannot be set for a windows pod"),
        _ => return,
    };
    let set = |at: &At<'_>| at.given() && *at.v != false;
    for at in pod.iter().map(|f| spec.of(f)).filter(set) {
        at.forbidden(word, errors);
    }
    for c in ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|l| spec.each(l)) {
        for at in container.iter().map(|f| c.of(&format!("securityContext.{f}"))).filter(At::given) {
            at.forbidden(word, errors);
        }
    }
}
