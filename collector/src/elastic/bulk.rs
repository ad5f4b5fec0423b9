//! A bulk request: pairs of an action and its document, one per line, and an answer for each.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use signal::time::Clock;
use signal::{Identity, Labels, LogBatch, LogRecord, LogStream};

use crate::answer::Refused;
use crate::{fields, sender};

/// Items of one request; each is answered, so they are bounded like the body.
const MOST_ITEMS: usize = 500_000;

/// One action, and what became of it.
pub(super) struct Item {
    action: &'static str,
    index: String,
    id: Option<String>,
    document: Option<Map<String, Value>>,
    pub(super) refused: Option<Refusal>,
}

pub(super) struct Refusal {
    status: u16,
    kind: &'static str,
    reason: String,
}

impl Item {
    pub(super) fn new(
        action: &'static str,
        index: String,
        id: Option<String>,
        document: Option<&[u8]>,
    ) -> Item {
        let mut item = Item { action, index, id, document: None, refused: None };
        match document.map(serde_json::from_slice::<Value>) {
            Some(Ok(Value::Object(o))) => item.document = Some(o),
            Some(Ok(_)) => {
                item.refuse(400, "document_parsing_exception", "a document is a JSON object".to_owned())
            }
            Some(Err(e)) => item.refuse(400, "document_parsing_exception", format!("failed to parse: {e}")),
            None => {}
        }
        item
    }

    fn refuse(&mut self, status: u16, kind: &'static str, reason: String) {
        self.refused = Some(Refusal { status, kind, reason });
    }

    pub(super) fn status(&self) -> StatusCode {
        let code = self.refused.as_ref().map_or(201, |r| r.status);
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// What is said of this item, without its action.
    pub(super) fn body(&self) -> Value {
        match &self.refused {
            Some(r) => json!({"_index": self.index, "_id": self.id, "status": r.status,
                "error": {"type": r.kind, "reason": r.reason}}),
            None => json!({"_index": self.index, "_id": self.id, "_version": 1, "result": "created",
                "_shards": {"total": 1, "successful": 1, "failed": 0}, "_seq_no": 0, "_primary_term": 1, "status": 201}),
        }
    }

    pub(super) fn answer(&self) -> Value {
        let mut o = Map::new();
        o.insert(self.action.to_owned(), self.body());
        Value::Object(o)
    }
}

/// The request's items; an error if its form is wrong, with which nothing is stored.
pub(super) fn parse(body: &[u8], index: Option<&str>) -> Result<Vec<Item>, Refused> {
    if !body.is_empty() && !body.ends_with(b"\n") {
        return Err(Refused::bad("The bulk request must be terminated by a newline [\\n]"));
    }
    let mut lines = body.split(|b| *b == b'\n').enumerate().filter(|(_, l)| !l.trim_ascii().is_empty());
    let mut items = Vec::new();
    while let Some((n, line)) = lines.next() {
        if items.len() >= MOST_ITEMS {
            return Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, format!("more than {MOST_ITEMS} items")));
        }
        let malformed =
            |what: &str| Refused::bad(format!("Malformed action/metadata line [{}], {what}", n + 1));
        let head: Map<String, Value> = serde_json::from_slice(line).map_err(|e| malformed(&e.to_string()))?;
        let (action, meta) = match head.iter().next() {
            Some((a, m)) if head.len() == 1 => (a.as_str(), m),
            _ => return Err(malformed("expected one action")),
        };
        let text =
            |name: &str| meta.get(name).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
        let index = text("_index").or_else(|| index.map(str::to_owned));
        let id = text("_id");
        let action = match action {
            "index" => "index",
            "create" => "create",
            "update" => "update",
            "delete" => "delete",
            other => {
                return Err(malformed(&format!(
                    "expected field [create], [delete], [index] or [update] but found [{other}]"
                )));
            }
        };
        let document = match action {
            "delete" => None,
            _ => Some(lines.next().ok_or_else(|| malformed("its document is missing"))?.1),
        };
        let named = index.is_some();
        let document = document.filter(|_| named && matches!(action, "index" | "create"));
        let mut item = Item::new(action, index.unwrap_or_default(), id, document);
        if !named {
            item.refuse(
                400,
                "action_request_validation_exception",
                "Validation Failed: 1: index is missing;".to_owned(),
            );
        } else if matches!(action, "update" | "delete") {
            let why = format!("what was logged is not changed: [{action}] is not served, use create");
            item.refuse(400, "illegal_argument_exception", why);
        }
        items.push(item);
    }
    if items.is_empty() {
        return Err(Refused::bad("Validation Failed: 1: no requests added;"));
    }
    Ok(items)
}

/// The documents as records, a stream for each index and service. Items get ids where they have none.
pub(super) fn batch(items: &mut [Item], identity: &Identity, clock: &dyn Clock) -> LogBatch {
    let now = clock.now();
    let mut streams: BTreeMap<(String, Option<String>), Vec<LogRecord>> = BTreeMap::new();
    for (n, item) in items.iter_mut().enumerate() {
        let Some(document) = item.document.take() else { continue };
        let mut taken = fields::record(document, None, now);
        match &item.id {
            Some(id) => taken.record.attributes.set("_id", id.as_str()),
            None => item.id = Some(format!("{:x}-{n:x}", now.nanos())),
        }
        streams.entry((item.index.clone(), taken.service)).or_default().push(taken.record);
    }
    let labels = |index: &str, service: Option<&str>| -> Labels {
        sender::stream(identity, service.or(Some(index))).set("index", index).build()
    };
    let streams = streams
        .into_iter()
        .map(|((index, service), records)| LogStream { labels: labels(&index, service.as_deref()), records });
    LogBatch { streams: streams.collect(), checkpoints: Vec::new() }
}

/// The store took only a part and does not say which: none of them is confirmed.
pub(super) fn reject(items: &mut [Item], reason: &str) {
    for item in items.iter_mut().filter(|i| i.refused.is_none()) {
        item.refuse(400, "illegal_argument_exception", reason.to_owned());
    }
}
