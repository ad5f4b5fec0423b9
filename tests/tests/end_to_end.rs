//! The main job, end to end: a real cluster, real containerd, real kubectl, a real application.
//!
//! One cluster serves all steps, in the order a person takes them; each step says what it is about when it fails.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tests::{Cluster, repository, required};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn the_main_job() -> Result<()> {
    let mut c = Cluster::new("e2e", 142)?;
    c.start()?;
    node_is_ready(&mut c)?;
    deploy(&mut c).context("deploy the shop")?;
    kubectl_verbs(&mut c).context("kubectl")?;
    telemetry_arrives(&mut c).context("metrics, logs and traces")?;
    scale_by_metrics(&mut c).context("autoscaling")?;
    browser(&c).context("the web UI")?;
    survive_kill(&mut c).context("kill -9 and restart")?;
    explain_why(&mut c).context("explain")?;
    leave_nothing(&mut c).context("down --purge")
}

fn node_is_ready(c: &mut Cluster) -> Result<()> {
    let nodes = c.kubectl(&["get", "nodes"])?;
    let line = nodes.lines().nth(1).context("no node is listed")?;
    ensure!(line.starts_with(&c.node()) && line.contains("Ready") && line.contains("v1.35"), "{nodes}");
    let namespaces = c.kubectl(&["get", "namespaces", "-o", "name"])?;
    for n in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        ensure!(namespaces.contains(&format!("namespace/{n}")), "{namespaces}");
    }
    Ok(())
}

fn deploy(c: &mut Cluster) -> Result<()> {
    let image = required("BINNACLE_SHOP_IMAGE")?;
    c.binnacle_configured(&["image", "import", &image.display().to_string()])?;
    let shop = repository().join("examples/shop");
    let out = c.kubectl(&["apply", "-f", &shop.display().to_string()])?;
    ensure!(out.contains("deployment.apps/web created"), "{out}");
    for d in ["web", "cart", "stock"] {
        c.kubectl(&["rollout", "status", &format!("deployment/{d}"), "-n", "shop", "--timeout=60s"])?;
    }
    let again = c.kubectl(&["apply", "-f", &shop.display().to_string()])?;
    ensure!(again.contains("deployment.apps/web unchanged"), "a second apply changes something:\n{again}");
    let load = repository().join("examples/load.yaml");
    c.kubectl(&["apply", "-f", &load.display().to_string()])?;
    c.kubectl(&["scale", "deployment/load", "-n", "shop", "--replicas=0"])?;
    Ok(())
}

fn pod_of(c: &Cluster, app: &str) -> Result<String> {
    let pods = c.kubectl_json(&["get", "pods", "-n", "shop", "-l", &format!("app={app}")])?;
    let name = pods["items"].as_array().into_iter().flatten().find_map(|p| {
        (p["metadata"]["deletionTimestamp"].is_null())
            .then(|| p["metadata"]["name"].as_str().map(str::to_owned))?
    });
    name.with_context(|| format!("no pod of {app}"))
}

