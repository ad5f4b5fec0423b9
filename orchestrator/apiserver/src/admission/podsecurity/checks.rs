//! The Pod Security Standards, check by check, in upstream's words
//! (pod-security-admission: policy/check_*.go; docs: concepts/security/pod-security-standards).

use std::collections::BTreeSet;

use serde_json::Value;

use super::Level;
use crate::object;

/// The newest version whose checks are known here: that of the API.
pub(super) const NEWEST: u32 = 35;

/// What a pod is judged by.
struct Pod<'a> {
    annotations: Option<&'a Value>,
    spec: &'a Value,
    /// Init, main and ephemeral ones.
    containers: Vec<&'a Value>,
    /// Minor version of the policy.
    version: u32,
}

/// Why a pod is refused: reason and detail.
pub(super) type Finding = (String, String);

type Run = fn(&Pod<'_>) -> Option<Finding>;

/// Baseline checks: from which version on restricted ones stand in their place, and what they do.
const BASELINE: [(Option<u32>, u32, Run); 12] = [
    (None, 0, app_armor),
    (Some(22), 0, capabilities_baseline),
    (None, 0, host_namespaces),
    (Some(0), 0, host_path_volumes),
    (None, 0, host_ports),
    (None, 34, probe_hosts),
    (None, 0, privileged),
    (Some(35), 0, proc_mount_baseline),
    (None, 0, se_linux),
    (Some(19), 0, seccomp_baseline),
    (None, 0, sysctls),
    (None, 0, host_process),
];

/// Restricted checks and the version they begin with.
const RESTRICTED: [(u32, Run); 7] = [
    (8, privilege_escalation),
    (22, capabilities_restricted),
    (35, proc_mount),
    (0, restricted_volumes),
    (0, run_as_non_root),
    (23, run_as_user),
    (19, seccomp_restricted),
];

/// What is wrong with a pod at a level; `version` is a minor one, `None` the newest.
pub(super) fn evaluate(level: Level, version: Option<u32>, metadata: &Value, spec: &Value) -> Vec<Finding> {
    if level == Level::Privileged {
        return Vec::new();
    }
    let version = version.unwrap_or(NEWEST).min(NEWEST);
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    let containers = lists.iter().flat_map(|l| object::list(spec, l)).collect();
    let pod = Pod { annotations: object::get(metadata, "annotations"), spec, containers, version };
    let restricted = level == Level::Restricted;
    let baseline = BASELINE.iter().filter(|(replaced, since, _)| {
        version >= *since && !(restricted && replaced.is_some_and(|r| version >= r))
    });
    let mut found: Vec<Finding> = baseline.filter_map(|(_, _, run)| run(&pod)).collect();
    if restricted {
        let more = RESTRICTED.iter().filter(|(since, _)| version >= *since);
        found.extend(more.filter_map(|(_, run)| run(&pod)));
    }
    found
}

fn plural<'a>(one: &'a str, many: &'a str, n: usize) -> &'a str {
    if n == 1 { one } else { many }
}

fn quoted<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> String {
    let words: Vec<String> = words.into_iter().map(|w| format!("\"{}\"", w.as_ref())).collect();
    words.join(", ")
}

/// `container "a"`, `containers "a", "b"`
fn named(containers: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", containers.len()), quoted(containers))
}

fn finding(reason: &str, detail: String) -> Option<Finding> {
    Some((reason.to_owned(), detail))
}

impl<'a> Pod<'a> {
    /// Names of the containers for which something holds.
    fn which(&self, mut holds: impl FnMut(&'a Value) -> bool) -> Vec<&'a str> {
        let all = self.containers.iter().filter(|c| holds(c));
        all.map(|c| c["name"].as_str().unwrap_or_default()).collect()
    }

    /// `pod`, containers, or both, that set what they must not: the pod's own setting, then the containers'.
    fn setters(&self, path: &str, mut bad: impl FnMut(&'a Value) -> bool) -> Vec<String> {
        let path = format!("securityContext.{path}");
        let mut out = Vec::new();
        if object::get(self.spec, &path).is_some_and(&mut bad) {
            out.push("pod".to_owned());
        }
        let containers = self.which(|c| object::get(c, &path).is_some_and(&mut bad));
        if !containers.is_empty() {
            out.push(named(&containers));
        }
        out
    }

    fn is_windows(&self) -> bool {
        object::text(self.spec, "os.name") == Some("windows")
    }

    /// A pod in a user namespace of its own is judged milder (KEP-127).
    fn has_own_users(&self) -> bool {
        object::get(self.spec, "hostUsers").is_some_and(|u| u == false)
    }
}

fn app_armor(pod: &Pod<'_>) -> Option<Finding> {
    const PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
    let mut values = BTreeSet::new();
    let mut setters = pod.setters("appArmorProfile", |p| {
        let kind = p["type"].as_str().unwrap_or_default();
        let bad = !matches!(kind, "RuntimeDefault" | "Localhost");
        if bad {
            values.insert(kind.to_owned());
        }
        bad
    });
    let mut values: Vec<String> = values.into_iter().collect();
    let annotations = pod.annotations.and_then(Value::as_object).into_iter().flatten();
    let mut forbidden: Vec<String> = annotations
        .filter_map(|(k, v)| {
            let v = v.as_str()?;
            let good = v.is_empty() || v == "runtime/default" || v.starts_with("localhost/");
            (k.starts_with(PREFIX) && !good).then(|| format!("{k}={v:?}"))
        })
        .collect();
    if !forbidden.is_empty() {
        forbidden.sort();
        setters.push(plural("annotation", "annotations", forbidden.len()).to_owned());
        values.extend(forbidden);
    }
    if setters.is_empty() {
        return None;
    }
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    finding(
        reason,
        format!("{} must not set AppArmor profile type to {}", setters.join(" and "), quoted(&values)),
    )
}

/// Containers that add capabilities outside a set, and which.
fn adding<'a>(pod: &Pod<'a>, allowed: &[&str]) -> (Vec<&'a str>, BTreeSet<&'a str>) {
    let mut forbidden = BTreeSet::new();
    let containers = pod.which(|c| {
        let added = object::list(c, "securityContext.capabilities.add").iter().filter_map(Value::as_str);
        let bad: Vec<&str> = added.filter(|a| !allowed.contains(a)).collect();
        forbidden.extend(bad.iter().copied());
        !bad.is_empty()
    });
    (containers, forbidden)
}

fn capabilities_baseline(pod: &Pod<'_>) -> Option<Finding> {
    const ALLOWED: [&str; 13] = [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ];
    let (containers, forbidden) = adding(pod, &ALLOWED);
    if containers.is_empty() {
        return None;
    }
    let detail = format!(
        "{} must not include {} in securityContext.capabilities.add",
        named(&containers),
        quoted(forbidden)
    );
    finding("non-default capabilities", detail)
}

fn host_namespaces(pod: &Pod<'_>) -> Option<Finding> {
    let set: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|f| object::flag(pod.spec, f))
        .map(|f| format!("{f}=true"))
        .collect();
    if set.is_empty() { None } else { finding("host namespaces", set.join(", ")) }
}

fn host_path_volumes(pod: &Pod<'_>) -> Option<Finding> {
    let volumes = object::list(pod.spec, "volumes").iter().filter(|v| object::get(v, "hostPath").is_some());
    let names: Vec<&str> = volumes.filter_map(|v| v["name"].as_str()).collect();
    if names.is_empty() {
        return None;
    }
    finding("hostPath volumes", format!("{} {}", plural("volume", "volumes", names.len()), quoted(&names)))
}

fn host_ports(pod: &Pod<'_>) -> Option<Finding> {
    let mut ports = BTreeSet::new();
    let containers = pod.which(|c| {
        let own = object::list(c, "ports").iter().filter_map(|p| p["hostPort"].as_i64());
        let own: Vec<String> = own.filter(|p| *p != 0).map(|p| p.to_string()).collect();
        let bad = !own.is_empty();
        ports.extend(own);
        bad
    });
    if containers.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {} {}",
        named(&containers),
        plural("uses", "use", containers.len()),
        plural("hostPort", "hostPorts", ports.len()),
        ports.into_iter().collect::<Vec<_>>().join(", ")
    );
    finding("hostPort", detail)
}

fn probe_hosts(pod: &Pod<'_>) -> Option<Finding> {
    const HANDLERS: [&str; 5] =
        ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle.postStart", "lifecycle.preStop"];
    let mut hosts = BTreeSet::new();
    let mut containers = pod.which(|c| {
        let before = hosts.len();
        let mut bad = false;
        for handler in HANDLERS.iter().filter_map(|h| object::get(c, h)) {
            for kind in ["httpGet.host", "tcpSocket.host"] {
                if let Some(h) = object::text(handler, kind).filter(|h| !h.is_empty()) {
                    hosts.insert(h);
                    bad = true;
                }
            }
        }
        bad || hosts.len() > before
    });
    if containers.is_empty() {
        return None;
    }
    containers.sort_unstable();
    let detail = format!(
        "{} {} {} {}",
        named(&containers),
        plural("uses", "use", containers.len()),
        plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len()),
        quoted(hosts)
    );
    finding("probe or lifecycle host", detail)
}

