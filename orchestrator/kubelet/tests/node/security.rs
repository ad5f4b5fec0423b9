//! Who a container is and what it may: users, groups, capabilities, seccomp, the root file system, sysctls.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::Scenario;
use crate::harness::{Bench, shell_with};

pub(crate) fn scenarios(bench: &Arc<Bench>) -> Vec<Scenario> {
    crate::scenarios![bench, users, not_root, capabilities, root_file_system, privileged, namespaces]
}

/// A field of /proc/self/status.
const STATUS: &str = "f() { grep \"^$1:\" /proc/self/status | tr -s '\\t ' ' '; }; ";

async fn users(bench: &Bench) {
    let own = |c: Value| json!({"container": {"securityContext": c}});
    let id = "id -u; id -g; id -G";
    assert_eq!(bench.output("root", json!({}), id).await, "0\n0\n0\n");
    let user = own(json!({"runAsUser": 33, "runAsGroup": 44}));
    assert_eq!(
        bench.output("user", user, id).await,
        "33\n44\n44 77\n",
        "with the image's groups of that user"
    );
    let pod = json!({"securityContext": {"runAsUser": 1000, "supplementalGroups": [5, 6], "fsGroup": 7}});
    assert_eq!(bench.output("pod", pod, id).await, "1000\n0\n0 5 6 7\n");
    let both = json!({"securityContext": {"runAsUser": 1000}, "container": {"securityContext": {"runAsUser": 2000}}});
    assert_eq!(bench.output("own", both, "id -u").await, "2000\n");
}

async fn not_root(bench: &Bench) {
    let spec = |name: &str, context: Value| {
        (
            name.to_owned(),
            json!({"containers": shell_with("sleep 1000", json!({"securityContext": context}))}),
        )
    };
    for ((name, spec), why) in [
        (
            spec("asroot", json!({"runAsNonRoot": true})),
            "container has runAsNonRoot and image will run as root",
        ),
        (
            spec("zero", json!({"runAsNonRoot": true, "runAsUser": 0})),
            "container's runAsUser breaks non-root policy",
        ),
    ] {
        let pod = bench.create(&name, spec).await;
        let uid = pod.metadata.uid.unwrap_or_default();
        let message = bench.until_waiting(&name, "CreateContainerConfigError").await;
        assert_eq!(message, format!("{why} (pod: \"{name}_default({uid})\", container: c)"));
        bench.until_event(&name, &format!("Warning Failed Error: {why}")).await;
        bench.remove(&name).await;
    }
    let (name, spec) = spec("user-not-root", json!({"runAsNonRoot": true, "runAsUser": 5}));
    bench.create(&name, spec).await;
    bench.until_ready(&name).await;
    bench.remove(&name).await;
}

/// Effective capabilities, no_new_privs and seccomp as the kernel says them.
async fn capabilities(bench: &Bench) {
    let script = format!("{STATUS} f CapEff; f NoNewPrivs; f Seccomp");
    let spec = |c: Value| json!({"container": {"securityContext": c}});
    let plain = bench.output("plain", json!({}), &script).await;
    assert_eq!(plain, "CapEff: 00000000a80425fb\nNoNewPrivs: 0\nSeccomp: 2\n");
    let none = json!({"capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": false});
    assert_eq!(
        bench.output("none", spec(none), &script).await,
        "CapEff: 0000000000000000\nNoNewPrivs: 1\nSeccomp: 2\n"
    );
    let some = json!({"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "CHOWN"]}, "seccompProfile": {"type": "Unconfined"}});
    assert_eq!(
        bench.output("some", spec(some), &script).await,
        "CapEff: 0000000000001001\nNoNewPrivs: 0\nSeccomp: 0\n"
    );
    let default = json!({"seccompProfile": {"type": "RuntimeDefault"}});
    let text = bench.output("seccomp", spec(default), "unshare -U true 2>&1; dmesg 2>&1 | head -1").await;
    assert!(text.contains("Operation not permitted"), "{text}");
}

async fn root_file_system(bench: &Bench) {
    let script = "(echo x > /x) 2>&1; echo x > /dev/shm/x && echo shm; echo words > /dev/termination-log && echo words
        (echo 1 > /proc/sys/kernel/panic) 2>&1; (echo 1 > /sys/kernel/mm/ksm/run) 2>&1; cat /proc/timer_list 2>&1 | wc -c";
    let spec = json!({"container": {"securityContext": {"readOnlyRootFilesystem": true}}});
    let text = bench.output("readonly", spec, script).await;
    let expect = "sh: can't create /x: Read-only file system\nshm\nwords\n\
        sh: can't create /proc/sys/kernel/panic: Read-only file system\n\
        sh: can't create /sys/kernel/mm/ksm/run: Read-only file system\n0\n";
    assert_eq!(text, expect);
}

/// All devices, all capabilities, nothing masked.
async fn privileged(bench: &Bench) {
    let own = std::fs::read_to_string("/proc/self/status").expect("status");
    let bounding = own.lines().find_map(|l| l.strip_prefix("CapBnd:")).expect("CapBnd").trim().to_owned();
    let script = format!(
        "{STATUS} f CapEff; f Seccomp; test -c /dev/kmsg && echo device; mount -t tmpfs t /tmp && echo mounted"
    );
    let spec = json!({"container": {"securityContext": {"privileged": true}}});
    let text = bench.output("privileged", spec, &script).await;
    assert_eq!(text, format!("CapEff: {bounding}\nSeccomp: 0\ndevice\nmounted\n"));
    let text =
        bench.output("unprivileged", json!({}), "ls /dev | tr '\\n' ' '; mount -t tmpfs t /tmp 2>&1").await;
    assert!(!text.contains("kmsg") && text.contains("permission denied"), "{text}");
}

/// A pod's own namespaces, the node's where it asks for them, and sysctls within.
async fn namespaces(bench: &Bench) {
    let read = |kind: &str| {
        std::fs::read_link(format!("/proc/thread-self/ns/{kind}")).expect("ns").display().to_string()
    };
    let script = "for n in pid ipc net uts; do readlink /proc/self/ns/$n; done; cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shm_rmid_forced; hostname";
    let sysctls = json!([{"name": "net.ipv4.ip_local_port_range", "value": "40000 50000"}, {"name": "kernel.shm_rmid_forced", "value": "1"}]);
    let text = bench
        .output("apart", json!({"hostname": "me", "securityContext": {"sysctls": sysctls}}), script)
        .await;
    for kind in ["pid", "ipc", "net", "uts"] {
        assert!(!text.contains(&read(kind)), "{kind}");
    }
    assert!(text.ends_with("40000\t50000\n1\nme\n"), "{text}");
    let text = bench.output("within", json!({"hostPID": true, "hostIPC": true}), script).await;
    assert!(
        text.contains(&read("pid")) && text.contains(&read("ipc")) && !text.contains(&read("net")),
        "{text}"
    );
}
