//! The road of a watch: the initial state if it is wanted, then each change, in order, until the client
//! goes, its time is over or the cache forgot where it was.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use serde_json::{Value, json};

use crate::cache::{Change, Object};
use crate::error::{ApiError, Result};
use crate::kinds::Served;
use crate::object;
use crate::read::{Filter, render, render_value};
use crate::request::{ListOptions, Shape};
use crate::server::ApiServer;
use crate::table::{self, Include};

const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Upstream's default: between 30 and 60 minutes.
const DEFAULT_TIMEOUT_S: std::ops::Range<u64> = 1800..3600;

struct Watcher {
    server: Arc<ApiServer>,
    served: Served,
    filter: Filter,
    shape: Shape,
    include: Include,
    cursor: u64,
    published: tokio::sync::watch::Receiver<u64>,
    /// The initial state that is still to be sent.
    initial: VecDeque<Arc<Object>>,
    /// Mark the end of the initial state.
    mark_end: bool,
    changes: VecDeque<Change>,
    bookmarks: bool,
    /// Tables say their columns once.
    columns_sent: bool,
    deadline: tokio::time::Instant,
    next_bookmark: tokio::time::Instant,
    ended: bool,
}

/// The lines of a watch.
pub(crate) async fn stream(
    server: Arc<ApiServer>,
    served: Served,
    namespace: &str,
    options: ListOptions,
    shape: Shape,
    include: Include,
) -> Result<impl Stream<Item = std::result::Result<Bytes, std::convert::Infallible>> + Send + 'static> {
    let filter = Filter::new(served.clone(), namespace, &options)?;
    let asked = options.revision()?;
    let with_state = match options.send_initial_events {
        Some(wanted) => wanted,
        None => asked == 0,
    };
    if options.resource_version.is_empty() {
        server.cache.fresh().await?;
    } else {
        server.cache.reach(asked).await?;
    }
    let published = server.cache.subscribe();
    let (initial, cursor) = if with_state {
        let snapshot = server.cache.list(served.index, filter.namespace());
        (snapshot.objects.into_iter().filter(|o| filter.matches(o)).collect(), snapshot.revision)
    } else {
        // Without state and without a revision a watch begins now.
        let from = if asked == 0 { server.cache.revision() } else { asked };
        server.cache.changes(served.index, from)?;
        (VecDeque::new(), from)
    };
    let timeout =
        options.timeout.unwrap_or_else(|| Duration::from_secs(rand::random_range(DEFAULT_TIMEOUT_S)));
    let now = tokio::time::Instant::now();
    let watcher = Watcher {
        server,
        served,
        filter,
        shape,
        include,
        cursor,
        published,
        initial,
        mark_end: with_state && options.send_initial_events == Some(true),
        changes: VecDeque::new(),
        bookmarks: options.bookmarks,
        columns_sent: false,
        deadline: now + timeout,
        next_bookmark: now + BOOKMARK_EVERY,
        ended: false,
    };
    Ok(futures::stream::unfold(watcher, |mut w| async move { w.next().await.map(|line| (Ok(line), w)) }))
}

/// Waits until the cache is beyond `cursor`; `None` when the server ends.
async fn reached(published: &mut tokio::sync::watch::Receiver<u64>, cursor: u64) -> Option<u64> {
    published.wait_for(|r| *r > cursor).await.ok().map(|r| *r)
}

/// Until a custom kind is defined anew: its watchers come back and see it.
async fn redefined(served: &Served) {
    match &served.custom {
        Some(held) => held.custom.ended.cancelled().await,
        None => std::future::pending().await,
    }
}

