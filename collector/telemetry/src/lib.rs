//! How our own process measures itself: its logs, spans and metrics go through the same engines as
//! everybody else's.
//!
//! Promises: emitting never blocks and never fails; what a full queue drops is counted by signal; storing
//! telemetry does not emit telemetry about itself (invariant 11).
//! Does not know: where things are stored. It hands [`signal::LogBatch`] and [`signal::SpanBatch`] to a
//! [`signal::Sink`]; metrics are pulled by the collector through [`metrics::encode`].
//!
//! The road: a `tracing` event → [`layer`] → bounded queue → [`ship`] → `Sink`. A `tracing` span →
//! OpenTelemetry SDK → [`spans`] → the same queue and shipper.
//!
//! Start reading at [`init`].

mod init;
mod layer;
mod line;
pub mod metrics;
pub mod propagation;
mod ship;
mod spans;
pub mod task;

pub use init::{Config, Telemetry, init};
