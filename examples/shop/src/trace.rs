//! Spans over OTLP/HTTP as JSON, in small batches; a full queue drops them, since a shop must sell first.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::state::Shop;

/// A place in a trace.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) trace: String,
    pub(crate) span: String,
    pub(crate) parent: String,
}

impl Context {
    /// Continues the trace of a `traceparent` header, or begins one.
    pub(crate) fn continue_from(header: Option<&str>) -> Context {
        let parts: Vec<&str> = header.unwrap_or_default().split('-').collect();
        let (trace, parent) = match parts.as_slice() {
            [_, trace, span, _] if trace.len() == 32 && span.len() == 16 => {
                ((*trace).to_owned(), (*span).to_owned())
            }
            _ => (format!("{:032x}", rand::random::<u128>() | 1), String::new()),
        };
        Context { trace, span: format!("{:016x}", rand::random::<u64>() | 1), parent }
    }

    pub(crate) fn header(&self) -> String {
        format!("00-{}-{}-01", self.trace, self.span)
    }
}

pub(crate) type Spans = mpsc::Sender<Value>;

/// A finished span as OTLP JSON.
pub(crate) fn span(
    c: &Context,
    name: &str,
    start: u64,
    end: u64,
    ok: bool,
    attributes: &[(&str, &str)],
) -> Value {
    let attributes: Vec<Value> =
        attributes.iter().map(|(k, v)| json!({"key": k, "value": {"stringValue": v}})).collect();
    json!({"traceId": c.trace, "spanId": c.span, "parentSpanId": c.parent, "name": name, "kind": 2,
        "startTimeUnixNano": start.to_string(), "endTimeUnixNano": end.to_string(),
        "status": {"code": if ok { 1 } else { 2 }}, "attributes": attributes})
}

pub(crate) fn start(shop: Arc<Shop>) -> Spans {
    let (sender, mut receiver) = mpsc::channel(1000);
    #[expect(clippy::disallowed_methods, reason = "a program of its own, outside the house")]
    tokio::spawn(async move {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let mut batch = Vec::new();
        while receiver.recv_many(&mut batch, 200).await > 0 {
            // Others join while these wait.
            tokio::time::sleep(Duration::from_millis(100)).await;
            while let Ok(span) = receiver.try_recv() {
                batch.push(span);
            }
            let spans = std::mem::take(&mut batch);
            if shop.otlp.is_empty() {
                continue;
            }
            let service = json!([{"key": "service.name", "value": {"stringValue": shop.role}}]);
            let body = json!({"resourceSpans": [{"resource": {"attributes": service},
                "scopeSpans": [{"scope": {"name": "shop"}, "spans": spans}]}]});
            let request = http::Request::post(format!("{}/v1/traces", shop.otlp))
                .header("content-type", "application/json")
                .body(Full::new(Bytes::from(body.to_string())));
            let sent = match request {
                Ok(r) => client.request(r).await.map(|r| r.status().to_string()).map_err(|e| e.to_string()),
                Err(e) => Err(e.to_string()),
            };
            match sent {
                Ok(status) if status.starts_with('2') => {}
                Ok(why) | Err(why) => shop.log("warn", "spans not sent", &[("error", json!(why))]),
            }
        }
    });
    sender
}
