//! The API through its router, without a socket, and through TLS with the real kubectl.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::user::UserInfo;
use apiserver::pki::{Pki, PkiConfig};
use apiserver::{ApiServer, Config};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Binding, ConfigMap, Namespace, Pod, Service, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use store::Store;
use tokio_util::sync::CancellationToken;

struct Cluster {
    _dir: tempfile::TempDir,
    path: PathBuf,
    server: Arc<ApiServer>,
    stop: CancellationToken,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn cluster() -> Cluster {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(store::Config::new(dir.path().join("store"))).expect("a store");
    let pki = Pki::open(PkiConfig {
        dir: dir.path().join("pki"),
        addresses: Vec::new(),
        service_ip: IpAddr::from([10, 43, 0, 1]),
        cluster_domain: "cluster.local".to_owned(),
        hostname: "test".to_owned(),
        now: signal::time::now(),
    })
    .expect("certificates");
    let stop = CancellationToken::new();
    let mut config = Config::new(Arc::new(store), Arc::new(pki));
    config.admin_token = "secret".to_owned();
    config.stop = stop.clone();
    let server = ApiServer::open(config).await.expect("a server");
    Cluster { path: dir.path().to_owned(), _dir: dir, server, stop }
}

impl Cluster {
    fn client(&self) -> Client {
        self.client_as(UserInfo::new("admin", &["system:masters"]))
    }

    fn client_as(&self, user: UserInfo) -> Client {
        Client::new(self.server.in_process(user), "default")
    }

    /// Pods need their account, which a controller makes in a real cluster.
    async fn account(&self) {
        let sa: ServiceAccount = from(json!({"metadata": {"name": "default"}}));
        Api::namespaced(self.client(), "default")
            .create(&PostParams::default(), &sa)
            .await
            .expect("an account");
    }
}

fn from<T: serde::de::DeserializeOwned>(v: Value) -> T {
    serde_json::from_value(v).expect("an object of its type")
}

fn pod(name: &str) -> Pod {
    from(
        json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "busybox:1"}]}}),
    )
}

