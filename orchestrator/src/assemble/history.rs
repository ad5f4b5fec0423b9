//! The cluster's past: every revision of every object is written down for as long as logs are kept, so that one can ask
//! what was when. Events are log records besides.
//!
//! The index is one of its own, which LogQL does not reach: who may read logs may not read all objects.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use apiserver::{ApiServer, EventArchive, Op, PastEvent, PastEvents, Revision};
use log_index::{Direction, LogIndex, Search};
use serde_json::Value;
use signal::time::SharedClock;
use signal::{
    Attributes, Checkpoint, Labels, LogBatch, LogRecord, LogStream, Matcher, Severity, SinkError, Timestamp,
};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::engines::Engines;
use super::{Shared, SharedSink};

/// Names this reader for ever: the position is a revision of the store.
const SOURCE: &str = "cluster-store";
/// The position is when all objects were last written down, in seconds since 1970.
const PRESENT: &str = "cluster-present";
/// All objects are written down so often: what does not change for long would leave with its last change.
const PRESENT_EVERY: Duration = Duration::from_secs(86_400);
/// Before what failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// From one writing to the next.
const LINGER: Duration = Duration::from_millis(20);
/// Longer objects are kept without what is in them: a record has a bound.
const OBJECT_BYTES: usize = 250 << 10;
/// The label of streams that hold deletions, which are looked for apart.
pub(crate) const GONE: &str = "gone";
/// The attribute with the object's name. It was a label before: see [`name_of`].
const NAME: &str = "name";
/// Revisions of past events that a list of events looks through.
const REVISIONS: usize = 10_000;

/// Who writes.
struct Historian {
    server: Arc<ApiServer>,
    index: Arc<LogIndex>,
    sink: SharedSink,
    clock: SharedClock,
}

/// What goes wrong, and whether the store has forgotten what comes next.
enum Trouble {
    Forgotten(String),
    Other(String),
}

impl From<store::Error> for Trouble {
    fn from(e: store::Error) -> Self {
        match e {
            store::Error::Compacted { .. } => Trouble::Forgotten(e.to_string()),
            e => Trouble::Other(e.to_string()),
        }
    }
}

impl From<SinkError> for Trouble {
    fn from(e: SinkError) -> Self {
        Trouble::Other(e.to_string())
    }
}

/// Keeps the index, and writes into it.
pub(super) fn start(shared: &Shared, server: Arc<ApiServer>, engines: &Engines, threads: &Handle) {
    let _inside = threads.enter();
    let historian = Historian {
        server,
        index: engines.history.clone(),
        sink: engines.sink.clone(),
        clock: shared.clock.clone(),
    };
    telemetry::task::spawn("history-index", engines.history.clone().run(shared.stop.clone()));
    telemetry::task::spawn("history", historian.run(shared.stop.clone()));
}

