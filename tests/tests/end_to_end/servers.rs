//! Servers without a node: two on one etcd, of which one is killed; a backup of one at work, restored; Secrets at rest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use signal::time::monotonic;
use tests::required;

/// A lease runs out in 15 s; the rest is a slow machine's.
const SOON: Duration = Duration::from_secs(90);
/// Nobody's password.
const PASSWORD: &str = "correct-horse-battery";

/// `binnacle server` with a directory of its own.
struct Server {
    dir: PathBuf,
    name: &'static str,
    flags: Vec<String>,
    process: Option<Child>,
}

impl Server {
    fn new(root: &Path, name: &'static str, flags: &[String]) -> Server {
        Server { dir: root.join(name), name, flags: flags.to_vec(), process: None }
    }

    fn start(&mut self) -> Result<()> {
        fs::create_dir_all(&self.dir)?;
        let zero = "127.0.0.1:0";
        let mut command = Command::new(required("BINNACLE_BIN")?);
        command.arg("server").arg("--data-dir").arg(&self.dir).args(["--node-name", self.name]);
        command.args([
            "--api-addr",
            zero,
            "--http-addr",
            zero,
            "--otlp-grpc-addr",
            zero,
            "--otlp-http-addr",
            zero,
        ]);
        command.args(&self.flags).stdin(Stdio::null()).stdout(Stdio::null());
        let log = self.dir.with_extension("log");
        self.process = Some(command.stderr(fs::File::create(&log)?).spawn()?);
        wait(&format!("server {} to listen", self.name), || {
            if let Some(status) = self.process.as_mut().and_then(|p| p.try_wait().ok().flatten()) {
                bail!("it ended with {status}: {}", fs::read_to_string(&log)?);
            }
            Ok(self.dir.join("addresses.json").try_exists()?.then_some(()))
        })
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        let Some(mut child) = self.process.take() else { return Ok(()) };
        kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
        child.wait()?;
        drop(fs::remove_file(self.dir.join("addresses.json")));
        Ok(())
    }

    fn kubectl(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(required("BINNACLE_KUBECTL")?);
        command.arg("--kubeconfig").arg(self.dir.join("admin.kubeconfig")).args(args);
        output(command)
    }

    fn json(&self, args: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&[args, &["-o", "json"]].concat())?)?)
    }

    fn names(&self, resource: &str) -> Result<Vec<String>> {
        let list = self.json(&["get", resource])?;
        let items = list["items"].as_array().into_iter().flatten();
        Ok(items.filter_map(|o| o["metadata"]["name"].as_str().map(str::to_owned)).collect())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.end(Signal::SIGKILL));
    }
}

fn output(mut command: Command) -> Result<String> {
    let out = command.stdin(Stdio::null()).output()?;
    let (text, error) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    ensure!(out.status.success(), "{command:?}: {text}{error}");
    Ok(text.into_owned())
}

