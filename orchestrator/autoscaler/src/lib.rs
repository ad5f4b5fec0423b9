//! HorizontalPodAutoscaler v2, decided every second by PromQL in this process, and told as records.
//!
//! Promises: [`decide`] is a pure function of observed inputs (invariant 4); every change of the number of
//! replicas, and every change of the reason for not changing it, is a [`Decision`] in the log index, with the
//! queries, their time and their samples: running the query at that time again gives the recorded number.
//! Does not know: where samples and records are stored.
//!
//! The road of a decision: [`run`] (tick) → [`query`] (metric → PromQL → samples) → [`replicas`] (one metric's
//! proposal) → [`decide`] (the largest, then limits, behavior, stabilization) → the scale subresource →
//! the record → the HPA's status.
//!
//! Sources: kubernetes pkg/controller/podautoscaler (replica_calculator.go, horizontal.go).

mod behavior;
mod decide;
mod query;
mod replicas;
mod run;

pub use decide::{Constraint, Decision, Inputs, MetricDecision, decide};
pub use query::{MetricSample, Querier};
pub use run::{Config, run};
