//! Pulls from real registries on loopback: open and with a password, policies, failures and their words.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use k8s_openapi::api::core::v1::Secret;
use kubelet::containerd::Containerd;
use kubelet::images::Images;
use serde_json::json;

use crate::Scenario;
use crate::harness::{Bench, IMAGE, build_image, run, shell, shell_with, status};

pub(crate) fn scenarios(bench: &Arc<Bench>) -> Vec<Scenario> {
    crate::scenarios![bench, open_registry, registry_with_password, policies]
}

/// What `htpasswd -Bbn ann se:cret` prints.
const USERS: &str = "ann:$2y$05$d00778mcOb/9UyzNs.6yj.csZqj4RPsigIOxCHJJtCoiZmf3iuTQ6\n";

/// Debian's docker-registry, with its files below a directory of the test.
struct Registry {
    process: Child,
    port: u16,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().expect("end the registry");
        self.process.wait().expect("collect the registry");
    }
}

impl Registry {
    /// With a user and password if `htpasswd` is a file of those.
    fn start(dir: &Path, htpasswd: Option<&Path>) -> Registry {
        let storage = dir.join("storage");
        std::fs::create_dir_all(&storage).expect("storage");
        let auth = htpasswd.map_or_else(String::new, |f| {
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", f.display())
        });
        let config = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n{auth}",
            storage.display()
        );
        let file = dir.join("config.yml");
        std::fs::write(&file, config).expect("config");
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry is missing");
        let mut lines = BufReader::new(process.stderr.take().expect("stderr")).lines();
        let port = loop {
            let line = lines.next().expect("the registry says where it listens").expect("line");
            if let Some((_, rest)) = line.split_once("listening on 127.0.0.1:") {
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                break digits.parse().expect("port");
            }
        };
        // What it says must be taken, or it would stop in the middle of a line.
        std::thread::spawn(move || lines.for_each(drop));
        Registry { process, port }
    }

    fn image(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }

    fn push(&self, archive: &Path, name: &str, credentials: &[&str]) {
        let (from, to) =
            (format!("docker-archive:{}", archive.display()), format!("docker://{}", self.image(name)));
        let mut args = vec!["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"];
        args.extend(credentials);
        args.extend([from.as_str(), to.as_str()]);
        run("skopeo", &args);
    }
}

fn pod_of(image: &str) -> serde_json::Value {
    json!({"containers": [{"name": "c", "image": image, "command": ["sleep", "1000"]}]})
}

