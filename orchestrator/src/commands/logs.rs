//! `binnacle logs [-f] TARGET [SEARCH]`: a workload's logs, merged over pods that come and go.

mod context;
mod follow;
mod previous;
mod printer;
mod target;

use anyhow::Result;
use clap::ValueEnum;
use serde_json::Value;
use signal::time::now;

use super::remote::Remote;
use super::time::{duration, parse};
use crate::cli::{Level, LogsArgs};
use printer::{Cursor, Entry, Printer, entries};

pub(crate) async fn run(a: LogsArgs) -> Result<()> {
    let remote = Remote::new(&a.data.data_dir)?;
    let now = now().millis();
    let selector = target::selector(&remote, &a).await?;
    let query = narrowed(&remote, &a, &selector).await?;
    let mut printer = Printer::new(&a);
    if a.show_query {
        printer.note(&query);
    }
    if a.previous {
        return previous::run(&remote, &a, &query, &mut printer).await;
    }
    let until = parse(&a.until, now)?;
    let cursor = a.cursor.as_deref().map(Cursor::parse).transpose()?;
    let (start, direction) = match &cursor {
        // What is to be gone on with is everything since then, not its newest part.
        Some(c) => (c.nanos, "forward"),
        None => ((until - duration(&a.since)?) * 1_000_000, "backward"),
    };
    let mut past = fetch(&remote, &query, start, until * 1_000_000 + 1, a.tail, direction).await?;
    if let Some(c) = cursor {
        past = c.after(past);
        printer.resume(c);
    }
    if a.context > 0 {
        return context::print(&remote, past, a.context, &mut printer).await;
    }
    let full = past.len() >= a.tail;
    for e in &past {
        printer.entry(e)?;
    }
    if full && direction == "forward" {
        printer.note(&format!("({} lines, and more behind them: go on with the cursor)", past.len()));
    }
    if a.follow {
        let from = past.last().map_or(now * 1_000_000, |e| e.nanos);
        return follow::run(&remote, &query, from, &mut printer).await;
    }
    printer.end();
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

/// The LogQL that the arguments mean: the search is translated by the server, which knows the lines' fields.
async fn narrowed(remote: &Remote, a: &LogsArgs, selector: &str) -> Result<String> {
    let mut query = selector.to_owned();
    // With a selector the first word is the search already.
    let search = a.search.as_ref().or(a.selector.as_ref().and(a.target.as_ref()));
    if let Some(s) = search {
        let answer = remote.get("/loki/api/v1/translate", &[("query", selector), ("search", s)]).await?;
        query = answer["data"]["query"].as_str().unwrap_or(selector).to_owned();
    }
    query.push_str(&filters(a));
    Ok(query)
}

fn filters(a: &LogsArgs) -> String {
    let mut out = String::new();
    for text in &a.exclude {
        out.push_str(&format!(" != {}", quoted(text)));
    }
    if let Some(least) = a.level {
        let names: Vec<String> = Level::value_variants()
            .iter()
            .filter(|l| **l >= least)
            .filter_map(|l| l.to_possible_value())
            .map(|v| v.get_name().to_owned())
            .collect();
        out.push_str(&format!(" | detected_level=~{:?}", names.join("|")));
    }
    out
}

/// A text as LogQL writes it.
fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}