fn privileged(pod: &Pod<'_>) -> Option<Finding> {
    let containers = pod.which(|c| object::flag(c, "securityContext.privileged"));
    if containers.is_empty() {
        return None;
    }
    finding("privileged", format!("{} must not set securityContext.privileged=true", named(&containers)))
}

fn proc_mount_baseline(pod: &Pod<'_>) -> Option<Finding> {
    if pod.version >= 35 && pod.has_own_users() { None } else { proc_mount(pod) }
}

fn proc_mount(pod: &Pod<'_>) -> Option<Finding> {
    let mut kinds = BTreeSet::new();
    let containers = pod.which(|c| {
        let kind = object::text(c, "securityContext.procMount").filter(|k| *k != "Default");
        kinds.extend(kind);
        kind.is_some()
    });
    if containers.is_empty() {
        return None;
    }
    finding(
        "procMount",
        format!("{} must not set securityContext.procMount to {}", named(&containers), quoted(kinds)),
    )
}

fn se_linux(pod: &Pod<'_>) -> Option<Finding> {
    let (mut types, mut user, mut role) = (BTreeSet::new(), false, false);
    let newer = pod.version >= 31;
    let setters = pod.setters("seLinuxOptions", |o| {
        let text = |k: &str| object::text(o, k).unwrap_or_default();
        let kind = text("type");
        let good = matches!(kind, "" | "container_t" | "container_init_t" | "container_kvm_t")
            || newer && kind == "container_engine_t";
        if !good {
            types.insert(kind.to_owned());
        }
        user |= !text("user").is_empty();
        role |= !text("role").is_empty();
        !good || !text("user").is_empty() || !text("role").is_empty()
    });
    if setters.is_empty() {
        return None;
    }
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    }
    if user {
        what.push("user may not be set".to_owned());
    }
    if role {
        what.push("role may not be set".to_owned());
    }
    let detail = format!(
        "{} set forbidden securityContext.seLinuxOptions: {}",
        setters.join(" and "),
        what.join("; ")
    );
    finding("seLinuxOptions", detail)
}

