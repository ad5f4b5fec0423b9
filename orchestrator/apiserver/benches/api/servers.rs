//! The two servers: ours as a person would start it without a node, and Debian's etcd.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use signal::time::monotonic;

use crate::Result;

const WITHIN: Duration = Duration::from_secs(60);

/// `binnacle server`.
pub(crate) struct Binnacle {
    bin: PathBuf,
    dir: PathBuf,
    process: Option<Child>,
}

impl Binnacle {
    pub(crate) fn new(bin: PathBuf, dir: PathBuf) -> Binnacle {
        Binnacle { bin, dir, process: None }
    }

    /// Starts it and waits until it listens. Gives the time that took.
    pub(crate) async fn start(&mut self) -> Result<Duration> {
        std::fs::create_dir_all(&self.dir)?;
        let zero = "127.0.0.1:0";
        let flags =
            ["--api-addr", zero, "--http-addr", zero, "--otlp-grpc-addr", zero, "--otlp-http-addr", zero];
        let began = monotonic();
        let mut child = Command::new(&self.bin)
            .arg("server")
            .arg("--data-dir")
            .arg(&self.dir)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.dir.with_extension("log"))?)
            .spawn()?;
        while !self.dir.join("addresses.json").try_exists()? {
            if let Some(status) = child.try_wait()? {
                let log = std::fs::read_to_string(self.dir.with_extension("log"))?;
                return Err(format!("binnacle server ended with {status}: {log}").into());
            }
            if began.elapsed() > WITHIN {
                return Err("binnacle server does not listen".into());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.process = Some(child);
        Ok(began.elapsed())
    }

    pub(crate) fn stop(&mut self) -> Result<()> {
        if let Some(mut child) = self.process.take() {
            kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
            child.wait()?;
        }
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, Child::id)
    }

    /// Resident bytes.
    pub(crate) fn rss(&self) -> Result<f64> {
        Ok(usage(self.pid())?.1)
    }

    pub(crate) fn api(&self) -> Result<String> {
        let v: Value = serde_json::from_slice(&std::fs::read(self.dir.join("addresses.json"))?)?;
        Ok(v["api"].as_str().unwrap_or_default().to_owned())
    }

    pub(crate) fn token(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.dir.join("admin.token"))?.trim().to_owned())
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.join("pki/ca.crt")
    }
}

impl Drop for Binnacle {
    fn drop(&mut self) {
        if let Some(child) = &mut self.process {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// (CPU seconds used so far, resident bytes) of a process.
pub(crate) fn usage(pid: u32) -> Result<(f64, f64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").ok_or("/proc/pid/stat")?;
    let f: Vec<f64> = rest.split(' ').map(|w| w.parse().unwrap_or(0.0)).collect();
    Ok(((f[11] + f[12]) / 100.0, f[21] * 4096.0))
}

/// Debian's etcd, alone, with its defaults: every put is synced.
pub(crate) struct Etcd {
    pub(crate) endpoint: String,
    process: Child,
}

impl Etcd {
    pub(crate) async fn start(dir: PathBuf) -> Result<Etcd> {
        let (client, peer) = (free_url()?, free_url()?);
        std::fs::create_dir_all(&dir)?;
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(&dir)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log(&dir)?)
            .spawn()
            .map_err(|e| format!("etcd: {e}; install Debian's etcd-server, as `make bench-api` does"))?;
        let etcd = Etcd { endpoint: client, process };
        let began = monotonic();
        while began.elapsed() < WITHIN {
            if let Ok(mut c) = etcd_client::Client::connect([&etcd.endpoint], None).await
                && c.status().await.is_ok()
            {
                return Ok(etcd);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err("etcd does not answer".into())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }
}

fn log(dir: &Path) -> Result<File> {
    Ok(File::create(dir.with_extension("log"))?)
}

/// Nobody else on this machine is likely to take it at once.
fn free_url() -> Result<String> {
    Ok(format!("http://{}", TcpListener::bind("127.0.0.1:0")?.local_addr()?))
}

impl Drop for Etcd {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
