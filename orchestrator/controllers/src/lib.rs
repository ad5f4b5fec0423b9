//! The cluster's reconcile loops, one file each: observed state in, a pure `plan`, then writes.
//!
//! Promises: controllers act on observed state only, and a reconcile run twice changes nothing the second
//! time (invariant 3); every `plan` does no I/O and reads no clock (invariant 4).
//! Does not know: how objects are stored, or who runs the pods.
//!
//! The road of a deployment: [`deployment`] makes a ReplicaSet → [`replicaset`] makes pods → (scheduler,
//! kubelet) → [`endpointslice`] lists the ready ones for each service. [`garbage`] deletes what lost its
//! owner, [`namespace`] empties what is being deleted, [`serviceaccount`] gives each namespace its account,
//! [`node`] watches heartbeats, [`podgc`] clears away what no node will, [`volume`] brings claims and volumes together. [`daemonset`], [`statefulset`], [`job`] and [`cronjob`] make pods
//! by other rules, [`disruption`] says how many may be away, [`aggregation`] fills roles from others. What makes pods
//! writes them through [`podcontrol`].
//!
//! Tasks: one queue and two workers per controller, all fed by the informers of [`client::Informers`].
//! Start reading at [`run`].

mod aggregation;
mod context;
mod cronjob;
mod daemonset;
mod deployment;
mod disruption;
mod endpointslice;
mod expectations;
mod garbage;
mod job;
mod namespace;
mod node;
mod owner;
mod pod;
mod podcontrol;
mod podgc;
mod replicaset;
mod replicationcontroller;
mod revisions;
mod serviceaccount;
mod statefulset;
mod volume;

pub use context::{Config, Context, Error};

use futures::FutureExt;
use tokio_util::sync::CancellationToken;

/// Runs every controller until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let loops = [
        deployment::run(context.clone(), stop.clone()).boxed(),
        replicaset::run(context.clone(), stop.clone()).boxed(),
        daemonset::run(context.clone(), stop.clone()).boxed(),
        replicationcontroller::run(context.clone(), stop.clone()).boxed(),
        statefulset::run(context.clone(), stop.clone()).boxed(),
        job::run(context.clone(), stop.clone()).boxed(),
        cronjob::run(context.clone(), stop.clone()).boxed(),
        disruption::run(context.clone(), stop.clone()).boxed(),
        aggregation::run(context.clone(), stop.clone()).boxed(),
        endpointslice::run(context.clone(), stop.clone()).boxed(),
        serviceaccount::run(context.clone(), stop.clone()).boxed(),
        namespace::run(context.clone(), stop.clone()).boxed(),
        garbage::run(context.clone(), stop.clone()).boxed(),
        node::run(context.clone(), stop.clone()).boxed(),
        volume::run(context.clone(), stop.clone()).boxed(),
        podgc::run(context, stop).boxed(),
    ];
    futures::future::join_all(loops).await;
}
