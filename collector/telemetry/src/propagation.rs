//! Carries a trace across a boundary as W3C `traceparent` text: `00-<trace id>-<span id>-<flags>`.

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context, trace::TracerProvider as _};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Makes `span` a child of the context in `traceparent`. Text that is no traceparent changes nothing.
pub fn set_parent_from(span: &Span, traceparent: &str) {
    if let Some(context) = parse(traceparent) {
        // A span that no layer records (filtered out) has no context to set: nothing is lost then.
        drop(span.set_parent(Context::new().with_remote_span_context(context)));
    }
}

/// The context of the current span as `traceparent`, if it is recorded.
pub fn current_traceparent() -> Option<String> {
    traceparent_of(&Span::current())
}

/// The context of `span` as `traceparent`, if it is recorded.
pub fn traceparent_of(span: &Span) -> Option<String> {
    let context = span.context();
    let context = context.span().span_context().clone();
    context.is_valid().then(|| {
        format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8())
    })
}

/// The trace id within a `traceparent`, 32 hex digits.
pub fn trace_id(traceparent: &str) -> Option<signal::TraceId> {
    parse(traceparent).map(|c| signal::TraceId(c.trace_id().to_bytes()))
}

fn parse(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if version.len() != 2 || version == "ff" || trace.len() != 32 || span.len() != 16 || flags.len() != 2 {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

/// The tracer all spans of this process come from.
pub(crate) fn tracer(
    provider: &opentelemetry_sdk::trace::SdkTracerProvider,
) -> opentelemetry_sdk::trace::Tracer {
    provider.tracer("binnacle")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_traceparent_as_w3c_says() {
        let check = |s: &str, expect: bool| assert_eq!(parse(s).is_some(), expect, "{s}");
        check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", true);
        check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", true);
        check("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false);
        check("00-00000000000000000000000000000000-b7ad6b7169203331-01", false);
        check("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false);
        check("nonsense", false);
    }
}
