//! Bootstrap tokens that expired are deleted
//! (kubernetes: pkg/controller/bootstrap/tokencleaner.go).

use std::sync::Arc;
use std::time::Duration;

use signal::Timestamp;

use super::bootstrap;
use crate::follow::Changes;
use crate::kinds;
use crate::object;
use crate::registry::{DeleteOptions, WriteContext};
use crate::server::ApiServer;

const NAMESPACE: &str = "kube-system";

/// Deletes tokens at their time until the server stops.
pub(crate) async fn run(server: Arc<ApiServer>) {
    let secrets = kinds::by_resource("", "secrets").expect("secrets are a kind");
    let mut changes = Changes::of(&server, &[secrets.index]);
    while changes.next(&server).await {
        let now = server.now();
        let mut next: Option<Duration> = None;
        for o in server.cache.list(secrets.index, Some(NAMESPACE)).objects {
            let Some(until) = bootstrap::expiration(&o.value()) else { continue };
            if let Some(left) = left(until, now) {
                next = Some(next.map_or(left, |n| n.min(left)));
                continue;
            }
            // Another one of the same name is not meant.
            let uid = object::text(&o.value(), "metadata.uid").map(str::to_owned);
            let options = DeleteOptions { uid, ..DeleteOptions::default() };
            let gone = server.delete(&secrets, NAMESPACE, o.name(), &options, &WriteContext::default()).await;
            match gone {
                Ok(_) => tracing::info!(secret = o.name(), "an expired bootstrap token was deleted"),
                Err(e) if matches!(e.code, 404 | 409) => {}
                Err(e) => {
                    tracing::warn!(secret = o.name(), error = %e.message, "an expired bootstrap token stays");
                    changes.again();
                }
            }
        }
        changes.within = changes.within.or(next);
    }
}

/// How long a token is still good; `None` if it is not.
fn left(until: Timestamp, now: Timestamp) -> Option<Duration> {
    (now < until).then(|| until.since(now).max(Duration::from_millis(10)))
}
