//! Events are forgotten an hour after they were last seen, as upstream does. Who keeps the cluster's history has them
//! still, and lists find them there ([`ApiServer::past_events`]).

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::kinds;
use crate::object;
use crate::registry::{DeleteOptions, WriteContext};
use crate::server::ApiServer;

pub(crate) const KEPT: Duration = Duration::from_secs(3600);
const EVERY: Duration = Duration::from_secs(300);
/// So many per round, so that a flood of events does not become a flood of deletions.
const AT_ONCE: usize = 1000;

pub(crate) async fn run(server: Arc<ApiServer>) {
    let stop = server.stop.clone();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => round(&server).await,
        }
    }
}

async fn round(server: &ApiServer) {
    let events = kinds::by_resource("", "events").expect("events are a kind");
    let before = server.now().saturating_sub(KEPT);
    let all = server.cache.list(events.index, None).objects;
    let old = all.iter().filter(|o| last_seen(&o.value()).is_none_or(|t| t < before)).take(AT_ONCE);
    for o in old {
        let namespace = o.namespace().unwrap_or_default();
        match server
            .delete(&events, namespace, o.name(), &DeleteOptions::default(), &WriteContext::default())
            .await
        {
            Ok(_) => {}
            Err(e) if e.code == 404 => {}
            Err(e) => {
                tracing::warn!(error = e.message, "old events could not be deleted, will be tried again");
                return;
            }
        }
    }
}

pub(crate) fn last_seen(event: &Value) -> Option<signal::Timestamp> {
    ["series.lastObservedTime", "lastTimestamp", "eventTime", "metadata.creationTimestamp"]
        .iter()
        .find_map(|path| object::text(event, path))
        .and_then(object::parse_time)
}
