//! A node for real: the API server in this process, a containerd of its own, containers from a busybox image.
//!
//! Needs root, containerd, runc, nftables and busybox-static; a missing one fails with its name. Everything lives in a
//! network namespace of its own and below one temporary directory.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::user::UserInfo;
use apiserver::pki::{Pki, PkiConfig};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use kube::api::{DeleteParams, LogParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use kubelet::{Config, Handles, Kubelet};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const IMAGE: &str = "docker.io/library/test:1";
const PATIENCE: Duration = Duration::from_secs(40);

fn run(program: &str, args: &[&str]) {
    let out =
        Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program} is missing: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// An image archive as `docker save` writes it: busybox and its links.
fn build_image(dir: &Path) -> PathBuf {
    let (root, image) = (dir.join("root"), dir.join("image"));
    std::fs::create_dir_all(root.join("bin")).expect("root");
    std::fs::create_dir_all(root.join("etc")).expect("etc");
    std::fs::create_dir_all(&image).expect("image");
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is missing");
    for link in
        ["sh", "sleep", "echo", "cat", "nc", "nslookup", "id", "wget", "kill", "seq", "test", "dd", "tail"]
    {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(link)).expect("link");
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nweb:x:33:33::/:/bin/sh\n")
        .expect("passwd");
    let text = |p: &Path| p.display().to_string();
    run("tar", &["-C", &text(&root), "-cf", &text(&image.join("layer.tar")), "."]);
    let sum = Command::new("sha256sum").arg(image.join("layer.tar")).output().expect("sha256sum");
    let sum = String::from_utf8_lossy(&sum.stdout).split(' ').next().unwrap_or_default().to_owned();
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"], "Env": ["FROM_IMAGE=yes"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]}});
    std::fs::write(image.join("config.json"), config.to_string()).expect("config");
    let manifest = json!([{"Config": "config.json", "RepoTags": ["test:1"], "Layers": ["layer.tar"]}]);
    std::fs::write(image.join("manifest.json"), manifest.to_string()).expect("manifest");
    let archive = dir.join("image.tar");
    run("tar", &["-C", &text(&image), "-cf", &text(&archive), "manifest.json", "config.json", "layer.tar"]);
    archive
}

struct Bench {
    dir: tempfile::TempDir,
    client: Client,
    pki: Arc<Pki>,
    handles: Handles,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("binnacle-node").tempdir_in("/var/tmp").expect("dir");
        let clock = signal::time::system_clock();
        let store = store::Store::open(store::Config::new(dir.path().join("store"))).expect("store");
        let service_cidr: apiserver::Cidr = "10.143.0.0/16".parse().expect("cidr");
        let pki = Pki::open(PkiConfig {
            dir: dir.path().join("pki"),
            addresses: vec![Ipv4Addr::LOCALHOST.into()],
            service_ip: service_cidr.nth(1).into(),
            cluster_domain: "cluster.local".to_owned(),
            hostname: "node".to_owned(),
            now: clock.now(),
        })
        .expect("pki");
        let pki = Arc::new(pki);
        let server = apiserver::ApiServer::open(apiserver::Config {
            store: Arc::new(store),
            pki: pki.clone(),
            service_cidr,
            node_ports: 30_000..=32_767,
            cluster_domain: "cluster.local".to_owned(),
            advertise_address: Ipv4Addr::LOCALHOST.into(),
            admin_token: String::new(),
            clock,
            readiness: Vec::new(),
            local_apis: Vec::new(),
            stop: CancellationToken::new(),
        })
        .await
        .expect("api server");
        let router = server.in_process(UserInfo::new("test", &["system:masters"]));
        let client = Client::new(router, "default");
        Bench { dir, client, pki, handles: Handles::default() }
    }

    fn config(&self) -> Config {
        let data = self.dir.path().join("data");
        std::fs::create_dir_all(&data).expect("data");
        let mut network = network::Config::new(data.clone(), "node".to_owned(), Ipv4Addr::LOCALHOST);
        network.pod_cidr = "10.142.0.0/16".parse().expect("cidr");
        network.service_cidr = "10.143.0.0/16".parse().expect("cidr");
        network.dns_ip = Ipv4Addr::new(10, 143, 0, 10);
        Config {
            node_name: "node".to_owned(),
            node_ip: Ipv4Addr::LOCALHOST,
            data_dir: data.clone(),
            containerd_socket: data.join("containerd.sock"),
            containerd_namespace: "binnacle-test".to_owned(),
            cgroup_root: format!("binnacle-test-{}", std::process::id()),
            api_addr: (Ipv4Addr::LOCALHOST, 0).into(),
            serving_cert: self.pki.kubelet_server.cert_pem.clone(),
            serving_key: self.pki.kubelet_server.key_pem.clone(),
            client_ca: self.pki.ca_pem().to_owned(),
            network,
            otlp_endpoint: Some("http://10.142.0.1:4318".to_owned()),
            max_pods: 110,
            clock: signal::time::system_clock(),
        }
    }

    async fn start(&self) -> Running {
        let kubelet =
            Kubelet::new(self.config(), self.client.clone(), self.handles.clone()).await.expect("kubelet");
        let images = kubelet.images();
        let stop = CancellationToken::new();
        let task = telemetry::task::spawn("test-kubelet", kubelet.run(stop.clone()));
        Running { stop, task, images }
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn create(&self, name: &str, spec: Value) -> Pod {
        let mut spec = spec;
        spec["nodeName"] = json!("node");
        spec["automountServiceAccountToken"] = json!(false);
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        let pod = serde_json::from_value(pod).expect("pod");
        self.pods().create(&PostParams::default(), &pod).await.expect("create")
    }

    /// Waits until the pod is as asked; fails with what it is.
    async fn until(&self, name: &str, what: &str, is: impl Fn(Option<&Pod>) -> bool) -> Option<Pod> {
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut stream = watcher(self.pods(), config).default_backoff().boxed();
        let mut last: Option<Pod> = None;
        let wait = async {
            while let Some(event) = stream.next().await {
                match event {
                    Ok(watcher::Event::Apply(p) | watcher::Event::InitApply(p)) => last = Some(p),
                    Ok(watcher::Event::Delete(_)) => last = None,
                    Ok(watcher::Event::Init) => {
                        last = None;
                        continue;
                    }
                    Ok(watcher::Event::InitDone) => {}
                    Err(e) => panic!("watch: {e}"),
                }
                if is(last.as_ref()) {
                    return;
                }
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            let status =
                last.as_ref().and_then(|p| p.status.as_ref()).map(|s| serde_json::to_string_pretty(s));
            panic!("pod {name} is not {what}: {}", status.and_then(Result::ok).unwrap_or_default());
        }
        last
    }

    /// Follows the log until it has as many bytes as expected, and compares.
    async fn log_is(&self, name: &str, expect: &str) {
        use futures::AsyncReadExt;
        let params = LogParams { follow: true, ..LogParams::default() };
        let stream = self.pods().log_stream(name, &params).await.expect("logs");
        let mut got = Vec::new();
        let mut stream = stream.take(expect.len() as u64);
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut got))
            .await
            .expect("log in time")
            .expect("log");
        assert_eq!(String::from_utf8_lossy(&got), expect);
    }

    async fn until_ready(&self, name: &str) -> Pod {
        let ready = |p: Option<&Pod>| p.is_some_and(is_ready);
        self.until(name, "ready", ready).await.expect("a pod")
    }
}