fn kubectl_verbs(c: &mut Cluster) -> Result<()> {
    let web = pod_of(c, "web")?;
    let out = c.kubectl(&["exec", "-n", "shop", &web, "--", "wget", "-qO-", "http://web:8080/products"])?;
    ensure!(out.starts_with("web: cart: stock:"), "the shop answers {out:?}");
    let failed = c.kubectl_fails(&["exec", "-n", "shop", &web, "--", "sh", "-c", "exit 7"])?;
    ensure!(failed.contains("exit code 7"), "{failed}");
    let logs = c.kubectl(&["logs", "-n", "shop", &web])?;
    ensure!(logs.contains("\"msg\":\"request\""), "{logs}");
    let described = c.kubectl(&["describe", "pod", "-n", "shop", &web])?;
    for word in ["Scheduled", "Created", "Started", "QoS Class", "Burstable"] {
        ensure!(described.contains(word), "describe does not say {word}:\n{described}");
    }
    let wide = c.kubectl(&["get", "pods", "-n", "shop", "-o", "wide"])?;
    ensure!(wide.contains("NOMINATED NODE") && wide.contains(&c.node()), "{wide}");
    let invalid = c.kubectl_fails(&["create", "deployment", "x", "--image=a", "--replicas=-1"])?;
    ensure!(invalid.to_lowercase().contains("replicas") || invalid.contains("greater than"), "{invalid}");
    let explained = c.kubectl(&["explain", "deployment.spec.strategy"])?;
    ensure!(explained.contains("rollingUpdate"), "{explained}");
    c.kubectl(&["rollout", "restart", "deployment/stock", "-n", "shop"])?;
    c.kubectl(&["rollout", "status", "deployment/stock", "-n", "shop", "--timeout=60s"])?;
    let history = c.kubectl(&["rollout", "history", "deployment/stock", "-n", "shop"])?;
    ensure!(
        history.lines().filter(|l| l.starts_with(|c: char| c.is_ascii_digit())).count() == 2,
        "{history}"
    );
    c.wait("kubectl top to know the pods", SOON, |c| {
        let top = c.kubectl(&["top", "pods", "-n", "shop"])?;
        Ok(top.contains("Mi").then_some(()))
    })
}

fn telemetry_arrives(c: &mut Cluster) -> Result<()> {
    let web = pod_of(c, "web")?;
    c.wait("container CPU samples", SOON, |c| {
        let v = c.promql(&format!("rate(container_cpu_usage_seconds_total{{namespace=\"shop\",pod=\"{web}\",container=\"web\"}}[10s])"))?;
        Ok((v.len() == 1).then_some(()))
    })?;
    c.wait("scraped samples of the shop", SOON, |c| {
        let v = c.promql("sum by (workload) (http_requests_total{namespace=\"shop\"})")?;
        Ok((v.len() == 3).then_some(()))
    })?;
    c.wait("state metrics", SOON, |c| {
        Ok((c.promql("kube_deployment_spec_replicas{namespace=\"shop\"}")?.len() == 4).then_some(()))
    })?;
    let out = c.kubectl(&[
        "exec",
        "-n",
        "shop",
        &web,
        "--",
        "wget",
        "-qO-",
        "http://web:8080/needle-in-the-haystack",
    ])?;
    ensure!(out.starts_with("web:"), "{out}");
    let trace = c.wait("the needle in the log index", SOON, |c| {
        let found =
            c.query("logql", "{namespace=\"shop\",workload=\"web\"} |= \"needle-in-the-haystack\"", &[])?;
        let line = found["data"]["result"][0]["values"][0][1].as_str().map(str::to_owned);
        let Some(line) = line else { return Ok(None) };
        let line: Value = serde_json::from_str(&line)?;
        Ok(line["trace_id"].as_str().map(str::to_owned))
    })?;
    c.wait("the request's trace over three services", SOON, |c| {
        let by_id = c.query("logql", &format!("{{namespace=\"shop\"}} | trace_id=\"{trace}\""), &[])?;
        let workloads = by_id["data"]["result"].as_array().map_or(0, Vec::len);
        let found = c.query("traceql", "{ resource.service.name = \"stock\" }", &[])?;
        let seen = found["traces"].as_array().into_iter().flatten().any(|t| t["traceID"] == trace.as_str());
        Ok((workloads == 3 && seen).then_some(()))
    })?;
    let followed = c.binnacle(&["logs", "deploy/web", "-n", "shop", "needle"])?;
    ensure!(followed.contains("needle-in-the-haystack"), "{followed}");
    // One query over objects, logs and metrics.
    let sql = "select o.name, count(distinct l.body) as lines, max(m.value) as requests from objects o \
               join logs l on l.namespace = o.namespace and l.pod = o.name \
               join metrics m on m.namespace = o.namespace and m.pod = o.name \
               where o.kind = 'Pod' and l.namespace = 'shop' and m.namespace = 'shop' \
               and m.name = 'http_requests_total' group by o.name order by o.name";
    let joined = c.query("sql", sql, &[])?;
    let rows = joined["rows"].as_array().map_or(0, Vec::len);
    ensure!(rows >= 3, "the join gives {rows} rows: {joined}");
    tail(c)
}

