//! How long admission took, how often it said no and why, under upstream's names (apiserver: pkg/admission/metrics,
//! pkg/admission/plugin/policy/validating/metrics; pod-security-admission: metrics).

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::attributes::{Attributes, Operation};
use crate::error::Result;
use crate::server::ApiServer;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Step {
    r#type: &'static str,
    operation: &'static str,
    rejected: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Controller {
    name: &'static str,
    r#type: &'static str,
    operation: &'static str,
    rejected: &'static str,
}

/// Policies and bindings are objects of administrators: there are few of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Checked {
    policy: String,
    policy_binding: String,
    enforcement_action: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Evaluated {
    decision: &'static str,
    policy_level: &'static str,
    policy_version: String,
    mode: &'static str,
    request_operation: &'static str,
    resource: &'static str,
    subresource: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Exempt {
    request_operation: &'static str,
    resource: &'static str,
    subresource: &'static str,
}

struct Metrics {
    steps: Family<Step, Histogram>,
    controllers: Family<Controller, Histogram>,
    checks: Family<Checked, Counter>,
    check_durations: Family<Checked, Histogram>,
    evaluations: Family<Evaluated, Counter>,
    exemptions: Family<Exempt, Counter>,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let durations = || Histogram::new([0.005, 0.025, 0.1, 0.5, 1.0, 2.5]);
    let m = Metrics {
        steps: Family::new_with_constructor(durations),
        controllers: Family::new_with_constructor(durations),
        checks: Family::default(),
        check_durations: Family::new_with_constructor(|| Histogram::new([5e-7, 0.001, 0.01, 0.1, 1.0])),
        evaluations: Family::default(),
        exemptions: Family::default(),
    };
    telemetry::metrics::register(|r| {
        r.register(
            "apiserver_admission_step_admission_duration_seconds",
            "How long all of admission took, by type, operation and whether it refused",
            m.steps.clone(),
        );
        r.register(
            "apiserver_admission_controller_admission_duration_seconds",
            "How long an admission plugin took, by its name, type, operation and whether it refused",
            m.controllers.clone(),
        );
        r.register(
            "apiserver_validating_admission_policy_check",
            "Writes judged by ValidatingAdmissionPolicies, by what became of them",
            m.checks.clone(),
        );
        r.register(
            "apiserver_validating_admission_policy_check_duration_seconds",
            "How long ValidatingAdmissionPolicies took to judge writes",
            m.check_durations.clone(),
        );
        r.register(
            "pod_security_evaluations",
            "Pods judged by the Pod Security Standards, by mode and decision",
            m.evaluations.clone(),
        );
        r.register(
            "pod_security_exemptions",
            "Pods that no Pod Security Standard holds for",
            m.exemptions.clone(),
        );
    });
    m
});

/// Which half of admission.
#[derive(Clone, Copy)]
pub(crate) enum Half {
    Admit,
    Validate,
}

impl Half {
    fn text(self) -> &'static str {
        match self {
            Half::Admit => "admit",
            Half::Validate => "validate",
        }
    }
}

/// `action` is `deny`, `warn`, `audit` or `allow`.
pub(crate) fn policy_checked(policy: &str, binding: &str, action: &'static str, took: Duration) {
    let labels =
        Checked { policy: policy.to_owned(), policy_binding: binding.to_owned(), enforcement_action: action };
    METRICS.checks.get_or_create(&labels).inc();
    METRICS.check_durations.get_or_create(&labels).observe(took.as_secs_f64());
}

/// What a request writes, in words of our own.
fn subject(a: &Attributes<'_>) -> Exempt {
    let resource = if a.served.kind.builtin() == "pods" { "pod" } else { "controller" };
    let subresource = if a.subresource == "ephemeralcontainers" { "ephemeralcontainers" } else { "" };
    let request_operation = if a.operation == Operation::Create { "create" } else { "update" };
    Exempt { request_operation, resource, subresource }
}

/// A pod was judged by a level: `v1.N` or `latest`.
pub(super) fn pod_judged(
    a: &Attributes<'_>,
    mode: &'static str,
    level: &'static str,
    version: String,
    allowed: bool,
) {
    let Exempt { request_operation, resource, subresource } = subject(a);
    let decision = if allowed { "allow" } else { "deny" };
    let labels = Evaluated {
        decision,
        policy_level: level,
        policy_version: version,
        mode,
        request_operation,
        resource,
        subresource,
    };
    METRICS.evaluations.get_or_create(&labels).inc();
}

pub(super) fn pod_exempt(a: &Attributes<'_>) {
    METRICS.exemptions.get_or_create(&subject(a)).inc();
}

impl ApiServer {
    /// Times a half of admission.
    pub(super) async fn step<T>(
        &self,
        half: Half,
        a: &Attributes<'_>,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let began = self.config.clock.monotonic();
        let done = work.await;
        let (rejected, took) = self.ended(began, &done);
        let labels = Step { r#type: half.text(), operation: a.operation.text(), rejected };
        METRICS.steps.get_or_create(&labels).observe(took.as_secs_f64());
        done
    }

    /// Times a plugin.
    pub(super) async fn plugin<T>(
        &self,
        name: &'static str,
        half: Half,
        a: &Attributes<'_>,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let began = self.config.clock.monotonic();
        let done = work.await;
        let (rejected, took) = self.ended(began, &done);
        let labels = Controller { name, r#type: half.text(), operation: a.operation.text(), rejected };
        METRICS.controllers.get_or_create(&labels).observe(took.as_secs_f64());
        done
    }

    fn ended<T>(&self, began: Instant, done: &Result<T>) -> (&'static str, Duration) {
        let took = self.config.clock.monotonic().saturating_duration_since(began);
        (if done.is_err() { "true" } else { "false" }, took)
    }
}