fn is_ready(p: &Pod) -> bool {
    let conditions = p.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn phase(p: Option<&Pod>) -> &str {
    p.and_then(|p| p.status.as_ref()).and_then(|s| s.phase.as_deref()).unwrap_or("")
}

fn status(p: &Pod) -> k8s_openapi::api::core::v1::ContainerStatus {
    p.status.clone().and_then(|s| s.container_statuses).and_then(|c| c.into_iter().next()).unwrap_or_default()
}

struct Running {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), kubelet::Error>>,
    images: kubelet::images::Images,
}

impl Running {
    async fn end(self) {
        self.stop.cancel();
        self.task.await.expect("task").expect("kubelet");
    }
}

#[test]
fn a_node_from_beginning_to_end() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace: run as root");
    run("ip", &["link", "set", "lo", "up"]);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    runtime.block_on(node());
}

async fn node() {
    let bench = Bench::new().await;
    for (ns, account) in [("default", "default")] {
        let namespaces = Api::<Namespace>::all(bench.client.clone());
        assert!(namespaces.get_opt(ns).await.expect("namespace").is_some());
        let accounts = Api::<ServiceAccount>::namespaced(bench.client.clone(), ns);
        if accounts.get_opt(account).await.expect("account").is_none() {
            let a = serde_json::from_value(json!({"metadata": {"name": account}})).expect("account");
            accounts.create(&PostParams::default(), &a).await.expect("create account");
        }
    }
    let kubelet = bench.start().await;
    let names = kubelet.images.import(&build_image(bench.dir.path())).await.expect("import");
    assert_eq!(names, ["test:1"]);
    assert!(kubelet.images.get(IMAGE).await.expect("image").is_some());

    let nodes = Api::<Node>::all(bench.client.clone());
    let registered = async {
        while nodes.get_opt("node").await.expect("node").and_then(|n| n.status).is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, registered).await.expect("the node registers");

    // One after the other: each leaves the node as it found it.
    hello(&bench).await;
    ends(&bench).await;
    probes_and_init(&bench).await;
    let kubelet = survives(&bench, kubelet).await;

    kubelet.end().await;
    let config = bench.config();
    kubelet::purge(&config).await.expect("purge");
    network::purge(&config.network).await.expect("purge again");
    let left: Vec<_> =
        std::fs::read_dir(&config.data_dir).expect("data").flatten().map(|e| e.file_name()).collect();
    assert!(left.iter().all(|n| n == "containerd.sock" || n == "containerd.sock.ttrpc"), "{left:?}");
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten() {
        let cgroup = hierarchy.path().join(&config.cgroup_root);
        assert!(!cgroup.try_exists().expect("cgroup"), "{cgroup:?} is left");
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    assert!(!mounts.contains(&config.data_dir.display().to_string()), "{mounts}");
}

fn shell(script: &str) -> Value {
    json!([{"name": "c", "image": "test:1", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script]}])
}