async fn open_registry(bench: &Bench) {
    let registry = Registry::start(&bench.host_dir("registry"), None);
    registry.push(&bench.archive, "lib/open:1", &[]);
    let image = registry.image("lib/open:1");
    bench.create("pulled", pod_of(&image)).await;
    let pod = bench.until_ready("pulled").await;
    assert_eq!(status(&pod).image, image);
    bench.until_event("pulled", &format!("Normal Pulling Pulling image \"{image}\"")).await;
    let text = bench
        .until_event("pulled", &format!("Normal Pulled Successfully pulled image \"{image}\" in "))
        .await;
    assert!(text.contains(" including waiting). Image size: ") && text.ends_with(" bytes."), "{text}");

    // By digest, and always again.
    let digest = run(
        "skopeo",
        &["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &format!("docker://{image}")],
    );
    let by_digest = format!("{}@{}", registry.image("lib/open"), digest.trim());
    let mut spec = pod_of(&by_digest);
    spec["containers"][0]["imagePullPolicy"] = json!("Always");
    bench.create("digest", spec).await;
    bench.until_ready("digest").await;
    bench.until_event("digest", "Normal Pulled Successfully pulled image").await;

    // By the name of another registry whose mirror this is.
    let mirrored = "docker.io/lib/open:1";
    let config = bench.config();
    let containerd = Containerd::connect(&config.containerd_socket, &config.containerd_namespace);
    let images = Images::new(containerd.await.expect("containerd"));
    let nobody = "docker.io=http://127.0.0.1:1".parse().expect("a mirror");
    let mirror = format!("*=127.0.0.1:{}", registry.port).parse().expect("a mirror");
    let found = images.with_mirrors(&[nobody, mirror]).pull(mirrored, &[]).await.expect("from the mirror");
    assert_eq!(found.name, mirrored);

    // What is not there.
    let missing = registry.image("lib/open:none");
    bench.create("nosuch", pod_of(&missing)).await;
    let message = bench.until_waiting("nosuch", "ErrImagePull").await;
    let why = format!(
        "failed to pull and unpack image \"{missing}\": failed to resolve reference \"{missing}\": {missing}: not found"
    );
    assert_eq!(message, why);
    bench.until_event("nosuch", &format!("Warning Failed Failed to pull image \"{missing}\": {why}")).await;
    bench.until_event("nosuch", "Warning Failed Error: ErrImagePull").await;
    let message = bench.until_waiting("nosuch", "ImagePullBackOff").await;
    assert_eq!(message, format!("Back-off pulling image \"{missing}\": ErrImagePull: {why}"));
    bench.until_event("nosuch", &format!("Normal BackOff Back-off pulling image \"{missing}\"")).await;
    bench.until_event("nosuch", "Warning Failed Error: ImagePullBackOff").await;

    // It comes while the pod waits.
    registry.push(&bench.archive, "lib/open:none", &[]);
    bench.until_ready("nosuch").await;

    // Nobody listens.
    bench.create("norouter", pod_of("127.0.0.1:1/lib/open:1")).await;
    let message = bench.until_waiting("norouter", "ErrImagePull").await;
    assert!(
        message.contains("failed to resolve reference") && message.ends_with("connection refused"),
        "{message}"
    );
    for name in ["pulled", "digest", "nosuch", "norouter"] {
        bench.remove(name).await;
    }
}

async fn registry_with_password(bench: &Bench) {
    let dir = bench.host_dir("locked");
    let users = dir.join("htpasswd");
    std::fs::write(&users, USERS).expect("htpasswd");
    let registry = Registry::start(&dir, Some(&users));
    registry.push(&bench.archive, "locked:1", &["--dest-creds", "ann:se:cret"]);
    let image = registry.image("locked:1");
    let host = format!("127.0.0.1:{}", registry.port);
    for (name, auth) in [
        ("pull-good", json!({"username": "ann", "password": "se:cret"})),
        ("pull-auth", json!({"auth": base64::engine::general_purpose::STANDARD.encode("ann:se:cret")})),
        ("pull-bad", json!({"username": "ann", "password": "wrong"})),
    ] {
        let config = json!({"auths": {&host: auth}}).to_string();
        bench
            .make::<Secret>(json!({"metadata": {"name": name}, "type": "kubernetes.io/dockerconfigjson",
                "stringData": {".dockerconfigjson": config}}))
            .await;
    }
    let with = |secrets: &[&str]| {
        let mut spec = pod_of(&image);
        spec["containers"][0]["imagePullPolicy"] = json!("Always");
        spec["imagePullSecrets"] = secrets.iter().map(|s| json!({"name": s})).collect();
        spec
    };
    bench.create("good", with(&["pull-good"])).await;
    bench.create("auth", with(&["pull-auth"])).await;
    // The second is tried when the first is refused.
    bench.create("second", with(&["pull-bad", "pull-good"])).await;
    for name in ["good", "auth", "second"] {
        bench.until_ready(name).await;
    }
    for (name, secrets) in [("nobody", &[][..]), ("wrong", &["pull-bad"]), ("nosecret", &["pull-none"])] {
        bench.create(name, with(secrets)).await;
        let message = bench.until_waiting(name, "ErrImagePull").await;
        let why = format!(
            "failed to resolve reference \"{image}\": pulling from host {host} failed with status code [manifests 1]: 401 Unauthorized"
        );
        assert!(message.ends_with(&why), "{name}: {message}");
        bench.until_waiting(name, "ImagePullBackOff").await;
    }
    bench
        .until_event("nosecret", "Warning FailedToRetrieveImagePullSecret Unable to retrieve some image pull secrets (pull-none); attempting to pull the image may not succeed.")
        .await;
    for name in ["good", "auth", "second", "nobody", "wrong", "nosecret"] {
        bench.remove(name).await;
    }
}

async fn policies(bench: &Bench) {
    let never = |image: &str| json!({"containers": [{"name": "c", "image": image, "imagePullPolicy": "Never", "command": ["sleep", "1000"]}]});
    bench.create("neverthere", never("test:1")).await;
    bench.until_ready("neverthere").await;
    bench.create("nevernot", never("nobody/has:1")).await;
    let message = bench.until_waiting("nevernot", "ErrImageNeverPull").await;
    assert_eq!(message, "Container image \"nobody/has:1\" is not present with pull policy of Never");
    bench.until_event("nevernot", &format!("Warning ErrImageNeverPull {message}")).await;
    bench.until_event("nevernot", "Warning Failed Error: ErrImageNeverPull").await;

    bench.create("badname", never("UPPER/Case:1")).await;
    let message = bench.until_waiting("badname", "InvalidImageName").await;
    assert!(
        message.starts_with("Failed to apply default image tag \"UPPER/Case:1\": couldn't parse image name")
    );
    bench.until_event("badname", "Warning InspectFailed Failed to apply default image tag").await;

    // Always asks a registry, though the image is here: its name leads to one that nobody can reach.
    let always = json!({"image": "127.0.0.1:1/here:1", "imagePullPolicy": "Always"});
    bench.create("always", json!({"containers": shell_with("sleep 1000", always)})).await;
    bench.until_waiting("always", "ErrImagePull").await;
    bench.create("ifnot", json!({"containers": shell("sleep 1000")})).await;
    bench.until_ready("ifnot").await;
    for name in ["neverthere", "nevernot", "badname", "always", "ifnot"] {
        bench.remove(name).await;
    }
}

/// Images that no pod uses go; one that is used stays, and comes back when it is asked for.
pub(crate) async fn unused_images_go(images: &Images) {
    let used: HashSet<String> = [IMAGE.to_owned()].into();
    let now = signal::time::now();
    let before = images.list().await.expect("list").len();
    assert!(before > 1, "the scenarios pulled some");
    let young = images.collect(&used, now, Duration::from_secs(3600), u64::MAX).await.expect("collect");
    assert!(young.is_empty(), "{young:?}");
    let gone = images.collect(&used, now, Duration::ZERO, u64::MAX).await.expect("collect");
    assert_eq!(gone.len(), before - 1);
    let left: Vec<String> = images.list().await.expect("list").into_iter().map(|(n, _)| n).collect();
    assert_eq!(left, [IMAGE]);
    assert!(images.get(&gone[0]).await.expect("image").is_none());
}

/// A pull that finds no room says so at its pod, leaves nothing behind, and others work.
pub(crate) async fn full_image_disk(bench: &Bench) {
    let dir = bench.host_dir("fullimage");
    let big = build_image(&dir, 80 << 20);
    let registry = Registry::start(&dir, None);
    registry.push(&big, "big:1", &[]);
    registry.push(&bench.archive, "small:1", &[]);
    let image = registry.image("big:1");
    bench.create("big", pod_of(&image)).await;
    let message = bench.until_waiting("big", "ErrImagePull").await;
    assert!(message.contains(&image) && message.contains("no space left on device"), "{message}");
    let text = bench.until_event("big", &format!("Warning Failed Failed to pull image \"{image}\": ")).await;
    assert!(text.contains("no space left on device"), "{text}");
    bench.create("small", pod_of(&registry.image("small:1"))).await;
    bench.until_ready("small").await;
    for name in ["big", "small"] {
        bench.remove(name).await;
    }
}
