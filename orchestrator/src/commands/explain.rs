//! `binnacle explain hpa|pod NAME`: why it scaled, why it is pending, what its start took; `explain request ID`:
//! what became of a request to the API.

mod request;

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use apimachinery::trace::TRACEPARENT_ANNOTATION;
use autoscaler::Decision;
use serde_json::Value;
use signal::time::now;

use super::print;
use super::remote::Remote;
use super::table::Table;
use super::time::{parse, show};
use crate::cli::{ExplainArgs, Explained, Output};

/// How far back decisions are looked for.
const BACK_MS: i64 = 24 * 3_600_000;
const DECISIONS: usize = 10;

pub(crate) async fn run(a: ExplainArgs) -> Result<()> {
    let remote = Remote::new(&a.data.data_dir)?;
    match a.what {
        Explained::Hpa => hpa(&a, &remote).await,
        Explained::Pod => pod(&a, &remote).await,
        Explained::Request => request::run(&a, &remote).await,
    }
}

async fn hpa(a: &ExplainArgs, remote: &Remote) -> Result<()> {
    let at = parse(&a.at, now().millis())?;
    let path =
        format!("/k8s/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers/{}", a.namespace, a.name);
    let object = remote.get(&path, &[]).await?;
    let query = format!("{{namespace={:?},record=\"hpa-decision\"}} | json | hpa={:?}", a.namespace, a.name);
    let (start, end) = (format!("{}000000", at - BACK_MS), format!("{}000000", at + 1));
    let limit = DECISIONS.to_string();
    let params = [
        ("query", query.as_str()),
        ("start", &start),
        ("end", &end),
        ("limit", &limit),
        ("direction", "backward"),
    ];
    let answer = remote.get("/loki/api/v1/query_range", &params).await?;
    let mut decisions: Vec<Decision> = Vec::new();
    for s in answer["data"]["result"].as_array().into_iter().flatten() {
        for v in s["values"].as_array().into_iter().flatten() {
            let body = v[1].as_str().unwrap_or_default();
            decisions.push(serde_json::from_str(body).context("a decision record cannot be read")?);
        }
    }
    decisions.sort_by_key(|d| std::cmp::Reverse(d.time));
    decisions.truncate(DECISIONS);
    match a.output {
        Output::Json => return print(&serde_json::to_string_pretty(&decisions)?),
        Output::Yaml => return print(serde_saphyr::to_string(&decisions)?.trim_end()),
        Output::Table => {}
    }
    let (spec, status) = (&object["spec"], &object["status"]);
    print(&format!(
        "HPA {}/{} scales {}/{}: {} replicas now, {} wanted, between {} and {}\n",
        a.namespace,
        a.name,
        spec["scaleTargetRef"]["kind"].as_str().unwrap_or("?"),
        spec["scaleTargetRef"]["name"].as_str().unwrap_or("?"),
        status["currentReplicas"],
        status["desiredReplicas"],
        spec["minReplicas"].as_i64().unwrap_or(1),
        spec["maxReplicas"],
    ))?;
    if decisions.is_empty() {
        return print("no decision is recorded in the 24 hours before; is the HPA new?");
    }
    let mut t = Table::new(&["time", "from", "to", "reason"]);
    for d in &decisions {
        t.row(vec![show(d.time), d.from.to_string(), d.to.to_string(), d.reason.clone()]);
    }
    print(&t.render())?;
    let latest = &decisions[0];
    print(&format!("\nThe latest decision, {}:", show(latest.time)))?;
    for m in &latest.metrics {
        print(&format!("  metric     {}", m.name))?;
        print(&format!("  query      {}", m.query))?;
        print(&format!(
            "  run it     binnacle query promql {:?} --time {:.3}",
            m.query,
            latest.time as f64 / 1000.0
        ))?;
        for s in &m.samples {
            print(&format!("  sample     {} = {}", s.labels, s.value))?;
        }
        match (&m.error, m.current, m.ratio, m.proposed) {
            (Some(e), ..) => print(&format!("  error      {e}"))?,
            (None, Some(current), ratio, Some(proposed)) => {
                let ratio = ratio.map(|r| format!(", ratio {r:.2}")).unwrap_or_default();
                let tolerance = if m.within_tolerance { ", within tolerance" } else { "" };
                print(&format!(
                    "  current    {current:.3}, target {:?}{ratio}{tolerance} → {proposed} replicas",
                    m.target
                ))?;
            }
            _ => {}
        }
        if !m.not_counted.is_empty() {
            print(&format!("  not counted {}", m.not_counted.join(", ")))?;
        }
    }
    for c in &latest.constraints {
        print(&format!("  limit      {}: {} → {} ({})", c.name, c.before, c.after, c.message))?;
    }
    print(&format!("  result     {} → {}", latest.from, latest.to))
}

