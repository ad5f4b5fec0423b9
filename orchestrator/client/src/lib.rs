//! The only way from a component to the cluster: [`kube::Client`], over an in-process tower service or TLS.
//!
//! Promises: in one process a request is a function call into the API server; on another machine the same
//! code speaks TLS; in a test it speaks to whatever service it is given.
//! Does not know: what the components do.
//!
//! The road of a change: watch → [`Informer`] (one per kind and process, shared by all) → handler →
//! [`WorkQueue`] → the component's reconcile. Start reading at [`informer`]. Where several processes serve one
//! cluster, [`Election`] says which of them acts.

mod election;
pub mod error;
mod informer;
pub mod kinds;
mod queue;
mod record;
mod slim;

pub use election::Election;
pub use informer::{Change, Informer, Informers, Key};
pub use queue::{Reconcile, WorkQueue};
pub use record::EventRecorder;