/// A pod runs, has an address, its environment, its log, and goes.
async fn hello(bench: &Bench) {
    for round in 0..5 {
        let name = format!("hello-{round}");
        let started = signal::time::monotonic();
        bench.create(&name, json!({"containers": shell("echo hello $FROM_IMAGE $KUBERNETES_SERVICE_PORT; cat /etc/hostname; sleep 1000")})).await;
        let pod = bench.until_ready(&name).await;
        eprintln!("pod ready after {:?}", signal::time::monotonic().duration_since(started));
        let ip: Ipv4Addr =
            pod.status.as_ref().and_then(|s| s.pod_ip.clone()).expect("ip").parse().expect("ip");
        assert_eq!(ip.octets()[..2], [10, 142]);
        bench.log_is(&name, &format!("hello yes 443\n{name}\n")).await;
        bench.pods().delete(&name, &DeleteParams::default().grace_period(1)).await.expect("delete");
        bench.until(&name, "gone", |p| p.is_none()).await;
    }
}

/// Exit codes, restarts and back-off.
async fn ends(bench: &Bench) {
    bench.create("done", json!({"restartPolicy": "Never", "containers": shell("exit 0")})).await;
    bench.until("done", "succeeded", |p| phase(p) == "Succeeded").await;
    bench.create("failed", json!({"restartPolicy": "Never", "containers": shell("echo -n why > /dev/termination-log; exit 3")})).await;
    let pod = bench.until("failed", "failed", |p| phase(p) == "Failed").await.expect("pod");
    let end = status(&pod).state.and_then(|s| s.terminated).expect("terminated");
    assert_eq!(
        (end.exit_code, end.reason.as_deref(), end.message.as_deref()),
        (3, Some("Error"), Some("why"))
    );

    bench.create("crash", json!({"containers": shell("exit 4")})).await;
    let looping = |p: Option<&Pod>| {
        p.map(status)
            .and_then(|s| s.state)
            .and_then(|s| s.waiting)
            .is_some_and(|w| w.reason.as_deref() == Some("CrashLoopBackOff"))
    };
    let pod = bench.until("crash", "crash looping", looping).await.expect("pod");
    let s = status(&pod);
    assert_eq!(s.restart_count, 1);
    assert_eq!(s.last_state.and_then(|l| l.terminated).map(|t| t.exit_code), Some(4));

    let missing = json!([{"name": "c", "image": "test:1", "command": ["/no/such/command"]}]);
    bench.create("missing", json!({"restartPolicy": "Never", "containers": missing})).await;
    let pod = bench.until("missing", "failed", |p| phase(p) == "Failed").await.expect("pod");
    let end = status(&pod).state.and_then(|s| s.terminated).expect("terminated");
    assert_eq!((end.exit_code, end.reason.as_deref()), (128, Some("StartError")));

    let greedy = json!([{"name": "c", "image": "test:1", "command": ["sh", "-c", "tail /dev/zero"],
        "resources": {"limits": {"memory": "20Mi"}}}]);
    bench.create("greedy", json!({"restartPolicy": "Never", "containers": greedy})).await;
    let pod = bench.until("greedy", "killed", |p| phase(p) == "Failed").await.expect("pod");
    let end = status(&pod).state.and_then(|s| s.terminated).expect("terminated");
    assert_eq!((end.exit_code, end.reason.as_deref()), (137, Some("OOMKilled")));

    for name in ["done", "failed", "crash", "missing", "greedy"] {
        bench.pods().delete(name, &DeleteParams::default().grace_period(0)).await.expect("delete");
        bench.until(name, "gone", |p| p.is_none()).await;
    }
}