fn is_good_seccomp(profile: &Value) -> bool {
    matches!(profile["type"].as_str(), Some("RuntimeDefault" | "Localhost"))
}

fn seccomp_baseline(pod: &Pod<'_>) -> Option<Finding> {
    if pod.version < 19 {
        return seccomp_annotations(pod);
    }
    seccomp_set(pod)
}

/// Before 1.19 the profile was an annotation.
fn seccomp_annotations(pod: &Pod<'_>) -> Option<Finding> {
    let mut keys = vec!["seccomp.security.alpha.kubernetes.io/pod".to_owned()];
    keys.extend(
        pod.which(|_| true).iter().map(|c| format!("container.seccomp.security.alpha.kubernetes.io/{c}")),
    );
    let bad: BTreeSet<String> = keys
        .iter()
        .filter_map(|k| {
            let v = pod.annotations?.get(k)?.as_str()?;
            let good = v == "runtime/default" || v == "docker/default" || v.starts_with("localhost/");
            (!good).then(|| format!("{k}={v:?}"))
        })
        .collect();
    if bad.is_empty() {
        return None;
    }
    let n = bad.len();
    let list = bad.into_iter().collect::<Vec<_>>().join(", ");
    finding("seccompProfile", format!("forbidden {} {list}", plural("annotation", "annotations", n)))
}

fn seccomp_set(pod: &Pod<'_>) -> Option<Finding> {
    let mut values = BTreeSet::new();
    let setters = pod.setters("seccompProfile", |p| {
        let bad = !is_good_seccomp(p);
        if bad {
            values.insert(p["type"].as_str().unwrap_or_default().to_owned());
        }
        bad
    });
    if setters.is_empty() {
        return None;
    }
    let detail = format!(
        "{} must not set securityContext.seccompProfile.type to {}",
        setters.join(" and "),
        quoted(values)
    );
    finding("seccompProfile", detail)
}

fn sysctls(pod: &Pod<'_>) -> Option<Finding> {
    const ALLOWED: [(u32, &[&str]); 4] = [
        (
            0,
            &[
                "kernel.shm_rmid_forced",
                "net.ipv4.ip_local_port_range",
                "net.ipv4.tcp_syncookies",
                "net.ipv4.ping_group_range",
                "net.ipv4.ip_unprivileged_port_start",
            ],
        ),
        (27, &["net.ipv4.ip_local_reserved_ports"]),
        (
            29,
            &[
                "net.ipv4.tcp_keepalive_time",
                "net.ipv4.tcp_fin_timeout",
                "net.ipv4.tcp_keepalive_intvl",
                "net.ipv4.tcp_keepalive_probes",
            ],
        ),
        (32, &["net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"]),
    ];
    let allowed =
        |name: &str| ALLOWED.iter().any(|(since, names)| pod.version >= *since && names.contains(&name));
    let set = object::list(pod.spec, "securityContext.sysctls").iter().filter_map(|s| s["name"].as_str());
    let forbidden: Vec<&str> = set.filter(|s| !allowed(s)).collect();
    if forbidden.is_empty() { None } else { finding("forbidden sysctls", forbidden.join(", ")) }
}

