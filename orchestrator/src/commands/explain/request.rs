//! `binnacle explain request AUDIT-ID`: who asked what, why it was allowed or refused, who changed it on its way, where
//! its time went and what it changed. The id is in each answer's `Audit-Id`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use signal::time::now;

use super::super::print;
use super::super::remote::Remote;
use super::super::time::{parse, show};
use super::{BACK_MS, tree};
use crate::cli::{ExplainArgs, Output};

/// Changed fields that are shown; a longer list says how many more there are.
const CHANGES: usize = 40;

pub(super) async fn run(a: &ExplainArgs, remote: &Remote) -> Result<()> {
    let at = parse(&a.at, now().millis())?;
    let id = a.name.as_str();
    if id.is_empty() || !id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        bail!("{id:?} is no audit id: take that of an answer's Audit-Id header, or of the table `audit`");
    }
    let records = lines(remote, &format!("{{record=\"audit\"}} | audit_id={id:?}"), at).await?;
    let mut events: Vec<Value> = Vec::new();
    for (_, body) in &records {
        events.push(serde_json::from_str(body).context("an audit record cannot be read")?);
    }
    let event = events.iter().max_by_key(|e| stage(e));
    let change = match event {
        Some(event) => change(remote, event).await?,
        None => None,
    };
    let (start, end) = (((at - BACK_MS) / 1000).to_string(), (at / 1000 + 1).to_string());
    let query = format!("{{ span.audit_id = {id:?} }}");
    let found = remote.get("/tempo/api/search", &[("q", &query), ("start", &start), ("end", &end)]).await?;
    let trace = found["traces"][0]["traceID"].as_str();
    let said = lines(remote, &format!("{{component=\"apiserver\",record!=\"audit\"}} | audit_id={id:?}"), at)
        .await?;
    if a.output != Output::Table {
        let change = change.map(|c| json!({"revision": c.revision, "before": c.before, "after": c.after}));
        let all = json!({"audit": events, "change": change, "traceID": trace,
            "logs": said.iter().map(|(t, l)| json!({"time": show(*t), "line": l})).collect::<Vec<_>>()});
        return match a.output {
            Output::Yaml => print(serde_saphyr::to_string(&all)?.trim_end()),
            _ => print(&serde_json::to_string_pretty(&all)?),
        };
    }
    match event {
        Some(event) => print(&story(event))?,
        None if trace.is_some() || !said.is_empty() => {
            print("Reads have no audit record under this policy.")?
        }
        None => bail!(
            "nothing of the 24 hours before has the id {id}: the audit policy says which requests have a record (docs/access.md), and one read of a hundred is a span"
        ),
    }
    if let Some(change) = change {
        print(&change.told())?;
    }
    for (t, line) in &said {
        print(&format!("  log        {} {line}", show(*t)))?;
    }
    if let Some(trace) = trace {
        let spans = remote.get(&format!("/tempo/api/traces/{trace}"), &[]).await?;
        print(&format!("\nWhat followed, trace {trace}:\n{}", tree(&spans)))?;
    }
    Ok(())
}

/// Each write has a trace of its own.
const TRACE: &str = r#"metadata.annotations["binnacle.io/traceparent"]"#;

/// The later the more is known.
fn stage(event: &Value) -> u8 {
    match event["stage"].as_str() {
        Some("ResponseComplete" | "Panic") => 2,
        Some("ResponseStarted") => 1,
        _ => 0,
    }
}

/// Log lines with their times, oldest first.
async fn lines(remote: &Remote, query: &str, at: i64) -> Result<Vec<(i64, String)>> {
    let (start, end) = (format!("{}000000", at - BACK_MS), format!("{}000000", at + 1));
    let params = [("query", query), ("start", &start), ("end", &end), ("limit", "100")];
    let answer = remote.get("/loki/api/v1/query_range", &params).await?;
    let mut out = Vec::new();
    for stream in answer["data"]["result"].as_array().into_iter().flatten() {
        for v in stream["values"].as_array().into_iter().flatten() {
            let nanos: i64 = v[0].as_str().and_then(|t| t.parse().ok()).unwrap_or(0);
            out.push((nanos / 1_000_000, v[1].as_str().unwrap_or_default().to_owned()));
        }
    }
    out.sort();
    Ok(out)
}