fn deployment(name: &str) -> Deployment {
    from(json!({"metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "busybox:1"}]}}}}))
}

fn status(e: kube::Error) -> (u16, String, String) {
    match e {
        kube::Error::Api(s) => (s.code, s.reason.clone(), s.message.clone()),
        other => panic!("no status: {other}"),
    }
}

#[tokio::test]
async fn objects_live_and_die() {
    let c = cluster().await;
    let maps: Api<ConfigMap> = Api::namespaced(c.client(), "default");
    let map: ConfigMap = from(json!({"metadata": {"name": "a"}, "data": {"k": "v"}}));
    let made = maps.create(&PostParams::default(), &map).await.expect("created");
    assert!(made.uid().is_some() && made.resource_version().is_some() && made.creation_timestamp().is_some());
    let (code, reason, message) = status(maps.create(&PostParams::default(), &map).await.expect_err("twice"));
    assert_eq!((code, &*reason, &*message), (409, "AlreadyExists", "configmaps \"a\" already exists"));

    let patch = json!({"data": {"k": "w", "l": "x"}});
    let patched = maps.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("patched");
    assert_ne!(patched.resource_version(), made.resource_version());
    let again = maps.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("patched again");
    assert_eq!(
        again.resource_version(),
        patched.resource_version(),
        "a write that changes nothing is no change"
    );

    let mut stale = made.clone();
    stale.data = Some(BTreeMap::new());
    let (code, _, message) =
        status(maps.replace("a", &PostParams::default(), &stale).await.expect_err("stale"));
    assert_eq!(code, 409);
    assert!(
        message.contains("the object has been modified; please apply your changes to the latest version")
    );

    maps.delete("a", &DeleteParams::default()).await.expect("deleted");
    let (code, _, message) = status(maps.get("a").await.expect_err("gone"));
    assert_eq!((code, &*message), (404, "configmaps \"a\" not found"));

    let mut generated: ConfigMap = from(json!({"metadata": {"generateName": "x-"}}));
    generated = maps.create(&PostParams::default(), &generated).await.expect("generated");
    assert!(generated.name_any().starts_with("x-") && generated.name_any().len() == 7);
}

#[tokio::test]
async fn lists_are_cut_on_one_snapshot() {
    let c = cluster().await;
    let maps: Api<ConfigMap> = Api::namespaced(c.client(), "default");
    for i in 0..7 {
        let m: ConfigMap =
            from(json!({"metadata": {"name": format!("m{i}"), "labels": {"odd": format!("{}", i % 2)}}}));
        maps.create(&PostParams::default(), &m).await.expect("created");
    }
    let first = maps.list(&ListParams::default().limit(3)).await.expect("a page");
    assert_eq!(first.metadata.remaining_item_count, Some(4));
    maps.delete("m5", &DeleteParams::default()).await.expect("deleted");
    let token = first.metadata.continue_.clone().expect("more");
    let second = maps.list(&ListParams::default().limit(10).continue_token(&token)).await.expect("the rest");
    let names: Vec<String> = second.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["m3", "m4", "m5", "m6"], "the second page is of the first one's revision");
    let odd = maps.list(&ListParams::default().labels("odd=1")).await.expect("a list");
    assert_eq!(odd.items.len(), 2);
    let named = maps.list(&ListParams::default().fields("metadata.name=m0")).await.expect("a list");
    assert_eq!(named.items.len(), 1);
    let e = status(maps.list(&ListParams::default().fields("spec.x=1")).await.expect_err("no such field"));
    assert_eq!(e, (400, "BadRequest".to_owned(), "field label not supported: spec.x".to_owned()));
}

#[tokio::test]
async fn watches_see_objects_enter_and_leave_their_selection() {
    let c = cluster().await;
    let maps: Api<ConfigMap> = Api::namespaced(c.client(), "default");
    let start = maps
        .list(&ListParams::default())
        .await
        .expect("a list")
        .metadata
        .resource_version
        .expect("a revision");
    let params = WatchParams::default().labels("in=yes");
    let mut events = maps.watch(&params, &start).await.expect("a watch").boxed();
    let map: ConfigMap = from(json!({"metadata": {"name": "a"}}));
    maps.create(&PostParams::default(), &map).await.expect("created");
    for label in ["yes", "still", "yes"] {
        let p = json!({"metadata": {"labels": {"in": label}}});
        maps.patch("a", &PatchParams::default(), &Patch::Merge(&p)).await.expect("labelled");
    }
    maps.delete("a", &DeleteParams::default()).await.expect("deleted");
    let mut seen = Vec::new();
    while seen.len() < 4 {
        match events.try_next().await.expect("events").expect("no end") {
            WatchEvent::Added(_) => seen.push("added"),
            WatchEvent::Modified(_) => seen.push("modified"),
            WatchEvent::Deleted(_) => seen.push("deleted"),
            _ => {}
        }
    }
    assert_eq!(seen, ["added", "deleted", "added", "deleted"]);
}

#[tokio::test]
async fn pods_are_defaulted_bound_and_deleted_gracefully() {
    let c = cluster().await;
    let pods: Api<Pod> = Api::namespaced(c.client(), "default");
    let (code, _, message) =
        status(pods.create(&PostParams::default(), &pod("early")).await.expect_err("no account"));
    assert_eq!(code, 403);
    assert!(message.contains("error looking up service account default/default"), "{message}");
    c.account().await;
    let p = pods.create(&PostParams::default(), &pod("a")).await.expect("created");
    let spec = p.spec.expect("a spec");
    assert_eq!(spec.restart_policy.as_deref(), Some("Always"));
    assert_eq!(spec.service_account_name.as_deref(), Some("default"));
    assert_eq!(spec.tolerations.map(|t| t.len()), Some(2));
    assert!(spec.volumes.expect("volumes")[0].name.starts_with("kube-api-access-"));
    assert_eq!(spec.containers[0].image_pull_policy.as_deref(), Some("IfNotPresent"));
    assert_eq!(p.status.expect("a status").qos_class.as_deref(), Some("BestEffort"));

    let binding: Binding = from(json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n1"}}));
    pods.create_subresource::<Binding, Value>("binding", "a", &PostParams::default(), &binding)
        .await
        .expect("bound");
    let p = pods.get("a").await.expect("the pod");
    assert_eq!(p.spec.as_ref().and_then(|s| s.node_name.as_deref()), Some("n1"));
    assert_eq!(
        p.status.as_ref().and_then(|s| s.conditions.as_ref()).map(|c| c[0].type_.as_str()),
        Some("PodScheduled")
    );

    let image = json!({"spec": {"containers": [{"name": "c", "image": "busybox:2"}]}});
    pods.patch("a", &PatchParams::default(), &Patch::Strategic(&image)).await.expect("a new image");
    let node = json!({"spec": {"dnsPolicy": "Default"}});
    let e =
        status(pods.patch("a", &PatchParams::default(), &Patch::Merge(&node)).await.expect_err("immutable"));
    assert_eq!(e.0, 422);

    let deleting =
        pods.delete("a", &DeleteParams::default()).await.expect("marked").left().expect("still there");
    assert_eq!(deleting.metadata.deletion_grace_period_seconds, Some(30));
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    pods.delete("a", &now).await.expect("gone");
    assert_eq!(status(pods.get("a").await.expect_err("gone")).0, 404);

    pods.create(&PostParams::default(), &pod("free")).await.expect("created");
    pods.delete("free", &DeleteParams::default()).await.expect("unbound pods go at once");
    assert_eq!(status(pods.get("free").await.expect_err("gone")).0, 404);
}

#[tokio::test]
async fn workloads_scale_and_refuse_nonsense() {
    let c = cluster().await;
    let all: Api<Deployment> = Api::namespaced(c.client(), "default");
    let d = all.create(&PostParams::default(), &deployment("web")).await.expect("created");
    assert_eq!(d.metadata.generation, Some(1));
    let spec = d.spec.expect("a spec");
    assert_eq!(
        (spec.replicas, spec.revision_history_limit, spec.progress_deadline_seconds),
        (Some(1), Some(10), Some(600))
    );
    let p = Patch::Merge(json!({"spec": {"replicas": 4}}));
    let scale = all.patch_scale("web", &PatchParams::default(), &p).await.expect("scaled");
    assert_eq!(scale.spec.and_then(|s| s.replicas), Some(4));
    assert_eq!(
        all.get_scale("web").await.expect("a scale").status.and_then(|s| s.selector).as_deref(),
        Some("app=web")
    );
    let d = all.get("web").await.expect("the deployment");
    assert_eq!(d.metadata.generation, Some(2));
    let s = Patch::Merge(json!({"status": {"replicas": 4}, "spec": {"replicas": 9}}));
    let d = all.patch_status("web", &PatchParams::default(), &s).await.expect("a status");
    assert_eq!((d.metadata.generation, d.spec.and_then(|s| s.replicas)), (Some(2), Some(4)));
    assert_eq!(d.status.and_then(|s| s.replicas), Some(4));

    let mut bad = deployment("bad");
    bad.spec.as_mut().expect("a spec").selector.match_labels =
        Some([("app".to_owned(), "other".to_owned())].into());
    let (code, reason, message) =
        status(all.create(&PostParams::default(), &bad).await.expect_err("invalid"));
    assert_eq!((code, &*reason), (422, "Invalid"));
    assert!(
        message.contains("Deployment.apps \"bad\" is invalid: spec.template.metadata.labels: Invalid value"),
        "{message}"
    );
    assert!(message.contains("`selector` does not match template `labels`"), "{message}");
}

#[tokio::test]
async fn services_get_addresses_that_no_other_has() {
    let c = cluster().await;
    let all: Api<Service> = Api::namespaced(c.client(), "default");
    let kubernetes = all.get("kubernetes").await.expect("the first service");
    assert_eq!(kubernetes.spec.and_then(|s| s.cluster_ip).as_deref(), Some("10.43.0.1"));
    let make = |i: usize| {
        let all = all.clone();
        async move {
            let s: Service = from(
                json!({"metadata": {"name": format!("s{i}")}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}}),
            );
            all.create(&PostParams::default(), &s).await.expect("created").spec.expect("a spec")
        }
    };
    let specs = futures::future::join_all((0..20).map(make)).await;
    let ips: std::collections::HashSet<_> = specs.iter().filter_map(|s| s.cluster_ip.clone()).collect();
    let ports: std::collections::HashSet<_> =
        specs.iter().flat_map(|s| s.ports.iter().flatten().filter_map(|p| p.node_port)).collect();
    assert_eq!((ips.len(), ports.len()), (20, 20));
    let taken = ips.iter().next().expect("one");
    let s: Service =
        from(json!({"metadata": {"name": "again"}, "spec": {"clusterIP": taken, "ports": [{"port": 80}]}}));
    let e = status(all.create(&PostParams::default(), &s).await.expect_err("taken"));
    assert!(e.2.contains("provided IP is already allocated"), "{}", e.2);
}

#[tokio::test]
async fn finalizers_and_namespaces_hold_deletion() {
    let c = cluster().await;
    let maps: Api<ConfigMap> = Api::namespaced(c.client(), "default");
    let map: ConfigMap = from(json!({"metadata": {"name": "a", "finalizers": ["example.com/hold"]}}));
    maps.create(&PostParams::default(), &map).await.expect("created");
    maps.delete("a", &DeleteParams::default()).await.expect("marked");
    assert!(maps.get("a").await.expect("held").metadata.deletion_timestamp.is_some());
    let p = json!({"metadata": {"finalizers": null}});
    maps.patch("a", &PatchParams::default(), &Patch::Merge(&p)).await.expect("released");
    assert_eq!(status(maps.get("a").await.expect_err("gone")).0, 404);

    let spaces: Api<Namespace> = Api::all(c.client());
    let ns: Namespace = from(json!({"metadata": {"name": "dev"}}));
    spaces.create(&PostParams::default(), &ns).await.expect("created");
    spaces.delete("dev", &DeleteParams::default()).await.expect("marked");
    let held = spaces.get("dev").await.expect("held by its own finalizer");
    assert_eq!(held.status.and_then(|s| s.phase).as_deref(), Some("Terminating"));
    let inside: Api<ConfigMap> = Api::namespaced(c.client(), "dev");
    let e = status(
        inside
            .create(&PostParams::default(), &from(json!({"metadata": {"name": "x"}})))
            .await
            .expect_err("terminating"),
    );
    assert_eq!(e.0, 403);
    assert!(e.2.contains("because it is being terminated"), "{}", e.2);
    let nowhere: Api<ConfigMap> = Api::namespaced(c.client(), "nowhere");
    let e = status(
        nowhere
            .create(&PostParams::default(), &from(json!({"metadata": {"name": "x"}})))
            .await
            .expect_err("no namespace"),
    );
    assert_eq!((e.0, e.2.as_str()), (404, "namespaces \"nowhere\" not found"));
}

#[tokio::test]
async fn nobody_may_what_no_role_allows() {
    let c = cluster().await;
    let pods: Api<Pod> = Api::namespaced(c.client_as(UserInfo::new("eve", &[])), "default");
    let (code, _, message) = status(pods.list(&ListParams::default()).await.expect_err("forbidden"));
    assert_eq!(code, 403);
    assert_eq!(
        message,
        "pods is forbidden: User \"eve\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    let bindings: Api<k8s_openapi::api::rbac::v1::RoleBinding> = Api::namespaced(c.client(), "default");
    let b = from(
        json!({"metadata": {"name": "eve"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "User", "name": "eve"}]}),
    );
    bindings.create(&PostParams::default(), &b).await.expect("bound");
    pods.list(&ListParams::default()).await.expect("allowed now");
    let elsewhere: Api<Pod> = Api::namespaced(c.client_as(UserInfo::new("eve", &[])), "kube-system");
    assert_eq!(status(elsewhere.list(&ListParams::default()).await.expect_err("elsewhere")).0, 403);
}

#[tokio::test]
async fn appliers_own_their_fields() {
    let c = cluster().await;
    let all: Api<Deployment> = Api::namespaced(c.client(), "default");
    let mut d = serde_json::to_value(deployment("web")).expect("json");
    d["spec"]["replicas"] = 2.into();
    d["metadata"]["labels"] = json!({"a": "1"});
    let ours = PatchParams::apply("ours");
    let made = all.patch("web", &ours, &Patch::Apply(&d)).await.expect("applied");
    let again = all.patch("web", &ours, &Patch::Apply(&d)).await.expect("applied again");
    assert_eq!(made.resource_version(), again.resource_version());
    let theirs = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 5}});
    let e = status(
        all.patch("web", &PatchParams::apply("theirs"), &Patch::Apply(&theirs))
            .await
            .expect_err("a conflict"),
    );
    assert_eq!(e.2, "Apply failed with 1 conflict: conflict with \"ours\": .spec.replicas");
    all.patch("web", &PatchParams::apply("theirs").force(), &Patch::Apply(&theirs)).await.expect("forced");
    d["spec"].as_object_mut().expect("a spec").remove("replicas");
    d["metadata"].as_object_mut().expect("metadata").remove("labels");
    let d = all.patch("web", &ours, &Patch::Apply(&d)).await.expect("applied with less");
    assert_eq!(d.spec.and_then(|s| s.replicas), Some(5), "the other manager's field stays");
    assert_eq!(d.metadata.labels, None, "what nobody names any more goes");
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut revision = String::new();
    for round in 0..2 {
        let store = Arc::new(Store::open(store::Config::new(dir.path().join("store"))).expect("a store"));
        let pki = Pki::open(PkiConfig {
            dir: dir.path().join("pki"),
            addresses: Vec::new(),
            service_ip: IpAddr::from([10, 43, 0, 1]),
            cluster_domain: "cluster.local".to_owned(),
            hostname: "test".to_owned(),
            now: signal::time::now(),
        })
        .expect("certificates");
        let mut config = Config::new(store, Arc::new(pki));
        let stop = config.stop.clone();
        config.admin_token = "x".to_owned();
        let server = ApiServer::open(config).await.expect("a server");
        let client = Client::new(server.in_process(UserInfo::new("admin", &["system:masters"])), "default");
        let maps: Api<ConfigMap> = Api::namespaced(client, "default");
        if round == 0 {
            let m: ConfigMap = from(json!({"metadata": {"name": "kept"}}));
            revision = maps
                .create(&PostParams::default(), &m)
                .await
                .expect("created")
                .resource_version()
                .expect("one");
        } else {
            assert_eq!(maps.get("kept").await.expect("kept").resource_version().as_deref(), Some(&*revision));
            let list = maps.list(&ListParams::default()).await.expect("a list");
            assert_eq!(
                list.metadata.resource_version.as_deref(),
                Some(&*revision),
                "a second start changes nothing"
            );
        }
        drop(maps);
        stop.cancel();
        drop(server);
        // The store's lock goes with its last holder, the task that follows it.
        tokio::time::timeout(Duration::from_secs(5), async {
            while Store::open(store::Config::new(dir.path().join("store"))).is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the store is let go");
    }
}

/// The kubectl to test with, or why there is none.
fn kubectl() -> Result<PathBuf, String> {
    if let Some(p) = std::env::var_os("BINNACLE_KUBECTL") {
        return Ok(PathBuf::from(p));
    }
    let dirs: Vec<PathBuf> =
        std::env::var_os("PATH").map(|p| std::env::split_paths(&p).collect()).unwrap_or_default();
    let plain = dirs.iter().map(|d| d.join("kubectl")).find(|p| p.is_file());
    let plain = plain.ok_or("no kubectl in PATH and BINNACLE_KUBECTL is not set")?;
    let real = std::fs::canonicalize(&plain).map_err(|e| e.to_string())?;
    let beside = real.with_file_name("kubectl.1.33");
    Ok(if beside.is_file() { beside } else { real })
}

fn run(kubectl: &Path, home: &Path, args: &[&str], input: Option<&str>) -> (bool, String) {
    let mut child = Command::new(kubectl)
        .args(["--kubeconfig", &home.join("kubeconfig").display().to_string()])
        .args(args)
        .env("HOME", home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl starts");
    let mut stdin = child.stdin.take().expect("its stdin");
    if let Some(text) = input {
        std::io::Write::write_all(&mut stdin, text.as_bytes()).expect("written");
    }
    drop(stdin);
    let out = child.wait_with_output().expect("kubectl ends");
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    (out.status.success(), text)
}

const MANIFEST: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "shop:1", ports: [{containerPort: 8080}], resources: {limits: {cpu: 500m}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  maxReplicas: 5
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_works() {
    let kubectl = match kubectl() {
        Ok(k) => k,
        Err(why) => {
            panic!("the real kubectl is missing: {why}; install kubectl 1.33 or set BINNACLE_KUBECTL")
        }
    };
    let c = cluster().await;
    c.account().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let serving = tokio::task::spawn(c.server.clone().serve(listener, c.stop.clone()));
    std::fs::write(c.path.join("ca.crt"), c.server.pki().ca_pem()).expect("the CA");
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "t",
        "clusters": [{"name": "t", "cluster": {"server": format!("https://127.0.0.1:{port}"), "certificate-authority": "ca.crt"}}],
        "users": [{"name": "t", "user": {"token": "secret"}}],
        "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}],
    });
    std::fs::write(c.path.join("kubeconfig"), kubeconfig.to_string()).expect("the kubeconfig");
    let home = c.path.clone();
    tokio::task::spawn_blocking(move || {
        let k = |args: &[&str]| run(&kubectl, &home, args, None);
        let ok = |args: &[&str], wanted: &[&str]| {
            let (good, text) = k(args);
            assert!(good, "kubectl {args:?}: {text}");
            for w in wanted {
                assert!(text.contains(w), "kubectl {args:?} lacks {w:?}: {text}");
            }
            text
        };
        let apply = |text: &str, more: &[&str]| {
            let mut args = vec!["apply", "-f", "-"];
            args.extend(more);
            run(&kubectl, &home, &args, Some(text))
        };
        ok(&["version"], &["v1.35"]);
        ok(&["api-resources"], &["deployments", "hpa", "apps/v1", "true"]);
        let (good, text) = apply(MANIFEST, &[]);
        assert!(
            good && text.contains("deployment.apps/web created") && text.contains("service/web created"),
            "{text}"
        );
        let (good, text) = apply(MANIFEST, &[]);
        assert!(good && text.matches("unchanged").count() == 3, "{text}");
        let (good, text) = apply(&MANIFEST.replace("shop:1", "shop:2"), &[]);
        assert!(good && text.contains("deployment.apps/web configured"), "{text}");
        let (good, text) = apply(MANIFEST, &["--server-side", "--force-conflicts"]);
        assert!(good && text.contains("serverside-applied"), "{text}");
        let (good, text) = apply(&MANIFEST.replace("replicas: 2", "replicaz: 2"), &[]);
        assert!(!good && text.contains("unknown field \"spec.replicaz\""), "{text}");
        let (good, text) = apply(&MANIFEST.replace("matchLabels: {app: web}", "matchLabels: {app: x}"), &[]);
        assert!(!good && text.contains("The Deployment \"web\" is invalid"), "{text}");
        ok(
            &["get", "deploy,svc,hpa", "-o", "wide"],
            &["UP-TO-DATE", "CLUSTER-IP", "cpu: <unknown>/80%", "app=web"],
        );
        ok(&["get", "pods"], &["No resources found in default namespace."]);
        ok(&["run", "one", "--image=busybox:1", "--restart=Never"], &["pod/one created"]);
        ok(&["get", "pods", "-o", "wide"], &["NOMINATED NODE", "0/1", "Pending"]);
        ok(&["describe", "pod", "one"], &["Service Account:  default", "QoS Class:", "kube-api-access-"]);
        ok(&["describe", "deploy", "web"], &["StrategyType:", "25% max unavailable, 25% max surge"]);
        ok(&["label", "pod", "one", "x=y"], &["labeled"]);
        ok(&["annotate", "pod", "one", "x=y"], &["annotated"]);
        ok(&["get", "pods", "-l", "x=y", "-o", "name"], &["pod/one"]);
        ok(&["scale", "deploy/web", "--replicas=3"], &["scaled"]);
        ok(&["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"], &["3"]);
        ok(&["patch", "deploy", "web", "-p", "{\"spec\":{\"paused\":true}}"], &["patched"]);
        ok(&["rollout", "resume", "deploy/web"], &["resumed"]);
        ok(&["rollout", "restart", "deploy/web"], &["restarted"]);
        ok(&["explain", "pod.spec.containers.resources"], &["FIELD", "limits"]);
        ok(&["auth", "whoami"], &["binnacle-admin"]);
        ok(&["auth", "can-i", "create", "pods"], &["yes"]);
        let (_, text) = k(&["auth", "can-i", "create", "pods", "--as", "eve"]);
        assert!(text.contains("no"), "{text}");
        ok(&["auth", "can-i", "--list"], &["*.*"]);
        let token = ok(&["create", "token", "default"], &["eyJ"]);
        let (good, text) = run(&kubectl, &home, &["--token", token.trim(), "auth", "whoami"], None);
        assert!(good && text.contains("system:serviceaccount:default:default"), "{text}");
        ok(&["create", "configmap", "cm", "--from-literal=a=b"], &["created"]);
        ok(&["create", "secret", "generic", "s", "--from-literal=a=b"], &["created"]);
        ok(&["create", "deployment", "gen", "--image=busybox:1", "--port=80"], &["created"]);
        ok(&["create", "service", "clusterip", "gen", "--tcp=80:8080"], &["created"]);
        ok(&["autoscale", "deployment", "gen", "--max=3", "--cpu-percent=50"], &["autoscaled"]);
        ok(&["create", "namespace", "gen"], &["created"]);
        ok(&["create", "role", "gen", "--verb=get", "--resource=pods"], &["created"]);
        ok(&["create", "rolebinding", "gen", "--role=gen", "--user=eve"], &["created"]);
        ok(&["create", "sa", "gen"], &["created"]);
        ok(&["get", "cm,secret"], &["configmap/cm", "secret/s", "Opaque"]);
        ok(&["delete", "cm", "cm", "--dry-run=server"], &["(server dry run)"]);
        ok(&["get", "cm", "cm"], &["cm"]);
        let (good, text) =
            run(&kubectl, &home, &["diff", "-f", "-"], Some(&MANIFEST.replace("shop:1", "shop:3")));
        assert!(!good && text.contains("shop:3"), "{text}");
        ok(&["events"], &["No events found in default namespace."]);
        ok(&["wait", "--for=jsonpath={.spec.replicas}=3", "deploy/web", "--timeout=5s"], &["condition met"]);
        ok(&["get", "all"], &["service/kubernetes", "deployment.apps/web", "pod/one"]);
        ok(&["delete", "pod", "one"], &["deleted"]);
        ok(&["delete", "deploy,svc,hpa", "--all"], &["deleted"]);
        ok(&["get", "clusterroles", "view"], &["CREATED AT"]);
        let (good, text) = run(&kubectl, &home, &["get", "--raw", "/readyz?verbose"], None);
        assert!(good && text.contains("readyz check passed"), "{text}");
        let (good, text) = run(&kubectl, &home, &["--token", "wrong", "get", "pods"], None);
        assert!(!good && text.contains("Unauthorized"), "{text}");
    })
    .await
    .expect("the commands ran");
    c.stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), serving)
        .await
        .expect("it stops")
        .expect("no panic")
        .expect("no error");
}
