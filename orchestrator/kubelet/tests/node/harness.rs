//! What scenarios share: an API server in this process, a node on real containerd, an image of busybox, and words to
//! ask with. Scenarios run beside each other on one node; each has pods of its own.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::user::UserInfo;
use apiserver::pki::{Pki, PkiConfig};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, LogParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use kubelet::images::Images;
use kubelet::{Config, Handles, Kubelet};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// The image's normalised name; pods call it `test:1`.
pub(crate) const IMAGE: &str = "docker.io/library/test:1";
/// Generous: the machine may be busy with much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let out =
        Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program} is missing: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn text(p: &Path) -> String {
    p.display().to_string()
}

/// An image archive as `docker save` writes it: busybox and its links, and so many bytes that no compression makes
/// smaller.
pub(crate) fn build_image(dir: &Path, extra: usize) -> PathBuf {
    let (root, image) = (dir.join("root"), dir.join("image"));
    for d in ["bin", "etc", "tmp", "srv"] {
        std::fs::create_dir_all(root.join(d)).expect("root");
    }
    std::fs::create_dir_all(&image).expect("image");
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is missing");
    for link in run("/bin/busybox", &["--list"]).lines().filter(|l| *l != "busybox") {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(link)).expect("link");
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nweb:x:33:33::/:/bin/sh\n")
        .expect("passwd");
    std::fs::write(root.join("etc/group"), "root:x:0:\nweb:x:33:\nextra:x:77:web\n").expect("group");
    if extra > 0 {
        use std::io::Read;
        let mut noise = Vec::new();
        let random = std::fs::File::open("/dev/urandom").expect("urandom");
        random.take(extra as u64).read_to_end(&mut noise).expect("noise");
        std::fs::write(root.join("srv/noise"), noise).expect("noise");
    }
    run("tar", &["-C", &text(&root), "-cf", &text(&image.join("layer.tar")), "."]);
    let sum = run("sha256sum", &[&text(&image.join("layer.tar"))]);
    let sum = sum.split(' ').next().unwrap_or_default();
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"], "Env": ["FROM_IMAGE=yes"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]}});
    std::fs::write(image.join("config.json"), config.to_string()).expect("config");
    let manifest = json!([{"Config": "config.json", "RepoTags": ["test:1"], "Layers": ["layer.tar"]}]);
    std::fs::write(image.join("manifest.json"), manifest.to_string()).expect("manifest");
    let archive = dir.join("image.tar");
    run("tar", &["-C", &text(&image), "-cf", &text(&archive), "manifest.json", "config.json", "layer.tar"]);
    archive
}

pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) client: Client,
    pub(crate) archive: PathBuf,
    pki: Arc<Pki>,
    handles: Handles,
}

