//! The ground floor: receives, enriches and hands on telemetry.
//!
//! Promises: what a receiver acknowledges a [`signal::Sink`] has made durable; identity labels come from
//! the sender's address, never from its payload (invariant 9); every body and queue has a bound.
//! Does not know: Kubernetes. Targets and identities come as [`signal::Registry`] and
//! [`signal::Identities`], filled by `discovery` and `kubelet`.
//!
//! The road of a sample: [`scrape`] (`fetch`) → [`exposition`] → [`scrape`] (`intake`), or [`cgroup`], or [`machine`], or [`otlp`] → `Sink`. The road of a log
//! line: [`logfile`] → [`line`] → `Sink`, its checkpoint in the same batch. The road of a span: [`otlp`] → `Sink`.
//!
//! Tasks: one per scrape target, one per container log, one for all cgroups, one for the machine, one for our own metrics; OTLP
//! connections are served by tonic and axum.

pub mod cgroup;
pub mod exposition;
mod line;
pub mod logfile;
pub mod machine;
mod metrics;
pub mod otlp;
pub mod own;
pub mod scrape;