/// `binnacle logs -f` shows a line that is written after it began.
fn tail(c: &mut Cluster) -> Result<()> {
    let web = pod_of(c, "web")?;
    let bin = required("BINNACLE_BIN")?;
    let mut child = std::process::Command::new(bin)
        .args(["logs", "-f", "deploy/web", "-n", "shop", "tail-me", "--data-dir"])
        .arg(c.data_dir())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().context("no stdout")?;
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        if BufReader::new(stdout).read_line(&mut line).is_ok() {
            drop(sender.send(line));
        }
    });
    // The tail may not be open yet at the first request: later ones are seen all the same.
    let seen = c.wait("a followed line", SOON, |c| {
        c.kubectl(&["exec", "-n", "shop", &web, "--", "wget", "-qO-", "http://web:8080/tail-me"])?;
        Ok(receiver.recv_timeout(Duration::from_secs(1)).ok())
    });
    child.kill()?;
    child.wait()?;
    ensure!(seen?.contains("tail-me"), "another line was followed");
    Ok(())
}

fn replicas(c: &Cluster, deployment: &str) -> Result<i64> {
    let d = c.kubectl_json(&["get", "deployment", deployment, "-n", "shop"])?;
    d["spec"]["replicas"].as_i64().context("no replicas")
}

fn scale_by_metrics(c: &mut Cluster) -> Result<()> {
    ensure!(replicas(c, "web")? == 1, "scaled before any load");
    c.kubectl(&["scale", "deployment/load", "-n", "shop", "--replicas=1"])?;
    c.wait("the HPA to scale up", SOON, |c| Ok((replicas(c, "web")? > 1).then_some(())))?;
    let described = c.kubectl(&["describe", "hpa", "web", "-n", "shop"])?;
    ensure!(described.contains("SuccessfulRescale"), "{described}");
    let decisions = c.wait("the decision's record", SOON, |c| {
        let text = c.binnacle(&["explain", "hpa", "web", "-n", "shop", "-o", "json"])?;
        let all: Vec<Value> = serde_json::from_str(&text)?;
        Ok((!all.is_empty()).then_some(all))
    })?;
    let up = decisions
        .iter()
        .find(|d| d["to"].as_i64() > d["from"].as_i64())
        .context("no decision to scale up")?;
    // The record can be replayed: its query at its time gives its sum again.
    let metric = &up["metrics"][0];
    let query = metric["query"].as_str().context("no query in the record")?;
    let at = format!("{:.3}", up["time"].as_f64().context("no time")? / 1000.0);
    let sum = |v: &Value, key: &str| -> f64 {
        v.as_array()
            .into_iter()
            .flatten()
            .filter_map(|s| match key {
                "value" => s["value"].as_f64(),
                _ => s["value"][1].as_str()?.parse().ok(),
            })
            .sum()
    };
    let recorded = sum(&metric["samples"], "value");
    let replayed = c.query("promql", query, &["--time", &at])?;
    let replayed = sum(&replayed["data"]["result"], "result");
    ensure!(
        (recorded - replayed).abs() < 1e-6,
        "recorded {recorded}, replayed {replayed} by {query} at {at}"
    );
    c.kubectl(&["scale", "deployment/load", "-n", "shop", "--replicas=0"])?;
    c.wait("the HPA to scale down again", SOON * 2, |c| Ok((replicas(c, "web")? == 1).then_some(())))
}

