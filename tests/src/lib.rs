//! The harness: a real cluster of its own for a test, driven as a person would, by its binary and by kubectl.
//!
//! Promises: each cluster has its own directories, ports, bridge, cgroup root and containerd, so that tests run
//! beside each other and beside a real one; what a test leaves is taken away when it ends, well or badly.
//!
//! Needs root, containerd, runc and nftables; `make test` installs them and says where the rest is by
//! `BINNACLE_BIN`, `BINNACLE_KUBECTL` and `BINNACLE_SHOP_IMAGE`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use signal::time::monotonic;

/// A path from the environment, or what to do about its absence.
pub fn required(var: &str) -> Result<PathBuf> {
    let path = std::env::var_os(var)
        .map(PathBuf::from)
        .with_context(|| format!("{var} is not set: run the tests by `make test`"))?;
    std::path::absolute(&path).with_context(|| format!("{var}: {}", path.display()))
}

/// A cluster in a directory of its own.
pub struct Cluster {
    pub dir: PathBuf,
    bin: PathBuf,
    kubectl: PathBuf,
    name: String,
    octet: u8,
    process: Option<Child>,
    starts: u32,
}

impl Cluster {
    /// A cluster that is not started yet. `octet` tells its networks from those of other tests' clusters.
    pub fn new(name: &str, octet: u8) -> Result<Cluster> {
        if !nix::unistd::geteuid().is_root() {
            bail!("the end-to-end run needs root: run `sudo make test`");
        }
        let dir = tempfile::Builder::new().prefix(&format!("binnacle-{name}-")).tempdir()?.keep();
        Ok(Cluster {
            dir,
            bin: required("BINNACLE_BIN")?,
            kubectl: required("BINNACLE_KUBECTL")?,
            name: name.to_owned(),
            octet,
            process: None,
            starts: 0,
        })
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The flags that make this cluster one of its own.
    pub fn flags(&self) -> Vec<String> {
        let o = self.octet;
        [
            ("--data-dir", self.data_dir().display().to_string()),
            ("--api-addr", "127.0.0.1:0".to_owned()),
            ("--http-addr", "127.0.0.1:0".to_owned()),
            ("--otlp-grpc-addr", "127.0.0.1:0".to_owned()),
            ("--otlp-http-addr", "127.0.0.1:0".to_owned()),
            ("--kubelet-addr", "127.0.0.1:0".to_owned()),
            ("--containerd-socket", self.dir.join("containerd.sock").display().to_string()),
            ("--pod-cidr", format!("10.{o}.0.0/16")),
            ("--service-cidr", format!("10.{}.0.0/16", o + 1)),
            ("--bridge", format!("bnt{}", self.name)),
            ("--cgroup-root", format!("binnacle-test-{}", self.name)),
            ("--node-name", format!("node-{}", self.name)),
        ]
        .into_iter()
        .flat_map(|(f, v)| [f.to_owned(), v])
        .collect()
    }

    pub fn bridge(&self) -> String {
        format!("bnt{}", self.name)
    }

    pub fn node(&self) -> String {
        format!("node-{}", self.name)
    }

    /// Starts the process and waits until everything listens and the node is Ready. Gives the time it took.
    pub fn start(&mut self) -> Result<Duration> {
        self.starts += 1;
        let log = self.dir.join(format!("up-{}.log", self.starts));
        let began = monotonic();
        let child = Command::new(&self.bin)
            .arg("up")
            .args(self.flags())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("start {}", self.bin.display()))?;
        self.process = Some(child);
        let addresses = self.data_dir().join("addresses.json");
        self.wait("the cluster to be ready", Duration::from_secs(90), |c| {
            if let Some(status) = c.process.as_mut().and_then(|p| p.try_wait().ok().flatten()) {
                bail!("binnacle ended with {status}");
            }
            Ok(addresses.try_exists()?.then_some(()))
        })
        .with_context(|| self.log_tail())?;
        Ok(began.elapsed())
    }

