//! Lines as they come. A connection that breaks is made again, where it was.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::printer::{Entry, Printer, entries};
use crate::commands::remote::{Remote, percent};

/// Lines that a connection begins with at most: those missed while there was none.
const MISSED: usize = 5000;
const AGAIN: Duration = Duration::from_secs(1);

pub(super) async fn run(remote: &Remote, query: &str, from: i64, printer: &mut Printer) -> Result<()> {
    if printer.cursor.nanos < from {
        printer.cursor.nanos = from;
    }
    let mut seen = BTreeSet::new();
    let mut broken = false;
    loop {
        let ended = tail(remote, query, printer, &mut seen, &mut broken).await;
        match ended {
            // Who never got through has asked for something that is not there.
            Err(e) if !broken && seen.is_empty() => return Err(e),
            Err(e) => printer.note(&format!("(cut off: {e:#}; trying again)")),
            Ok(()) => printer.note("(cut off; trying again)"),
        }
        broken = true;
        tokio::time::sleep(AGAIN).await;
    }
}

async fn tail(
    remote: &Remote,
    query: &str,
    printer: &mut Printer,
    seen: &mut BTreeSet<String>,
    connected: &mut bool,
) -> Result<()> {
    // The lines of the cursor's own time come again, and are passed over.
    let resumed = printer.cursor;
    let uri = format!(
        "ws://{}/loki/api/v1/tail?query={}&start={}&limit={MISSED}",
        remote.addresses.http,
        percent(query),
        resumed.nanos
    );
    let mut request = uri.into_client_request().context("build the tail request")?;
    let token = format!("Bearer {}", remote.token).parse().context("the token is no header value")?;
    request.headers_mut().insert("authorization", token);
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.context("open the tail")?;
    *connected = true;
    let mut first = true;
    while let Some(message) = socket.next().await {
        let text = match message.context("read the tail")? {
            Message::Text(t) => t,
            Message::Close(_) => return Ok(()),
            _ => continue,
        };
        let frame: Value = serde_json::from_str(&text).context("the tail sent something that is not JSON")?;
        let mut lines = entries(&frame["streams"]);
        if std::mem::take(&mut first) {
            lines = resumed.after(lines);
        }
        for e in &lines {
            joined(e, printer, seen);
            printer.entry(e)?;
        }
        let dropped = frame["dropped_total"].as_u64().unwrap_or(0);
        if dropped > 0 {
            printer.note(&format!("({dropped} lines dropped here: this terminal was too slow)"));
        }
    }
    Ok(())
}

/// Says when a container's first line comes.
fn joined(e: &Entry, printer: &Printer, seen: &mut BTreeSet<String>) {
    let label = |n: &str| e.labels[n].as_str().unwrap_or("-");
    let who = format!("{}/{}", label("pod"), label("container"));
    if seen.len() < 10_000 && !seen.contains(&who) {
        printer.note(&format!("+ {who}"));
        seen.insert(who);
    }
}
