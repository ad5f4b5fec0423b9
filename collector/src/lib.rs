//! The ground floor: receives, enriches and hands on telemetry.
//!
//! Promises: what a receiver acknowledges a [`signal::Sink`] has made durable; identity labels come from
//! the sender's address, never from its payload (invariant 9); every body and queue has a bound.
//! Does not know: Kubernetes. Targets and identities come as [`signal::Registry`] and
//! [`signal::Identities`], filled by `discovery` and `kubelet`.
//!
//! The road of a sample: [`scrape`] (`fetch`) → [`exposition`] → [`scrape`] (`intake`), or [`cgroup`], or [`machine`], or [`otlp`] → `Sink`. The road of a log
//! line: [`logfile`] → [`line`] → `Sink`, its checkpoint in the same batch; from senders [`otlp`], [`elastic`],
//! [`syslog`] or [`fluent`] → [`fields`], [`detect`] → `Sink`. The road of a span: [`otlp`] or [`zipkin`] → `Sink`.
//! Between receivers and `Sink` stand the processors: [`process`]. What is stored goes on to others by [`forward`].
//! What all doors share: [`sender`] (who sends), [`answer`] (what HTTP senders are told), [`listen`].
//!
//! Tasks: one per scrape target, one per container log, one for all cgroups, one for the machine, one for our own metrics;
//! one per connection of syslog and Fluent; HTTP and gRPC connections are served by axum and tonic.

mod answer;
pub mod cgroup;
mod detect;
pub mod elastic;
mod encode;
pub mod exposition;
mod fields;
pub mod fluent;
pub mod forward;
#[cfg(test)]
mod kept;
mod line;
mod listen;
pub mod logfile;
pub mod machine;
mod metrics;
pub mod otlp;
pub mod own;
pub mod process;
pub mod scrape;
mod sender;
pub mod syslog;
pub mod zipkin;

pub use answer::prompt;
pub use sender::Senders;

/// Checkpoints of sources that begin so are idempotency keys: they need not be kept as long as files' positions.
pub const ONCE: &str = "once/";
