//! The node: pods to containers, in containerd's native API, without a pause container.
//!
//! It promises: running containers survive this process (invariant 10): their output waits in pipes, their ids and
//! counts are labels in containerd, their addresses are on disk. No line of output is lost or doubled. A pod's
//! status says what is, in upstream's words. It knows nothing of scheduling, controllers or telemetry engines.
//!
//! The road of a pod: `pods` (one watch, one worker per pod) → `worker` → `plan` (pure: pod and observed containers
//! to actions) → `network` and `volumes` (concurrently) → `images` (present or pulled) → `environment`,
//! `container` (to an OCI spec) → `runtime` (snapshot, record, task, start) → `probes` → `status` → the API.
//! The road of a line: a container's pipe → `logs::writer` → CRI file → `logs::reader` (kubectl logs) and the
//! collector. The node's own API (`api`) serves logs, exec and attach to the API server only.
//!
//! Tasks: one per pod, one per running container's log, one per probe, one for containerd's events (which starts a private
//! containerd again if it was killed), one that writes events to the API, one that tells of logs in trouble, one that
//! collects images, one for the node's status and lease. Locks are held for map look-ups only, never over an await,
//! but for the one around a pod's tokens.
//!
//! `tests/node` runs all of it on real containerd, runc and registries; one scenario alone: `ONLY=probes::tcp`.

mod api;
mod cgroup;
mod config;
mod container;
pub mod containerd;
mod environment;
mod error;
mod events;
mod files;
pub mod images;
mod kubelet;
mod lifecycle;
mod logs;
mod metrics;
mod node;
mod plan;
mod pods;
mod probes;
mod quantity;
mod runtime;
mod status;
mod volumes;
mod worker;

pub use config::Config;
pub use error::Error;
pub use kubelet::{Handles, Kubelet, purge, stop_pods};
pub use logs::StoredFn;
