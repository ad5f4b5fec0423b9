//! The rules of Kubernetes objects: what a quantity, a selector and a name are.
//!
//! Promises: pure functions over values; upstream's semantics and upstream's messages.
//! Does not know: HTTP, the store, the clock.
//!
//! The road of an object through this crate: its names are judged by [`name`], its amounts read by
//! [`quantity`], [`schema`] says what fields it has, [`strategic`] and [`fieldset`] patch it, and lists and controllers
//! choose it by [`selector`]; [`placement`] says which node a pod may have, [`volume`] which volume a claim. [`protobuf`] is the other form it travels in; [`cron`] says when a CronJob runs.

pub mod cron;
pub mod fieldset;
pub mod logs;
pub mod name;
pub mod placement;
pub mod protobuf;
pub mod quantity;
pub mod schema;
pub mod selector;
pub mod strategic;
pub mod trace;
pub mod user;
pub mod volume;
pub mod workload;
