//! Drop rules and sampling of lines.

use signal::{LogRecord, Severity};

use super::rules::LogRules;

/// Takes out what is not to be stored. Warnings and graver lines are never sampled away.
pub(super) fn apply(rules: &LogRules, records: &mut Vec<LogRecord>) {
    if let Some(drop) = &rules.drop {
        records.retain(|r| !drop.is_match(&r.body));
    }
    if rules.sample < 1.0 {
        records.retain(|r| r.severity >= Severity::WARN || share(r) < rules.sample);
    }
}

/// The same number from 0 to 1 whenever a line comes, so that a batch that is sent again fares alike.
fn share(r: &LogRecord) -> f64 {
    let hash = ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one((r.timestamp.nanos(), &r.body));
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use signal::{Labels, Timestamp};

    use super::*;
    use crate::process::rules::{LogsConfig, Rules, Settings};

    #[test]
    fn a_share_of_lines_and_all_warnings() {
        let s = Settings { sample: Some(0.25), drop: Some(vec!["^health".into()]), ..Settings::default() };
        let rules = Rules::new(LogsConfig { defaults: s, ..LogsConfig::default() }).expect("rules");
        let rules = rules.of(&Labels::default());
        let line = |n: i64, body: &str, severity| LogRecord {
            timestamp: Timestamp(n),
            body: body.to_owned(),
            severity,
            ..LogRecord::default()
        };
        let mut all: Vec<LogRecord> = (0..4000).map(|n| line(n, "x", Severity::INFO)).collect();
        all.extend((0..100).map(|n| line(n, "bad", Severity::ERROR)));
        all.extend((0..100).map(|n| line(n, "health ok", Severity::ERROR)));
        apply(&rules, &mut all);
        let again = all.len();
        assert_eq!(all.iter().filter(|r| r.body == "bad").count(), 100);
        assert!((950..1250).contains(&again), "{again}");
        apply(&rules, &mut all);
        assert_eq!(all.len(), again);
    }
}
