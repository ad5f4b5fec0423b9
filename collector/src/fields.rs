//! A sender's object of fields as a record: what has a place of its own goes there, the rest becomes attributes.
//!
//! For receivers whose records have no schema: Elasticsearch's documents, Fluent's maps.

use serde_json::{Map, Value};
use signal::{AttributeValue, Attributes, LogRecord, Severity, Timestamp};

use crate::detect;
use crate::sender::exported;

/// Fields that hold the line itself, the first of them that is there.
const BODIES: [&str; 7] = ["message", "log", "msg", "@message", "MESSAGE", "event.original", "line"];
const TIMES: [&str; 2] = ["@timestamp", "timestamp"];
/// Attributes of one record; a document with more is cut, and says so.
const MOST_ATTRIBUTES: usize = 512;
/// Objects within objects; what is deeper is kept as JSON.
const DEEPEST: usize = 16;

/// A record, and the service that its fields name.
pub(crate) struct Taken {
    pub(crate) record: LogRecord,
    pub(crate) service: Option<String>,
}

/// `time` is what the protocol itself says; without it the fields' or `now`.
pub(crate) fn record(fields: Map<String, Value>, time: Option<Timestamp>, now: Timestamp) -> Taken {
    let mut flat = Flat::default();
    let whole = (!BODIES.iter().any(|b| fields.contains_key(*b)) && !has_original(&fields))
        .then(|| Value::Object(fields.clone()).to_string());
    for (name, value) in fields {
        flat.add(name, value, 0);
    }
    let mut taken = flat.all;
    let said = TIMES.iter().find_map(|n| Some((*n, time_of(find(&taken, n)?)?)));
    if let Some((name, _)) = said {
        taken.retain(|(n, _)| n != name);
    }
    let service = find(&taken, "service.name").map(text_of);
    let body = whole.unwrap_or_else(|| {
        let name = BODIES.iter().find(|n| find(&taken, n).is_some());
        let at = name.and_then(|name| taken.iter().position(|(n, _)| n == name));
        at.map(|i| text_of(&taken.remove(i).1)).unwrap_or_default()
    });
    let level = detect::LEVELS.iter().find_map(|n| find(&taken, n)).map(|v| detect::level(&text_of(v)));
    let time = time.or(said.map(|(_, t)| t)).or_else(|| detect::timestamp(&body));
    let mut record = LogRecord {
        timestamp: time.unwrap_or(now),
        severity: level.unwrap_or(Severity::UNSPECIFIED),
        body,
        ..LogRecord::default()
    };
    if let Some(id) = take(&mut taken, &detect::TRACE_IDS) {
        record.trace_id = id;
    }
    if let Some(id) = take(&mut taken, &detect::SPAN_IDS) {
        record.span_id = id;
    }
    if flat.cut {
        taken.push(("binnacle.truncated".to_owned(), true.into()));
    }
    record.attributes = Attributes(taken);
    detect::complete(&mut record);
    Taken { record, service }
}

/// Beats keep the line in `event.original` at times.
fn has_original(fields: &Map<String, Value>) -> bool {
    fields.get("event").is_some_and(|e| e.get("original").is_some())
}

fn find<'a>(all: &'a [(String, AttributeValue)], name: &str) -> Option<&'a AttributeValue> {
    all.iter().find(|(n, _)| n == name).map(|(_, v)| v)
}

fn text_of(v: &AttributeValue) -> String {
    v.to_string()
}

/// The first of these that can be read, taken out.
fn take<T: std::str::FromStr>(all: &mut Vec<(String, AttributeValue)>, names: &[&str]) -> Option<T> {
    for name in names {
        if let Some(i) = all.iter().position(|(n, _)| n == name)
            && let Ok(id) = text_of(&all[i].1).parse()
        {
            all.remove(i);
            return Some(id);
        }
    }
    None
}

