//! Rules from a directory: alerts that fire and wait, told of by command, series and log record; a broken file.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use signal::time::now;
use tests::Cluster;

use crate::SOON;

const FILE: &str = r#"groups:
- name: shop
  interval: 1s
  rules:
  - record: namespace:pods:count
    expr: count by (namespace) (count by (namespace, pod) (container_memory_working_set_bytes{namespace="shop"}))
  - alert: ShopRuns
    expr: namespace:pods:count > 0
    labels: {severity: info}
    annotations: {summary: "{{ $labels.namespace }} has {{ $value }} pods"}
  - alert: ShopRunsForLong
    expr: namespace:pods:count > 0
    for: 1h
  - alert: ShopIsHuge
    expr: namespace:pods:count > 1000
"#;

fn alert(c: &Cluster, name: &str) -> Result<Value> {
    let all: Value = serde_json::from_str(&c.binnacle(&["alerts", "-o", "json"])?)?;
    let found = all.as_array().into_iter().flatten().find(|a| a["labels"]["alertname"] == name);
    found.cloned().with_context(|| format!("{name} is not among {all}"))
}

pub(crate) fn alerts_fire(c: &mut Cluster) -> Result<()> {
    let dir = c.data_dir().join("rules");
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("shop.yaml"), FILE)?;
    let fires = c.wait("an alert to fire", SOON, |c| {
        let a = alert(c, "ShopRuns")?;
        Ok((a["state"] == "firing").then_some(a))
    })?;
    let summary = fires["annotations"]["summary"].as_str().unwrap_or_default();
    ensure!(summary.starts_with("shop has ") && summary.ends_with(" pods"), "{fires}");
    ensure!(alert(c, "ShopRunsForLong")?["state"] == "pending", "the wait is over at once");
    let table = c.binnacle(&["alerts"])?;
    ensure!(table.contains("firing") && table.contains("severity=info"), "{table}");
    c.wait("ALERTS to be series", SOON, |c| {
        let series = c.promql("ALERTS{alertname=\"ShopRuns\", alertstate=\"firing\"}")?;
        Ok((series == [1.0]).then_some(()))
    })?;
    let record = c.query("logql", "{record=\"alert\", namespace=\"shop\"} |= \"ShopRuns\\\"\"", &[])?;
    ensure!(record.to_string().contains("firing"), "no record of the alert: {record}");
    // A file that is broken is told of, and what was good stays in force.
    std::fs::write(dir.join("broken.yaml"), "groups: [{name: g, rules: [{record: r, expr: 'sum('}]}]")?;
    c.wait("the broken file to be told of", SOON, |c| {
        Ok((c.promql("binnacle_rules_broken_files")? == [1.0]).then_some(()))
    })?;
    std::fs::remove_file(dir.join("broken.yaml"))?;
    ensure!(alert(c, "ShopRuns")?["state"] == "firing", "a broken file ended an alert");
    Ok(())
}

/// After a restart an alert goes on waiting where it was.
pub(crate) fn waits_on(c: &mut Cluster, restarted_at: i64) -> Result<()> {
    c.wait("an alert to go on waiting", SOON, |c| {
        let a = alert(c, "ShopRunsForLong")?;
        let since: jiff::Timestamp = a["activeAt"].as_str().unwrap_or_default().parse()?;
        Ok((since.as_millisecond() < restarted_at).then_some(()))
    })
}

pub(crate) fn moment() -> i64 {
    now().millis()
}
