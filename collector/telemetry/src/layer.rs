//! A `tracing` layer that turns events into log records.

use std::cell::Cell;
use std::fmt::{self, Write as _};

use opentelemetry::trace::TraceContextExt;
use signal::{AttributeValue, Attributes, LogRecord, Severity, SpanId, TraceId};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::ship::{Item, Queue};

tokio::task_local! {
    /// Set while this task stores telemetry, so that storing a log line does not log (invariant 11).
    pub(crate) static SHIPPING: ();
}

thread_local! {
    /// Guards against an event that is emitted while an event is being recorded.
    static RECORDING: Cell<bool> = const { Cell::new(false) };
}

/// True where telemetry must not be emitted.
pub(crate) fn suppressed() -> bool {
    SHIPPING.try_with(|()| ()).is_ok()
}

pub(crate) struct LogLayer {
    pub(crate) queue: Queue,
    pub(crate) clock: signal::time::SharedClock,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _ctx: Context<'_, S>) {
        if suppressed() || RECORDING.replace(true) {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let (trace_id, span_id) = current_ids();
        let component = metadata.target().split("::").next().unwrap_or_default();
        fields.attributes.set("target", metadata.target());
        self.queue.send(Item::Log {
            component: component.to_owned(),
            record: LogRecord {
                timestamp: self.clock.now(),
                severity: severity(*metadata.level()),
                body: fields.message,
                attributes: fields.attributes,
                trace_id,
                span_id,
            },
        });
        RECORDING.set(false);
    }
}

fn current_ids() -> (TraceId, SpanId) {
    let context = tracing::Span::current().context();
    let span = context.span();
    let ids = span.span_context();
    (TraceId(ids.trace_id().to_bytes()), SpanId(ids.span_id().to_bytes()))
}

fn severity(level: Level) -> Severity {
    match level {
        Level::TRACE => Severity::TRACE,
        Level::DEBUG => Severity::DEBUG,
        Level::INFO => Severity::INFO,
        Level::WARN => Severity::WARN,
        Level::ERROR => Severity::ERROR,
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    attributes: Attributes,
}

impl Fields {
    fn set(&mut self, field: &Field, value: AttributeValue) {
        if field.name() == "message" {
            self.message = value.to_string();
        } else {
            self.attributes.set(field.name(), value);
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // Writing to a string fails only if the value's own Debug does.
        if write!(text, "{value:?}").is_err() {
            text.push_str("<unprintable>");
        }
        self.set(field, AttributeValue::String(text));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, i64::try_from(value).unwrap_or(i64::MAX).into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }
}