    /// The last lines of what the process said on stderr.
    pub fn log_tail(&self) -> String {
        let text =
            std::fs::read_to_string(self.dir.join(format!("up-{}.log", self.starts))).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("stderr of binnacle:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"))
    }

    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Result<()> {
        self.end(Signal::SIGKILL)
    }

    /// SIGTERM, and waits.
    pub fn stop(&mut self) -> Result<()> {
        self.end(Signal::SIGTERM)
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        let Some(mut child) = self.process.take() else { return Ok(()) };
        kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
        child.wait()?;
        // A killed process cannot take its notice away.
        drop(std::fs::remove_file(self.data_dir().join("addresses.json")));
        Ok(())
    }

    fn run(&self, mut command: Command) -> Result<Output> {
        let shown = format!("{command:?}");
        let output = command.stdin(Stdio::null()).output().with_context(|| shown.clone())?;
        if !output.status.success() {
            let (out, err) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            bail!("{shown} failed with {}:\n{out}{err}", output.status);
        }
        Ok(output)
    }

    /// kubectl with this cluster's kubeconfig; its stdout.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let output = self.run(self.kubectl_command(args))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// kubectl that is expected to fail; its stderr.
    pub fn kubectl_fails(&self, args: &[&str]) -> Result<String> {
        let output = self.kubectl_command(args).stdin(Stdio::null()).output()?;
        if output.status.success() {
            bail!("kubectl {args:?} succeeded: {}", String::from_utf8_lossy(&output.stdout));
        }
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    pub fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut c = Command::new(&self.kubectl);
        c.env("KUBECONFIG", self.data_dir().join("admin.kubeconfig")).env("HOME", &self.dir).args(args);
        c
    }

    /// kubectl's answer as JSON.
    pub fn kubectl_json(&self, args: &[&str]) -> Result<Value> {
        let mut all = args.to_vec();
        all.extend(["-o", "json"]);
        Ok(serde_json::from_str(&self.kubectl(&all)?)?)
    }

    /// A `binnacle` command with this cluster's data directory; its stdout.
    pub fn binnacle(&self, args: &[&str]) -> Result<String> {
        let mut c = Command::new(&self.bin);
        c.args(args).arg("--data-dir").arg(self.data_dir());
        Ok(String::from_utf8_lossy(&self.run(c)?.stdout).into_owned())
    }

    /// A `binnacle` command with all of this cluster's flags.
    pub fn binnacle_configured(&self, args: &[&str]) -> Result<String> {
        let mut c = Command::new(&self.bin);
        c.args(args).args(self.flags());
        Ok(String::from_utf8_lossy(&self.run(c)?.stdout).into_owned())
    }

    /// `binnacle query LANGUAGE EXPR … -o json`.
    pub fn query(&self, language: &str, expr: &str, extra: &[&str]) -> Result<Value> {
        let mut args = vec!["query", language, expr, "-o", "json"];
        args.extend(extra);
        Ok(serde_json::from_str(&self.binnacle(&args)?)?)
    }

    /// The values of an instant PromQL query.
    pub fn promql(&self, expr: &str) -> Result<Vec<f64>> {
        let answer = self.query("promql", expr, &[])?;
        let samples = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        Ok(samples.iter().filter_map(|s| s["value"][1].as_str()?.parse().ok()).collect())
    }

    /// Asks again and again until there is an answer. Errors of `f` end it only when the time is up.
    pub fn wait<T>(
        &mut self,
        what: &str,
        within: Duration,
        mut f: impl FnMut(&mut Cluster) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = monotonic() + within;
        let mut last = None;
        loop {
            match f(self) {
                Ok(Some(t)) => return Ok(t),
                Ok(None) => {}
                Err(e) => last = Some(e),
            }
            if monotonic() > deadline {
                let why = last.map(|e| format!(": {e:#}")).unwrap_or_default();
                bail!("waited {within:?} for {what} in vain{why}\n{}", self.log_tail());
            }
            pause();
        }
    }

    /// Fails if any task of any start panicked: a panic is caught at the task's edge and would pass unseen.
    fn no_panics(&self) -> Result<()> {
        for n in 1..=self.starts {
            let text = std::fs::read_to_string(self.dir.join(format!("up-{n}.log")))?;
            if let Some(at) = text.find("panicked at") {
                let from = text[..at].rfind('\n').map_or(0, |i| i + 1);
                let said: Vec<&str> = text[from..].lines().take(30).collect();
                bail!("binnacle panicked:\n{}", said.join("\n"));
            }
        }
        Ok(())
    }

    /// `binnacle down --purge` and the directory.
    pub fn purge(&mut self) -> Result<()> {
        self.stop()?;
        let panics = self.no_panics();
        self.binnacle_configured(&["down", "--purge"])?;
        std::fs::remove_dir_all(&self.dir)?;
        panics
    }
}

/// Between two looks at a condition.
#[expect(clippy::disallowed_methods, reason = "the pause of the one polling loop")]
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.dir.try_exists().unwrap_or(false) {
            let tail = self.log_tail();
            if let Err(e) = self.purge() {
                let _ = std::io::Write::write_fmt(
                    &mut std::io::stderr(),
                    format_args!("clean-up of {} failed: {e:#}\n{tail}\n", self.dir.display()),
                );
            }
        }
    }
}

/// The repository's root.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