fn user(v: &Value) -> String {
    let groups: Vec<&str> = v["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let name = v["username"].as_str().filter(|n| !n.is_empty()).unwrap_or("(nobody known)");
    if groups.is_empty() { name.to_owned() } else { format!("{name} ({})", groups.join(", ")) }
}

/// Everything the audit record knows, a line each.
fn story(event: &Value) -> String {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let notes = event["annotations"].as_object().cloned().unwrap_or_default();
    let note = |k: &str| notes.get(k).map(text).filter(|s| !s.is_empty());
    let r = &event["objectRef"];
    let mut what = text(&r["resource"]);
    for (between, part) in [(".", "apiGroup"), ("/", "subresource")] {
        if let Some(p) = r[part].as_str() {
            what = format!("{what}{between}{p}");
        }
    }
    let place: Vec<String> =
        ["namespace", "name"].iter().map(|k| text(&r[*k])).filter(|s| !s.is_empty()).collect();
    let what =
        if what.is_empty() { text(&event["requestURI"]) } else { format!("{what} {}", place.join("/")) };
    let status = &event["responseStatus"];
    let code = status["code"].as_u64().map_or("not answered yet".to_owned(), |c| format!("answered {c}"));
    let mut out = vec![format!("{} {}: {code}\n", text(&event["verb"]), what.trim_end())];
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            out.push(format!("  {name:<10} {value}"));
        }
    };
    line("when", text(&event["requestReceivedTimestamp"]));
    let from = event["sourceIPs"][0].as_str().map(|ip| format!(" from {ip}")).unwrap_or_default();
    let agent = event["userAgent"].as_str().filter(|a| !a.is_empty());
    let with = agent.map(|a| format!(" with {a}")).unwrap_or_default();
    line("who", format!("{}{from}{with}", user(&event["user"])));
    if event["impersonatedUser"].is_object() {
        line("acting as", user(&event["impersonatedUser"]));
    }
    line("path", text(&event["requestURI"]));
    let decision = note("authorization.k8s.io/decision");
    let reason = note("authorization.k8s.io/reason").map(|r| format!(": {r}")).unwrap_or_default();
    line("authorized", decision.map(|d| format!("{d}{reason}")).unwrap_or_default());
    if let (Some(schema), Some(level)) = (note("binnacle.io/flow-schema"), note("binnacle.io/priority-level"))
    {
        line("fairness", format!("flow schema {schema}, priority level {level}"));
    }
    for (k, v) in &notes {
        if !k.starts_with("authorization.k8s.io/") && !k.starts_with("binnacle.io/") {
            line("admission", format!("{k}: {}", text(v)));
        }
    }
    if status["status"] == "Failure" {
        line("refused", format!("{}: {}", text(&status["reason"]), text(&status["message"])));
    }
    line("time", note("binnacle.io/time").unwrap_or_default());
    out.join("\n")
}

/// What a write made of an object.
struct Change {
    revision: u64,
    op: String,
    before: Value,
    after: Value,
}

/// From the history, by the revision that the request made; `None` if it made none.
async fn change(remote: &Remote, event: &Value) -> Result<Option<Change>> {
    let made = event["annotations"]["binnacle.io/revision"].as_str().and_then(|r| r.parse::<u64>().ok());
    let Some(revision) = made else { return Ok(None) };
    let quoted = |v: &Value| v.as_str().unwrap_or_default().replace('\'', "''");
    let (namespace, name) = (quoted(&event["objectRef"]["namespace"]), quoted(&event["objectRef"]["name"]));
    let select = "select op, kind, object from object_history where";
    // The object is named by itself where it is a namespace.
    let of = format!("name = '{name}' and (namespace = '{namespace}' or namespace = '')");
    let sql = async |sql: String| -> Result<Option<(String, String, Value)>> {
        let answer = remote.post("/sql", &json!({"query": sql})).await?;
        let row = &answer["rows"][0];
        let cell = |i: usize| row[i].as_str().unwrap_or_default().to_owned();
        Ok(row.is_array().then(|| (cell(0), cell(1), serde_json::from_str(&cell(2)).unwrap_or_default())))
    };
    let Some((op, kind, after)) = sql(format!("{select} {of} and revision = {revision}")).await? else {
        // Leases have no history.
        return Ok(None);
    };
    let kind = kind.replace('\'', "''");
    let before = sql(format!(
        "{select} {of} and kind = '{kind}' and revision < {revision} order by revision desc limit 1"
    ));
    let before = match op.as_str() {
        "ADDED" => Value::Null,
        _ => before.await?.map(|(_, _, o)| o).unwrap_or_default(),
    };
    Ok(Some(Change { revision, op, before, after }))
}

