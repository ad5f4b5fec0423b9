//! `binnacle alerts`: what fires, what waits, what has ended lately.

use anyhow::Result;
use serde_json::Value;

use super::print;
use super::remote::Remote;
use super::table::Table;
use crate::cli::{AlertStateArg, AlertsArgs, Output};

pub(crate) async fn run(a: AlertsArgs) -> Result<()> {
    let remote = Remote::new(&a.data.data_dir)?;
    let resolved = a.resolved || a.state == Some(AlertStateArg::Inactive);
    let params: &[(&str, &str)] = if resolved { &[("resolved", "true")] } else { &[] };
    let answer = remote.get("/api/v1/alerts", params).await?;
    let wanted = a.state.map(|s| match s {
        AlertStateArg::Pending => "pending",
        AlertStateArg::Firing => "firing",
        AlertStateArg::Inactive => "inactive",
    });
    let mut alerts = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
    alerts.retain(|alert| wanted.is_none_or(|w| alert["state"] == w));
    match a.output {
        Output::Json => print(&serde_json::to_string_pretty(&alerts)?),
        Output::Yaml => print(serde_saphyr::to_string(&alerts)?.trim_end()),
        Output::Table => print(&table(&alerts)),
    }
}

fn table(alerts: &[Value]) -> String {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let mut t = Table::new(&["state", "since", "alert", "labels", "summary"]);
    for a in alerts {
        let labels = a["labels"].as_object().into_iter().flatten();
        let labels = labels.filter(|(n, _)| *n != "alertname").map(|(n, v)| format!("{n}={}", text(v)));
        let notes = &a["annotations"];
        let summary = ["summary", "message", "description"].into_iter().find_map(|n| notes[n].as_str());
        let since = a.get("resolvedAt").unwrap_or(&a["activeAt"]);
        t.row(vec![
            text(&a["state"]),
            text(since).replace('T', " ").replace(".000Z", ""),
            text(&a["labels"]["alertname"]),
            labels.collect::<Vec<_>>().join(","),
            summary.unwrap_or_default().to_owned(),
        ]);
    }
    t.render()
}
