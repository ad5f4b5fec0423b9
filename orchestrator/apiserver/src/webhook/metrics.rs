//! What webhooks cost and refuse, under upstream's names (apiserver: pkg/admission/metrics).

use std::sync::LazyLock;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

/// The names of webhooks come from configurations, which only administrators write; the first ones count.
const MAX_NAMES: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Called {
    pub(super) name: String,
    /// `admit` or `validating`
    pub(super) r#type: &'static str,
    pub(super) operation: &'static str,
    pub(super) rejected: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rejected {
    name: String,
    r#type: &'static str,
    operation: &'static str,
    error_type: &'static str,
    rejection_code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Open {
    name: String,
    r#type: &'static str,
}

pub(super) struct Metrics {
    duration: Family<Called, Histogram>,
    rejections: Family<Rejected, Counter>,
    fail_open: Family<Open, Counter>,
    names: parking_lot::Mutex<std::collections::HashSet<String>>,
}

pub(super) static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let m = Metrics {
        duration: Family::new_with_constructor(|| {
            Histogram::new([0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0])
        }),
        rejections: Family::default(),
        fail_open: Family::default(),
        names: parking_lot::Mutex::default(),
    };
    telemetry::metrics::register(|r| {
        r.register(
            "apiserver_admission_webhook_admission_duration_seconds",
            "How long admission webhooks took, by name, type, operation and whether they refused",
            m.duration.clone(),
        );
        r.register(
            "apiserver_admission_webhook_rejection_count",
            "Requests refused by admission webhooks, by name and why",
            m.rejections.clone(),
        );
        r.register(
            "apiserver_admission_webhook_fail_open_count",
            "Failures of admission webhooks that were ignored as their policy says",
            m.fail_open.clone(),
        );
    });
    m
});

impl Metrics {
    fn name(&self, name: &str) -> String {
        let mut names = self.names.lock();
        if names.contains(name) || names.len() < MAX_NAMES {
            names.insert(name.to_owned());
            return name.to_owned();
        }
        "other".to_owned()
    }

    pub(super) fn called(&self, labels: Called, took: Duration) {
        let labels = Called { name: self.name(&labels.name), ..labels };
        self.duration.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// `why` is `calling_webhook_error` or `no_error`.
    pub(super) fn refused(
        &self,
        name: &str,
        r#type: &'static str,
        operation: &'static str,
        why: &'static str,
        code: u16,
    ) {
        let labels =
            Rejected { name: self.name(name), r#type, operation, error_type: why, rejection_code: code };
        self.rejections.get_or_create(&labels).inc();
    }

    pub(super) fn ignored(&self, name: &str, r#type: &'static str) {
        self.fail_open.get_or_create(&Open { name: self.name(name), r#type }).inc();
    }
}
