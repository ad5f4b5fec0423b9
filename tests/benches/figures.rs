//! The headline figures of this machine, measured on the real thing: `make bench` prints them.
//!
//! start → Ready; RSS and CPU when idle; pod start; load step → HPA decision; object create/s and watch latency.
//! Nothing is asserted: figures depend on the machine, and this one is noisy. Quote ratios from one run.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use signal::time::monotonic;
use tests::{Cluster, repository, required};

const IDLE: Duration = Duration::from_secs(60);
const PODS: usize = 50;
const OBJECTS: usize = 500;

fn main() -> Result<()> {
    let mut c = Cluster::new("bench", 172)?;
    // The first start makes keys and starts containerd; the ones after it are what a person waits for.
    let cold = c.start()?;
    let mut warm = Vec::new();
    for _ in 0..5 {
        c.stop()?;
        warm.push(c.start()?);
    }
    line("start → Ready, first", &millis(cold))?;
    line("start → Ready, warm p50", &millis(percentile(&mut warm, 50)))?;
    idle(&c)?;
    c.binnacle_configured(&["image", "import", &required("BINNACLE_SHOP_IMAGE")?.display().to_string()])?;
    pod_start(&mut c)?;
    autoscaling(&mut c)?;
    objects(&c)?;
    c.purge()
}

fn line(what: &str, value: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{what:<44} {value}")?)
}

fn millis(d: Duration) -> String {
    format!("{} ms", d.as_millis())
}