fn host_process(pod: &Pod<'_>) -> Option<Finding> {
    let setters = pod.setters("windowsOptions.hostProcess", |v| *v == true);
    if setters.is_empty() {
        return None;
    }
    finding(
        "hostProcess",
        format!("{} must not set securityContext.windowsOptions.hostProcess=true", setters.join(" and ")),
    )
}

fn privilege_escalation(pod: &Pod<'_>) -> Option<Finding> {
    if pod.version >= 25 && pod.is_windows() {
        return None;
    }
    let containers =
        pod.which(|c| object::get(c, "securityContext.allowPrivilegeEscalation").is_none_or(|v| *v != false));
    if containers.is_empty() {
        return None;
    }
    finding(
        "allowPrivilegeEscalation != false",
        format!("{} must set securityContext.allowPrivilegeEscalation=false", named(&containers)),
    )
}

fn capabilities_restricted(pod: &Pod<'_>) -> Option<Finding> {
    if pod.version >= 25 && pod.is_windows() {
        return None;
    }
    let keeping =
        pod.which(|c| !object::list(c, "securityContext.capabilities.drop").iter().any(|d| d == "ALL"));
    let (adding, forbidden) = adding(pod, &["NET_BIND_SERVICE"]);
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named(&keeping)));
    }
    if !adding.is_empty() {
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            named(&adding),
            quoted(forbidden)
        ));
    }
    if details.is_empty() { None } else { finding("unrestricted capabilities", details.join("; ")) }
}

fn restricted_volumes(pod: &Pod<'_>) -> Option<Finding> {
    const ALLOWED: [&str; 9] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    let (mut names, mut types) = (Vec::new(), BTreeSet::new());
    for v in object::list(pod.spec, "volumes") {
        let source = v.as_object().into_iter().flatten().find(|(k, s)| *k != "name" && !s.is_null());
        let source = source.map_or("unknown", |(k, _)| k.as_str());
        if !ALLOWED.contains(&source) {
            names.push(v["name"].as_str().unwrap_or_default());
            types.insert(source);
        }
    }
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", "volumes", names.len()),
        quoted(&names),
        plural("uses", "use", names.len()),
        plural("restricted volume type", "restricted volume types", types.len()),
        quoted(types)
    );
    finding("restricted volume types", detail)
}

fn run_as_non_root(pod: &Pod<'_>) -> Option<Finding> {
    const REASON: &str = "runAsNonRoot != true";
    if pod.version >= 35 && pod.has_own_users() {
        return None;
    }
    let setters = pod.setters("runAsNonRoot", |v| *v == false);
    if !setters.is_empty() {
        let detail = format!("{} must not set securityContext.runAsNonRoot=false", setters.join(" and "));
        return finding(REASON, detail);
    }
    if object::flag(pod.spec, "securityContext.runAsNonRoot") {
        return None;
    }
    let silent = pod.which(|c| object::get(c, "securityContext.runAsNonRoot").is_none());
    if silent.is_empty() {
        return None;
    }
    finding(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", named(&silent)))
}

fn run_as_user(pod: &Pod<'_>) -> Option<Finding> {
    if pod.version >= 35 && pod.has_own_users() {
        return None;
    }
    let setters = pod.setters("runAsUser", |v| *v == 0);
    if setters.is_empty() {
        return None;
    }
    finding("runAsUser=0", format!("{} must not set runAsUser=0", setters.join(" and ")))
}

fn seccomp_restricted(pod: &Pod<'_>) -> Option<Finding> {
    if pod.version >= 25 && pod.is_windows() {
        return None;
    }
    if let Some(set) = seccomp_set(pod) {
        return Some(set);
    }
    if object::get(pod.spec, "securityContext.seccompProfile").is_some_and(is_good_seccomp) {
        return None;
    }
    let silent = pod.which(|c| object::get(c, "securityContext.seccompProfile").is_none());
    if silent.is_empty() {
        return None;
    }
    let detail = format!(
        "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
        named(&silent)
    );
    finding("seccompProfile", detail)
}

#[cfg(test)]
mod tests;
