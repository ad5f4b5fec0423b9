//! Logs of the containers' runs before the last restart, from the API that keeps runs apart.

use anyhow::{Context, Result, bail};
use serde_json::json;
use signal::{Labels, LogRecord, Timestamp};

use super::printer::{Entry, Printer};
use super::target::pods;
use crate::cli::LogsArgs;
use crate::commands::remote::Remote;

pub(super) async fn run(remote: &Remote, a: &LogsArgs, query: &str, printer: &mut Printer) -> Result<()> {
    let pipeline = logql::parse_log_query(query).context("the query for the lines")?;
    let mut found: Vec<Entry> = Vec::new();
    let mut runs = 0;
    for pod in pods(remote, a, &[]).await? {
        let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let workload = workload(&pod);
        for status in pod["status"]["containerStatuses"].as_array().into_iter().flatten() {
            let container = status["name"].as_str().unwrap_or_default();
            let labels = Labels::from_pairs([
                ("namespace", namespace),
                ("pod", name),
                ("container", container),
                ("workload", &workload),
            ]);
            let wanted = pipeline.matchers().iter().all(|m| m.matches(labels.get(&m.name).unwrap_or("")));
            if !wanted || status["restartCount"].as_u64().unwrap_or(0) == 0 {
                continue;
            }
            runs += 1;
            let path = format!("/k8s/api/v1/namespaces/{namespace}/pods/{name}/log");
            let params = [("container", container), ("previous", "true"), ("timestamps", "true")];
            let text = remote.text(&path, &params).await?;
            found.extend(text.lines().filter_map(|l| entry(&pipeline, &labels, l)));
        }
    }
    if runs == 0 {
        bail!("no container of these has run before its last start");
    }
    found.sort_by_key(|e| e.nanos);
    for e in found.iter().skip(found.len().saturating_sub(a.tail)) {
        printer.entry(e)?;
    }
    Ok(())
}

/// The name that the pod's lines are kept under: its owner's, and of a replica set's the deployment's.
fn workload(pod: &serde_json::Value) -> String {
    let owner = &pod["metadata"]["ownerReferences"][0];
    let name = owner["name"].as_str().unwrap_or_default();
    match (owner["kind"].as_str(), name.rsplit_once('-')) {
        (Some("ReplicaSet"), Some((deployment, _))) => deployment.to_owned(),
        _ => name.to_owned(),
    }
}

/// A line with its time before it, if it passes.
fn entry(pipeline: &logql::Pipeline, labels: &Labels, line: &str) -> Option<Entry> {
    let (at, body) = line.split_once(' ').unwrap_or((line, ""));
    let at: jiff::Timestamp = at.parse().ok()?;
    let nanos = i64::try_from(at.as_nanosecond()).ok()?;
    let record = LogRecord { timestamp: Timestamp(nanos), body: body.to_owned(), ..LogRecord::default() };
    let p = pipeline.apply(labels, &record)?;
    Some(Entry { nanos, labels: json!(p.labels), line: p.line })
}
