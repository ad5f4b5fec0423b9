//! `binnacle logs [-f] TARGET [SEARCH]`: a workload's logs, merged over pods that come and go.

use std::io::IsTerminal;

use anyhow::{Context, Result};
use clap::ValueEnum;
use futures::StreamExt;
use serde_json::{Value, json};
use signal::time::now;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::print;
use super::remote::{Remote, percent};
use super::time::{duration, parse, show};
use crate::cli::{Level, LogsArgs};

/// Colours of pods, as terminals name them; readable on dark and light.
const COLORS: [u8; 6] = [36, 33, 35, 32, 34, 31];

/// Hits whose surroundings are fetched at most.
const CONTEXTS: usize = 100;

pub(crate) async fn run(a: LogsArgs) -> Result<()> {
    let remote = Remote::new(&a.data.data_dir)?;
    let query = query(&a);
    let now = now().millis();
    let until = parse(&a.until, now)?;
    let printer = Printer { color: std::io::stdout().is_terminal(), output: Output::parse(&a.output) };
    let start = (until - duration(&a.since)?) * 1_000_000;
    let past = fetch(&remote, &query, start, until * 1_000_000, a.tail, "backward").await?;
    if a.context > 0 {
        return with_context(&remote, past, a.context, &printer).await;
    }
    for e in &past {
        printer.entry(e)?;
    }
    if a.follow {
        let from = past.last().map_or(now * 1_000_000, |e| e.nanos + 1);
        follow(&remote, &query, from, &printer).await?;
    }
    Ok(())
}

/// Lines from `start` to before `end`, in nanoseconds; oldest first.
async fn fetch(
    remote: &Remote,
    query: &str,
    start: i64,
    end: i64,
    limit: usize,
    direction: &str,
) -> Result<Vec<Entry>> {
    let (start, end, limit) = (start.to_string(), end.to_string(), limit.to_string());
    let params =
        [("query", query), ("start", &start), ("end", &end), ("limit", &limit), ("direction", direction)];
    let answer = remote.get("/loki/api/v1/query_range", &params).await?;
    Ok(entries(&answer["data"]["result"]))
}

/// Each hit among the lines of its own container; hits that stand near each other share their surroundings.
async fn with_context(remote: &Remote, hits: Vec<Entry>, lines: usize, printer: &Printer) -> Result<()> {
    const DAY: i64 = 86_400_000_000_000;
    let shown = hits.len().min(CONTEXTS);
    let mut last: Option<(String, i64)> = None;
    for hit in hits.iter().rev().take(shown).rev() {
        let label = |n: &str| hit.labels[n].as_str().unwrap_or_default().to_owned();
        let stream = format!(
            "{{namespace={:?},pod={:?},container={:?}}}",
            label("namespace"),
            label("pod"),
            label("container")
        );
        let mut all = fetch(remote, &stream, hit.nanos - DAY, hit.nanos, lines, "backward").await?;
        all.extend(fetch(remote, &stream, hit.nanos, hit.nanos + DAY, lines + 1, "forward").await?);
        let joins =
            last.as_ref().is_some_and(|(s, at)| *s == stream && all.first().is_some_and(|e| e.nanos <= *at));
        if last.is_some() && !joins {
            print("--")?;
        }
        let from = last.filter(|(s, _)| *s == stream).map_or(i64::MIN, |(_, at)| at);
        for e in all.iter().filter(|e| e.nanos > from) {
            printer.entry(e)?;
        }
        last = Some((stream, all.last().map_or(hit.nanos, |e| e.nanos).max(from)));
    }
    if shown < hits.len() {
        print(&format!(
            "({} earlier hits are not shown: narrow the search, or use a smaller --tail)",
            hits.len() - shown
        ))?;
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
    if let Some(least) = a.level {
        let names: Vec<String> = Level::value_variants()
            .iter()
            .filter(|l| **l >= least)
            .filter_map(|l| l.to_possible_value())
            .map(|v| v.get_name().to_owned())
            .collect();
        q.push_str(&format!(" | detected_level=~{:?}", names.join("|")));
    }
    q
}

struct Entry {
    nanos: i64,
    labels: Value,
    line: String,
}

enum Output {
    Pretty,
    Raw,
    Json,
    /// Text with `{{.label}}` in it.
    Template(String),
}

impl Output {
    fn parse(text: &str) -> Output {
        match text {
            "pretty" => Output::Pretty,
            "raw" => Output::Raw,
            "json" => Output::Json,
            t => Output::Template(t.to_owned()),
        }
    }
}

/// A line without what a terminal would obey: control characters but tabs, and what escapes begin with.
fn inert(line: &str) -> String {
    line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// All lines of all streams, oldest first.
fn entries(streams: &Value) -> Vec<Entry> {
    let mut out = Vec::new();
    for s in streams.as_array().into_iter().flatten() {
        let labels = &s["stream"];
        for v in s["values"].as_array().into_iter().flatten() {
            let nanos = v[0].as_str().and_then(|n| n.parse().ok()).unwrap_or(0);
            let line = v[1].as_str().unwrap_or_default().to_owned();
            out.push(Entry { nanos, labels: labels.clone(), line });
        }
    }
    out.sort_by_key(|e| e.nanos);
    out
}

struct Printer {
    color: bool,
    output: Output,
}

impl Printer {
    fn entry(&self, e: &Entry) -> Result<()> {
        let at = show(e.nanos / 1_000_000);
        let pod = e.labels["pod"].as_str().unwrap_or("-");
        match &self.output {
            Output::Raw => print(&e.line),
            Output::Json => print(
                &json!({"time": at, "timestamp": e.nanos.to_string(), "labels": e.labels, "line": e.line})
                    .to_string(),
            ),
            Output::Template(t) => print(&inert(&render(t, e, &at))),
            Output::Pretty if self.color => {
                let n = pod.bytes().fold(0usize, |h, b| h.wrapping_mul(31).wrapping_add(usize::from(b)));
                let color = COLORS[n % COLORS.len()];
                print(&format!("\x1b[2m{at}\x1b[0m \x1b[{color}m{pod}\x1b[0m {}", inert(&e.line)))
            }
            Output::Pretty => print(&format!("{at} {pod} {}", inert(&e.line))),
        }
    }
}

/// `{{.name}}` is `time`, `line`, a label, or a field of a line that is a JSON object.
fn render(template: &str, e: &Entry, at: &str) -> String {
    let fields: Value = serde_json::from_str(&e.line).unwrap_or_default();
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let Some((name, after)) = after.split_once("}}") else {
            rest = after;
            break;
        };
        match name.trim().trim_start_matches('.') {
            "time" => out.push_str(at),
            "line" => out.push_str(&e.line),
            name => match [&e.labels[name], &fields[name]].into_iter().find(|v| !v.is_null()) {
                Some(Value::String(s)) => out.push_str(s),
                Some(v) => out.push_str(&v.to_string()),
                None => {}
            },
        }
        rest = after;
    }
    out.push_str(rest);
    out
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_printed_as_asked() {
        let e = Entry { nanos: 0, labels: json!({"pod": "a"}), line: r#"{"msg":"hi","n":1}"#.to_owned() };
        assert_eq!(render("{{.pod}}: {{ .msg }} {{.n}}{{.none}}!", &e, "T"), "a: hi 1!");
        assert_eq!(render("{{.time}} {{.line", &e, "T"), "T .line");
        assert_eq!(inert("a\x1b[31mred\tb\r"), "a\u{fffd}[31mred\tb\u{fffd}");
    }
}
