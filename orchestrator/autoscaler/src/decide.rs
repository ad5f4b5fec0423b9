//! The decision: the largest proposal, then every limit in turn. Pure.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerSpec;
use serde::{Deserialize, Serialize};

use crate::behavior::{self, ScaleEvent};
use crate::query::MetricSample;
use crate::replicas::{PodInput, Target, Tolerance, from_pods, from_total};

/// Upstream's `--horizontal-pod-autoscaler-tolerance`.
const TOLERANCE: f64 = 0.1;

/// One metric as measured.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) query: String,
    pub(crate) samples: Vec<MetricSample>,
    pub(crate) target: Target,
    pub(crate) value: Result<Observed, String>,
}

#[derive(Clone, Debug)]
pub(crate) enum Observed {
    Pods(Vec<PodInput>),
    Total(f64),
}

/// What a decision is made from.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// Milliseconds.
    pub now: i64,
    pub spec: &'a HorizontalPodAutoscalerSpec,
    pub current: i32,
    pub ready: i32,
    pub(crate) metrics: Vec<Measured>,
    pub(crate) history: &'a History,
}

/// What was proposed and done before: the memory of one autoscaler.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// (milliseconds, replicas), oldest first.
    pub(crate) recommendations: Vec<(i64, i32)>,
    pub(crate) up: Vec<ScaleEvent>,
    pub(crate) down: Vec<ScaleEvent>,
}

impl History {
    /// Forgets what no window looks at any more (an hour is the longest a window may be).
    pub(crate) fn remember(&mut self, decision: &Decision, now: i64) {
        let from = now - 3_600_000;
        self.recommendations.retain(|r| r.0 >= from);
        self.up.retain(|e| e.at >= from);
        self.down.retain(|e| e.at >= from);
        if let Some(wanted) = decision.proposed {
            // Equal neighbours say nothing new; the last one's time moves instead.
            match self.recommendations.as_mut_slice() {
                [.., before, last] if before.1 == wanted && last.1 == wanted => last.0 = now,
                _ => self.recommendations.push((now, wanted)),
            }
        }
        let change = decision.to - decision.from;
        if change > 0 {
            self.up.push(ScaleEvent { at: now, change });
        } else if change < 0 {
            self.down.push(ScaleEvent { at: now, change: -change });
        }
    }
}

/// One metric's part in a decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricDecision {
    pub name: String,
    /// PromQL; run at the decision's time it gives `samples` again.
    pub query: String,
    pub samples: Vec<MetricSample>,
    pub target: Target,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub current: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub average: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ratio: Option<f64>,
    pub within_tolerance: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub proposed: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// Pods not counted: not ready, too young, being deleted.
    pub not_counted: Vec<String>,
}

/// One limit's part: what it made of the number before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraint {
    /// Upstream's condition reason, such as `ScaleDownStabilized` or `TooManyReplicas`.
    pub name: String,
    pub before: i32,
    pub after: i32,
    pub message: String,
}

/// What was decided, and why. The record kept in the log index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    pub namespace: String,
    pub hpa: String,
    /// `Deployment/web`
    pub target: String,
    /// Milliseconds since the Unix epoch; the time of every query.
    pub time: i64,
    pub from: i32,
    pub to: i32,
    pub metrics: Vec<MetricDecision>,
    /// The metric whose proposal was the largest.
    pub selected: Option<String>,
    /// The largest proposal, before any limit.
    pub proposed: Option<i32>,
    pub constraints: Vec<Constraint>,
    /// One sentence.
    pub reason: String,
}

