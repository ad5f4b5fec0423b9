//! Deployments follow their metrics, and every decision can be replayed.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Cluster, repository};

use crate::SOON;

fn replicas(c: &Cluster, deployment: &str) -> Result<i64> {
    let d = c.kubectl_json(&["get", "deployment", deployment, "-n", "shop"])?;
    d["spec"]["replicas"].as_i64().context("no replicas")
}

pub(crate) fn scale_by_metrics(c: &mut Cluster) -> Result<()> {
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

fn to(c: &Cluster, hpa: &str) -> Result<Option<Value>> {
    let text = c.binnacle(&["explain", "hpa", hpa, "-n", "kinds", "-o", "json"])?;
    let all: Vec<Value> = serde_json::from_str(&text)?;
    Ok(all.into_iter().find(|d| d["to"].as_i64() > d["from"].as_i64()))
}

/// Resource, ContainerResource, Object and External metrics: each makes its deployment more, and says by which query.
pub(crate) fn every_kind_of_metric(c: &mut Cluster) -> Result<()> {
    let manifest = repository().join("tests/tests/end_to_end/metric_kinds.yaml");
    c.kubectl(&["apply", "-f", &manifest.display().to_string()])?;
    for d in ["worker", "of-container", "of-object", "of-external"] {
        c.kubectl(&["rollout", "status", &format!("deployment/{d}"), "-n", "kinds", "--timeout=60s"])?;
    }
    c.kubectl(&["scale", "deployment/load", "-n", "kinds", "--replicas=1"])?;
    for (hpa, query, most) in [
        ("of-container", "container_memory_working_set_bytes", 2),
        ("worker", "rate(container_cpu_usage_seconds_total", 3),
        ("of-object", "kube_deployment_spec_replicas", 2),
        ("of-external", "rate(http_requests_total", 2),
    ] {
        let what = format!("HPA {hpa} to scale up to {most}");
        c.wait(&what, SOON, |c| {
            let d = c.kubectl_json(&["get", "deployment", hpa, "-n", "kinds"])?;
            Ok((d["spec"]["replicas"] == most).then_some(()))
        })?;
        let decision = c.wait("its record", SOON, |c| to(c, hpa))?;
        let said = decision["metrics"][0]["query"].as_str().unwrap_or_default();
        ensure!(said.contains(query), "{hpa} was decided by {said:?}");
    }
    let table = c.kubectl(&["get", "hpa", "-n", "kinds"])?;
    let worker = table.lines().find(|l| l.starts_with("worker")).context("no HPA worker")?;
    ensure!(worker.contains("/60%") && !worker.contains("unknown"), "{table}");
    let curious = c.kubectl(&["describe", "hpa", "curious", "-n", "kinds"])?;
    ensure!(curious.contains("no sample"), "an HPA sees another namespace's series:\n{curious}");
    c.kubectl(&["delete", "namespace", "kinds", "--timeout=60s"])?;
    Ok(())
}
