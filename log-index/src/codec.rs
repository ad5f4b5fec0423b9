//! Records as bytes: what a WAL frame, the head and a partition's blocks hold. Format: FORMAT.md, "Records".

use crate::column::ValueRef;
use crate::config::Kind;
use signal::{
    AttributeValue, Attributes, LogRecord, Span, SpanEvent, SpanId, SpanLink, SpanStatus, Timestamp, TraceId,
};
#[cfg(test)]
use signal::{Severity, SpanKind};

pub(crate) use wal::bytes::{get_bytes, get_uvarint, get_varint, put_bytes, put_uvarint, put_varint, take};

fn get_text(d: &mut &[u8]) -> Option<String> {
    std::str::from_utf8(get_bytes(d)?).ok().map(str::to_owned)
}

/// An attribute's value where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(&'a str),
}

fn put_value(out: &mut Vec<u8>, name: &str, value: Value<'_>) {
    put_bytes(out, name.as_bytes());
    match value {
        Value::Bool(v) => out.push(u8::from(v)),
        Value::Int(v) => {
            out.push(2);
            put_varint(out, v);
        }
        Value::Double(v) => {
            out.push(3);
            out.extend_from_slice(&v.to_bits().to_le_bytes());
        }
        Value::Text(v) => {
            out.push(4);
            put_bytes(out, v.as_bytes());
        }
    }
}

pub(crate) fn put_attributes(out: &mut Vec<u8>, a: &Attributes) {
    put_uvarint(out, a.0.len() as u64);
    for (name, value) in &a.0 {
        let value = match value {
            AttributeValue::Bool(v) => Value::Bool(*v),
            AttributeValue::Int(v) => Value::Int(*v),
            AttributeValue::Double(v) => Value::Double(*v),
            AttributeValue::String(v) => Value::Text(v),
        };
        put_value(out, name, value);
    }
}

