//! `kill -9` under load: nothing stops, nothing acknowledged is lost, nothing is there twice.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tests::Cluster;

use crate::{SOON, pod_of};

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

pub(crate) fn survive_kill(c: &mut Cluster) -> Result<()> {
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
    let killed_at = crate::rules::moment();
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
    crate::rules::waits_on(c, killed_at)?;
    c.kubectl(&["scale", "deployment/load", "-n", "shop", "--replicas=0"])?;
    Ok(())
}
