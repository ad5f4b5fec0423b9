//! The Kubernetes HTTP API: upstream's words and behaviour for the kinds in [`kinds`].
//!
//! Promises: nothing answers without credentials but `/livez`, `/readyz`, `/healthz` and `/version`; a write
//! is acknowledged when the store synced it; reads that follow see it; a watch gives each change once and in
//! order or ends with 410.
//! Does not know: flags, the environment, controllers, containers.
//!
//! The road of a request: [`serve`] (TLS) or [`ApiServer::in_process`] → [`dispatch`] → [`authn`] → [`fairness`] → [`authz`] ([`node`], [`rbac`], and [`escalation`] for roles) →
//! for reads [`read`] and [`watch`] over [`cache`]; for writes [`body`], [`patch`] (shape) →
//! [`registry`] with [`admission`], [`webhook`] and [`quota`], the kind's row in [`kinds`], [`managed`] → the store → [`cache`].
//! Kinds that CustomResourceDefinitions make have their room in [`custom`]; group-versions of other servers in [`aggregator`].
//! Beside it: [`subresource`], [`eviction`], [`review`], [`proxy`] (kubelets), [`discovery`], [`openapi`], [`protobuf`], [`table`].
//!
//! [`nonresource`] answers paths that are no resources; [`listing`] writes long lists.
//!
//! [`observe`] counts, times and traces requests; [`audit`] tells who did what. [`certificates`] approves and signs what nodes ask for.
//!
//! Tasks: one follows the store (`apiserver-cache`), one forgets old events ([`expire`]), one shows
//! what quotas count ([`quota`]), two keep the rows of [`aggregator`], four wait for changes of their kinds ([`follow`]:
//! addresses of services, types of policies, priority levels of flow schemas, expired bootstrap tokens), one per connection. State is the cache, a lock per kind;
//! the compiled roles, one lock; the allocation lock, held over a service's write.

mod addresses;
mod admission;
mod aggregator;
mod apply;
mod audit;
mod authn;
mod authz;
mod body;
mod bootstrap;
mod cache;
mod certificates;
mod componentstatus;
mod custom;
mod discovery;
mod dispatch;
mod error;
mod escalation;
mod eviction;
mod expire;
mod fairness;
mod follow;
mod health;
mod history;
mod kinds;
mod listing;
mod managed;
mod metrics;
mod node;
mod nonresource;
mod object;
mod observe;
mod openapi;
mod options;
mod patch;
mod pick;
pub mod pki;
mod policies;
mod protobuf;
mod proxy;
mod quota;
mod rbac;
mod read;
mod registry;
mod request;
mod review;
mod serve;
mod server;
mod slow;
mod subresource;
mod table;
mod token;
mod validation;
mod watch;
mod webhook;

pub use admission::config::AdmissionConfig;
pub use admission::podsecurity::{Level, LevelVersion, PodSecurity, Policy};
pub use audit::{Audit, AuditEvent, AuditPolicy, AuditSink, Level as AuditLevel, Stage as AuditStage};
pub use authn::oidc::OidcConfig;
pub use authn::review::TokenWebhook;
pub use error::Error;
pub use history::{EventArchive, Follow, Op, PastEvent, PastEvents, Revision};
pub use metrics::audit_dropped;
pub use proxy::archive::{LogArchive, PastLogQuery, PastPod};
pub use server::{Access, ApiServer, Check, Cidr, Config, LocalApi, Remarks};