async fn pod(a: &ExplainArgs, remote: &Remote) -> Result<()> {
    let object = remote.get(&format!("/k8s/api/v1/namespaces/{}/pods/{}", a.namespace, a.name), &[]).await?;
    if a.output == Output::Json {
        return print(&serde_json::to_string_pretty(&object)?);
    }
    let status = &object["status"];
    print(&format!(
        "Pod {}/{} is {} on node {}",
        a.namespace,
        a.name,
        status["phase"].as_str().unwrap_or("Pending"),
        object["spec"]["nodeName"].as_str().unwrap_or("(none)"),
    ))?;
    for c in status["conditions"].as_array().into_iter().flatten() {
        let text = |k: &str| c[k].as_str().unwrap_or_default();
        let why = [text("reason"), text("message")]
            .iter()
            .filter(|s| !s.is_empty())
            .copied()
            .collect::<Vec<_>>()
            .join(": ");
        print(&format!("  {:<26} {:<6} {} {why}", text("type"), text("status"), text("lastTransitionTime")))?;
    }
    for c in status["containerStatuses"].as_array().into_iter().flatten() {
        let state = c["state"].as_object().and_then(|s| s.iter().next());
        let (word, detail) = state.map_or(("unknown", &Value::Null), |(k, v)| (k.as_str(), v));
        let why = detail["reason"].as_str().unwrap_or_default();
        print(&format!(
            "  container {} is {word} {why} (restarts: {})",
            c["name"].as_str().unwrap_or("?"),
            c["restartCount"]
        ))?;
    }
    let annotations = &object["metadata"]["annotations"];
    if let Some(text) = annotations[scheduler::VERDICTS_ANNOTATION].as_str()
        && object["spec"]["nodeName"].is_null()
    {
        let verdicts: Vec<Value> =
            serde_json::from_str(text).context("the scheduler's verdicts cannot be read")?;
        let mut t = Table::new(&["node", "plugin", "verdict"]);
        for v in &verdicts {
            let cell = |k: &str| v[k].as_str().unwrap_or_default().to_owned();
            t.row(vec![cell("node"), cell("plugin"), cell("reason")]);
        }
        print(&format!("\nWhy no node takes it:\n{}", t.render()))?;
    }
    let Some(traceparent) = annotations[TRACEPARENT_ANNOTATION].as_str() else {
        return print("\nno trace is known for this pod");
    };
    let Some(trace_id) = telemetry::propagation::trace_id(traceparent) else {
        bail!("the pod's annotation {TRACEPARENT_ANNOTATION} is damaged: {traceparent}")
    };
    let trace = remote.get(&format!("/tempo/api/traces/{trace_id}"), &[]).await?;
    print(&format!("\nWhat happened, trace {trace_id}:"))?;
    print(&tree(&trace))
}

struct Node {
    parent: String,
    start: i64,
    end: i64,
    text: String,
}

/// The trace as a tree, with each span's start after the root's and its duration.
fn tree(trace: &Value) -> String {
    let mut spans: BTreeMap<String, Node> = BTreeMap::new();
    let batches = trace["batches"].as_array().or(trace["resourceSpans"].as_array());
    for batch in batches.into_iter().flatten() {
        let attributes = batch["resource"]["attributes"].as_array().into_iter().flatten();
        let service = attributes
            .clone()
            .find(|a| a["key"] == "service.name")
            .and_then(|a| a["value"]["stringValue"].as_str())
            .unwrap_or("?");
        for scope in batch["scopeSpans"].as_array().into_iter().flatten() {
            for s in scope["spans"].as_array().into_iter().flatten() {
                let text = |k: &str| s[k].as_str().unwrap_or_default().to_owned();
                let time = |k: &str| text(k).parse::<i64>().unwrap_or(0);
                let node = Node {
                    parent: text("parentSpanId"),
                    start: time("startTimeUnixNano"),
                    end: time("endTimeUnixNano"),
                    text: format!("{service}: {}", text("name")),
                };
                spans.insert(text("spanId"), node);
            }
        }
    }
    let mut children: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut roots: Vec<&str> = Vec::new();
    for (id, n) in &spans {
        if spans.contains_key(&n.parent) {
            children.entry(&n.parent).or_default().push(id);
        } else {
            roots.push(id);
        }
    }
    let by_start = |ids: &mut Vec<&str>| ids.sort_by_key(|id| spans.get(*id).map(|n| n.start));
    children.values_mut().for_each(by_start);
    by_start(&mut roots);
    let zero = spans.values().map(|n| n.start).min().unwrap_or(0);
    let mut out = Vec::new();
    let mut stack: Vec<(&str, usize)> = roots.iter().rev().map(|id| (*id, 0)).collect();
    while let Some((id, depth)) = stack.pop() {
        let Some(n) = spans.get(id) else { continue };
        let ms = |nanos: i64| nanos as f64 / 1e6;
        out.push(format!(
            "  +{:>9.1} ms {:>9.1} ms  {}{}",
            ms(n.start - zero),
            ms(n.end - n.start),
            "  ".repeat(depth),
            n.text
        ));
        let below = children.get(id).into_iter().flatten().rev();
        stack.extend(below.map(|c| (*c, depth + 1)));
    }
    out.join("\n")
}
