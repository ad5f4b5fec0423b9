//! `binnacle logs [-f] TARGET [SEARCH]`: a workload's logs, merged over pods that come and go.

use std::io::IsTerminal;

use anyhow::{Context, Result};
use futures::StreamExt;
use serde_json::Value;
use signal::time::now;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::print;
use super::remote::{Remote, percent};
use super::time::{duration, show};
use crate::cli::LogsArgs;

/// Colours of pods, as terminals name them; readable on dark and light.
const COLORS: [u8; 6] = [36, 33, 35, 32, 34, 31];

pub(crate) async fn run(a: LogsArgs) -> Result<()> {
    let remote = Remote::new(&a.data.data_dir)?;
    let query = query(&a);
    let now = now().millis();
    let start = format!("{}000000", now - duration(&a.since)?);
    let limit = a.tail.to_string();
    let params = [("query", query.as_str()), ("start", &start), ("limit", &limit), ("direction", "backward")];
    let answer = remote.get("/loki/api/v1/query_range", &params).await?;
    let printer = Printer { color: std::io::stdout().is_terminal() };
    let mut newest = now;
    let past = entries(&answer["data"]["result"]);
    for e in &past {
        newest = newest.max(e.nanos / 1_000_000);
        printer.entry(e)?;
    }
    if a.follow {
        let from = past.last().map_or(now * 1_000_000, |e| e.nanos + 1);
        follow(&remote, &query, from, &printer).await?;
    }
    Ok(())
}

/// The LogQL that the arguments mean.
fn query(a: &LogsArgs) -> String {
    let pod = match a.target.split_once('/') {
        Some(("deploy" | "deployment" | "deployments", name)) => format!("workload={name:?}"),
        Some(("rs" | "replicaset" | "replicasets", name)) => {
            format!("pod=~{:?}", format!("{name}-[a-z0-9]+"))
        }
        Some(("po" | "pod" | "pods", name)) => format!("pod={name:?}"),
        _ => format!("pod=~{:?}", format!(".*{}.*", a.target)),
    };
    let mut q = format!("{{namespace={:?},{pod}}}", a.namespace);
    if let Some(s) = &a.search {
        q.push_str(&format!(" |= {s:?}"));
    }
    if let Some(s) = &a.exclude {
        q.push_str(&format!(" != {s:?}"));
    }
    q
}

struct Entry {
    nanos: i64,
    pod: String,
    line: String,
}

/// All lines of all streams, oldest first.
fn entries(streams: &Value) -> Vec<Entry> {
    let mut out = Vec::new();
    for s in streams.as_array().into_iter().flatten() {
        let pod = s["stream"]["pod"].as_str().unwrap_or("-");
        for v in s["values"].as_array().into_iter().flatten() {
            let nanos = v[0].as_str().and_then(|n| n.parse().ok()).unwrap_or(0);
            let line = v[1].as_str().unwrap_or_default().to_owned();
            out.push(Entry { nanos, pod: pod.to_owned(), line });
        }
    }
    out.sort_by_key(|e| e.nanos);
    out
}

struct Printer {
    color: bool,
}

impl Printer {
    fn entry(&self, e: &Entry) -> Result<()> {
        let at = show(e.nanos / 1_000_000);
        if self.color {
            let n = e.pod.bytes().fold(0usize, |h, b| h.wrapping_mul(31).wrapping_add(usize::from(b)));
            let color = COLORS[n % COLORS.len()];
            return print(&format!("\x1b[2m{at}\x1b[0m \x1b[{color}m{}\x1b[0m {}", e.pod, e.line));
        }
        print(&format!("{at} {} {}", e.pod, e.line))
    }
}

async fn follow(remote: &Remote, query: &str, from: i64, printer: &Printer) -> Result<()> {
    let uri = format!(
        "ws://{}/loki/api/v1/tail?query={}&start={from}&limit=5000",
        remote.addresses.http,
        percent(query)
    );
    let mut request = uri.into_client_request().context("build the tail request")?;
    let token = format!("Bearer {}", remote.token).parse().context("the token is no header value")?;
    request.headers_mut().insert("authorization", token);
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.context("open the tail")?;
    while let Some(message) = socket.next().await {
        let text = match message.context("read the tail")? {
            Message::Text(t) => t,
            Message::Close(_) => break,
            _ => continue,
        };
        let frame: Value = serde_json::from_str(&text).context("the tail sent something that is not JSON")?;
        for e in entries(&frame["streams"]) {
            printer.entry(&e)?;
        }
        let dropped = frame["dropped_entries"].as_array().map_or(0, Vec::len);
        if dropped > 0 {
            print(&format!("({dropped} lines dropped here: this terminal was too slow)"))?;
        }
    }
    Ok(())
}