/// Every page of the UI in a real browser, in both themes: `tests/browser/pages.mjs`.
fn browser(c: &Cluster) -> Result<()> {
    let dir = repository().join("tests/browser");
    ensure!(
        dir.join("node_modules").try_exists()?,
        "tests/browser has no node_modules: run the tests by `make test`"
    );
    let link = c.binnacle(&["open"])?;
    // One that the autoscaler does not take away meanwhile.
    let cart = pod_of(c, "cart")?;
    let shots = c.dir.join("screenshots");
    let output = std::process::Command::new("node")
        .arg("pages.mjs")
        .args([link.trim(), "shop", &cart, "web"])
        .arg(&shots)
        .current_dir(&dir)
        .output()
        .context("run node: is it installed?")?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{said}");
    Ok(())
}

/// Numbers of the lines of one container as the log index has them.
fn numbers(c: &Cluster, pod: &str) -> Result<Vec<u64>> {
    let found = c.query("logql", &format!("{{namespace=\"shop\",pod=\"{pod}\"}}"), &["--limit", "5000"])?;
    let mut out = Vec::new();
    for s in found["data"]["result"].as_array().into_iter().flatten() {
        for v in s["values"].as_array().into_iter().flatten() {
            let line: Value = serde_json::from_str(v[1].as_str().unwrap_or_default())?;
            out.push(line["n"].as_u64().context("a line without number")?);
        }
    }
    out.sort_unstable();
    Ok(out)
}

fn restarts(c: &Cluster) -> Result<BTreeMap<String, (i64, String)>> {
    let pods = c.kubectl_json(&["get", "pods", "-n", "shop"])?;
    let mut out = BTreeMap::new();
    for p in pods["items"].as_array().into_iter().flatten() {
        let status = &p["status"]["containerStatuses"][0];
        let name = p["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        out.insert(
            name,
            (
                status["restartCount"].as_i64().unwrap_or(-1),
                status["containerID"].as_str().unwrap_or_default().to_owned(),
            ),
        );
    }
    Ok(out)
}

fn survive_kill(c: &mut Cluster) -> Result<()> {
    c.kubectl(&["scale", "deployment/load", "-n", "shop", "--replicas=1"])?;
    c.kubectl(&["rollout", "status", "deployment/load", "-n", "shop", "--timeout=60s"])?;
    let stock = pod_of(c, "stock")?;
    let before_lines = c.wait("load to arrive", SOON, |c| {
        let n = numbers(c, &stock)?;
        Ok((n.len() > 100).then_some(n.len()))
    })?;
    let before = restarts(c)?;
    // Counted at one moment in the past, so that samples taken after the restart cannot stand in for lost ones.
    let at = format!("{:.3}", signal::time::now().millis() as f64 / 1000.0 - 3.0);
    let count = |c: &Cluster| -> Result<Value> {
        let all =
            "sum by (pod) (count_over_time(container_cpu_usage_seconds_total{namespace=\"shop\"}[10m]))";
        Ok(c.query("promql", all, &["--time", &at])?["data"]["result"].clone())
    };
    let samples_before = count(c)?;
    ensure!(
        samples_before.as_array().is_some_and(|s| s.len() >= 3),
        "too few samples to lose: {samples_before}"
    );
    c.kubectl(&["create", "configmap", "acknowledged", "-n", "shop", "--from-literal=just=before"])?;
    c.kill()?;
    c.start()?;
    let after = restarts(c)?;
    for (pod, status) in &before {
        if let Some(now) = after.get(pod) {
            ensure!(now == status, "{pod}: {status:?} became {now:?}");
        }
    }
    ensure!(after.contains_key(&stock), "{stock} is gone");
    let grown = c.wait("lines written meanwhile and after", SOON, |c| {
        let n = numbers(c, &stock)?;
        Ok((n.len() > before_lines + 100).then_some(n))
    })?;
    let expected: Vec<u64> = (1..=grown.len() as u64).collect();
    if grown != expected {
        let doubled: Vec<_> = grown.windows(2).filter(|w| w[0] == w[1]).map(|w| w[0]).collect();
        let lost: Vec<_> = expected.iter().filter(|n| grown.binary_search(n).is_err()).collect();
        bail!("lines doubled: {doubled:?}, lost: {lost:?}");
    }
    let samples_after = count(c)?;
    ensure!(samples_after == samples_before, "samples lost: {samples_before} → {samples_after}");
    let kept =
        c.kubectl(&["get", "configmap", "acknowledged", "-n", "shop", "-o", "jsonpath={.data.just}"])?;
    ensure!(kept == "before", "an acknowledged object is lost: {kept:?}");
    c.kubectl(&["scale", "deployment/load", "-n", "shop", "--replicas=0"])?;
    Ok(())
}

