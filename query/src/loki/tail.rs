//! Following log lines over a WebSocket: frames of `{streams, dropped_entries}`.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use log_index::{Direction, Tail};
use logql::{Entry, LogStreamResult, Pipeline};
use serde_json::json;
use signal::{Labels, Timestamp};

use super::{fail, stream};
use crate::App;
use crate::error::Failure;
use crate::params::Params;
use crate::run::run;
use crate::scope::Scope;

/// Lines from before that a tail begins with at most.
const BACKLOG: usize = 5000;
/// Seconds that a tail may wait for lines that come late, as Loki has it.
const DELAY: usize = 5;

pub(super) async fn tail(
    State(app): State<App>,
    scope: Scope,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
    p: Params,
) -> Result<Response, Response> {
    let text = super::required(&p)?;
    let pipeline = logql::parse_log_query(&text).map_err(|e| fail(e.into()))?;
    let upgrade = upgrade.map_err(|e| fail(Failure::Bad(e.to_string())))?;
    let limit = p.number("limit").map_err(fail)?.unwrap_or(100).min(BACKLOG);
    let delay = match p.number("delay_for").map_err(fail)?.unwrap_or(0) {
        n if n <= DELAY => std::time::Duration::from_secs(n as u64),
        _ => return Err(fail(Failure::Bad(format!("delay_for can't be greater than {DELAY}")))),
    };
    let now = app.engines.clock.now();
    let start = p.time("start").map_err(fail)?.unwrap_or(now.saturating_sub(super::DEFAULT_RANGE));
    let mut matchers = pipeline.matchers().to_vec();
    matchers.extend(scope.enforce());
    // Subscribed before the backlog is read: nothing can fall between the two.
    let live = app.engines.logs.tail(matchers);
    let p = pipeline.clone();
    let enforce = scope.enforce();
    let backlog = run(&app, move |app, stop| {
        let o = logql::Options { enforce, direction: Direction::Backward, limit, stop };
        Ok(app.logql.backlog(&p, start, &o)?)
    })
    .await
    .map_err(fail)?;
    let sent: std::collections::HashSet<(Timestamp, Labels, String)> =
        backlog.iter().map(|(t, p)| (*t, p.labels.clone(), p.line.clone())).collect();
    let first = group(backlog.into_iter().map(|(t, p)| (t, p.labels, p.line)));
    Ok(upgrade.on_upgrade(move |socket| follow(socket, pipeline, live, first, sent, delay)))
}

fn group(lines: impl Iterator<Item = (Timestamp, Labels, String)>) -> Vec<LogStreamResult> {
    let mut by_labels: BTreeMap<Labels, Vec<Entry>> = BTreeMap::new();
    for (timestamp, labels, line) in lines {
        by_labels.entry(labels).or_default().push(Entry { timestamp, line });
    }
    let sorted = |mut entries: Vec<Entry>| {
        entries.sort_by_key(|e| e.timestamp);
        entries
    };
    by_labels
        .into_iter()
        .map(|(labels, entries)| LogStreamResult { labels, entries: sorted(entries) })
        .collect()
}

async fn follow(
    mut socket: WebSocket,
    pipeline: Pipeline,
    mut live: Tail,
    first: Vec<LogStreamResult>,
    mut sent: std::collections::HashSet<(Timestamp, Labels, String)>,
    delay: std::time::Duration,
) {
    if !first.is_empty() && send(&mut socket, &first, 0).await.is_err() {
        return;
    }
    loop {
        tokio::select! {
            message = socket.recv() => match message {
                // A client that closes, or is gone, ends its tail; what else it says means nothing.
                None | Some(Err(_) | Ok(Message::Close(_))) => return,
                Some(Ok(_)) => {}
            },
            batch = live.next() => {
                let Some(mut batch) = batch else { return };
                if !delay.is_zero() {
                    // Lines that come within the delay are sent in order with those that came before them.
                    let until = tokio::time::Instant::now() + delay;
                    while let Ok(Some(more)) = tokio::time::timeout_at(until, live.next()).await {
                        batch.dropped += more.dropped;
                        batch.streams.extend(more.streams);
                    }
                }
                let lines = batch.streams.iter().flat_map(|s| {
                    s.records.iter().filter_map(|r| {
                        let p = pipeline.apply(&s.labels, r)?;
                        Some((r.timestamp, p.labels, p.line))
                    })
                });
                // What came while the backlog was read may be in both.
                let lines: Vec<_> = lines.filter(|l| !sent.remove(l)).collect();
                if (!lines.is_empty() || batch.dropped > 0)
                    && send(&mut socket, &group(lines.into_iter()), batch.dropped).await.is_err()
                {
                    return;
                }
            }
        }
    }
}

async fn send(socket: &mut WebSocket, streams: &[LogStreamResult], dropped: u64) -> Result<(), axum::Error> {
    let mut frame = json!({"streams": streams.iter().map(stream).collect::<Vec<_>>()});
    if dropped > 0 {
        // Loki lists the lost lines; we know how many they were.
        frame["dropped_entries"] = json!([{"labels": {}, "timestamp": "0", "count": dropped}]);
        frame["dropped_total"] = json!(dropped);
    }
    socket.send(Message::Text(frame.to_string().into())).await
}
