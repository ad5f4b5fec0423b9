//! Startup, readiness and liveness probes of a running container.

mod grpc;
mod http;
mod words;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::metrics::{METRICS, Probe as ProbeLabel};
use crate::runtime::{Record, Runtime};

pub(crate) use words::{duration_text, io_text};

/// Who asks, as upstream's prober names itself.
const USER_AGENT: &str = "kube-probe/1.35";

/// Most of a probe's output that an event shows.
const OUTPUT: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Startup,
    Readiness,
    Liveness,
}

impl Kind {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Readiness => "Readiness",
            Kind::Liveness => "Liveness",
        }
    }
}

/// A probe that failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) output: String,
    /// True once the threshold is reached.
    pub(crate) decided: bool,
}

/// What a probe found: a success that reached its threshold, or any failure.
#[derive(Clone, Debug)]
pub(crate) struct ProbeEvent {
    pub(crate) id: String,
    pub(crate) container: String,
    pub(crate) kind: Kind,
    pub(crate) failure: Option<Failure>,
    /// A success that somebody should hear of.
    pub(crate) warning: Option<String>,
    /// What the probe says of the pod's grace, if its failure ends the container.
    pub(crate) grace: Option<Duration>,
}

/// Starts a container's probes. Readiness and liveness wait for the startup probe, if it has not succeeded before.
pub(crate) fn start(
    runtime: &Runtime,
    c: &Container,
    record: &Record,
    ip: Ipv4Addr,
    started: bool,
    events: mpsc::Sender<ProbeEvent>,
) -> Vec<JoinHandle<()>> {
    if c.startup_probe.is_none() && c.readiness_probe.is_none() && c.liveness_probe.is_none() {
        return Vec::new();
    }
    let prober = Prober { runtime: runtime.clone(), container: c.clone(), id: record.id.clone(), ip, events };
    let task = telemetry::task::spawn("container-probes", async move {
        if let Some(p) = prober.container.startup_probe.as_ref().filter(|_| !started) {
            prober.run(Kind::Startup, p).await;
        }
        let readiness = async {
            if let Some(p) = &prober.container.readiness_probe {
                prober.run(Kind::Readiness, p).await;
            }
        };
        let liveness = async {
            if let Some(p) = &prober.container.liveness_probe {
                prober.run(Kind::Liveness, p).await;
            }
        };
        tokio::join!(readiness, liveness);
    });
    vec![task]
}

struct Prober {
    runtime: Runtime,
    container: Container,
    id: String,
    ip: Ipv4Addr,
    events: mpsc::Sender<ProbeEvent>,
}

fn seconds(n: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(n.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(default))
}

impl Prober {
    /// Probes until the container ends (the task is aborted) or, for a startup probe, until it succeeds.
    async fn run(&self, kind: Kind, p: &Probe) {
        let count =
            |n: Option<i32>, default: u32| n.and_then(|n| u32::try_from(n).ok()).unwrap_or(default).max(1);
        let (need, may_fail) = (count(p.success_threshold, 1), count(p.failure_threshold, 3));
        let delay = p.initial_delay_seconds.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(delay)).await;
        let mut ticks = tokio::time::interval(seconds(p.period_seconds, 10));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut good, mut bad, mut said_good) = (0u32, 0u32, false);
        loop {
            ticks.tick().await;
            let result = self.once(p).await;
            let label = ProbeLabel {
                probe_type: kind.title(),
                result: if result.is_ok() { "successful" } else { "failed" },
            };
            METRICS.probes.get_or_create(&label).inc();
            let (failure, warning) = match result {
                Ok(warning) => {
                    (good, bad) = (good.saturating_add(1), 0);
                    if good < need || (said_good && warning.is_none()) {
                        continue;
                    }
                    said_good = true;
                    (None, warning)
                }
                Err(output) => {
                    (good, bad, said_good) = (0, bad.saturating_add(1), false);
                    (Some(Failure { output, decided: bad >= may_fail }), None)
                }
            };
            let over = failure.is_none() && kind == Kind::Startup;
            let event = ProbeEvent {
                id: self.id.clone(),
                container: self.container.name.clone(),
                kind,
                failure,
                warning,
                grace: p
                    .termination_grace_period_seconds
                    .and_then(|s| u64::try_from(s).ok())
                    .map(Duration::from_secs),
            };
            if self.events.send(event).await.is_err() || over {
                return;
            }
        }
    }

    /// The error is the probe's output; a success may come with a warning.
    async fn once(&self, p: &Probe) -> Result<Option<String>, String> {
        let timeout = seconds(p.timeout_seconds, 1);
        if let Some(e) = &p.exec {
            let command = e.command.clone().unwrap_or_default();
            return exec(&self.runtime, &self.id, command, timeout).await.map(|_| None);
        }
        if let Some(h) = &p.http_get {
            let answer = http(&self.container, h, self.ip, timeout).await?;
            return match answer.status {
                200..400 if answer.leads_away => Ok(Some("Probe terminated redirects".to_owned())),
                200..400 => Ok(None),
                status => Err(format!("HTTP probe failed with statuscode: {status}")),
            };
        }
        if let Some(t) = &p.tcp_socket {
            let port = port(&self.container, &t.port)?;
            let ip = t.host.as_deref().and_then(|h| h.parse().ok()).unwrap_or(self.ip);
            return tcp(SocketAddr::from((ip, port)), timeout).await.map(|()| None);
        }
        if let Some(g) = &p.grpc {
            let port = u16::try_from(g.port).map_err(|e| e.to_string())?;
            let service = g.service.clone().unwrap_or_default();
            return grpc::check(SocketAddr::from((self.ip, port)), service, timeout).await.map(|()| None);
        }
        Ok(None)
    }
}

