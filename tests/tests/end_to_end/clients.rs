//! Other people's programs against the metrics engine: node_exporter is scraped, the OpenTelemetry SDK sends, Prometheus reads
//! remotely, promtool's blocks come in and DuckDB reads what goes out. Needs neither root nor a node.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use signal::time::monotonic;
use tests::{repository, required};

const SOON: Duration = Duration::from_secs(60);

/// Ends with the test, well or badly.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn start(command: &mut Command, log: &Path) -> Result<Running> {
    let out = File::create(log)?;
    let child = command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).spawn();
    Ok(Running(child.with_context(|| format!("start {command:?}: run the tests by `make test`"))?))
}

fn wait<T>(what: &str, mut ready: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let began = monotonic();
    loop {
        if let Some(v) = ready()? {
            return Ok(v);
        }
        if began.elapsed() > SOON {
            bail!("waited for {what} in vain");
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

pub(crate) struct Server {
    dir: tempfile::TempDir,
    addresses: Value,
    _process: Running,
}

impl Server {
    pub(crate) fn start(config: &str) -> Result<Server> {
        Server::start_in(tempfile::Builder::new().prefix("binnacle-clients-").tempdir()?, config)
    }

    fn start_in(dir: tempfile::TempDir, config: &str) -> Result<Server> {
        let file = dir.path().join("config.yaml");
        fs::write(&file, config)?;
        let mut command = Command::new(required("BINNACLE_BIN")?);
        command.arg("server").arg("--config").arg(&file).arg("--data-dir").arg(dir.path().join("data"));
        for flag in ["--api-addr", "--http-addr", "--otlp-grpc-addr", "--otlp-http-addr"] {
            command.args([flag, "127.0.0.1:0"]);
        }
        let log = dir.path().join("server.log");
        let mut process = start(&mut command, &log)?;
        let path = dir.path().join("data/addresses.json");
        let addresses = wait("the server", || {
            if let Some(status) = process.0.try_wait()? {
                bail!("binnacle ended with {status}: {}", fs::read_to_string(&log)?);
            }
            Ok(fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()))
        })?;
        Ok(Server { dir, addresses, _process: process })
    }

    pub(crate) fn address(&self, door: &str) -> String {
        self.addresses[door].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn binnacle(&self, args: &[&str]) -> Result<String> {
        let data = self.dir.path().join("data");
        let out = Command::new(required("BINNACLE_BIN")?).args(args).arg("--data-dir").arg(data).output()?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        ensure!(out.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&out.stderr));
        Ok(text.trim().to_owned())
    }

    /// The values of an instant query.
    fn values(&self, expr: &str) -> Result<Vec<f64>> {
        let answer: Value = serde_json::from_str(&self.binnacle(&["query", "promql", expr, "-o", "json"])?)?;
        let all = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        Ok(all.iter().filter_map(|s| s["value"][1].as_str()?.parse().ok()).collect())
    }

    pub(crate) fn python(&self, script: &str, args: &[&str]) -> Result<()> {
        python(script, args)
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }
}

/// A script of tests/clients, which ends by saying that all is well.
pub(crate) fn python(script: &str, args: &[&str]) -> Result<()> {
    let out = Command::new("python3")
        .arg(repository().join("tests/clients").join(script))
        .args(args)
        .env("PYTHONPATH", required("BINNACLE_PYTHON")?)
        .output()
        .context("run python3")?;
    let said = String::from_utf8_lossy(&out.stdout);
    let well = out.status.success() && said.trim_end().ends_with("ok");
    ensure!(well, "{script}: {said}{}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

#[test]
fn metric_clients() -> Result<()> {
    let port = free_port()?;
    let config = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: exporter\n  static_configs:\n  \
         - targets: ['127.0.0.1:{port}']\n  metric_relabel_configs:\n  \
         - {{source_labels: [__name__], regex: 'go_.*', action: drop}}\n"
    );
    let server = Server::start(&config)?;
    scrape(&server, port).context("node_exporter")?;
    let token = server.binnacle(&["token", "create"])?;
    let doors = ["http", "otlp_grpc", "otlp_http"].map(|d| server.address(d));
    server.python("otlp.py", &[&doors[0], &doors[1], &doors[2], &token]).context("OpenTelemetry")?;
    let bin = required("BINNACLE_BIN")?.display().to_string();
    let data = server.dir.path().join("data").display().to_string();
    server.python("exchange.py", &[&bin, &data]).context("import, remote read and export")
}

/// Debian's node_exporter comes, is scraped, and goes.
fn scrape(server: &Server, port: u16) -> Result<()> {
    wait("a target that is not there to be down", || {
        Ok((server.values("up{job=\"exporter\"}")? == [0.0]).then_some(()))
    })?;
    let log = server.dir.path().join("node_exporter.log");
    let address = format!("--web.listen-address=127.0.0.1:{port}");
    let exporter = start(Command::new("prometheus-node-exporter").arg(address), &log)?;
    wait(
        "a scrape of node_exporter",
        || Ok((server.values("up{job=\"exporter\"}")? == [1.0]).then_some(())),
    )?;
    let kept = server.values("count({job=\"exporter\",__name__=~\"node_.*\"})")?;
    ensure!(kept.first().is_some_and(|n| *n > 100.0), "{kept:?} series of node_exporter");
    ensure!(server.values("{job=\"exporter\",__name__=~\"go_.*\"}")?.is_empty(), "relabelling drops nothing");
    drop(exporter);
    wait("its series to end", || {
        Ok(server.values("{job=\"exporter\",__name__=~\"node_.*\"}")?.is_empty().then_some(()))
    })
}

#[test]
fn operators() -> Result<()> {
    let server = Server::start("")?;
    let kubeconfig = server.data_dir().join("admin.kubeconfig").display().to_string();
    server.python("operator.py", &[&kubeconfig]).context("kopf")
}