pub(crate) fn put_attribute_refs(out: &mut Vec<u8>, all: &[(&str, ValueRef<'_>)]) {
    put_uvarint(out, all.len() as u64);
    for (name, value) in all {
        let value = match *value {
            ValueRef::Bool(v) => Value::Bool(v),
            ValueRef::Int(v) => Value::Int(v),
            ValueRef::Double(v) => Value::Double(v),
            ValueRef::Text(v) => Value::Text(v),
        };
        put_value(out, name, value);
    }
}

/// Each attribute in order. `None` if they are damaged, or if `each` says so.
pub(crate) fn visit_attributes<'a>(
    d: &mut &'a [u8],
    mut each: impl FnMut(&'a [u8], Value<'a>) -> Option<()>,
) -> Option<()> {
    for _ in 0..get_uvarint(d)? {
        let name = get_bytes(d)?;
        let value = match *take(d, 1)?.first()? {
            0 => Value::Bool(false),
            1 => Value::Bool(true),
            2 => Value::Int(get_varint(d)?),
            3 => Value::Double(f64::from_bits(u64::from_le_bytes(take(d, 8)?.try_into().ok()?))),
            4 => Value::Text(std::str::from_utf8(get_bytes(d)?).ok()?),
            _ => return None,
        };
        each(name, value)?;
    }
    Some(())
}

pub(crate) fn get_attributes(d: &mut &[u8]) -> Option<Attributes> {
    let mut a = Vec::new();
    visit_attributes(d, |name, value| {
        let value = match value {
            Value::Bool(v) => AttributeValue::Bool(v),
            Value::Int(v) => AttributeValue::Int(v),
            Value::Double(v) => AttributeValue::Double(v),
            Value::Text(v) => AttributeValue::String(v.to_owned()),
        };
        a.push((std::str::from_utf8(name).ok()?.to_owned(), value));
        Some(())
    })?;
    Some(Attributes(a))
}

/// Everything but the timestamp, which stands in a column of its own. The body comes first, so that a
/// substring can be looked for without decoding.
pub(crate) fn encode_log(r: &LogRecord, out: &mut Vec<u8>) {
    put_bytes(out, r.body.as_bytes());
    let has_trace = r.trace_id.is_valid() || r.span_id.is_valid();
    out.push(r.severity.0 & 0x1f | if has_trace { 0x80 } else { 0 });
    if has_trace {
        out.extend_from_slice(&r.trace_id.0);
        out.extend_from_slice(&r.span_id.0);
    }
    put_attributes(out, &r.attributes);
}

#[cfg(test)]
pub(crate) fn decode_log(timestamp: i64, mut d: &[u8]) -> Option<LogRecord> {
    let d = &mut d;
    let body = get_text(d)?;
    let flags = *take(d, 1)?.first()?;
    let (mut trace_id, mut span_id) = (TraceId::INVALID, SpanId::INVALID);
    if flags & 0x80 != 0 {
        trace_id = TraceId::from_slice(take(d, 16)?)?;
        span_id = SpanId::from_slice(take(d, 8)?)?;
    }
    let attributes = get_attributes(d)?;
    let severity = Severity(flags & 0x1f);
    Some(LogRecord { timestamp: Timestamp(timestamp), severity, body, attributes, trace_id, span_id })
}

/// Everything but the start, which stands in the column of timestamps.
pub(crate) fn encode_span(s: &Span, out: &mut Vec<u8>) {
    put_bytes(out, s.name.as_bytes());
    out.extend_from_slice(&s.trace_id.0);
    out.extend_from_slice(&s.span_id.0);
    out.extend_from_slice(&s.parent_span_id.0);
    out.push(s.kind as u8);
    put_varint(out, s.end.0.wrapping_sub(s.start.0));
    match &s.status {
        SpanStatus::Unset => out.push(0),
        SpanStatus::Ok => out.push(1),
        SpanStatus::Error(m) => {
            out.push(2);
            put_bytes(out, m.as_bytes());
        }
    }
    put_attributes(out, &s.attributes);
    put_events(out, &s.events, &s.links, s.start.0);
}

/// What a span has beside its columns.
pub(crate) fn put_events(out: &mut Vec<u8>, events: &[SpanEvent], links: &[SpanLink], start: i64) {
    put_uvarint(out, events.len() as u64);
    for e in events {
        put_varint(out, e.timestamp.0.wrapping_sub(start));
        put_bytes(out, e.name.as_bytes());
        put_attributes(out, &e.attributes);
    }
    put_uvarint(out, links.len() as u64);
    for l in links {
        out.extend_from_slice(&l.trace_id.0);
        out.extend_from_slice(&l.span_id.0);
        put_attributes(out, &l.attributes);
    }
}

pub(crate) fn get_events(d: &mut &[u8], start: i64) -> Option<(Vec<SpanEvent>, Vec<SpanLink>)> {
    let mut events = Vec::new();
    for _ in 0..get_uvarint(d)? {
        let timestamp = Timestamp(start.wrapping_add(get_varint(d)?));
        events.push(SpanEvent { timestamp, name: get_text(d)?, attributes: get_attributes(d)? });
    }
    let mut links = Vec::new();
    for _ in 0..get_uvarint(d)? {
        links.push(SpanLink {
            trace_id: TraceId::from_slice(take(d, 16)?)?,
            span_id: SpanId::from_slice(take(d, 8)?)?,
            attributes: get_attributes(d)?,
        });
    }
    Some((events, links))
}

#[cfg(test)]
pub(crate) fn decode_span(start: i64, mut d: &[u8]) -> Option<Span> {
    let d = &mut d;
    let name = get_text(d)?;
    let trace_id = TraceId::from_slice(take(d, 16)?)?;
    let span_id = SpanId::from_slice(take(d, 8)?)?;
    let parent_span_id = SpanId::from_slice(take(d, 8)?)?;
    let kind = SpanKind::from_number(i32::from(*take(d, 1)?.first()?));
    let end = Timestamp(start.wrapping_add(get_varint(d)?));
    let status = match *take(d, 1)?.first()? {
        0 => SpanStatus::Unset,
        1 => SpanStatus::Ok,
        2 => SpanStatus::Error(get_text(d)?),
        _ => return None,
    };
    let attributes = get_attributes(d)?;
    let (events, links) = get_events(d, start)?;
    let start = Timestamp(start);
    Some(Span {
        trace_id,
        span_id,
        parent_span_id,
        name,
        kind,
        start,
        end,
        status,
        attributes,
        events,
        links,
    })
}

/// A log record's body, or a span's name, without decoding the rest.
pub(crate) fn text(mut d: &[u8]) -> &[u8] {
    get_bytes(&mut d).unwrap_or(&[])
}

/// Whether the bytes are a record, every part of it.
pub(crate) fn is_record(kind: Kind, mut d: &[u8]) -> bool {
    let d = &mut d;
    let text = |d: &mut &[u8]| std::str::from_utf8(get_bytes(d)?).ok().map(drop);
    let attributes = |d: &mut &[u8]| visit_attributes(d, |name, _| std::str::from_utf8(name).ok().map(drop));
    let whole = (|| {
        text(d)?;
        match kind {
            Kind::Logs => {
                if take(d, 1)?.first()? & 0x80 != 0 {
                    take(d, 24)?;
                }
                attributes(d)?;
            }
            Kind::Spans => {
                take(d, 33)?;
                get_varint(d)?;
                match *take(d, 1)?.first()? {
                    0 | 1 => {}
                    2 => text(d)?,
                    _ => return None,
                }
                attributes(d)?;
                get_events(d, 0)?;
            }
        }
        d.is_empty().then_some(())
    })();
    whole.is_some()
}

/// A span's trace, without decoding the rest.
pub(crate) fn trace_of_span(mut d: &[u8]) -> Option<[u8; 16]> {
    get_bytes(&mut d)?;
    take(&mut d, 16)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attributes() -> impl Strategy<Value = Attributes> {
        let value = prop_oneof![
            any::<bool>().prop_map(AttributeValue::Bool),
            any::<i64>().prop_map(AttributeValue::Int),
            (-1e9..1e9f64).prop_map(AttributeValue::Double),
            ".{0,20}".prop_map(AttributeValue::String),
        ];
        proptest::collection::vec(("[a-z.]{1,8}", value), 0..5).prop_map(Attributes)
    }

    proptest! {
        #[test]
        fn logs_round_trip(t in any::<i64>(), body in ".{0,80}", sev in 0..25u8, trace in any::<[u8; 16]>(), a in attributes()) {
            let r = LogRecord {
                timestamp: Timestamp(t), severity: Severity(sev), body, attributes: a,
                trace_id: TraceId(trace), span_id: SpanId([7; 8]),
            };
            let mut encoded = Vec::new();
            encode_log(&r, &mut encoded);
            prop_assert_eq!(text(&encoded), r.body.as_bytes());
            prop_assert!(is_record(Kind::Logs, &encoded));
            prop_assert_eq!(decode_log(t, &encoded), Some(r));
        }

        #[test]
        fn spans_round_trip(t in any::<i64>(), d in any::<i64>(), name in ".{0,20}", a in attributes(), message in ".{0,9}") {
            let s = Span {
                trace_id: TraceId([1; 16]), span_id: SpanId([2; 8]), parent_span_id: SpanId::INVALID, name,
                kind: SpanKind::Server, start: Timestamp(t), end: Timestamp(t.wrapping_add(d)),
                status: SpanStatus::Error(message), attributes: a.clone(),
                events: vec![SpanEvent { timestamp: Timestamp(t), name: "e".into(), attributes: a.clone() }],
                links: vec![SpanLink { trace_id: TraceId([3; 16]), span_id: SpanId([4; 8]), attributes: a }],
            };
            let mut encoded = Vec::new();
            encode_span(&s, &mut encoded);
            prop_assert!(is_record(Kind::Spans, &encoded));
            prop_assert_eq!(trace_of_span(&encoded), Some(s.trace_id.0));
            prop_assert_eq!(decode_span(t, &encoded), Some(s));
        }

        #[test]
        fn any_bytes_are_refused_or_read(d in proptest::collection::vec(any::<u8>(), 0..200)) {
            decode_log(0, &d);
            decode_span(0, &d);
            is_record(Kind::Logs, &d);
            is_record(Kind::Spans, &d);
        }
    }
}