/// ISO 8601 text, or a number of seconds, milliseconds, microseconds or nanoseconds since the epoch.
pub(crate) fn time_of(v: &AttributeValue) -> Option<Timestamp> {
    match v {
        AttributeValue::String(s) => {
            detect::iso(s).or_else(|| time_of(&AttributeValue::Double(s.parse().ok()?)))
        }
        AttributeValue::Int(n) => {
            let scale = match n.unsigned_abs() {
                0..100_000_000_000 => 1_000_000_000,
                100_000_000_000..100_000_000_000_000 => 1_000_000,
                100_000_000_000_000..100_000_000_000_000_000 => 1_000,
                _ => 1,
            };
            n.checked_mul(scale).map(Timestamp::from_nanos)
        }
        AttributeValue::Double(n) if n.is_finite() && n.abs() < 1e11 => {
            Some(Timestamp::from_nanos((n * 1e9) as i64))
        }
        AttributeValue::Double(n) if n.is_finite() => time_of(&AttributeValue::Int(*n as i64)),
        _ => None,
    }
}

#[derive(Default)]
struct Flat {
    all: Vec<(String, AttributeValue)>,
    cut: bool,
}

impl Flat {
    fn add(&mut self, name: String, value: Value, depth: usize) {
        let value = match value {
            Value::Null => return,
            Value::Object(o) if depth < DEEPEST && !o.is_empty() => {
                for (n, v) in o {
                    self.add(format!("{name}.{n}"), v, depth + 1);
                }
                return;
            }
            other => attribute(other),
        };
        if self.all.len() >= MOST_ATTRIBUTES {
            self.cut = true;
            return;
        }
        let name = exported(&name).unwrap_or(name);
        match self.all.iter_mut().find(|(n, _)| *n == name) {
            Some((_, v)) => *v = value,
            None => self.all.push((name, value)),
        }
    }
}

fn attribute(v: Value) -> AttributeValue {
    match v {
        Value::Bool(b) => b.into(),
        Value::String(s) => s.into(),
        Value::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(i), _) => i.into(),
            (None, Some(f)) => f.into(),
            (None, None) => n.to_string().into(),
        },
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(json: &str) -> Taken {
        let Ok(Value::Object(fields)) = serde_json::from_str(json) else { panic!("an object") };
        record(fields, None, Timestamp(7))
    }

    #[test]
    fn fields_find_their_places() {
        let t = taken(
            r#"{"@timestamp":"2026-11-23T10:11:12.5Z","message":"hi","log":{"level":"error","offset":12},"trace.id":
            "0af7651916cd43dd8448eb211c80319c","service":{"name":"web"},"namespace":"stolen","tags":["a"],"x":null}"#,
        );
        let r = t.record;
        assert_eq!((r.body.as_str(), r.severity, r.trace_id.is_valid()), ("hi", Severity::ERROR, true));
        assert_eq!(r.timestamp.nanos(), 1_795_428_672_500_000_000);
        assert_eq!(t.service.as_deref(), Some("web"));
        let names: Vec<&str> = r.attributes.iter().map(|(n, _)| n).collect();
        assert_eq!(names, ["log.level", "log.offset", "service.name", "exported_namespace", "tags"]);
        assert_eq!(r.attributes.get_str("tags"), Some(r#"["a"]"#));
    }

    #[test]
    fn an_object_without_a_message_is_its_own() {
        let r = taken(r#"{"a":1,"b":{"c":true}}"#).record;
        assert_eq!((r.body.as_str(), r.timestamp), (r#"{"a":1,"b":{"c":true}}"#, Timestamp(7)));
        assert_eq!(r.attributes.get("b.c"), Some(&AttributeValue::Bool(true)));
    }

    #[test]
    fn numbers_are_times_of_their_size() {
        let check =
            |n: i64, expect: i64| assert_eq!(time_of(&AttributeValue::Int(n)), Some(Timestamp(expect)));
        check(1_795_428_672, 1_795_428_672_000_000_000);
        check(1_795_428_672_123, 1_795_428_672_123_000_000);
        check(1_795_428_672_123_456, 1_795_428_672_123_456_000);
        check(1_795_428_672_123_456_789, 1_795_428_672_123_456_789);
    }

    #[test]
    fn a_very_wide_object_is_cut_and_says_so() {
        let many: Map<String, Value> = (0..600).map(|i| (format!("f{i}"), i.into())).collect();
        let r = record(many, None, Timestamp(1)).record;
        assert_eq!(r.attributes.0.len(), MOST_ATTRIBUTES + 1);
        assert_eq!(r.attributes.get("binnacle.truncated"), Some(&true.into()));
    }
}
