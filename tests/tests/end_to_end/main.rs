//! The main job, end to end: a real cluster, real containerd, real kubectl, a real application.
//!
//! One cluster serves all steps, in the order a person takes them; each step says what it is about when it fails.

mod autoscaling;
mod clients;
mod end;
mod helm;
mod million;
mod refusals;
mod rules;
mod senders;
mod servers;
mod survival;
mod telemetry;
mod volumes;
mod workloads;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::{Cluster, repository, required};

/// Far longer than anything here takes; a test that needs more has failed.
const SOON: Duration = Duration::from_secs(60);

#[test]
fn the_main_job() -> Result<()> {
    let mut c = Cluster::new("e2e", 142)?;
    c.start()?;
    node_is_ready(&mut c)?;
    deploy(&mut c).context("deploy the shop")?;
    kubectl_verbs(&mut c).context("kubectl")?;
    helm::both_helms(&c).context("Helm")?;
    workloads::every_workload(&mut c).context("workloads")?;
    volumes::claims_are_kept(&mut c).context("volumes")?;
    telemetry::telemetry_arrives(&mut c).context("metrics, logs and traces")?;
    autoscaling::scale_by_metrics(&mut c).context("autoscaling")?;
    autoscaling::every_kind_of_metric(&mut c).context("kinds of metrics")?;
    rules::alerts_fire(&mut c).context("rules and alerts")?;
    browser(&c).context("the web UI")?;
    survival::survive_kill(&mut c).context("kill -9 and restart")?;
    million::a_million_lines(&mut c).context("a million lines")?;
    end::explain_why(&mut c).context("explain")?;
    end::leave_nothing(&mut c).context("down --purge")
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
    debug(c, &web).context("kubectl debug")?;
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
    telemetry::pod_pushes_a_gauge(c, &pod_of(c, "stock")?).context("a pod pushes a gauge")?;
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

/// A container that comes to look at another's processes and goes, while the pod stays as it is.
fn debug(c: &mut Cluster, pod: &str) -> Result<()> {
    let image = "--image=binnacle.io/shop:latest";
    let args = ["debug", pod, "-n", "shop", "-c", "guest", image, "--image-pull-policy=IfNotPresent"];
    let target = pod_container(c, pod)?;
    let target = format!("--target={target}");
    c.kubectl(&[&args[..], &[&target, "--", "ps"]].concat())?;
    c.wait("the guest to end", SOON, |c| {
        let p = c.kubectl_json(&["get", "pod", pod, "-n", "shop"])?;
        let guest = &p["status"]["ephemeralContainerStatuses"][0];
        ensure!(p["status"]["containerStatuses"][0]["ready"] == true, "the pod is disturbed: {p}");
        Ok((guest["state"]["terminated"]["exitCode"] == 0).then_some(()))
    })?;
    let seen = c.kubectl(&["logs", pod, "-n", "shop", "-c", "guest"])?;
    ensure!(seen.contains("/shop") && seen.contains("ps"), "the guest does not see its target: {seen}");
    let patch = r#"{"spec": {"ephemeralContainers": []}}"#;
    let refused = c.kubectl_fails(&[
        "patch",
        "pod",
        pod,
        "-n",
        "shop",
        "--subresource=ephemeralcontainers",
        "--type=merge",
        "-p",
        patch,
    ])?;
    ensure!(refused.contains("may not be removed"), "{refused}");
    Ok(())
}

fn pod_container(c: &Cluster, pod: &str) -> Result<String> {
    c.kubectl(&["get", "pod", pod, "-n", "shop", "-o", "jsonpath={.spec.containers[0].name}"])
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
