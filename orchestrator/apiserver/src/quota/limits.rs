//! LimitRange: what a container gets that says nothing, and the bounds of what it may say.

use apimachinery::quantity::Quantity;
use serde_json::Value;

use super::amounts;
use crate::error::{ApiError, Result};
use crate::kinds::{self, Served};
use crate::object;
use crate::server::ApiServer;

impl ApiServer {
    pub(crate) fn admit_limits(&self, served: &Served, namespace: &str, o: &mut Value) -> Result<()> {
        let ranges = kinds::by_resource("", "limitranges").expect("limit ranges are a kind");
        for range in self.cache.list(ranges.index, Some(namespace)).objects {
            let range = range.value();
            for item in object::list(&range, "spec.limits") {
                apply(item, o);
            }
            let mut wrong = Vec::new();
            for item in object::list(&range, "spec.limits") {
                check(item, o, &mut wrong);
            }
            if !wrong.is_empty() {
                let why = match wrong.as_slice() {
                    [one] => one.clone(),
                    many => format!("[{}]", many.join(", ")),
                };
                return Err(ApiError::forbidden(served, object::name(o), &why));
            }
        }
        Ok(())
    }
}

const LISTS: [&str; 2] = ["spec.initContainers", "spec.containers"];

/// Defaults of a Container item.
fn apply(item: &Value, pod: &mut Value) {
    if item["type"] != "Container" {
        return;
    }
    for list in LISTS {
        for c in object::list_mut(pod, list) {
            for (from, to) in [("default", "limits"), ("defaultRequest", "requests")] {
                let defaults = object::get(item, from).and_then(Value::as_object).cloned();
                for (k, v) in defaults.into_iter().flatten() {
                    let resources = object::child(c, "resources");
                    // A limit that is given stands for the request too, and was put there before.
                    object::default(object::child(resources, to), &k, v);
                }
            }
        }
    }
}

fn check(item: &Value, pod: &Value, wrong: &mut Vec<String>) {
    let (min, max) = (amounts(item, "min"), amounts(item, "max"));
    let ratio = amounts(item, "maxLimitRequestRatio");
    let mut judge = |kind: &str, requests: &super::Amounts, limits: &super::Amounts| {
        for (k, least) in &min {
            match requests.get(k) {
                None => {
                    wrong.push(format!("minimum {k} usage per {kind} is {least}.  No request is specified"))
                }
                Some(r) if r < least => {
                    wrong.push(format!("minimum {k} usage per {kind} is {least}, but request is {r}"));
                }
                Some(_) => {}
            }
        }
        for (k, most) in &max {
            match limits.get(k) {
                None => wrong.push(format!("maximum {k} usage per {kind} is {most}.  No limit is specified")),
                Some(l) if l > most => {
                    wrong.push(format!("maximum {k} usage per {kind} is {most}, but limit is {l}"));
                }
                Some(_) => {}
            }
        }
        for (k, most) in &ratio {
            if let (Some(r), Some(l)) = (requests.get(k), limits.get(k))
                && is_beyond(*r, *l, *most)
            {
                wrong.push(format!(
                    "{k} max limit to request ratio per {kind} is {most}, but provided ratio is exceeded"
                ));
            }
        }
    };
    let of = |c: &Value| (amounts(c, "resources.requests"), amounts(c, "resources.limits"));
    match item["type"].as_str() {
        Some("Container") => {
            for c in LISTS.iter().flat_map(|l| object::list(pod, l)) {
                let (requests, limits) = of(c);
                judge("Container", &requests, &limits);
            }
        }
        Some("Pod") => {
            let (mut requests, mut limits) = (super::Amounts::new(), super::Amounts::new());
            for c in object::list(pod, "spec.containers") {
                let (r, l) = of(c);
                r.into_iter().for_each(|(k, v)| *requests.entry(k).or_default() += v);
                l.into_iter().for_each(|(k, v)| *limits.entry(k).or_default() += v);
            }
            judge("Pod", &requests, &limits);
        }
        _ => {}
    }
}

/// limit > request × ratio
fn is_beyond(request: Quantity, limit: Quantity, ratio: Quantity) -> bool {
    let n = |q: Quantity| q.to_f64();
    n(limit) > n(request) * n(ratio)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn containers_get_defaults_and_stay_within_bounds() {
        let item = json!({"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"},
            "min": {"cpu": "50m"}, "max": {"cpu": "1"}});
        let mut pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "resources": {"requests": {"cpu": "10m"}, "limits": {"cpu": "2"}}}]}});
        apply(&item, &mut pod);
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}})
        );
        let mut wrong = Vec::new();
        check(&item, &pod, &mut wrong);
        assert_eq!(
            wrong,
            [
                "minimum cpu usage per Container is 50m, but request is 10m",
                "maximum cpu usage per Container is 1, but limit is 2"
            ]
        );
    }
}
