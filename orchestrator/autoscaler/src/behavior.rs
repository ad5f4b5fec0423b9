//! Limits of speed: stabilization windows and scaling policies (kubernetes: horizontal.go).

use k8s_openapi::api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior};

/// Upstream's `--horizontal-pod-autoscaler-downscale-stabilization`.
const DOWN_WINDOW: i32 = 300;

/// Rules of one direction, defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rules {
    /// Seconds.
    pub(crate) window: i32,
    pub(crate) select: String,
    pub(crate) policies: Vec<HPAScalingPolicy>,
    pub(crate) tolerance: f64,
}

fn policy(type_: &str, value: i32, period_seconds: i32) -> HPAScalingPolicy {
    HPAScalingPolicy { type_: type_.to_owned(), value, period_seconds }
}

fn rules(
    given: Option<&HPAScalingRules>,
    window: i32,
    policies: Vec<HPAScalingPolicy>,
    tolerance: f64,
) -> Rules {
    let given = given.cloned().unwrap_or_default();
    Rules {
        window: given.stabilization_window_seconds.unwrap_or(window),
        select: given.select_policy.unwrap_or_else(|| "Max".to_owned()),
        policies: given.policies.filter(|p| !p.is_empty()).unwrap_or(policies),
        tolerance: given
            .tolerance
            .and_then(|q| q.0.parse::<apimachinery::quantity::Quantity>().ok())
            .map_or(tolerance, apimachinery::quantity::Quantity::to_f64),
    }
}

/// Up and down.
pub(crate) fn of(behavior: Option<&HorizontalPodAutoscalerBehavior>, tolerance: f64) -> (Rules, Rules) {
    let up = vec![policy("Pods", 4, 15), policy("Percent", 100, 15)];
    let down = vec![policy("Percent", 100, 15)];
    (
        rules(behavior.and_then(|b| b.scale_up.as_ref()), 0, up, tolerance),
        rules(behavior.and_then(|b| b.scale_down.as_ref()), DOWN_WINDOW, down, tolerance),
    )
}

/// A change of the number of replicas in the past.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ScaleEvent {
    /// Milliseconds.
    pub(crate) at: i64,
    /// How many, always positive.
    pub(crate) change: i32,
}

fn changed_within(events: &[ScaleEvent], period_seconds: i32, now: i64) -> i32 {
    let from = now - i64::from(period_seconds) * 1000;
    events.iter().filter(|e| e.at > from).map(|e| e.change).sum()
}

/// The most replicas the policies allow now. `up` and `down` are the events of both directions.
pub(crate) fn most(rules: &Rules, current: i32, up: &[ScaleEvent], down: &[ScaleEvent], now: i64) -> i32 {
    if rules.select == "Disabled" {
        return current;
    }
    let limits = rules.policies.iter().map(|p| {
        let start =
            current - changed_within(up, p.period_seconds, now) + changed_within(down, p.period_seconds, now);
        if p.type_ == "Pods" {
            start + p.value
        } else {
            (f64::from(start) * (1.0 + f64::from(p.value) / 100.0)).ceil() as i32
        }
    });
    let limit = if rules.select == "Min" { limits.min() } else { limits.max() };
    limit.unwrap_or(i32::MAX)
}

/// The fewest.
pub(crate) fn fewest(rules: &Rules, current: i32, up: &[ScaleEvent], down: &[ScaleEvent], now: i64) -> i32 {
    if rules.select == "Disabled" {
        return current;
    }
    let limits = rules.policies.iter().map(|p| {
        let start =
            current + changed_within(down, p.period_seconds, now) - changed_within(up, p.period_seconds, now);
        if p.type_ == "Pods" {
            start - p.value
        } else {
            (f64::from(start) * (1.0 - f64::from(p.value) / 100.0)) as i32
        }
    });
    let limit = if rules.select == "Min" { limits.max() } else { limits.min() };
    limit.unwrap_or(0).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_count_what_changed_in_their_period() {
        let (up, down) = of(None, 0.1);
        let event = |at, change| ScaleEvent { at, change };
        assert_eq!(most(&up, 1, &[], &[], 100_000), 5);
        assert_eq!(most(&up, 10, &[], &[], 100_000), 20);
        assert_eq!(most(&up, 10, &[event(95_000, 5)], &[], 100_000), 10);
        assert_eq!(most(&up, 10, &[event(80_000, 5)], &[], 100_000), 20);
        assert_eq!(fewest(&down, 10, &[], &[], 100_000), 0);
        let slow = Rules { policies: vec![policy("Pods", 2, 60)], ..down };
        assert_eq!(fewest(&slow, 10, &[], &[event(70_000, 1)], 100_000), 9);
        let off = Rules { select: "Disabled".to_owned(), ..slow };
        assert_eq!(fewest(&off, 10, &[], &[], 0), 10);
    }
}
