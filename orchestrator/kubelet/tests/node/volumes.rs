//! Volumes, environment, and what of them changes under a running pod.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::Scenario;
use crate::harness::{Bench, shell, shell_with};

pub(crate) fn scenarios(bench: &Arc<Bench>) -> Vec<Scenario> {
    crate::scenarios![
        bench,
        shown,
        followed,
        missing,
        empty_dirs,
        host_paths,
        claims,
        projected,
        environment,
        missing_environment,
        groups,
    ]
}

/// A claim's volume is a directory of the node, made with room for every user if it was made for the claim; what a
/// claim is for can be read only.
async fn claims(bench: &Bench) {
    let dir = tempfile::tempdir().expect("dir");
    let made = dir.path().join("made");
    let kept = dir.path().join("kept");
    std::fs::create_dir(&kept).expect("dir");
    std::fs::write(kept.join("file"), "kept\n").expect("file");
    let volumes: Api<PersistentVolume> = Api::all(bench.pods().into_client());
    for (name, path, by) in [("made", &made, "binnacle.io/local-path"), ("kept", &kept, "somebody")] {
        let size = json!({"storage": "1Gi"});
        let modes = json!(["ReadWriteOnce"]);
        let claim: PersistentVolumeClaim = bench
            .make(
                json!({"metadata": {"name": name, "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
                "spec": {"accessModes": modes, "resources": {"requests": size}, "volumeName": name}}),
            )
            .await;
        let volume = json!({"metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": by}}, "spec": {
            "accessModes": modes, "capacity": size, "hostPath": {"path": path, "type": "DirectoryOrCreate"},
            "claimRef": {"namespace": "default", "name": name, "uid": claim.metadata.uid}}});
        let volume = serde_json::from_value(volume).expect("a volume");
        volumes.create(&PostParams::default(), &volume).await.expect("made");
    }
    let spec = json!([
        {"name": "made", "persistentVolumeClaim": {"claimName": "made"}},
        {"name": "kept", "persistentVolumeClaim": {"claimName": "kept", "readOnly": true}},
    ]);
    let mounts = json!([{"name": "made", "mountPath": "/made"}, {"name": "kept", "mountPath": "/kept"}]);
    let container = json!({"volumeMounts": mounts, "securityContext": {"runAsUser": 33}});
    let script = "echo mine > /made/file; cat /made/file /kept/file; (echo no > /kept/file) 2>&1";
    let text = bench.output("claims", json!({"volumes": spec, "container": container}), script).await;
    assert_eq!(text, "mine\nkept\nsh: can't create /kept/file: Read-only file system\n");
    assert_eq!(std::fs::read_to_string(made.join("file")).expect("it outlives its pod"), "mine\n");

    let absent = json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "absent"}}],
        "containers": shell("true")});
    bench.create("absent", absent).await;
    bench
        .until_event(
            "absent",
            "MountVolume.SetUp failed for volume \"v\" : persistentvolumeclaim \"absent\" not found",
        )
        .await;
    bench.remove("absent").await;
}

async fn config_map(bench: &Bench, name: &str, data: serde_json::Value) {
    bench.make::<ConfigMap>(json!({"metadata": {"name": name}, "data": data})).await;
}

async fn secret(bench: &Bench, name: &str, data: serde_json::Value) {
    bench.make::<Secret>(json!({"metadata": {"name": name}, "stringData": data})).await;
}

