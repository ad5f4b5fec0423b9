//! Metric specs as PromQL, and PromQL's answer as numbers.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::quantity::Quantity as Amount;
use k8s_openapi::api::autoscaling::v2::{MetricSpec, MetricTarget};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use promql::{Engine, Value};
use serde::{Deserialize, Serialize};

use crate::replicas::Target;

/// Overrides the query of a Pods, Object or External metric: `query.binnacle.io/<metric name>: <PromQL>`. A Pods
/// query must give one sample for each pod, with the label `pod`. Whatever it says, it sees the HPA's namespace only.
const QUERY_ANNOTATION: &str = "query.binnacle.io/";

/// One sample of a query's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricSample {
    pub labels: signal::Labels,
    pub value: f64,
}

/// Runs PromQL in this process, off the async threads.
#[derive(Clone)]
pub struct Querier {
    engine: Arc<Engine>,
}

impl Querier {
    pub fn new(engine: Arc<Engine>) -> Self {
        Querier { engine }
    }

    /// An instant query over the series of one namespace: an HPA's author may name any query, and must not see by it
    /// what the namespace's own people may not. Errors are the engine's words.
    pub(crate) async fn instant(
        &self,
        query: &str,
        namespace: &str,
        time: i64,
    ) -> Result<Vec<MetricSample>, String> {
        let (engine, query) = (self.engine.clone(), query.to_owned());
        let options = promql::Options {
            enforce: vec![signal::Matcher::equal("namespace", namespace)],
            ..Default::default()
        };
        let result = tokio::task::spawn_blocking(move || engine.instant_with(&query, time, &options))
            .await
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())?;
        match result.value {
            Value::Vector(v) => {
                Ok(v.into_iter().map(|(labels, s)| MetricSample { labels, value: s.value }).collect())
            }
            Value::Scalar(s) => Ok(vec![MetricSample { labels: signal::Labels::empty(), value: s.value }]),
            _ => Err("the query gives neither a vector nor a scalar".to_owned()),
        }
    }
}

/// What a metric spec asks to be measured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    /// As `kubectl describe` names it.
    pub(crate) name: String,
    pub(crate) query: String,
    pub(crate) target: Target,
    pub(crate) per_pod: bool,
    /// The resource that pods request, and the container it is limited to.
    pub(crate) resource: Option<(String, Option<String>)>,
}

fn number(q: &Quantity) -> Result<f64, String> {
    q.0.parse::<Amount>().map(Amount::to_f64).map_err(|e| format!("{}: {e}", q.0))
}

fn target(t: &MetricTarget) -> Result<Target, String> {
    match (t.average_utilization, &t.average_value, &t.value) {
        (Some(percent), _, _) => Ok(Target::Utilization(percent)),
        (None, Some(v), _) => Ok(Target::AverageValue(number(v)?)),
        (None, None, Some(v)) => Ok(Target::Value(number(v)?)),
        (None, None, None) => Err("the metric has no target".to_owned()),
    }
}

/// `a|b|c` with what regular expressions mean in it taken away.
fn alternatives(pods: &[String]) -> String {
    pods.iter().map(|p| p.replace('.', "\\\\.")).collect::<Vec<_>>().join("|")
}

fn matchers(selector: Option<&LabelSelector>) -> String {
    let mut out = String::new();
    let Some(s) = selector else { return out };
    for (k, v) in s.match_labels.iter().flatten() {
        out.push_str(&format!(",{k}={v:?}"));
    }
    for e in s.match_expressions.iter().flatten() {
        let values = e.values.clone().unwrap_or_default().join("|");
        match e.operator.as_str() {
            "In" => out.push_str(&format!(",{}=~{values:?}", e.key)),
            "NotIn" => out.push_str(&format!(",{}!~{values:?}", e.key)),
            "Exists" => out.push_str(&format!(",{}!=\"\"", e.key)),
            _ => out.push_str(&format!(",{}=\"\"", e.key)),
        }
    }
    out
}

/// A custom metric's expression: a name that ends in `_per_second` is the rate of the counter `<name>_total`, a
/// name that ends in `_total` is a counter's rate, any other name is a gauge (prometheus-adapter's convention).
fn expression(metric: &str, inside: &str, window: Duration) -> String {
    let window = format!("{}s", window.as_secs().max(1));
    if let Some(base) = metric.strip_suffix("_per_second") {
        format!("rate({base}_total{{{inside}}}[{window}])")
    } else if metric.ends_with("_total") {
        format!("rate({metric}{{{inside}}}[{window}])")
    } else {
        format!("{metric}{{{inside}}}")
    }
}