fn explain_why(c: &mut Cluster) -> Result<()> {
    c.kubectl(&["create", "deployment", "greedy", "--image=binnacle.io/shop:latest", "-n", "shop"])?;
    c.kubectl(&["set", "resources", "deployment/greedy", "-n", "shop", "--requests=cpu=1000"])?;
    let pod = c.wait("a pod that fits nowhere", SOON, |c| {
        let pods = c.kubectl_json(&["get", "pods", "-n", "shop", "-l", "app=greedy"])?;
        let pending =
            pods["items"].as_array().into_iter().flatten().find(|p| p["spec"]["nodeName"].is_null());
        Ok(pending.and_then(|p| p["metadata"]["name"].as_str()).map(str::to_owned))
    })?;
    c.wait("the scheduler's verdict", SOON, |c| {
        let text = c.binnacle(&["explain", "pod", &pod, "-n", "shop"])?;
        Ok((text.contains("NodeResourcesFit") && text.contains("Insufficient cpu")).then_some(()))
    })?;
    let described = c.kubectl(&["describe", "pod", "-n", "shop", &pod])?;
    ensure!(described.contains("0/1 nodes are available: 1 Insufficient cpu."), "{described}");
    c.kubectl(&["delete", "deployment", "greedy", "-n", "shop"])?;
    let web = pod_of(c, "web")?;
    c.wait("the trace of a pod's start", SOON, |c| {
        let text = c.binnacle(&["explain", "pod", &web, "-n", "shop"])?;
        let stations = ["apiserver", "scheduler: schedule pod", "kubelet"];
        Ok(stations.iter().all(|s| text.contains(s)).then_some(()))
    })
}

fn leave_nothing(c: &mut Cluster) -> Result<()> {
    c.kubectl(&["delete", "namespace", "shop", "--timeout=60s"])?;
    let (dir, bridge) = (c.dir.clone(), c.bridge());
    c.purge()?;
    let links = std::process::Command::new("ip").args(["-o", "link"]).output()?;
    let links = String::from_utf8_lossy(&links.stdout).into_owned();
    ensure!(!links.contains(&bridge), "the bridge is left:\n{links}");
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    ensure!(!mounts.contains(&dir.display().to_string()), "mounts are left:\n{mounts}");
    let tables = std::process::Command::new("nft").args(["list", "tables"]).output()?;
    let tables = String::from_utf8_lossy(&tables.stdout).into_owned();
    ensure!(!tables.contains(&bridge), "nftables tables are left:\n{tables}");
    for entry in std::fs::read_dir("/sys/fs/cgroup")? {
        let left = entry?.path().join("binnacle-test-e2e");
        ensure!(!left.try_exists()?, "a cgroup is left: {}", left.display());
    }
    for process in std::fs::read_dir("/proc")? {
        let cmdline = std::fs::read_to_string(process?.path().join("cmdline")).unwrap_or_default();
        ensure!(!cmdline.contains(&dir.display().to_string()), "a process is left: {cmdline:?}");
    }
    Ok(())
}