fn percentile(values: &mut [Duration], p: usize) -> Duration {
    values.sort_unstable();
    values.get((values.len() * p / 100).min(values.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// (CPU seconds used so far, resident bytes) of the process.
fn usage(pid: u32) -> Result<(f64, f64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").context("/proc/pid/stat")?;
    let f: Vec<f64> = rest.split(' ').map(|w| w.parse().unwrap_or(0.0)).collect();
    Ok(((f[11] + f[12]) / 100.0, f[21] * 4096.0))
}

#[expect(clippy::disallowed_methods, reason = "idleness is measured by waiting")]
fn idle(c: &Cluster) -> Result<()> {
    let pid = c.pid().context("no process")?;
    let (before, began) = (usage(pid)?.0, monotonic());
    std::thread::sleep(IDLE);
    let (after, rss) = usage(pid)?;
    line("idle RSS after 60 s", &format!("{:.0} MB", rss / 1e6))?;
    line("idle CPU", &format!("{:.2} % of a core", (after - before) * 100.0 / began.elapsed().as_secs_f64()))
}

fn pod_start(c: &mut Cluster) -> Result<()> {
    let pods: Vec<Value> = (0..PODS)
        .map(|i| {
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("p{i}")}, "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "c", "image": "binnacle.io/shop:latest", "imagePullPolicy": "IfNotPresent",
                    "env": [{"name": "SHOP_ROLE", "value": "stock"}]}]}})
        })
        .collect();
    let mut times = Vec::new();
    // One after the other: the time of one pod, not of fifty at once on two cores.
    for pod in &pods {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let file = c.dir.join("pod.json");
        std::fs::write(&file, pod.to_string())?;
        let mut watch = c
            .kubectl_command(&[
                "get",
                "pod",
                "-w",
                "-o",
                "jsonpath={.metadata.name} {.status.phase}{\"\\n\"}",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let out = BufReader::new(watch.stdout.take().context("no stdout")?);
        c.kubectl(&["create", "-f", &file.display().to_string()])?;
        let wanted = format!("{name} Running");
        for l in out.lines() {
            if l? == wanted {
                break;
            }
        }
        watch.kill()?;
        watch.wait()?;
        let pod = c.kubectl_json(&["get", "pod", &name])?;
        times.extend(start_time(c, &pod)?);
    }
    line("pod start p50 (create → running, traced)", &millis(percentile(&mut times, 50)))?;
    line("pod start p99", &millis(percentile(&mut times, 99)))?;
    c.kubectl(&["delete", "pods", "--all", "--wait=true"])?;
    Ok(())
}

/// From the first to the last span of the pod's trace that ends before it is ready: what the API's whole seconds
/// cannot tell.
fn start_time(c: &mut Cluster, pod: &Value) -> Result<Option<Duration>> {
    let Some(parent) = pod["metadata"]["annotations"]["binnacle.io/traceparent"].as_str() else {
        return Ok(None);
    };
    let trace = parent.split('-').nth(1).unwrap_or_default().to_owned();
    let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let text = c.wait("the pod's trace", Duration::from_secs(20), |c| {
        let text = c.binnacle(&["explain", "pod", &name])?;
        Ok((text.contains(&trace) && text.contains("pod ready")).then_some(text))
    })?;
    // `  +   437.7 ms   0.0 ms   kubelet: pod ready`
    let ready = text.lines().find(|l| l.contains("pod ready")).unwrap_or_default();
    let ms: f64 =
        ready.trim_start_matches([' ', '+']).split_whitespace().next().unwrap_or_default().parse()?;
    Ok(Some(Duration::from_secs_f64(ms / 1000.0)))
}

fn autoscaling(c: &mut Cluster) -> Result<()> {
    c.kubectl(&["apply", "-f", &repository().join("examples/shop").display().to_string()])?;
    c.kubectl(&["apply", "-f", &repository().join("examples/load.yaml").display().to_string()])?;
    for d in ["web", "cart", "stock", "load"] {
        c.kubectl(&["rollout", "status", &format!("deployment/{d}"), "-n", "shop", "--timeout=60s"])?;
    }
    let decisions = c.wait("the HPA's decision", Duration::from_secs(60), |c| {
        let text = c.binnacle(&["explain", "hpa", "web", "-n", "shop", "-o", "json"])?;
        let all: Vec<Value> = serde_json::from_str(&text)?;
        let up = all.into_iter().rev().find(|d| d["to"].as_i64() > d["from"].as_i64());
        Ok(up)
    })?;
    // The load begins when its container does: its first line says so.
    let first = c.query("logql", "{namespace=\"shop\",workload=\"load\"} |= \"started\"", &[])?;
    let began: f64 =
        first["data"]["result"][0]["values"][0][0].as_str().context("no first line of the load")?.parse()?;
    let decided = decisions["time"].as_f64().context("no time")?;
    line("load step → HPA decision", &format!("{:.1} s", (decided - began / 1e6) / 1000.0))?;
    c.kubectl(&["delete", "namespace", "shop"])?;
    Ok(())
}

fn objects(c: &Cluster) -> Result<()> {
    let items: Vec<String> = (0..OBJECTS)
        .map(|i| {
            let meta = json!({"name": format!("c{i}"), "namespace": "default"});
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"k": "v"}}).to_string()
        })
        .collect();
    let file = c.dir.join("objects.json");
    std::fs::write(&file, items.join("\n"))?;
    let began = monotonic();
    c.kubectl(&["create", "-f", &file.display().to_string()])?;
    let rate = OBJECTS as f64 / began.elapsed().as_secs_f64();
    line("object create, one kubectl, one after another", &format!("{rate:.0}/s"))?;
    // The list comes before the watch and from the same revision: once something of it is printed, nothing is missed.
    c.kubectl(&["create", "configmap", "before"])?;
    let mut watch = c
        .kubectl_command(&["get", "configmap", "-w", "-o", "name"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut out = BufReader::new(watch.stdout.take().context("no stdout")?).lines();
    out.next().context("the watch ended")??;
    let mut latencies = Vec::new();
    for i in 0..20 {
        let began: Instant = monotonic();
        c.kubectl(&["create", "configmap", &format!("w{i}")])?;
        let written = began.elapsed();
        let name = format!("configmap/w{i}");
        while out.next().context("the watch ended")?? != name {}
        latencies.push(began.elapsed().saturating_sub(written));
    }
    watch.kill()?;
    watch.wait()?;
    line(
        "watch latency after kubectl's return, p50",
        &format!("{:.2} ms", percentile(&mut latencies, 50).as_secs_f64() * 1000.0),
    )
}
