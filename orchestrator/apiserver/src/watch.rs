//! The road of a watch: the initial state if it is wanted, then each change, in order, until the client
//! goes, its time is over or the cache forgot where it was.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use prometheus_client::metrics::counter::Counter;
use serde_json::{Value, json};

use crate::cache::{Change, Object};
use crate::error::{ApiError, Result};
use crate::kinds::Served;
use crate::metrics::METRICS;
use crate::object;
use crate::options::ListOptions;
use crate::read::{Filter, is_as_stored, render, render_metadata, render_value};
use crate::request::Shape;
use crate::server::ApiServer;
use crate::table::{self, Include};

/// Lines that are ready go out together, up to so many bytes.
const CHUNK: usize = 64 << 10;
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Upstream's default: between 30 and 60 minutes.
const DEFAULT_TIMEOUT_S: std::ops::Range<u64> = 1800..3600;

struct Watcher {
    server: Arc<ApiServer>,
    served: Served,
    filter: Filter,
    shape: Shape,
    include: Include,
    protobuf: bool,
    sent: Counter,
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
    protobuf: bool,
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
    let published = server.cache.subscribe_kind(served.index);
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
        sent: METRICS.watch_events(&served),
        server,
        served,
        filter,
        shape,
        include,
        protobuf,
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

/// In which form a change is told. Whoever asks for the same form is sent the same bytes.
#[derive(Clone)]
pub(crate) struct Form {
    event: &'static str,
    served: Served,
    shape: Shape,
    include: Include,
    protobuf: bool,
    /// Ages stand in tables: the second they were told in.
    second: i64,
}

impl PartialEq for Form {
    fn eq(&self, o: &Form) -> bool {
        let same_definition = match (&self.served.custom, &o.served.custom) {
            (Some(a), Some(b)) => Arc::ptr_eq(&a.custom, &b.custom),
            (None, None) => true,
            _ => false,
        };
        same_definition
            && (self.served.group, self.served.version) == (o.served.group, o.served.version)
            && (self.event, self.shape, self.include) == (o.event, o.shape, o.include)
            && (self.protobuf, self.second) == (o.protobuf, o.second)
    }
}

impl Watcher {
    /// The next lines, or `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        self.next_line(&mut out).await?;
        while out.len() < CHUNK && self.ready(&mut out).await {}
        Some(out.into())
    }

    /// Writes a line for which no change needs to be waited for, if there is one.
    async fn ready(&mut self, out: &mut Vec<u8>) -> bool {
        let told = self.told(out).await;
        if told {
            self.sent.inc();
        }
        told
    }

    async fn told(&mut self, out: &mut Vec<u8>) -> bool {
        if let Some(o) = self.initial.pop_front() {
            self.tell("ADDED", &o, out).await;
            return true;
        }
        if std::mem::take(&mut self.mark_end) {
            self.bookmark(true, out);
            return true;
        }
        while let Some(c) = self.changes.pop_front() {
            self.cursor = c.revision;
            if self.change(&c, out).await {
                return true;
            }
        }
        false
    }

    /// Everything of this kind up to now has been told: the cursor may stand at the newest revision of all.
    fn catch_up(&mut self) {
        let now = self.server.cache.revision();
        if self.server.cache.changes(self.served.index, self.cursor).is_ok_and(|c| c.is_empty()) {
            self.cursor = self.cursor.max(now);
        }
    }

