//! Recording and alerting rules.
//!
//! Promises: rule files are Prometheus', read as strictly as Prometheus reads them; a rule is evaluated at its group's
//! interval through the same PromQL engine as every query, within its budget; results are written through a
//! [`signal::Sink`], with an end for each series that is given no more; alerts go on after a restart where they
//! were, and are told of to Alertmanagers and to the log index. Queues are bounded, and what is dropped is counted.
//!
//! Does not know: HTTP towards callers, where samples are stored, who may see what, where rule files come from but
//! for a directory of them ([`Source`]).
//!
//! The road of a rule: [`source`] (a directory) → [`file`] (YAML, checked) → [`run`] (which groups run, when) →
//! [`group`] → [`rule`] (PromQL → samples) and [`alert`] (states, pure) with [`texts`] (templates) → the sink,
//! [`notify`] (Alertmanagers) and [`records`] (the log index). [`unit_test`] runs `promtool`'s test files over the
//! same rooms without clocks and tasks.
//!
//! Tasks: one for each group, which owns it; one that looks for changed files; one for each Alertmanager. What a
//! group shows is put out as a whole after each evaluation, so that no reader waits for a query.

mod alert;
mod config;
mod file;
mod ground;
mod group;
mod metrics;
mod notify;
mod records;
mod rule;
mod run;
mod source;
mod texts;
pub mod unit_test;

pub use alert::{Alert, AlertState, Annotations};
pub use config::Config;
pub use file::{AlertSpec, GroupSpec, RuleSpec, duplicates, parse, read};
pub use group::{AlertingView, GroupView, RuleView};
pub use rule::Health;
pub use run::Rules;
pub use source::{Directory, Source, SourceFile};
pub use texts::NAMES as FUNCTIONS;