impl Bench {
    pub(crate) async fn new() -> Self {
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
            service_cidr,
            advertise_address: Ipv4Addr::LOCALHOST.into(),
            clock,
            ..apiserver::Config::new(Arc::new(store), pki.clone())
        })
        .await
        .expect("api server");
        let router = server.in_process(UserInfo::new("test", &["system:masters"]));
        let client = Client::new(router, "default");
        let archive = build_image(dir.path(), 0);
        small_containerd_disk(dir.path());
        Bench { dir, client, archive, pki, handles: Handles::default() }
    }

    pub(crate) fn config(&self) -> Config {
        let data = self.dir.path().join("data");
        std::fs::create_dir_all(&data).expect("data");
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
            network: self.network_config(),
            otlp_endpoint: Some("http://10.142.0.1:4318".to_owned()),
            max_pods: 110,
            registry_mirrors: Vec::new(),
            clock: signal::time::system_clock(),
        }
    }

    pub(crate) fn network_config(&self) -> network::Config {
        let data = self.dir.path().join("data");
        let mut network = network::Config::new(data, "node".to_owned(), Ipv4Addr::LOCALHOST);
        network.pod_cidr = "10.142.0.0/16".parse().expect("cidr");
        network.service_cidr = "10.143.0.0/16".parse().expect("cidr");
        network.dns_ip = Ipv4Addr::new(10, 143, 0, 10);
        network
    }

    pub(crate) async fn start(&self) -> Running {
        let kubelet =
            Kubelet::new(self.config(), self.client.clone(), self.handles.clone()).await.expect("kubelet");
        let images = kubelet.images();
        let stop = CancellationToken::new();
        let task = telemetry::task::spawn("test-kubelet", kubelet.run(stop.clone()));
        Running { stop, task, images }
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        self.api()
    }

    /// Objects of a kind in the namespace of all scenarios.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    pub(crate) async fn make<K>(&self, object: Value) -> K
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + serde::Serialize,
    {
        let object: K = serde_json::from_value(object).expect("object");
        self.api::<K>().create(&PostParams::default(), &object).await.expect("create")
    }

    /// A pod on this node, without a token unless the spec asks for one.
    pub(crate) async fn create(&self, name: &str, spec: Value) -> Pod {
        self.create_with(json!({"name": name}), spec).await
    }

    pub(crate) async fn create_with(&self, metadata: Value, mut spec: Value) -> Pod {
        spec["nodeName"] = json!("node");
        if spec["automountServiceAccountToken"].is_null() {
            spec["automountServiceAccountToken"] = json!(false);
        }
        if spec["terminationGracePeriodSeconds"].is_null() {
            // A shell as first process does not hear SIGTERM.
            spec["terminationGracePeriodSeconds"] = json!(1);
        }
        self.make(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})).await
    }

    /// Waits until the pod is as asked; fails with what it is.
    pub(crate) async fn until(
        &self,
        name: &str,
        what: &str,
        is: impl Fn(Option<&Pod>) -> bool,
    ) -> Option<Pod> {
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
            let status = last.as_ref().and_then(|p| p.status.as_ref()).map(serde_json::to_string_pretty);
            let events = self.events(name).await;
            let status = status.and_then(Result::ok).unwrap_or_default();
            panic!("pod {name} is not {what}: {status}\n{events:#?}");
        }
        last
    }

    pub(crate) async fn until_ready(&self, name: &str) -> Pod {
        let ready = |p: Option<&Pod>| p.is_some_and(is_ready);
        self.until(name, "ready", ready).await.expect("a pod")
    }

    pub(crate) async fn until_phase(&self, name: &str, expect: &str) -> Pod {
        self.until(name, expect, |p| phase(p) == expect).await.expect("a pod")
    }

    /// Waits until a container waits for this reason; gives the message.
    pub(crate) async fn until_waiting(&self, name: &str, reason: &str) -> String {
        let waiting = |p: &Pod| status(p).state.and_then(|s| s.waiting);
        let is = |p: Option<&Pod>| p.and_then(waiting).is_some_and(|w| w.reason.as_deref() == Some(reason));
        let pod = self.until(name, reason, is).await.expect("a pod");
        waiting(&pod).and_then(|w| w.message).unwrap_or_default()
    }

    /// Events of a pod as `type reason note`.
    pub(crate) async fn events(&self, name: &str) -> Vec<String> {
        let all = self.api::<Event>().list(&kube::api::ListParams::default()).await.expect("events");
        all.items.iter().filter_map(|e| event_text(e, name)).collect()
    }

    /// Waits for an event of a pod whose text contains this.
    pub(crate) async fn until_event(&self, name: &str, expect: &str) -> String {
        let mut stream = watcher(self.api::<Event>(), watcher::Config::default()).default_backoff().boxed();
        let wait = async {
            while let Some(event) = stream.next().await {
                if let Ok(watcher::Event::Apply(e) | watcher::Event::InitApply(e)) = event
                    && let Some(text) = event_text(&e, name).filter(|t| t.contains(expect))
                {
                    return text;
                }
            }
            panic!("the watch ended");
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(text) => text,
            Err(_) => panic!("no event of {name} says {expect:?}: {:#?}", self.events(name).await),
        }
    }

    /// The whole log of a pod's container that has ended.
    pub(crate) async fn log_of(&self, name: &str, container: &str) -> String {
        let params = LogParams { container: Some(container.to_owned()), ..LogParams::default() };
        self.pods().logs(name, &params).await.expect("logs")
    }

    /// Runs a script in a pod that ends, and gives what it wrote.
    pub(crate) async fn output(&self, name: &str, mut spec: Value, script: &str) -> String {
        let mut container = json!({"name": "c", "image": "test:1", "command": ["sh", "-c", script]});
        if let Some(extra) = spec.as_object_mut().and_then(|s| s.remove("container")) {
            merge(&mut container, extra);
        }
        spec["containers"] = json!([container]);
        spec["restartPolicy"] = json!("Never");
        self.create(name, spec).await;
        self.until(name, "ended", |p| matches!(phase(p), "Succeeded" | "Failed")).await;
        let text = self.log_of(name, "c").await;
        self.remove(name).await;
        text
    }

    /// Follows the log until it has as many bytes as expected, and compares.
    pub(crate) async fn log_is(&self, name: &str, expect: &str) {
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

    /// Waits until a line of the log contains this.
    pub(crate) async fn until_log(&self, name: &str, expect: &str) {
        use futures::AsyncBufReadExt;
        let began = |p: &Pod| status(p).state.is_some_and(|s| s.running.is_some() || s.terminated.is_some());
        self.until(name, "started", |p| p.is_some_and(began)).await;
        let params = LogParams { follow: true, ..LogParams::default() };
        let stream = self.pods().log_stream(name, &params).await.expect("logs");
        let mut lines = stream.lines();
        let mut seen = Vec::new();
        let wait = async {
            while let Some(Ok(line)) = lines.next().await {
                let found = line.contains(expect);
                seen.push(line);
                if found {
                    return true;
                }
            }
            false
        };
        let found = tokio::time::timeout(PATIENCE, wait).await;
        assert!(matches!(found, Ok(true)), "the log of {name} does not say {expect:?}: {seen:#?}");
    }

    /// Deletes a pod at once and waits until it is gone.
    pub(crate) async fn remove(&self, name: &str) {
        self.remove_within(name, 0).await;
    }

    pub(crate) async fn remove_within(&self, name: &str, grace: u32) {
        self.pods().delete(name, &DeleteParams::default().grace_period(grace)).await.expect("delete");
        self.until(name, "gone", |p| p.is_none()).await;
    }

    /// A directory of the node for a scenario.
    pub(crate) fn host_dir(&self, name: &str) -> PathBuf {
        let dir = self.dir.path().join("host").join(name);
        std::fs::create_dir_all(&dir).expect("host directory");
        dir
    }
}