/// All keys, chosen keys, modes, a single file, and nothing of it writable.
async fn shown(bench: &Bench) {
    config_map(bench, "shown", json!({"a": "1", "b": "2"})).await;
    secret(bench, "shown", json!({"key": "hidden"})).await;
    let volumes = json!([
        {"name": "all", "configMap": {"name": "shown"}},
        {"name": "some", "configMap": {"name": "shown", "defaultMode": 0o400, "items": [
            {"key": "a", "path": "x/y"}, {"key": "b", "path": "z", "mode": 0o440}]}},
        {"name": "hidden", "secret": {"secretName": "shown", "defaultMode": 0o600}},
        {"name": "maybe", "secret": {"secretName": "none", "optional": true}},
    ]);
    let mounts = json!([
        {"name": "all", "mountPath": "/all"}, {"name": "some", "mountPath": "/some"},
        {"name": "hidden", "mountPath": "/hidden"}, {"name": "maybe", "mountPath": "/maybe"},
        {"name": "all", "mountPath": "/etc/one", "subPath": "b"},
        {"name": "all", "mountPath": "/etc/two", "subPathExpr": "$(WHICH)"},
    ]);
    let script = "cat /all/a /all/b /some/x/y /some/z /hidden/key /etc/one /etc/two; echo
        stat -L -c '%n %a' /all/a /some/x/y /some/z /hidden/key
        ls /maybe | wc -l
        (echo no > /all/a) 2>&1; grep ' /hidden ' /proc/mounts | cut -d' ' -f1,3";
    let container = json!({"volumeMounts": mounts, "env": [{"name": "WHICH", "value": "a"}]});
    let text = bench.output("shown", json!({"volumes": volumes, "container": container}), script).await;
    let expect = "1212hidden21\n/all/a 644\n/some/x/y 400\n/some/z 440\n/hidden/key 600\n0\n\
        sh: can't create /all/a: Read-only file system\ntmpfs tmpfs\n";
    assert_eq!(text, expect);
}