impl Watcher {
    /// The next line, or `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(o) = self.initial.pop_front() {
                return Some(self.converted_line("ADDED", &o).await);
            }
            if std::mem::take(&mut self.mark_end) {
                return Some(self.bookmark(true));
            }
            while let Some(c) = self.changes.pop_front() {
                self.cursor = c.revision;
                if let Some(line) = self.change(&c).await {
                    return Some(line);
                }
            }
            if self.ended {
                return None;
            }
            let cursor = self.cursor;
            let server = self.server.clone();
            let wake = self.deadline.min(if self.bookmarks { self.next_bookmark } else { self.deadline });
            tokio::select! {
                moved = reached(&mut self.published, cursor) => {
                    let reached = moved?;
                    match self.server.cache.changes(self.served.index, cursor) {
                        Ok(changes) => self.changes = changes.into(),
                        Err(e) => {
                            self.ended = true;
                            return Some(error_line(&e));
                        }
                    }
                    if self.changes.is_empty() {
                        self.cursor = self.cursor.max(reached);
                    }
                }
                () = tokio::time::sleep_until(wake) => {
                    let now = tokio::time::Instant::now();
                    if now >= self.deadline {
                        self.ended = true;
                        return self.bookmarks.then(|| self.bookmark(false));
                    }
                    self.next_bookmark = now + BOOKMARK_EVERY;
                    return Some(self.bookmark(false));
                }
                () = server.stop.cancelled() => return None,
                () = redefined(&self.served) => return None,
            }
        }
    }

    /// A change as this watcher sees it: an object may enter and leave its selection.
    async fn change(&mut self, c: &Change) -> Option<Bytes> {
        let was = c.old.as_ref().filter(|o| self.filter.matches(o)).cloned();
        let is = c.new.as_ref().filter(|o| self.filter.matches(o)).cloned();
        match (was, is) {
            (None, None) => None,
            (None, Some(o)) => Some(self.converted_line("ADDED", &o).await),
            (Some(_), Some(o)) => Some(self.converted_line("MODIFIED", &o).await),
            (Some(o), None) => {
                // The last state that matched, at the revision that ended it.
                let mut v = o.value();
                object::metadata(&mut v).insert("resourceVersion".to_owned(), c.revision.to_string().into());
                let last = Object::from_value(self.served.kind, &o.key, c.revision, &v);
                Some(self.converted_line("DELETED", &Arc::new(last)).await)
            }
        }
    }

    /// A line, for which others may have to be asked.
    async fn converted_line(&mut self, event: &str, o: &Arc<Object>) -> Bytes {
        if self.served.custom.as_ref().is_none_or(|held| held.custom.webhook.is_none()) {
            return self.line(event, o);
        }
        match self.server.all_served(&self.served, vec![o.clone()]).await {
            Ok(all) => self.line(event, all.first().unwrap_or(o)),
            Err(e) => {
                self.ended = true;
                self.changes.clear();
                self.initial.clear();
                error_line(&e)
            }
        }
    }

    fn line(&mut self, event: &str, o: &Object) -> Bytes {
        let body = match self.shape {
            Shape::Object => render(&self.served, o),
            Shape::Metadata => Bytes::from(table::partial(render_value(&self.served, o.value())).to_string()),
            Shape::Table => {
                let metadata = json!({"resourceVersion": o.revision.to_string()});
                let row = table::row(
                    &self.served,
                    render_value(&self.served, o.value()),
                    self.include,
                    self.server.now(),
                );
                let first = !std::mem::replace(&mut self.columns_sent, true);
                Bytes::from(table::table(&self.served, metadata, vec![row], first).to_string())
            }
        };
        let mut out = Vec::with_capacity(body.len() + 40);
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(event.as_bytes());
        out.extend_from_slice(b"\",\"object\":");
        out.extend_from_slice(&body);
        out.extend_from_slice(b"}\n");
        Bytes::from(out)
    }

    fn bookmark(&self, end_of_state: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": self.cursor.to_string(), "creationTimestamp": null});
        if end_of_state {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object: Value = match self.shape {
            Shape::Table => table::table(&self.served, metadata, Vec::new(), false),
            Shape::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            Shape::Object => {
                let mut o = json!({"kind": self.served.kind.kind, "apiVersion": self.served.api_version(), "metadata": metadata});
                // Clients decode a bookmark as the kind, whose required fields must be there.
                for (field, empty) in required(self.served.kind.kind) {
                    o[*field] = serde_json::from_str(empty).unwrap_or(Value::Null);
                }
                o
            }
        };
        Bytes::from(format!("{}\n", json!({"type": "BOOKMARK", "object": object})))
    }
}

/// What a typed client cannot decode an object without, as upstream's zero values print.
fn required(kind: &str) -> &'static [(&'static str, &'static str)] {
    match kind {
        "Pod" => &[("spec", r#"{"containers":null}"#)],
        "Deployment" => &[(
            "spec",
            r#"{"selector":null,"template":{"metadata":{},"spec":{"containers":null}},"strategy":{}}"#,
        )],
        "ReplicaSet" => &[("spec", r#"{"selector":null}"#), ("status", r#"{"replicas":0}"#)],
        "HorizontalPodAutoscaler" => {
            &[("spec", r#"{"scaleTargetRef":{"kind":"","name":""},"maxReplicas":0}"#)]
        }
        "Event" => &[("involvedObject", "{}")],
        "EndpointSlice" => &[("addressType", "\"\""), ("endpoints", "null")],
        "Role" | "ClusterRole" => &[("rules", "null")],
        "RoleBinding" | "ClusterRoleBinding" => &[("roleRef", r#"{"apiGroup":"","kind":"","name":""}"#)],
        "ControllerRevision" => &[("revision", "0")],
        _ => &[],
    }
}

fn error_line(e: &ApiError) -> Bytes {
    Bytes::from(format!("{}\n", json!({"type": "ERROR", "object": e.status()})))
}
