//! How many replicas one metric asks for (kubernetes: replica_calculator.go).

use serde::{Deserialize, Serialize};

/// One pod of the target, as far as the calculation needs to know it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PodInput {
    pub name: String,
    /// Being deleted or failed: it counts for nothing.
    pub ignored: bool,
    /// Too young or not ready: its metric is not believed.
    pub unready: bool,
    /// What it asks for of the metric's resource, in the metric's unit; 0 if it asks for none.
    pub request: f64,
    /// Its measured value, if there is one.
    pub value: Option<f64>,
}

/// What a metric is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type", content = "value")]
pub enum Target {
    /// Percent of the pods' requests.
    Utilization(i32),
    /// On average, per pod.
    AverageValue(f64),
    /// As a whole.
    Value(f64),
}

/// A metric's word.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Proposal {
    pub(crate) replicas: i32,
    /// Current over target; 1 is just right.
    pub(crate) ratio: f64,
    /// The current value in the target's terms: percent, average or value.
    pub(crate) current: f64,
    /// Average per pod in the metric's own unit.
    pub(crate) average: f64,
    pub(crate) within_tolerance: bool,
}

/// How far from 1 the ratio may be without consequence, upwards and downwards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tolerance {
    pub(crate) up: f64,
    pub(crate) down: f64,
}