/// Init containers, a volume between containers, a probe that decides on readiness, a user.
async fn probes_and_init(bench: &Bench) {
    let mount = json!([{"name": "v", "mountPath": "/v"}]);
    bench
        .create(
            "probed",
            json!({
                "volumes": [{"name": "v", "emptyDir": {}}],
                "initContainers": [{"name": "i", "image": "test:1", "command": ["sh", "-c", "echo init > /v/init"],
                    "volumeMounts": mount}],
                "containers": [{"name": "c", "image": "test:1", "volumeMounts": mount,
                    "command": ["sh", "-c", "id -u; cat /v/init; echo > /v/ready; sleep 1000"],
                    "securityContext": {"runAsUser": 33, "allowPrivilegeEscalation": false},
                    "readinessProbe": {"exec": {"command": ["test", "-f", "/v/ready"]}, "periodSeconds": 1}}],
            }),
        )
        .await;
    bench.until_ready("probed").await;
    bench.log_is("probed", "33\ninit\n").await;
    bench.pods().delete("probed", &DeleteParams::default().grace_period(0)).await.expect("delete");
    bench.until("probed", "gone", |p| p.is_none()).await;
}

/// A container counts on while the kubelet is away: same id, no restart, every line once.
async fn survives(bench: &Bench, kubelet: Running) -> Running {
    let script = "i=0; while true; do i=$((i+1)); echo line $i; /bin/busybox usleep 2000; done";
    bench.create("counter", json!({"containers": shell(script)})).await;
    let before = bench.until_ready("counter").await;
    kubelet.end().await;
    let kubelet = bench.start().await;
    // A pod that starts now shows that the new kubelet works.
    bench.create("other", json!({"containers": shell("sleep 1000")})).await;
    bench.until_ready("other").await;
    let after = bench.until_ready("counter").await;
    assert_eq!(status(&before).container_id, status(&after).container_id);
    assert_eq!(status(&after).restart_count, 0);
    assert_eq!(
        before.status.as_ref().and_then(|s| s.pod_ip.clone()),
        after.status.as_ref().and_then(|s| s.pod_ip.clone())
    );
    let log = bench.pods().logs("counter", &LogParams::default()).await.expect("logs");
    assert!(log.lines().count() > 10);
    for (n, line) in log.lines().enumerate() {
        assert_eq!(line, format!("line {}", n + 1));
    }
    for name in ["counter", "other"] {
        bench.pods().delete(name, &DeleteParams::default().grace_period(0)).await.expect("delete");
        bench.until(name, "gone", |p| p.is_none()).await;
    }
    kubelet
}