fn event_text(e: &Event, name: &str) -> Option<String> {
    let about = e.regarding.as_ref()?;
    (about.name.as_deref() == Some(name)).then(|| {
        let t = |s: &Option<String>| s.clone().unwrap_or_default();
        format!("{} {} {}", t(&e.type_), t(&e.reason), t(&e.note))
    })
}

/// Puts the fields of `b` into `a`.
pub(crate) fn merge(a: &mut Value, b: Value) {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            for (k, v) in b {
                merge(a.entry(k).or_insert(Value::Null), v);
            }
        }
        (a, b) => *a = b,
    }
}

/// One container that runs a script.
pub(crate) fn shell(script: &str) -> Value {
    json!([{"name": "c", "image": "test:1", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script]}])
}

/// The same with more fields.
pub(crate) fn shell_with(script: &str, extra: Value) -> Value {
    let mut all = shell(script);
    merge(&mut all[0], extra);
    all
}

pub(crate) fn condition(p: &Pod, kind: &str) -> PodCondition {
    let all = p.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    all.iter().find(|c| c.type_ == kind).cloned().unwrap_or_default()
}

pub(crate) fn is_ready(p: &Pod) -> bool {
    condition(p, "Ready").status == "True"
}

pub(crate) fn phase(p: Option<&Pod>) -> &str {
    p.and_then(|p| p.status.as_ref()).and_then(|s| s.phase.as_deref()).unwrap_or("")
}

/// Of the first container.
pub(crate) fn status(p: &Pod) -> ContainerStatus {
    p.status.clone().and_then(|s| s.container_statuses).and_then(|c| c.into_iter().next()).unwrap_or_default()
}

pub(crate) fn init_status(p: &Pod, name: &str) -> ContainerStatus {
    let all = p.status.clone().and_then(|s| s.init_container_statuses).unwrap_or_default();
    all.into_iter().find(|c| c.name == name).unwrap_or_default()
}

/// How a container ended: exit code, reason, message.
pub(crate) fn ended(s: &ContainerStatus) -> Option<(i32, String, String)> {
    let t = s.state.as_ref()?.terminated.as_ref()?;
    Some((t.exit_code, t.reason.clone().unwrap_or_default(), t.message.clone().unwrap_or_default()))
}

pub(crate) struct Running {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), kubelet::Error>>,
    pub(crate) images: Images,
}

/// Containerd's files are on a small disk of their own, so that a pull can meet its end. `purge` unmounts it.
fn small_containerd_disk(dir: &Path) {
    let root = dir.join("data/containerd/root");
    std::fs::create_dir_all(&root).expect("containerd's root");
    run("mount", &["-t", "tmpfs", "-o", "size=64m", "tmpfs", &text(&root)]);
}

impl Running {
    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.task.await.expect("task").expect("kubelet");
    }
}