impl Tolerance {
    fn holds(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

fn ceil(n: f64) -> i32 {
    // A hair above a whole number is arithmetic, not need.
    let n = (n - 1e-9).ceil();
    if n >= f64::from(i32::MAX) { i32::MAX } else { n.max(0.0) as i32 }
}

/// From values of single pods. Errors say why the metric cannot be used.
pub(crate) fn from_pods(
    pods: &[PodInput],
    target: Target,
    current: i32,
    tolerance: Tolerance,
) -> Result<Proposal, String> {
    let counted: Vec<&PodInput> = pods.iter().filter(|p| !p.ignored).collect();
    if counted.is_empty() {
        return Err("no pods returned by selector while calculating replica count".to_owned());
    }
    if let Target::Utilization(_) = target
        && let Some(p) = counted.iter().find(|p| p.request <= 0.0)
    {
        return Err(format!("missing request for the resource in a container of pod {}", p.name));
    }
    let ready: Vec<(&PodInput, f64)> =
        counted.iter().filter(|p| !p.unready).filter_map(|p| Some((*p, p.value?))).collect();
    if ready.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
    }
    // (value, request) of each pod that counts.
    let ratio_of = |values: &[(f64, f64)]| {
        let sum: f64 = values.iter().map(|v| v.0).sum();
        match target {
            Target::Utilization(percent) => {
                let requests: f64 = values.iter().map(|v| v.1).sum();
                let now = sum * 100.0 / requests;
                (now / f64::from(percent.max(1)), now)
            }
            Target::AverageValue(t) | Target::Value(t) => {
                let now = sum / values.len() as f64;
                (now / t, now)
            }
        }
    };
    let mut values: Vec<(f64, f64)> = ready.iter().map(|(p, v)| (*v, p.request)).collect();
    let average = values.iter().map(|v| v.0).sum::<f64>() / values.len() as f64;
    let (ratio, now) = ratio_of(&values);
    let missing: Vec<&&PodInput> = counted.iter().filter(|p| !p.unready && p.value.is_none()).collect();
    let unready: Vec<&&PodInput> = counted.iter().filter(|p| p.unready).collect();
    let proposal = |replicas, ratio, within_tolerance| Proposal {
        replicas,
        ratio,
        current: now,
        average,
        within_tolerance,
    };
    if missing.is_empty() && (unready.is_empty() || ratio <= 1.0) {
        if tolerance.holds(ratio) {
            return Ok(proposal(current, ratio, true));
        }
        return Ok(proposal(ceil(ratio * ready.len() as f64), ratio, false));
    }
    // Be careful with what is not known: missing pods count as busy when scaling down, as idle when scaling up.
    for p in &missing {
        let assumed = if ratio < 1.0 {
            match target {
                Target::Utilization(percent) => p.request * f64::from(percent.max(100)) / 100.0,
                Target::AverageValue(t) | Target::Value(t) => t,
            }
        } else {
            0.0
        };
        values.push((assumed, p.request));
    }
    if ratio > 1.0 {
        values.extend(unready.iter().map(|p| (0.0, p.request)));
    }
    let (careful, _) = ratio_of(&values);
    let turned = (ratio < 1.0 && careful > 1.0) || (ratio > 1.0 && careful < 1.0);
    if tolerance.holds(careful) || turned {
        return Ok(proposal(current, careful, true));
    }
    let replicas = ceil(careful * values.len() as f64);
    if (careful < 1.0 && replicas > current) || (careful > 1.0 && replicas < current) {
        return Ok(proposal(current, careful, true));
    }
    Ok(proposal(replicas, careful, false))
}

/// From one value for the whole target (Object and External metrics).
pub(crate) fn from_total(
    value: f64,
    target: Target,
    current: i32,
    ready: i32,
    tolerance: Tolerance,
) -> Result<Proposal, String> {
    let (ratio, shown, replicas) = match target {
        Target::AverageValue(t) => {
            let per_pod = if current > 0 { value / f64::from(current) } else { value };
            // Without replicas nothing can be compared: the total alone decides.
            let ratio = if current > 0 {
                per_pod / t
            } else if value > 0.0 {
                f64::INFINITY
            } else {
                1.0
            };
            (ratio, per_pod, ceil(value / t))
        }
        Target::Value(t) => {
            let ratio = value / t;
            let base = if current > 0 { ready } else { 1 };
            (ratio, value, ceil(ratio * f64::from(base)))
        }
        Target::Utilization(_) => return Err("Object and External metrics have no utilization".to_owned()),
    };
    let within = current > 0 && tolerance.holds(ratio);
    Ok(Proposal {
        replicas: if within { current } else { replicas },
        ratio,
        current: shown,
        average: shown,
        within_tolerance: within,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLERANCE: Tolerance = Tolerance { up: 0.1, down: 0.1 };

    fn pods(values: &[Option<f64>], unready: &[usize], request: f64) -> Vec<PodInput> {
        values
            .iter()
            .enumerate()
            .map(|(i, v)| PodInput {
                name: format!("p{i}"),
                ignored: false,
                unready: unready.contains(&i),
                request,
                value: *v,
            })
            .collect()
    }

    /// Cases of replica_calculator_test.go, by their names there.
    #[test]
    fn upstreams_cases() {
        let check = |name: &str, values: &[Option<f64>], unready: &[usize], target: Target, expect: i32| {
            let current = i32::try_from(values.len()).expect("few");
            let p = from_pods(&pods(values, unready, 1.0), target, current, TOLERANCE).expect(name);
            assert_eq!(p.replicas, expect, "{name}");
        };
        let s = Some;
        check("scale up", &[s(0.3), s(0.5), s(0.7)], &[], Target::Utilization(30), 5);
        check("unready less scale", &[s(0.3), s(0.5), s(0.7)], &[0], Target::Utilization(30), 4);
        check("hot cpu less scale", &[s(0.5), s(0.5), s(0.7)], &[0], Target::Utilization(30), 4);
        check("unready no scale", &[s(0.4), s(0.5), s(0.7)], &[0, 2], Target::Utilization(30), 3);
        check("scale up average", &[s(20.0), s(10.0), s(30.0)], &[], Target::AverageValue(15.0), 4);
        check("scale down", &[s(0.1), s(0.3), s(0.5), s(0.25), s(0.25)], &[], Target::Utilization(50), 3);
        check(
            "scale down average",
            &[s(12.0), s(12.0), s(12.0), s(12.0), s(12.0)],
            &[],
            Target::AverageValue(20.0),
            3,
        );
        check("tolerance", &[s(1.01), s(1.03), s(0.02 + 1.0)], &[], Target::Utilization(100), 3);
        check("missing no change, up", &[s(1.0), None], &[], Target::Utilization(50), 2);
        // (0.1 + 0.1 + 3 × 1.0) / 5 = 64 % of the requests, 0.8 of the target: four pods.
        check("missing, less down", &[s(0.1), s(0.1), None, None, None], &[], Target::Utilization(80), 4);
    }

    #[test]
    fn a_pod_without_request_or_metrics_is_an_error() {
        assert!(from_pods(&pods(&[Some(1.0)], &[], 0.0), Target::Utilization(50), 1, TOLERANCE).is_err());
        assert!(from_pods(&pods(&[None], &[], 1.0), Target::Utilization(50), 1, TOLERANCE).is_err());
        assert!(from_pods(&[], Target::AverageValue(1.0), 1, TOLERANCE).is_err());
    }

    #[test]
    fn whole_values() {
        let check = |value, target, current, expect: i32| {
            assert_eq!(
                from_total(value, target, current, current, TOLERANCE).expect("a proposal").replicas,
                expect
            );
        };
        check(20_033.0, Target::Value(15_000.0), 3, 5);
        check(10_000.0, Target::Value(20_000.0), 4, 2);
        check(8600.0, Target::AverageValue(2200.0), 3, 4);
        check(100.0, Target::AverageValue(50.0), 0, 2);
        check(0.0, Target::Value(10.0), 3, 0);
        check(31.0, Target::AverageValue(10.0), 3, 3);
    }
}