impl Change {
    fn told(&self) -> String {
        let head = match self.op.as_str() {
            "ADDED" => format!("  made       revision {}", self.revision),
            "DELETED" => return format!("  deleted    at revision {}", self.revision),
            _ => format!("  changed    revision {}", self.revision),
        };
        if self.before.is_null() {
            return head;
        }
        let (mut old, mut new) = (BTreeMap::new(), BTreeMap::new());
        flatten(&self.before, String::new(), &mut old);
        flatten(&self.after, String::new(), &mut new);
        let mut out = Vec::new();
        for (path, v) in &new {
            match old.get(path) {
                Some(was) if was == v => {}
                Some(was) => out.push(format!("    ~ {path}: {was} → {v}")),
                None => out.push(format!("    + {path}: {v}")),
            }
        }
        out.extend(old.iter().filter(|(p, _)| !new.contains_key(*p)).map(|(p, v)| format!("    - {p}: {v}")));
        let more = out.len().saturating_sub(CHANGES);
        out.truncate(CHANGES);
        if more > 0 {
            out.push(format!("    … and {more} more"));
        }
        out.insert(0, head);
        out.join("\n")
    }
}

/// Scalars by their paths; what every write moves is left out.
fn flatten(v: &Value, path: String, out: &mut BTreeMap<String, String>) {
    match v {
        _ if path == "metadata.resourceVersion" || path == "metadata.managedFields" => {}
        _ if path == TRACE => {}
        Value::Object(m) if !m.is_empty() => {
            for (k, v) in m {
                let key = if k.contains('.') { format!("[{k:?}]") } else { k.clone() };
                let dot = if path.is_empty() || key.starts_with('[') { "" } else { "." };
                flatten(v, format!("{path}{dot}{key}"), out);
            }
        }
        Value::Array(l) if !l.is_empty() => {
            for (i, v) in l.iter().enumerate() {
                flatten(v, format!("{path}[{i}]"), out);
            }
        }
        _ => drop(out.insert(path, v.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told() {
        let event = json!({"verb": "create", "stage": "ResponseComplete", "requestURI": "/api/v1/namespaces/shop/pods",
            "requestReceivedTimestamp": "2026-01-01T00:00:00.000000Z", "userAgent": "kubectl/v1.35",
            "user": {"username": "eve", "groups": ["system:authenticated"]}, "sourceIPs": ["10.0.0.1"],
            "objectRef": {"resource": "pods", "namespace": "shop", "name": "web", "apiVersion": "v1"},
            "responseStatus": {"status": "Failure", "code": 403, "reason": "Forbidden", "message": "no"},
            "annotations": {"authorization.k8s.io/decision": "forbid", "binnacle.io/flow-schema": "global-default",
                "binnacle.io/priority-level": "global-default", "binnacle.io/time": "queue 0.1ms, answer 0.2ms"}});
        let expect = "create pods shop/web: answered 403

  when       2026-01-01T00:00:00.000000Z
  who        eve (system:authenticated) from 10.0.0.1 with kubectl/v1.35
  path       /api/v1/namespaces/shop/pods
  authorized forbid
  fairness   flow schema global-default, priority level global-default
  refused    Forbidden: no
  time       queue 0.1ms, answer 0.2ms";
        assert_eq!(story(&event), expect);
    }

    #[test]
    fn a_change_is_its_fields() {
        let meta = |v: &str, labels: Value| json!({"name": "web", "resourceVersion": v, "labels": labels});
        let change = Change {
            revision: 9,
            op: "MODIFIED".to_owned(),
            before: json!({"metadata": meta("8", json!({"a": "1", "x.io/b": "2"})), "spec": {"replicas": 1, "list": [1]}}),
            after: json!({"metadata": {"name": "web", "resourceVersion": "9", "labels": {"a": "1"},
                "annotations": {"binnacle.io/traceparent": "00"}}, "spec": {"replicas": 2, "list": [1, 2]}}),
        };
        let expect = "  changed    revision 9
    + spec.list[1]: 2
    ~ spec.replicas: 1 → 2
    - metadata.labels[\"x.io/b\"]: \"2\"";
        assert_eq!(change.told(), expect);
    }
}
