//! LogQL and TraceQL.