/// Decides. `namespace`, `hpa` and `target` of the answer are for the caller to fill in.
pub fn decide(inputs: Inputs<'_>) -> Decision {
    let Inputs { now, spec, current, ready, metrics, history } = inputs;
    let (up, down) = behavior::of(spec.behavior.as_ref(), TOLERANCE);
    let tolerance = Tolerance { up: up.tolerance, down: down.tolerance };
    let least = spec.min_replicas.unwrap_or(1);
    let most = spec.max_replicas;
    let mut d = Decision {
        namespace: String::new(),
        hpa: String::new(),
        target: String::new(),
        time: now,
        from: current,
        to: current,
        metrics: Vec::new(),
        selected: None,
        proposed: None,
        constraints: Vec::new(),
        reason: String::new(),
    };
    if current == 0 && least != 0 {
        "scaling is disabled since the replica count of the target is zero".clone_into(&mut d.reason);
        return d;
    }
    let mut failed = 0;
    for m in metrics {
        let not_counted = match &m.value {
            Ok(Observed::Pods(pods)) => {
                pods.iter().filter(|p| p.ignored || p.unready).map(|p| p.name.clone()).collect()
            }
            _ => Vec::new(),
        };
        let proposal = m.value.and_then(|v| match v {
            Observed::Pods(pods) => from_pods(&pods, m.target, current, tolerance),
            Observed::Total(v) => from_total(v, m.target, current, ready, tolerance),
        });
        let mut one = MetricDecision {
            name: m.name,
            query: m.query,
            samples: m.samples,
            target: m.target,
            current: None,
            average: None,
            ratio: None,
            within_tolerance: false,
            proposed: None,
            error: None,
            not_counted,
        };
        match proposal {
            Ok(p) => {
                one.current = Some(p.current);
                one.average = Some(p.average);
                one.ratio = Some(p.ratio).filter(|r| r.is_finite());
                one.within_tolerance = p.within_tolerance;
                one.proposed = Some(p.replicas);
                if d.proposed.is_none_or(|n| p.replicas > n) {
                    d.proposed = Some(p.replicas);
                    d.selected = Some(one.name.clone());
                }
            }
            Err(e) => {
                failed += 1;
                one.error = Some(e);
            }
        }
        d.metrics.push(one);
    }
    let Some(wanted) = d.proposed else {
        let why = d.metrics.iter().find_map(|m| m.error.clone()).unwrap_or_default();
        d.reason = format!("no metric could be used: {why}");
        return d;
    };
    // As upstream: with a metric missing nothing may be taken away.
    if failed > 0 && wanted < current {
        d.constrain(
            "MissingMetrics",
            wanted,
            current,
            "not scaled down: a metric could not be read".to_owned(),
        );
    }
    let mut to = d.constraints.last().map_or(wanted, |c| c.after);
    to = stabilize(&mut d, to, current, &up, &down, history, now);
    to = limit(&mut d, to, current, least, most, &up, &down, history, now);
    d.to = to;
    d.reason = reason(&d);
    d
}

impl Decision {
    fn constrain(&mut self, name: &str, before: i32, after: i32, message: String) {
        self.constraints.push(Constraint { name: name.to_owned(), before, after, message });
    }
}

/// Within its window the most careful recommendation counts: the smallest for up, the largest for down.
fn stabilize(
    d: &mut Decision,
    wanted: i32,
    current: i32,
    up: &behavior::Rules,
    down: &behavior::Rules,
    history: &History,
    now: i64,
) -> i32 {
    let within = |window: i32| {
        let from = now - i64::from(window) * 1000;
        history.recommendations.iter().filter(move |r| r.0 > from).map(|r| r.1)
    };
    let up_to = within(up.window).fold(wanted, i32::min);
    let down_to = within(down.window).fold(wanted, i32::max);
    let mut to = current;
    to = to.max(up_to);
    to = to.min(down_to);
    if to != wanted {
        if wanted > to {
            let message = format!("the lowest recommendation of the last {} s is {to}", up.window);
            d.constrain("ScaleUpStabilized", wanted, to, message);
        } else {
            let message = format!("the highest recommendation of the last {} s is {to}", down.window);
            d.constrain("ScaleDownStabilized", wanted, to, message);
        }
    }
    to
}

#[expect(clippy::too_many_arguments, reason = "the inputs of one pure step")]
fn limit(
    d: &mut Decision,
    wanted: i32,
    current: i32,
    least: i32,
    most: i32,
    up: &behavior::Rules,
    down: &behavior::Rules,
    history: &History,
    now: i64,
) -> i32 {
    let mut to = wanted;
    if wanted > current {
        let allowed = behavior::most(up, current, &history.up, &history.down, now).max(current);
        if to > allowed {
            d.constrain("ScaleUpLimit", to, allowed, format!("the scale-up policies allow {allowed} now"));
            to = allowed;
        }
    } else if wanted < current {
        let allowed = behavior::fewest(down, current, &history.up, &history.down, now).min(current);
        if to < allowed {
            d.constrain(
                "ScaleDownLimit",
                to,
                allowed,
                format!("the scale-down policies allow {allowed} now"),
            );
            to = allowed;
        }
    }
    if to > most {
        d.constrain("TooManyReplicas", to, most, format!("maxReplicas is {most}"));
        to = most;
    }
    if to < least {
        d.constrain("TooFewReplicas", to, least, format!("minReplicas is {least}"));
        to = least;
    }
    to
}