#[expect(clippy::disallowed_methods, reason = "between two looks at another process")]
fn wait<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let began = monotonic();
    while began.elapsed() < SOON {
        if let Some(found) = look().with_context(|| format!("waiting for {what}"))? {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("waited {SOON:?} for {what}")
}

/// Debian's etcd on ports of its own.
struct Etcd(Child, String);

impl Etcd {
    fn start(dir: &Path) -> Result<Etcd> {
        let free = || anyhow::Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string());
        let (client, peer) = (free()?, free()?);
        let (client_url, peer_url) = (format!("http://{client}"), format!("http://{peer}"));
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(dir)
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("default={peer_url}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("etcd is missing: install Debian's etcd-server, as `make test` does")?;
        wait("etcd to listen", || Ok(std::net::TcpStream::connect(&client).ok().map(drop)))?;
        Ok(Etcd(child, format!("etcd://{client}")))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn key_file(dir: &Path, name: &str, digits: &[&str]) -> Result<String> {
    let path = dir.join(name);
    let lines: Vec<String> = digits.iter().map(|d| d.repeat(64)).collect();
    fs::write(&path, lines.join("\n"))?;
    Ok(path.display().to_string())
}

fn holds(dir: &Path, text: &str) -> Result<bool> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let found = if path.is_dir() {
            holds(&path, text)?
        } else {
            fs::read(&path)?.windows(text.len()).any(|w| w == text.as_bytes())
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

#[test]
fn two_servers_on_one_etcd() -> Result<()> {
    let root = tempfile::Builder::new().prefix("binnacle-servers-").tempdir()?;
    let etcd = Etcd::start(&root.path().join("etcd"))?;
    let flags = ["--store".to_owned(), etcd.1.clone()];
    let (mut a, mut b) = (Server::new(root.path(), "a", &flags), Server::new(root.path(), "b", &flags));
    a.start()?;
    let holder = |s: &Server, lease: &str| -> Result<String> {
        let lease = s.json(&["get", "lease", "-n", "kube-system", lease])?;
        Ok(lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
    };
    for lease in ["kube-controller-manager", "kube-scheduler"] {
        wait("a leader", || Ok(holder(&a, lease).is_ok_and(|h| h.starts_with("a_")).then_some(())))?;
    }
    // Servers of one cluster have one set of keys.
    fs::create_dir_all(b.dir.join("pki"))?;
    fs::copy(a.dir.join("admin.token"), b.dir.join("admin.token"))?;
    for entry in fs::read_dir(a.dir.join("pki"))? {
        let entry = entry?;
        fs::copy(entry.path(), b.dir.join("pki").join(entry.file_name()))?;
    }
    b.start()?;

    // What one acknowledged, the other's next read sees.
    for i in 0..20 {
        let (writer, reader) = if i % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let name = format!("c{i}");
        writer.kubectl(&["create", "configmap", &name])?;
        ensure!(reader.names("configmaps")?.contains(&name), "{name} is not seen");
    }
    a.kubectl(&["create", "deployment", "web", "--image=none", "--replicas=2"])?;
    wait("two pods", || Ok((b.names("pods")?.len() == 2).then_some(())))?;

    a.end(Signal::SIGKILL)?;
    b.kubectl(&["scale", "deployment", "web", "--replicas=4"])?;
    wait("four pods, made by the other server", || Ok((b.names("pods")?.len() == 4).then_some(())))?;
    wait("the other leader", || Ok(holder(&b, "kube-scheduler")?.starts_with("b_").then_some(())))?;
    let there = b.names("configmaps")?;
    ensure!((0..20).all(|i| there.contains(&format!("c{i}"))), "{there:?}");

    // And back: who stops gives the leases back.
    a.start()?;
    b.end(Signal::SIGTERM)?;
    wait("the first leader again", || {
        Ok(holder(&a, "kube-controller-manager")?.starts_with("a_").then_some(()))
    })?;
    a.kubectl(&["scale", "deployment", "web", "--replicas=1"])?;
    wait("one pod", || Ok((a.names("pods")?.len() == 1).then_some(())))
}

#[test]
fn backup_restore_and_secrets_at_rest() -> Result<()> {
    let root = tempfile::Builder::new().prefix("binnacle-backup-").tempdir()?;
    let flag = |path: String| ["--encryption-key-file".to_owned(), path];
    let old = flag(key_file(root.path(), "old", &["a"])?);
    let mut a = Server::new(root.path(), "a", &old);
    a.start()?;
    a.kubectl(&["create", "secret", "generic", "s", &format!("--from-literal=password={PASSWORD}")])?;
    a.kubectl(&["create", "configmap", "c", "--from-literal=k=v"])?;
    let binnacle = |args: &[&str], dir: &Path| {
        let mut command = Command::new(required("BINNACLE_BIN")?);
        command.args(args).arg("--data-dir").arg(dir);
        output(command)
    };
    let file = root.path().join("backup");
    let shown = file.display().to_string();
    binnacle(&["backup", &shown], &a.dir)?;
    let twice = binnacle(&["backup", &shown], &a.dir).expect_err("a backup overwrites nothing");
    ensure!(format!("{twice:#}").contains("exists already"), "{twice:#}");
    let version = a.json(&["get", "configmap", "c"])?["metadata"]["resourceVersion"].clone();
    a.end(Signal::SIGTERM)?;
    let encoded = base64(PASSWORD);
    for text in [PASSWORD, &encoded] {
        ensure!(!holds(&a.dir, text)?, "the password lies in the data directory");
        ensure!(!fs::read(&file)?.windows(text.len()).any(|w| w == text.as_bytes()), "or in the backup");
    }

    let mut b = Server::new(root.path(), "b", &flag(key_file(root.path(), "both", &["b", "a"])?));
    binnacle(&["restore", &shown], &b.dir)?;
    let twice = binnacle(&["restore", &shown], &b.dir).expect_err("a restore overwrites nothing");
    ensure!(format!("{twice:#}").contains("overwrites nothing"), "{twice:#}");
    b.start()?;
    let c = b.json(&["get", "configmap", "c"])?;
    ensure!(c["data"]["k"] == "v" && c["metadata"]["resourceVersion"] == version, "{c}");
    let secret = b.json(&["get", "secret", "s"])?;
    ensure!(secret["data"]["password"] == encoded.as_str(), "{secret}");
    b.end(Signal::SIGTERM)?;
    // The key was rotated: the old one is no longer needed, and alone no longer enough.
    b.flags = flag(key_file(root.path(), "new", &["b"])?).to_vec();
    b.start()?;
    ensure!(b.json(&["get", "secret", "s"])?["data"]["password"] == encoded.as_str(), "the secret");
    b.end(Signal::SIGTERM)?;
    b.flags = old.to_vec();
    let refused = format!("{:#}", b.start().expect_err("the wrong key"));
    ensure!(
        refused.contains("--encryption-key-file") && refused.contains("/registry/secrets/default/s"),
        "{refused}"
    );
    Ok(())
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let chunk = |c: &[u8]| {
        let n = c.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - c.len()));
        let digit =
            |i: usize| if i <= c.len() { char::from(DIGITS[(n >> (18 - 6 * i) & 63) as usize]) } else { '=' };
        (0..4).map(digit).collect::<String>()
    };
    text.as_bytes().chunks(3).map(chunk).collect()
}
