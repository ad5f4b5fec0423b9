//! Where the trace of a change travels.

/// The annotation that holds the W3C trace context of the change that last touched an object's desired state.
pub const TRACEPARENT_ANNOTATION: &str = "binnacle.io/traceparent";