    async fn next_line(&mut self, out: &mut Vec<u8>) -> Option<()> {
        loop {
            if self.ready(out).await {
                return Some(());
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
                            self.fail(&e, out);
                            return Some(());
                        }
                    }
                    if self.changes.is_empty() {
                        self.cursor = self.cursor.max(reached);
                    }
                }
                () = tokio::time::sleep_until(wake) => {
                    self.catch_up();
                    let now = tokio::time::Instant::now();
                    self.ended = now >= self.deadline;
                    if self.ended && !self.bookmarks {
                        return None;
                    }
                    self.next_bookmark = now + BOOKMARK_EVERY;
                    self.bookmark(false, out);
                    return Some(());
                }
                () = server.stop.cancelled() => return None,
                () = redefined(&self.served) => return None,
            }
        }
    }

    /// Writes a change as this watcher sees it: an object may enter and leave its selection. Says whether it sees any.
    async fn change(&mut self, c: &Change, out: &mut Vec<u8>) -> bool {
        let was = c.old.as_ref().filter(|o| self.filter.matches(o));
        let is = c.new.as_ref().filter(|o| self.filter.matches(o));
        let (event, o) = match (was, is) {
            (None, None) => return false,
            (None, Some(o)) => ("ADDED", o),
            (Some(_), Some(o)) => ("MODIFIED", o),
            (Some(o), None) => ("DELETED", o),
        };
        // What lies ready is only copied; the first line of a table is its watcher's own.
        if self.is_plain() && event != "DELETED" {
            line(event, &o.bytes, out);
            return true;
        }
        let columns = self.shape == Shape::Table && !self.columns_sent;
        let told = if columns {
            self.encode(event, o, c.revision).await
        } else {
            let form = Form {
                event,
                served: self.served.clone(),
                shape: self.shape,
                include: self.include,
                protobuf: self.protobuf,
                second: if self.shape == Shape::Table {
                    self.server.now().nanos() / 1_000_000_000
                } else {
                    0
                },
            };
            let once = c.told.once(&form);
            match once {
                Some(once) => once.get_or_try_init(|| self.encode(event, o, c.revision)).await.cloned(),
                None => self.encode(event, o, c.revision).await,
            }
        };
        self.columns_sent |= columns;
        match told {
            Ok(bytes) => out.extend_from_slice(&bytes),
            Err(e) => self.fail(&e, out),
        }
        true
    }

    /// Writes a line of the initial state.
    async fn tell(&mut self, event: &'static str, o: &Arc<Object>, out: &mut Vec<u8>) {
        if self.is_plain() {
            return line(event, &o.bytes, out);
        }
        let told = self.encode(event, o, o.revision).await;
        self.columns_sent = true;
        match told {
            Ok(bytes) => out.extend_from_slice(&bytes),
            Err(e) => self.fail(&e, out),
        }
    }

    /// Whether an object is told as it lies in the cache.
    fn is_plain(&self) -> bool {
        self.shape == Shape::Object && !self.protobuf && is_as_stored(&self.served)
    }

    fn fail(&mut self, e: &ApiError, out: &mut Vec<u8>) {
        self.ended = true;
        self.changes.clear();
        self.initial.clear();
        self.put(&json!({"type": "ERROR", "object": e.status()}), out);
    }

    /// An event in the form of this watch.
    async fn encode(&self, event: &str, o: &Arc<Object>, revision: u64) -> Result<Bytes> {
        let mut o = o.clone();
        if event == "DELETED" {
            // The last state that matched, at the revision that ended it.
            let mut v = o.value();
            object::metadata(&mut v).insert("resourceVersion".to_owned(), revision.to_string().into());
            o = Arc::new(Object::from_value(self.served.kind, &o.key, revision, &v));
        }
        if self.served.custom.as_ref().is_some_and(|held| held.custom.webhook.is_some()) {
            let converted = self.server.all_served(&self.served, vec![o.clone()]).await?;
            o = converted.into_iter().next().unwrap_or(o);
        }
        let mut out = Vec::new();
        let v = match self.shape {
            Shape::Object if !self.protobuf => {
                line(event, &render(&self.served, &o), &mut out);
                return Ok(out.into());
            }
            Shape::Metadata if !self.protobuf => {
                line(event, &render_metadata(&self.served, &o), &mut out);
                return Ok(out.into());
            }
            Shape::Object => render_value(&self.served, o.value()),
            Shape::Metadata => table::partial(render_value(&self.served, o.value())),
            Shape::Table => {
                let metadata = json!({"resourceVersion": o.revision.to_string()});
                let v = render_value(&self.served, o.value());
                let row = table::row(&self.served, v, self.include, self.server.now());
                table::table(&self.served, metadata, vec![row], !self.columns_sent)
            }
        };
        self.put(&json!({"type": event, "object": v}), &mut out);
        Ok(out.into())
    }

    /// Writes an event: a line of JSON or a frame.
    fn put(&self, event: &Value, out: &mut Vec<u8>) {
        if self.protobuf
            && let Some(frame) = apimachinery::protobuf::encode_event(event)
        {
            out.extend_from_slice(&frame);
            return;
        }
        out.extend_from_slice(event.to_string().as_bytes());
        out.push(b'\n');
    }

    fn bookmark(&self, end_of_state: bool, out: &mut Vec<u8>) {
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
        self.put(&json!({"type": "BOOKMARK", "object": object}), out);
    }
}

/// Writes a line around an object that is JSON already.
fn line(event: &str, object: &[u8], out: &mut Vec<u8>) {
    out.reserve(object.len() + 40);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(event.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Told;
    use crate::kinds;

    #[test]
    fn a_form_is_written_once() {
        let served = kinds::by_resource("", "pods").expect("pods are a kind");
        let form = |event, second| Form {
            event,
            served: served.clone(),
            shape: Shape::Table,
            include: Include::Metadata,
            protobuf: false,
            second,
        };
        let told = Told::default();
        let first = told.once(&form("ADDED", 0)).expect("there is room");
        first.set(Bytes::from_static(b"line")).expect("nobody wrote it");
        let again = told.once(&form("ADDED", 0)).expect("it is there");
        assert_eq!(again.get().map(|b| &b[..]), Some(&b"line"[..]));
        assert!(told.once(&form("DELETED", 0)).expect("there is room").get().is_none());
        for second in 1..100 {
            told.once(&form("ADDED", second));
        }
        assert!(told.once(&form("ADDED", 100)).is_none(), "forms are bounded");
        assert!(told.once(&form("ADDED", 0)).is_some());
    }
}
