//! What rules and their messages count. A group is named `FILE;NAME`, as Prometheus names it.

use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct GroupLabel {
    pub(crate) rule_group: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TargetLabel {
    pub(crate) alertmanager: String,
}

type Number = Gauge<f64, AtomicU64>;

#[derive(Default)]
pub(crate) struct Metrics {
    pub(crate) evaluations: Family<GroupLabel, Counter>,
    pub(crate) failures: Family<GroupLabel, Counter>,
    pub(crate) iterations: Family<GroupLabel, Counter>,
    pub(crate) missed: Family<GroupLabel, Counter>,
    pub(crate) duration: Family<GroupLabel, Number>,
    pub(crate) evaluated_at: Family<GroupLabel, Number>,
    pub(crate) interval: Family<GroupLabel, Number>,
    pub(crate) rules: Family<GroupLabel, Gauge>,
    pub(crate) samples: Family<GroupLabel, Gauge>,
    pub(crate) loaded: Gauge,
    pub(crate) loaded_at: Number,
    pub(crate) broken_files: Gauge,
    pub(crate) unrecorded: Counter,
    pub(crate) sent: Family<TargetLabel, Counter>,
    pub(crate) send_errors: Family<TargetLabel, Counter>,
    pub(crate) dropped: Family<TargetLabel, Counter>,
    pub(crate) queue: Family<TargetLabel, Gauge>,
}

pub(crate) static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let m = Metrics::default();
    telemetry::metrics::register(|r| {
        macro_rules! metrics {
            ($($field:ident, $name:literal, $help:literal;)*) => {
                $(r.register(concat!("binnacle_", $name), $help, m.$field.clone());)*
            };
        }
        metrics! {
            evaluations, "rule_evaluations", "Rules evaluated";
            failures, "rule_evaluation_failures", "Rules that could not be evaluated";
            iterations, "rule_group_iterations", "Times a group was due, also those it missed";
            missed, "rule_group_iterations_missed", "Times a group was due while it was still being evaluated";
            duration, "rule_group_last_duration_seconds", "How long the last evaluation of a group took";
            evaluated_at, "rule_group_last_evaluation_timestamp_seconds", "When a group was evaluated last";
            interval, "rule_group_interval_seconds", "How often a group is evaluated";
            rules, "rule_group_rules", "Rules of a group";
            samples, "rule_group_last_evaluation_samples", "Samples that the last evaluation of a group gave";
            loaded, "rules_last_load_successful", "1 if all rule files were good when they were read last";
            loaded_at, "rules_last_load_timestamp_seconds", "When rule files were read last";
            broken_files, "rules_broken_files", "Rule files that cannot be used as they are";
            unrecorded, "rules_records_lost", "Changes of alerts that the log index did not take";
            sent, "notifications_sent", "Alerts that an Alertmanager took";
            send_errors, "notifications_errors", "Batches of alerts that an Alertmanager did not take";
            dropped, "notifications_dropped", "Alerts that were not sent: the queue was full or the Alertmanager failed";
            queue, "notifications_queue_length", "Alerts that wait to be sent";
        }
    });
    m
});

impl Metrics {
    /// Forgets a group that is gone.
    pub(crate) fn forget(&self, label: &GroupLabel) {
        for counters in [&self.evaluations, &self.failures, &self.iterations, &self.missed] {
            counters.remove(label);
        }
        for numbers in [&self.duration, &self.evaluated_at, &self.interval] {
            numbers.remove(label);
        }
        self.rules.remove(label);
        self.samples.remove(label);
    }
}