/// A port by number or by the name a container gives it.
fn port(c: &Container, p: &IntOrString) -> Result<u16, String> {
    match p {
        IntOrString::Int(n) => u16::try_from(*n).map_err(|e| e.to_string()),
        IntOrString::String(s) => s
            .parse()
            .ok()
            .or_else(|| {
                let named = c.ports.iter().flatten().find(|p| p.name.as_deref() == Some(s));
                named.and_then(|p| u16::try_from(p.container_port).ok())
            })
            .ok_or_else(|| format!("couldn't find port: {s}")),
    }
}

async fn tcp(addr: SocketAddr, timeout: Duration) -> Result<(), String> {
    match tokio::time::timeout(timeout, TcpStream::connect(addr)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) => Err(format!("dial tcp {addr}: connect: {}", io_text(&e))),
        Err(_) => Err(format!("dial tcp {addr}: i/o timeout")),
    }
}

/// A GET as a probe or a hook describes it.
async fn http(
    c: &Container,
    h: &HTTPGetAction,
    ip: Ipv4Addr,
    timeout: Duration,
) -> Result<http::Answer, String> {
    let port = port(c, &h.port)?;
    let url = http::Url {
        tls: h.scheme.as_deref() == Some("HTTPS"),
        host: h.host.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| ip.to_string()),
        port,
        path: match h.path.as_deref() {
            Some(p) if p.starts_with('/') => p.to_owned(),
            Some(p) => format!("/{p}"),
            None => "/".to_owned(),
        },
    };
    let headers: Vec<(String, String)> =
        h.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect();
    match tokio::time::timeout(timeout, http::get(&url, &headers)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(e)) => Err(format!("Get \"{url}\": {e}")),
        Err(_) => Err(format!(
            "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
    }
}

/// A hook's GET: that somebody answered is enough, whatever the status.
pub(crate) async fn http_hook(
    c: &Container,
    h: &HTTPGetAction,
    ip: Ipv4Addr,
    timeout: Duration,
) -> Result<(), String> {
    http(c, h, ip, timeout).await.map(|_| ())
}

/// Runs a command in the container; the error is its output.
pub(crate) async fn exec(
    runtime: &Runtime,
    id: &str,
    command: Vec<String>,
    timeout: Duration,
) -> Result<Vec<u8>, String> {
    let (exec, io) = runtime.exec(id, command.clone(), false, false).await.map_err(|e| e.to_string())?;
    let mut output = Vec::new();
    let mut errors = Vec::new();
    let run = async {
        let most = OUTPUT as u64;
        let (mut out, err) = (io.stdout.take(most), io.stderr);
        let read_errors = async {
            match err {
                Some(e) => e.take(most).read_to_end(&mut errors).await.map(|_| ()),
                None => Ok(()),
            }
        };
        let read = async { tokio::try_join!(out.read_to_end(&mut output), read_errors) };
        let (read, code) = tokio::join!(read, exec.wait());
        if let Err(e) = read {
            tracing::debug!(error = %e, "reading a probe's output");
        }
        code
    };
    let result = tokio::time::timeout(timeout, run).await;
    if result.is_err() {
        exec.kill().await;
    }
    exec.finish().await;
    output.extend(errors);
    match result {
        Ok(Ok(0)) => Ok(output),
        Ok(Ok(_)) => Err(String::from_utf8_lossy(&output).trim_end().to_owned()),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => {
            let (command, after) = (command.join(" "), duration_text(timeout));
            Err(format!("command timed out: {command:?} timed out after {after}"))
        }
    }
}