/// The query of a metric spec for these pods. `window` is how far rates look back.
pub(crate) fn wanted(
    spec: &MetricSpec,
    namespace: &str,
    pods: &[String],
    annotations: &std::collections::BTreeMap<String, String>,
    window: Duration,
) -> Result<Wanted, String> {
    let here = format!("namespace={namespace:?},pod=~\"{}\"", alternatives(pods));
    let own = |metric: &str| annotations.get(&format!("{QUERY_ANNOTATION}{metric}")).cloned();
    let resource = |name: &str, container: Option<&str>, t: &MetricTarget| -> Result<Wanted, String> {
        let container_matcher =
            container.map_or("container!=\"\"".to_owned(), |c| format!("container={c:?}"));
        let query = match name {
            "cpu" => format!(
                "sum by (pod) (rate(container_cpu_usage_seconds_total{{{here},{container_matcher}}}[{}s]))",
                window.as_secs().max(1)
            ),
            "memory" => {
                format!("sum by (pod) (container_memory_working_set_bytes{{{here},{container_matcher}}})")
            }
            other => return Err(format!("resource {other:?} is not measured: use cpu or memory")),
        };
        Ok(Wanted {
            name: match container {
                Some(c) => format!("resource {name} of container {c}"),
                None => format!("resource {name}"),
            },
            query,
            target: target(t)?,
            per_pod: true,
            resource: Some((name.to_owned(), container.map(str::to_owned))),
        })
    };
    match spec.type_.as_str() {
        "Resource" => {
            let r = spec.resource.as_ref().ok_or("type Resource without resource")?;
            resource(&r.name, None, &r.target)
        }
        "ContainerResource" => {
            let r =
                spec.container_resource.as_ref().ok_or("type ContainerResource without containerResource")?;
            resource(&r.name, Some(&r.container), &r.target)
        }
        "Pods" => {
            let p = spec.pods.as_ref().ok_or("type Pods without pods")?;
            let name = &p.metric.name;
            let inside = format!("{here}{}", matchers(p.metric.selector.as_ref()));
            let query =
                own(name).unwrap_or_else(|| format!("sum by (pod) ({})", expression(name, &inside, window)));
            Ok(Wanted {
                name: format!("pods metric {name}"),
                query,
                target: target(&p.target)?,
                per_pod: true,
                resource: None,
            })
        }
        "Object" => {
            let o = spec.object.as_ref().ok_or("type Object without object")?;
            let name = &o.metric.name;
            let (kind, object) = (o.described_object.kind.to_ascii_lowercase(), &o.described_object.name);
            let inside =
                format!("namespace={namespace:?},{kind}={object:?}{}", matchers(o.metric.selector.as_ref()));
            let query = own(name).unwrap_or_else(|| format!("sum({})", expression(name, &inside, window)));
            Ok(Wanted {
                name: format!("{kind} {object} metric {name}"),
                query,
                target: target(&o.target)?,
                per_pod: false,
                resource: None,
            })
        }
        "External" => {
            let e = spec.external.as_ref().ok_or("type External without external")?;
            let name = &e.metric.name;
            let inside = format!("namespace={namespace:?}{}", matchers(e.metric.selector.as_ref()));
            let query = own(name).unwrap_or_else(|| format!("sum({})", expression(name, &inside, window)));
            Ok(Wanted {
                name: format!("external metric {name}"),
                query,
                target: target(&e.target)?,
                per_pod: false,
                resource: None,
            })
        }
        other => Err(format!("metric type {other:?} is not known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn specs_become_promql() {
        let check = |spec: serde_json::Value, query: &str, target: Target| {
            let spec: MetricSpec = serde_json::from_value(spec).expect("a metric spec");
            let pods = ["a-1".to_owned(), "b.2".to_owned()];
            let w =
                wanted(&spec, "shop", &pods, &Default::default(), Duration::from_secs(5)).expect("a query");
            assert_eq!((w.query.as_str(), w.target), (query, target));
            promql::parse(&w.query).expect("it parses");
        };
        check(
            json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}}),
            r#"sum by (pod) (rate(container_cpu_usage_seconds_total{namespace="shop",pod=~"a-1|b\\.2",container!=""}[5s]))"#,
            Target::Utilization(60),
        );
        check(
            json!({"type": "ContainerResource", "containerResource": {"name": "memory", "container": "web",
                "target": {"type": "AverageValue", "averageValue": "64Mi"}}}),
            r#"sum by (pod) (container_memory_working_set_bytes{namespace="shop",pod=~"a-1|b\\.2",container="web"})"#,
            Target::AverageValue(67_108_864.0),
        );
        check(
            json!({"type": "Pods", "pods": {"metric": {"name": "http_requests_per_second"},
                "target": {"type": "AverageValue", "averageValue": "500m"}}}),
            r#"sum by (pod) (rate(http_requests_total{namespace="shop",pod=~"a-1|b\\.2"}[5s]))"#,
            Target::AverageValue(0.5),
        );
        check(
            json!({"type": "Object", "object": {"metric": {"name": "queue_length"},
                "describedObject": {"kind": "Service", "name": "web"}, "target": {"type": "Value", "value": "3"}}}),
            r#"sum(queue_length{namespace="shop",service="web"})"#,
            Target::Value(3.0),
        );
        check(
            json!({"type": "External", "external": {"metric": {"name": "jobs", "selector": {"matchLabels": {"q": "x"}}},
                "target": {"type": "AverageValue", "averageValue": "2"}}}),
            r#"sum(jobs{namespace="shop",q="x"})"#,
            Target::AverageValue(2.0),
        );
    }
}
