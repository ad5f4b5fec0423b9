//! Pods to nodes.
//!
//! Promises: a cycle is a pure function of a pod and a snapshot (invariant 4); for a pod that cannot be
//! placed every node's verdict is kept, plugin by plugin, and shown by `kubectl describe` and `explain pod`.
//! Does not know: how pods are run, or who makes them.
//!
//! The road of a pod: [`queue`] (active, or waiting for a change that may help) → [`snapshot`] of the nodes
//! → [`cycle`]: filter, score → [`volumes`] on that node → bind, or a verdict. The plugins stand in [`plugins`], one
//! file each.
//!
//! Tasks: one task owns the queue and the snapshot and runs cycles one after the other; each bind is a task
//! of its own, its pod counted on the node meanwhile ("assumed").
//!
//! Start reading at [`run`].

mod cycle;
mod metrics;
mod plugins;
mod queue;
mod run;
mod snapshot;
mod volumes;

pub use cycle::{Outcome, Verdict, schedule};
pub use run::{Config, VERDICTS_ANNOTATION, run};
pub use snapshot::{NodeInfo, Resources, Snapshot};
pub use volumes::Volumes;

/// The scheduler that pods name when they name none.
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";