impl Historian {
    /// Writes until `stop`. Nothing is lost if it is late: the store keeps minutes of changes, and after that all objects
    /// are written down anew.
    async fn run(self, stop: CancellationToken) {
        loop {
            let result = tokio::select! {
                () = stop.cancelled() => return,
                r = self.follow() => r,
            };
            match result {
                Err(_) if stop.is_cancelled() => return,
                Ok(()) => continue,
                Err(Trouble::Forgotten(why)) => {
                    tracing::warn!(why, "changes of objects were missed: all objects are written down");
                    if let Err(Trouble::Forgotten(e) | Trouble::Other(e)) = self.write_present().await {
                        tracing::warn!(
                            error = e,
                            "the cluster's objects could not be written down, will be tried again"
                        );
                    }
                }
                Err(Trouble::Other(e)) => {
                    tracing::warn!(
                        error = e,
                        "the cluster's history could not be written, will be tried again"
                    );
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    async fn follow(&self) -> Result<(), Trouble> {
        let now = self.clock.now();
        let last =
            self.index.checkpoint(PRESENT).map(|s| Timestamp::from_secs(s.try_into().unwrap_or(i64::MAX)));
        let due = last.map(|t| t.saturating_add(PRESENT_EVERY));
        let Some(due) = due.filter(|t| *t > now && self.index.checkpoint(SOURCE).is_some()) else {
            return self.write_present().await;
        };
        let mut changes = self.server.follow(self.index.checkpoint(SOURCE).unwrap_or(0));
        let wait = Duration::from_nanos((due.nanos() - now.nanos()).try_into().unwrap_or(0));
        let until = tokio::time::sleep(wait);
        tokio::pin!(until);
        loop {
            let all = tokio::select! {
                () = &mut until => return Ok(()),
                r = changes.next() => r?,
            };
            if !all.is_empty() {
                self.write(&all, changes.revision()).await?;
                // Many changes are written together: nobody waits for them here.
                tokio::time::sleep(LINGER).await;
            }
        }
    }

    async fn write(&self, all: &[Revision], revision: u64) -> Result<(), Trouble> {
        let now = self.clock.now();
        let events: Vec<LogStream> = all.iter().filter_map(|r| event(r, now)).collect();
        let position = |source: &str| Checkpoint { source: source.to_owned(), position: revision };
        if !events.is_empty() {
            let batch = LogBatch { streams: merged(events), checkpoints: vec![position("cluster-events")] };
            self.sink.write_logs(batch).await?;
        }
        let streams = merged(all.iter().map(|r| stream(r, now)).collect());
        self.index.append_logs(LogBatch { streams, checkpoints: vec![position(SOURCE)] }).await?;
        Ok(())
    }

    /// Writes down all objects, kind by kind, and goes on from there.
    async fn write_present(&self) -> Result<(), Trouble> {
        let (revision, now) = (self.server.revision(), self.clock.now());
        let mut number = 0;
        while let Some(all) = self.server.present(number, revision).await? {
            let streams: Vec<LogStream> = all.iter().map(|r| stream(r, now)).collect();
            if !streams.is_empty() {
                self.index.append_logs(LogBatch { streams, checkpoints: Vec::new() }).await?;
            }
            number += 1;
        }
        let seconds = u64::try_from(now.nanos() / 1_000_000_000).unwrap_or(0);
        let done = |source: &str, position| Checkpoint { source: source.to_owned(), position };
        let checkpoints = vec![done(SOURCE, revision), done(PRESENT, seconds)];
        self.index.append_logs(LogBatch { streams: Vec::new(), checkpoints }).await?;
        Ok(())
    }
}

/// Records of one stream together.
fn merged(all: Vec<LogStream>) -> Vec<LogStream> {
    let mut out: Vec<LogStream> = Vec::new();
    let mut at: HashMap<Labels, usize> = HashMap::new();
    for s in all {
        match at.get(&s.labels).and_then(|i| out.get_mut(*i)) {
            Some(known) => known.records.extend(s.records),
            None => {
                at.insert(s.labels.clone(), out.len());
                out.push(s);
            }
        }
    }
    out
}

/// A revision as a record, in the stream of its kind and namespace: objects come and go, and a stream for each would be
/// many of one record.
fn stream(r: &Revision, now: Timestamp) -> LogStream {
    let mut body = r.object.clone().unwrap_or_default();
    if body.len() > OBJECT_BYTES {
        body = serde_json::json!({"apiVersion": r.api_version, "kind": r.kind, "metadata": {
            "name": r.name, "namespace": r.namespace, "uid": r.uid,
            "annotations": {"binnacle.io/truncated": format!("{} bytes", body.len())}}})
        .to_string();
    }
    let attributes: Attributes = [
        (NAME, r.name.as_str()),
        ("op", r.op.as_str()),
        ("api_version", r.api_version.as_str()),
        ("uid", r.uid.as_str()),
        ("resource_version", r.revision.to_string().as_str()),
    ]
    .into_iter()
    .collect();
    let gone = if r.op == Op::Deleted { "true" } else { "" };
    let labels = [("kind", r.kind), ("namespace", r.namespace.as_str()), (GONE, gone)];
    LogStream {
        labels: Labels::from_pairs(labels.into_iter().filter(|(_, v)| !v.is_empty())),
        records: vec![LogRecord { timestamp: now, body, attributes, ..LogRecord::default() }],
    }
}

/// A Kubernetes event as a log record, each time it is seen.
fn event(r: &Revision, now: Timestamp) -> Option<LogStream> {
    let o = r.object.as_ref().filter(|_| r.kind == "Event" && matches!(r.op, Op::Added | Op::Modified))?;
    let o: Value = serde_json::from_str(o).ok()?;
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let about = &o["involvedObject"];
    let component = match text(&o["source"]["component"]) {
        c if c.is_empty() => text(&o["reportingComponent"]),
        c => c,
    };
    let mut attributes = Attributes::default();
    for (name, value) in [
        ("type", text(&o["type"])),
        ("reason", text(&o["reason"])),
        ("object_kind", text(&about["kind"])),
        ("object_name", text(&about["name"])),
        ("object_uid", text(&about["uid"])),
        ("name", r.name.clone()),
    ] {
        attributes.set(name, value);
    }
    if let Some(count) = o["series"]["count"].as_i64().or(o["count"].as_i64()) {
        attributes.set("count", count);
    }
    let warning = o["type"].as_str() == Some("Warning");
    let labels = [
        ("record", "event"),
        ("namespace", r.namespace.as_str()),
        ("component", component.as_str()),
        ("service_name", if component.is_empty() { "events" } else { component.as_str() }),
    ];
    let record = LogRecord {
        timestamp: now,
        severity: if warning { Severity::WARN } else { Severity::INFO },
        body: text(&o["message"]),
        attributes,
        ..LogRecord::default()
    };
    let labels = Labels::from_pairs(labels.into_iter().filter(|(_, v)| !v.is_empty()));
    Some(LogStream { labels, records: vec![record] })
}

/// The name of the object that a record is of.
pub(crate) fn name_of<'a>(labels: &'a Labels, record: &'a LogRecord) -> &'a str {
    record.attributes.get_str(NAME).or_else(|| labels.get(NAME)).unwrap_or_default()
}

/// Past events for the API's lists.
pub(super) fn past_events(index: Arc<LogIndex>, clock: SharedClock) -> EventArchive {
    Arc::new(move |wanted: PastEvents| {
        let (index, clock) = (index.clone(), clock.clone());
        Box::pin(async move {
            let found = tokio::task::spawn_blocking(move || find_events(&index, &wanted, clock.now()));
            found.await.map_err(|e| e.to_string())?
        })
    })
}

/// The newest revisions, and with them when the event was deleted.
fn find_events(index: &LogIndex, wanted: &PastEvents, now: Timestamp) -> Result<Vec<PastEvent>, String> {
    let mut matchers = vec![Matcher::equal("kind", "Event")];
    matchers.extend(wanted.namespace.as_deref().map(|n| Matcher::equal("namespace", n)));
    let end = now.saturating_add(Duration::from_secs(3600));
    let key = |l: &Labels, r: &LogRecord| Some((l.get("namespace")?.to_owned(), name_of(l, r).to_owned()));
    let mut deleted: HashMap<(String, String), Timestamp> = HashMap::new();
    let search = |gone: &str| {
        let own = matchers.iter().cloned().chain([Matcher::equal(GONE, gone)]);
        Search::new(own.collect(), Timestamp(i64::MIN), end)
    };
    let all = |labels: &Labels, records: Vec<LogRecord>| {
        for r in records {
            if let Some(key) = key(labels, &r) {
                let known = deleted.entry(key).or_insert(r.timestamp);
                *known = r.timestamp.max(*known);
            }
        }
        ControlFlow::Continue(())
    };
    index.scan(&search("true"), all).map_err(|e| e.to_string())?;
    let mut search = search("");
    search.direction = Direction::Backward;
    search.needles.extend(wanted.holds.clone());
    let revision = |labels: &Labels, r: LogRecord| {
        let key = key(labels, &r)?;
        deleted.contains_key(&key).then_some((key, r.body))
    };
    let found = index.search(&search, REVISIONS, revision).map_err(|e| e.to_string())?;
    let mut seen = HashSet::new();
    let newest = found.into_iter().map(|(_, r)| r).filter(|(key, _)| seen.insert(key.clone()));
    let event = |(key, body): ((String, String), String)| {
        Some(PastEvent { object: serde_json::from_str(&body).ok()?, deleted: deleted.get(&key).copied() })
    };
    Ok(newest.filter_map(event).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn revision(n: u64, op: Op, name: &str, object: Option<Value>) -> Revision {
        let api_version = "v1".to_owned();
        let (namespace, name) = ("shop".to_owned(), name.to_owned());
        let uid = object.as_ref().map(|_| format!("u-{name}")).unwrap_or_default();
        let object = object.map(|o| o.to_string());
        Revision { revision: n, op, api_version, kind: "Event", namespace, name, object, uid }
    }

    fn backoff(name: &str, count: i64) -> Option<Value> {
        Some(
            json!({"metadata": {"name": name, "namespace": "shop", "uid": format!("u-{name}")}, "type": "Warning",
            "reason": "BackOff", "message": "again", "count": count, "source": {"component": "kubelet"},
            "involvedObject": {"kind": "Pod", "name": "web-0", "uid": "pod-1"}}),
        )
    }

    #[tokio::test]
    async fn forgotten_events_are_found_with_their_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = log_index::Config::new(dir.path(), log_index::Kind::Logs);
        let index = LogIndex::open(config).expect("opens");
        let now = signal::time::now();
        let ago = |minutes: u64| now.saturating_sub(Duration::from_secs(60 * minutes));
        let all = [
            (ago(50), revision(1, Op::Added, "a", backoff("a", 1))),
            (ago(40), revision(2, Op::Modified, "a", backoff("a", 2))),
            (ago(30), revision(3, Op::Added, "b", backoff("b", 1))),
            (ago(20), revision(4, Op::Deleted, "a", None)),
        ];
        for (when, r) in &all {
            let batch = LogBatch { streams: vec![stream(r, *when)], checkpoints: Vec::new() };
            index.append_logs(batch).await.expect("appended");
        }
        // One that is still there is not past.
        let find = |holds: Option<&str>| {
            let wanted = PastEvents { namespace: Some("shop".to_owned()), holds: holds.map(str::to_owned) };
            find_events(&index, &wanted, now).expect("found")
        };
        let found = find(None);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].object["count"].as_i64(), found[0].deleted), (Some(2), Some(ago(20))));
        assert_eq!((find(Some("pod-1")).len(), find(Some("pod-2")).len()), (1, 0));
        let other = PastEvents { namespace: Some("bank".to_owned()), holds: None };
        assert!(find_events(&index, &other, now).expect("found").is_empty());
    }

    #[test]
    fn a_kind_and_a_namespace_are_a_stream_whatever_objects_there_are() {
        let now = signal::time::now();
        let all = ["a", "b"].map(|n| stream(&revision(1, Op::Added, n, backoff(n, 1)), now));
        let streams = merged(all.into());
        assert_eq!(streams.len(), 1, "{streams:?}");
        let names: Vec<&str> = streams[0].records.iter().map(|r| name_of(&streams[0].labels, r)).collect();
        assert_eq!(names, ["a", "b"]);
        // As it was written before.
        let (labels, record) = (Labels::from_pairs([("kind", "Event"), ("name", "c")]), LogRecord::default());
        assert_eq!(name_of(&labels, &record), "c");
    }

    #[test]
    fn an_event_is_a_log_record_each_time_it_is_seen() {
        let now = signal::time::now();
        let s = event(&revision(2, Op::Modified, "a", backoff("a", 2)), now).expect("a record");
        assert_eq!((s.labels.get("record"), s.labels.get("component")), (Some("event"), Some("kubelet")));
        let r = &s.records[0];
        assert_eq!((r.severity, r.body.as_str()), (Severity::WARN, "again"));
        assert_eq!(r.attributes.get_str("object_name"), Some("web-0"));
        assert!(event(&revision(3, Op::Present, "a", backoff("a", 2)), now).is_none());
        assert!(event(&revision(4, Op::Deleted, "a", None), now).is_none());
    }
}