fn reason(d: &Decision) -> String {
    let selected = d.metrics.iter().find(|m| Some(&m.name) == d.selected.as_ref());
    let metric = selected.map(|m| {
        let now = m.current.unwrap_or(f64::NAN);
        match m.target {
            Target::Utilization(t) => format!("{} is at {now:.0}% of its requests, target {t}%", m.name),
            Target::AverageValue(t) => format!("{} is {now:.3} per pod, target {t}", m.name),
            Target::Value(t) => format!("{} is {now:.3}, target {t}", m.name),
        }
    });
    let metric = metric.unwrap_or_default();
    let last = d.constraints.last().map(|c| format!("; {}", c.message)).unwrap_or_default();
    let within = selected.is_some_and(|m| m.within_tolerance);
    match d.to.cmp(&d.from) {
        std::cmp::Ordering::Greater => format!("scaled up: {metric}{last}"),
        std::cmp::Ordering::Less => format!("scaled down: {metric}{last}"),
        std::cmp::Ordering::Equal if within => format!("not scaled: {metric}, within tolerance{last}"),
        std::cmp::Ordering::Equal => format!("not scaled: {metric}{last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(extra: serde_json::Value) -> HorizontalPodAutoscalerSpec {
        let mut v = json!({"minReplicas": 1, "maxReplicas": 10,
            "scaleTargetRef": {"kind": "Deployment", "name": "web"}});
        for (k, x) in extra.as_object().expect("an object") {
            v[k] = x.clone();
        }
        serde_json::from_value(v).expect("a spec")
    }

    fn total(value: Result<f64, &str>) -> Measured {
        Measured {
            name: "queue".to_owned(),
            query: "sum(queue)".to_owned(),
            samples: Vec::new(),
            target: Target::AverageValue(10.0),
            value: value.map(Observed::Total).map_err(str::to_owned),
        }
    }

    /// The situations of which `explain hpa` must name the real reason.
    #[test]
    fn every_situation_names_its_reason() {
        let check = |extra: serde_json::Value,
                     current: i32,
                     metrics: Vec<Measured>,
                     history: History,
                     to: i32,
                     why: &str| {
            let spec = spec(extra);
            let d = decide(Inputs {
                now: 1_000_000,
                spec: &spec,
                current,
                ready: current,
                metrics,
                history: &history,
            });
            assert_eq!(d.to, to, "{}", d.reason);
            let named = d.constraints.last().map_or(d.reason.as_str(), |c| c.name.as_str());
            assert!(named.contains(why), "{named}: {}", d.reason);
        };
        let none = History::default;
        check(json!({}), 2, vec![total(Ok(40.0))], none(), 4, "scaled up");
        check(json!({}), 2, vec![total(Ok(21.0))], none(), 2, "within tolerance");
        check(json!({"maxReplicas": 3}), 2, vec![total(Ok(40.0))], none(), 3, "TooManyReplicas");
        check(json!({}), 1, vec![total(Ok(90.0))], none(), 5, "ScaleUpLimit");
        let before = History { recommendations: vec![(900_000, 5)], ..none() };
        check(json!({}), 5, vec![total(Ok(10.0))], before.clone(), 5, "ScaleDownStabilized");
        let quick = json!({"behavior": {"scaleDown": {"stabilizationWindowSeconds": 10}}});
        check(quick, 5, vec![total(Ok(10.0))], before, 1, "scaled down");
        let low = History { recommendations: vec![(999_000, 2)], ..none() };
        let wait = json!({"behavior": {"scaleUp": {"stabilizationWindowSeconds": 30}}});
        check(wait, 2, vec![total(Ok(40.0))], low, 2, "ScaleUpStabilized");
        check(json!({"minReplicas": 2}), 3, vec![total(Ok(5.0))], none(), 2, "TooFewReplicas");
        check(json!({}), 3, vec![total(Err("no samples"))], none(), 3, "no metric could be used");
        check(json!({}), 3, vec![total(Ok(5.0)), total(Err("no samples"))], none(), 3, "MissingMetrics");
        check(json!({}), 0, vec![total(Ok(50.0))], none(), 0, "scaling is disabled");
        check(json!({"minReplicas": 0}), 0, vec![total(Ok(50.0))], none(), 4, "ScaleUpLimit");
        let other = Measured { name: "other".to_owned(), ..total(Ok(60.0)) };
        check(json!({}), 4, vec![total(Ok(20.0)), other], none(), 6, "scaled up: other");
    }

    #[test]
    fn history_keeps_what_windows_need_and_no_more() {
        let spec = spec(json!({}));
        let mut history = History::default();
        for second in 0..10_000 {
            let now = second * 1000;
            let d = decide(Inputs {
                now,
                spec: &spec,
                current: 2,
                ready: 2,
                metrics: vec![total(Ok(20.0))],
                history: &history,
            });
            history.remember(&d, now);
        }
        assert!(history.recommendations.len() <= 2, "{:?}", history.recommendations);
        assert_eq!(history.recommendations.last(), Some(&(9_999_000, 2)));
    }
}
