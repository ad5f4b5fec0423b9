//! How long admission took and how often it said no, under upstream's names (apiserver: pkg/admission/metrics).

use std::sync::LazyLock;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::attributes::Attributes;
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

struct Metrics {
    steps: Family<Step, Histogram>,
    controllers: Family<Controller, Histogram>,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let durations = || Histogram::new([0.005, 0.025, 0.1, 0.5, 1.0, 2.5]);
    let m = Metrics {
        steps: Family::new_with_constructor(durations),
        controllers: Family::new_with_constructor(durations),
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

impl ApiServer {
    /// Times a half of admission.
    pub(super) async fn step<T>(
        &self,
        half: Half,
        a: &Attributes<'_>,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let clock = &self.config.clock;
        let began = clock.monotonic();
        let done = work.await;
        let took = clock.monotonic().saturating_duration_since(began);
        let rejected = if done.is_err() { "true" } else { "false" };
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
        let clock = &self.config.clock;
        let began = clock.monotonic();
        let done = work.await;
        let took = clock.monotonic().saturating_duration_since(began);
        let rejected = if done.is_err() { "true" } else { "false" };
        let labels = Controller { name, r#type: half.text(), operation: a.operation.text(), rejected };
        METRICS.controllers.get_or_create(&labels).observe(took.as_secs_f64());
        done
    }
}
