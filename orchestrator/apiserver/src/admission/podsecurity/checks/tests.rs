//! Cases after upstream's fixtures, with upstream's words.

use serde_json::{Value, json};

use super::super::{Level, describe};
use super::evaluate;

/// A pod that is good at every level, changed.
fn judge(level: Level, version: Option<u32>, change: impl FnOnce(&mut Value)) -> String {
    let mut pod = json!({"metadata": {"annotations": {}}, "spec": {
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "a", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
        "initContainers": [{"name": "i", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
    }});
    change(&mut pod);
    describe(&evaluate(level, version, &pod["metadata"], &pod["spec"]))
}

fn baseline(change: impl FnOnce(&mut Value), expect: &str) {
    assert_eq!(judge(Level::Baseline, None, change), expect);
}

fn restricted(change: impl FnOnce(&mut Value), expect: &str) {
    assert_eq!(judge(Level::Restricted, None, change), expect);
}

fn first(pod: &mut Value) -> &mut Value {
    &mut pod["spec"]["containers"][0]
}

#[test]
fn a_careful_pod_passes_everywhere() {
    baseline(|_| {}, "");
    restricted(|_| {}, "");
    for version in 0..=35 {
        assert_eq!(judge(Level::Restricted, Some(version), |_| {}), "", "v1.{version}");
    }
}

#[test]
fn baseline_in_upstreams_words() {
    baseline(
        |p| {
            p["metadata"]["annotations"]["container.apparmor.security.beta.kubernetes.io/a"] =
                "unconfined".into()
        },
        "forbidden AppArmor profile (annotation must not set AppArmor profile type to \"container.apparmor.security.beta.kubernetes.io/a=\"unconfined\"\")",
    );
    baseline(
        |p| p["spec"]["securityContext"]["appArmorProfile"] = json!({"type": "Unconfined"}),
        "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")",
    );
    baseline(
        |p| first(p)["securityContext"]["capabilities"]["add"] = json!(["NET_RAW", "CHOWN", "BPF"]),
        "non-default capabilities (container \"a\" must not include \"BPF\", \"NET_RAW\" in securityContext.capabilities.add)",
    );
    baseline(
        |p| {
            p["spec"]["hostNetwork"] = true.into();
            p["spec"]["hostIPC"] = true.into();
        },
        "host namespaces (hostNetwork=true, hostIPC=true)",
    );
    baseline(
        |p| {
            p["spec"]["volumes"] =
                json!([{"name": "x", "hostPath": {"path": "/"}}, {"name": "y", "emptyDir": {}}])
        },
        "hostPath volumes (volume \"x\")",
    );
    baseline(
        |p| {
            first(p)["ports"] = json!([{"hostPort": 80}, {"hostPort": 443}]);
            p["spec"]["initContainers"][0]["ports"] = json!([{"hostPort": 80}]);
        },
        "hostPort (containers \"i\", \"a\" use hostPorts 443, 80)",
    );
    baseline(
        |p| first(p)["livenessProbe"] = json!({"httpGet": {"host": "evil", "port": 1}}),
        "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"evil\")",
    );
    baseline(
        |p| first(p)["securityContext"]["privileged"] = true.into(),
        "privileged (container \"a\" must not set securityContext.privileged=true)",
    );
    baseline(
        |p| first(p)["securityContext"]["procMount"] = "Unmasked".into(),
        "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
    );
    baseline(
        |p| {
            p["spec"]["securityContext"]["seLinuxOptions"] =
                json!({"type": "spc_t", "user": "u", "role": "r"})
        },
        "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set; role may not be set)",
    );
    baseline(
        |p| first(p)["securityContext"]["seccompProfile"] = json!({"type": "Unconfined"}),
        "seccompProfile (container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
    );
    baseline(
        |p| {
            p["spec"]["securityContext"]["sysctls"] =
                json!([{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_rmem"}])
        },
        "forbidden sysctls (kernel.msgmax)",
    );
    baseline(
        |p| p["spec"]["securityContext"]["windowsOptions"] = json!({"hostProcess": true}),
        "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
    );
}

#[test]
fn restricted_in_upstreams_words() {
    restricted(
        |p| p["spec"] = json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        "allowPrivilegeEscalation != false (containers \"a\", \"b\" must set securityContext.allowPrivilegeEscalation=false), \
         unrestricted capabilities (containers \"a\", \"b\" must set securityContext.capabilities.drop=[\"ALL\"]), \
         runAsNonRoot != true (pod or containers \"a\", \"b\" must set securityContext.runAsNonRoot=true), \
         seccompProfile (pod or containers \"a\", \"b\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
    );
    restricted(
        |p| {
            p["spec"]["volumes"] = json!([{"name": "x", "hostPath": {"path": "/"}}, {"name": "y", "nfs": {}}])
        },
        "restricted volume types (volumes \"x\", \"y\" use restricted volume types \"hostPath\", \"nfs\")",
    );
    restricted(
        |p| first(p)["securityContext"]["capabilities"]["add"] = json!(["CHOWN", "NET_BIND_SERVICE"]),
        "unrestricted capabilities (container \"a\" must not include \"CHOWN\" in securityContext.capabilities.add)",
    );
    restricted(
        |p| first(p)["securityContext"]["runAsNonRoot"] = false.into(),
        "runAsNonRoot != true (container \"a\" must not set securityContext.runAsNonRoot=false)",
    );
    restricted(
        |p| p["spec"]["securityContext"]["runAsUser"] = 0.into(),
        "runAsUser=0 (pod must not set runAsUser=0)",
    );
}

#[test]
fn versions_pin_the_checks() {
    let sysctl = |p: &mut Value| {
        p["spec"]["securityContext"]["sysctls"] = json!([{"name": "net.ipv4.ip_local_reserved_ports"}]);
    };
    assert_eq!(judge(Level::Baseline, Some(27), sysctl), "");
    assert_ne!(judge(Level::Baseline, Some(26), sysctl), "");
    let root = |p: &mut Value| p["spec"]["securityContext"]["runAsUser"] = 0.into();
    assert_eq!(judge(Level::Restricted, Some(22), root), "");
    assert_ne!(judge(Level::Restricted, Some(23), root), "");
    let own_users = |p: &mut Value| {
        p["spec"]["hostUsers"] = false.into();
        p["spec"]["securityContext"]["runAsUser"] = 0.into();
    };
    assert_eq!(judge(Level::Restricted, Some(35), own_users), "");
    assert_ne!(judge(Level::Restricted, Some(34), own_users), "");
    let windows = |p: &mut Value| {
        p["spec"] = json!({"os": {"name": "windows"}, "securityContext": {"runAsNonRoot": true}, "containers": [{"name": "a"}]});
    };
    assert_eq!(judge(Level::Restricted, None, windows), "");
    // A version to come is judged by the newest that is known.
    assert_ne!(judge(Level::Restricted, Some(99), root), "");
}