/// A change of a map, a secret or a label is seen by the running pod, all files of a volume at once.
async fn followed(bench: &Bench) {
    config_map(bench, "followed", json!({"a": "1", "b": "1"})).await;
    secret(bench, "followed", json!({"s": "1"})).await;
    let volumes = json!([
        {"name": "map", "configMap": {"name": "followed"}},
        {"name": "secret", "secret": {"secretName": "followed"}},
        {"name": "pod", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]);
    let mounts = json!([{"name": "map", "mountPath": "/map"}, {"name": "secret", "mountPath": "/secret"},
        {"name": "pod", "mountPath": "/pod"}]);
    // Says what it sees whenever it sees something else; a torn view would be said too.
    let script = "while true; do d=$(readlink /map/..data); now=\"$(cat /map/$d/a)$(cat /map/$d/b) $(cat /secret/s) $(cat /pod/labels)\"
        [ \"$now\" = \"$old\" ] || echo \"$now\"; old=$now; usleep 20000; done";
    bench
        .create_with(
            json!({"name": "followed", "labels": {"color": "red"}}),
            json!({"volumes": volumes, "containers": shell_with(script, json!({"volumeMounts": mounts}))}),
        )
        .await;
    bench.until_log("followed", "11 1 color=\"red\"").await;
    let merge = |v: serde_json::Value| Patch::Merge(v);
    let p = PatchParams::default();
    bench
        .api::<ConfigMap>()
        .patch("followed", &p, &merge(json!({"data": {"a": "2", "b": "2"}})))
        .await
        .expect("patch");
    bench.until_log("followed", "22 1 color=\"red\"").await;
    bench
        .api::<Secret>()
        .patch("followed", &p, &merge(json!({"stringData": {"s": "2"}})))
        .await
        .expect("patch");
    bench.until_log("followed", "22 2 color=\"red\"").await;
    bench
        .pods()
        .patch("followed", &p, &merge(json!({"metadata": {"labels": {"color": "blue"}}})))
        .await
        .expect("patch");
    bench.until_log("followed", "22 2 color=\"blue\"").await;
    let log = bench.log_of("followed", "c").await;
    assert!(!log.contains("12 ") && !log.contains("21 "), "{log}");
    bench.remove("followed").await;
}

/// A pod waits for what it shows, says so, and starts when it comes.
async fn missing(bench: &Bench) {
    let spec = |v: serde_json::Value| json!({"volumes": [v], "containers": shell("sleep 1000")});
    bench.create("nomap", spec(json!({"name": "v", "configMap": {"name": "later"}}))).await;
    let note =
        "Warning FailedMount MountVolume.SetUp failed for volume \"v\" : configmap \"later\" not found";
    bench.until_event("nomap", note).await;
    bench.until_waiting("nomap", "ContainerCreating").await;
    bench.create("nosecret-volume", spec(json!({"name": "v", "secret": {"secretName": "later"}}))).await;
    bench
        .until_event(
            "nosecret-volume",
            "MountVolume.SetUp failed for volume \"v\" : secret \"later\" not found",
        )
        .await;
    config_map(bench, "later", json!({"a": "1"})).await;
    bench.until_ready("nomap").await;
    let key = json!({"name": "v", "configMap": {"name": "later", "items": [{"key": "none", "path": "p"}]}});
    bench.create("nokey", spec(key)).await;
    bench.until_event("nokey", "volume \"v\" : configmap references non-existent config key: none").await;
    for name in ["nomap", "nosecret-volume", "nokey"] {
        bench.remove(name).await;
    }
}

/// On the disk, in memory and bounded; shared between containers and kept over a restart of one.
async fn empty_dirs(bench: &Bench) {
    let volumes = json!([{"name": "disk", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]);
    let mounts = json!([{"name": "disk", "mountPath": "/disk"}, {"name": "memory", "mountPath": "/memory"}]);
    let script = "stat -c '%a' /disk /memory; grep ' /memory ' /proc/mounts | cut -d' ' -f3
        dd if=/dev/zero of=/memory/f bs=1k count=2000 2>&1 | grep -o 'No space left on device'; stat -c '%s' /memory/f
        df -m /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2";
    let text = bench
        .output("empties", json!({"volumes": volumes, "container": {"volumeMounts": mounts}}), script)
        .await;
    assert_eq!(text, "777\n777\ntmpfs\nNo space left on device\n1048576\n64\n");
}

async fn host_paths(bench: &Bench) {
    let dir = bench.host_dir("paths");
    std::fs::write(dir.join("file"), "here").expect("file");
    let place = dir.display().to_string();
    let volume = |name: &str, path: &str, kind: &str| json!({"name": name, "hostPath": {"path": format!("{place}/{path}"), "type": kind}});
    let volumes = json!([
        volume("a", "made/dir", "DirectoryOrCreate"),
        volume("b", "made-file", "FileOrCreate"),
        volume("c", "file", "File")
    ]);
    let mounts = json!([{"name": "a", "mountPath": "/a"}, {"name": "b", "mountPath": "/b"},
        {"name": "c", "mountPath": "/c", "readOnly": true}]);
    let script = "echo x > /a/x; echo y > /b; cat /c; (echo z > /c) 2>&1";
    let text = bench
        .output("paths", json!({"volumes": volumes, "container": {"volumeMounts": mounts}}), script)
        .await;
    assert_eq!(text, "heresh: can't create /c: Read-only file system\n");
    assert_eq!(std::fs::read_to_string(dir.join("made/dir/x")).expect("x"), "x\n");
    assert_eq!(std::fs::read_to_string(dir.join("made-file")).expect("y"), "y\n");
    for (name, volume, what) in [
        ("nodir", volume("v", "file", "Directory"), format!("{place}/file is not a directory")),
        ("nofile", volume("v", "none", "File"), format!("{place}/none is not a file")),
        ("nosocket", volume("v", "file", "Socket"), format!("{place}/file is not a socket file")),
    ] {
        bench.create(name, json!({"volumes": [volume], "containers": shell("true")})).await;
        let note = format!(
            "Warning FailedMount MountVolume.SetUp failed for volume \"v\" : hostPath type check failed: {what}"
        );
        bench.until_event(name, &note).await;
        bench.remove(name).await;
    }
}

/// Several sources in one directory: token, map, secret, facts of the pod and of its resources.
async fn projected(bench: &Bench) {
    config_map(bench, "projected", json!({"m": "map"})).await;
    secret(bench, "projected", json!({"s": "secret"})).await;
    let facts = json!([
        {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
        {"path": "note", "fieldRef": {"fieldPath": "metadata.annotations['note']"}},
        {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu", "divisor": "1m"}},
        {"path": "memory", "resourceFieldRef": {"containerName": "c", "resource": "requests.memory"}},
    ]);
    let volumes = json!([{"name": "v", "projected": {"defaultMode": 0o444, "sources": [
        {"serviceAccountToken": {"path": "token", "audience": "shop", "expirationSeconds": 600}},
        {"configMap": {"name": "projected"}},
        {"secret": {"name": "projected", "items": [{"key": "s", "path": "deep/s"}]}},
        {"downwardAPI": {"items": facts}}]}}]);
    let script = "cat /v/m /v/deep/s /v/name /v/note; echo; cat /v/cpu; echo; cat /v/memory; echo
        stat -L -c '%a %u' /v/token; cut -d. -f2 /v/token";
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    let resources = json!({"limits": {"cpu": "250m", "memory": "32Mi"}});
    bench
        .create_with(
            json!({"name": "projected", "annotations": {"note": "well"}}),
            json!({"volumes": volumes, "restartPolicy": "Never", "securityContext": {"runAsUser": 33},
                "containers": shell_with(script, json!({"volumeMounts": mounts, "resources": resources}))}),
        )
        .await;
    bench.until_phase("projected", "Succeeded").await;
    let log = bench.log_of("projected", "c").await;
    let mut lines = log.lines();
    assert_eq!(lines.next(), Some("mapsecretprojectedwell"));
    assert_eq!((lines.next(), lines.next()), (Some("250"), Some("33554432")));
    assert_eq!(lines.next(), Some("600 33"), "the token is for the only user");
    use base64::Engine;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(lines.next().expect("claims"))
        .expect("base64");
    let claims: serde_json::Value = serde_json::from_slice(&claims).expect("claims");
    assert_eq!(claims["aud"], json!(["shop"]));
    assert_eq!(claims["kubernetes.io"]["pod"]["name"], "projected");
    bench.remove("projected").await;
}

async fn environment(bench: &Bench) {
    config_map(bench, "env", json!({"one": "1", "TWO": "2"})).await;
    secret(bench, "env", json!({"PASS": "word"})).await;
    bench
        .make::<Service>(
            json!({"metadata": {"name": "env-db"}, "spec": {"ports": [{"name": "sql", "port": 5432}]}}),
        )
        .await;
    let db = bench.api::<Service>().get("env-db").await.expect("service");
    let ip = db.spec.and_then(|s| s.cluster_ip).expect("address");
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let env = json!([
        {"name": "PLAIN", "value": "p"},
        {"name": "EXPANDED", "value": "$(PLAIN)-$(MAP)-$(NONE)-$$(PLAIN)"},
        {"name": "FROM_MAP", "valueFrom": {"configMapKeyRef": {"name": "env", "key": "one"}}},
        {"name": "FROM_SECRET", "valueFrom": {"secretKeyRef": {"name": "env", "key": "PASS"}}},
        {"name": "OPTIONAL", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k", "optional": true}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        field("NAME", "metadata.name"), field("NODE", "spec.nodeName"), field("POD_IP", "status.podIP"),
        field("COLOR", "metadata.labels['color']"),
    ]);
    let from = json!([{"prefix": "X_", "configMapRef": {"name": "env"}}, {"secretRef": {"name": "env"}},
        {"configMapRef": {"name": "none", "optional": true}}]);
    let script = "env | sort; echo args $0 $1";
    let container = json!({"name": "c", "image": "test:1", "command": ["sh", "-c", script, "$(PLAIN)"], "args": ["$(FROM_MAP)"],
        "env": env, "envFrom": from, "resources": {"limits": {"cpu": "1500m"}}, "workingDir": "/srv"});
    bench
        .create_with(
            json!({"name": "env", "labels": {"color": "red"}}),
            json!({"restartPolicy": "Never", "containers": [container]}),
        )
        .await;
    let pod = bench.until_phase("env", "Succeeded").await;
    let log = bench.log_of("env", "c").await;
    let pod_ip = pod.status.and_then(|s| s.pod_ip).expect("ip");
    for line in [
        "PLAIN=p",
        "EXPANDED=p-$(MAP)-$(NONE)-$(PLAIN)",
        "FROM_MAP=1",
        "FROM_SECRET=word",
        "X_one=1",
        "X_TWO=2",
        "PASS=word",
        "CPU=2",
        "NAME=env",
        "NODE=node",
        &format!("POD_IP={pod_ip}"),
        "COLOR=red",
        "PWD=/srv",
        "HOME=/",
        "HOSTNAME=env",
        "FROM_IMAGE=yes",
        &format!("ENV_DB_SERVICE_HOST={ip}"),
        &format!("ENV_DB_PORT_5432_TCP=tcp://{ip}:5432"),
        "KUBERNETES_SERVICE_PORT=443",
        "args p 1",
    ] {
        assert!(log.lines().any(|l| l == line), "{line} is not in\n{log}");
    }
    assert!(!log.contains("OPTIONAL"));
    bench.remove("env").await;

    let text = bench.output("nolinks", json!({"enableServiceLinks": false}), "env").await;
    assert!(text.contains("KUBERNETES_SERVICE_HOST") && !text.contains("ENV_DB"), "{text}");
}

/// What a container's environment needs and is not there: the container waits and says for what.
async fn missing_environment(bench: &Bench) {
    let from = |source: serde_json::Value| {
        shell_with("sleep 1000", json!({"env": [{"name": "E", "valueFrom": source}]}))
    };
    bench
        .create(
            "envmap",
            json!({"containers": from(json!({"configMapKeyRef": {"name": "comes", "key": "k"}}))}),
        )
        .await;
    let message = bench.until_waiting("envmap", "CreateContainerConfigError").await;
    assert_eq!(message, "configmap \"comes\" not found");
    bench.until_event("envmap", "Warning Failed Error: configmap \"comes\" not found").await;
    config_map(bench, "comes", json!({"other": "1"})).await;
    let missing = |p: Option<&Pod>| {
        let waiting = p.map(crate::harness::status).and_then(|s| s.state).and_then(|s| s.waiting);
        waiting.and_then(|w| w.message).as_deref() == Some("couldn't find key k in ConfigMap default/comes")
    };
    bench.until("envmap", "waiting for the key", missing).await;
    let data = Patch::Merge(json!({"data": {"k": "v"}}));
    bench.api::<ConfigMap>().patch("comes", &PatchParams::default(), &data).await.expect("patch");
    bench.until_ready("envmap").await;
    bench
        .create(
            "envsecret",
            json!({"containers": from(json!({"secretKeyRef": {"name": "never", "key": "k"}}))}),
        )
        .await;
    assert_eq!(
        bench.until_waiting("envsecret", "CreateContainerConfigError").await,
        "secret \"never\" not found"
    );
    for name in ["envmap", "envsecret"] {
        bench.remove(name).await;
    }
}

/// `fsGroup` owns what is made for the pod.
async fn groups(bench: &Bench) {
    secret(bench, "groups", json!({"k": "v"})).await;
    let volumes = json!([{"name": "e", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "groups", "defaultMode": 0o400}}]);
    let mounts = json!([{"name": "e", "mountPath": "/e"}, {"name": "s", "mountPath": "/s"}]);
    let script = "stat -c '%a %g' /e; touch /e/f; stat -c '%u %g' /e/f; stat -L -c '%a %g' /s/k; cat /s/k";
    let spec = json!({"volumes": volumes, "securityContext": {"fsGroup": 4000, "runAsUser": 1000, "runAsGroup": 2000},
        "container": {"volumeMounts": mounts}});
    assert_eq!(bench.output("groups", spec, script).await, "2777 4000\n1000 4000\n440 4000\nv\n");
}
