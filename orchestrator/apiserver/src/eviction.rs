//! A deletion that asks politely: disruption budgets may refuse it
//! (kubernetes: pkg/registry/core/pod/storage/eviction.go).

use std::sync::Arc;

use apimachinery::selector::Selector;
use axum::response::Response;
use serde_json::{Value, json};

use crate::admission::attributes::Operation;
use crate::body;
use crate::cache::Object;
use crate::dispatch::Context;
use crate::error::{ApiError, Result};
use crate::kinds::{self, Served};
use crate::object;
use crate::options::delete_options_from;
use crate::registry::{DeleteOptions, Part, WriteContext};
use crate::server::ApiServer;
use crate::subresource::success;

/// Pods in their budget's list of those on their way out; more says that the disruption controller is behind.
const MAX_DISRUPTED: usize = 2000;

pub(crate) async fn respond(
    server: &ApiServer,
    ctx: &Context,
    served: Served,
    bytes: &[u8],
) -> Result<Response> {
    let mut eviction = body::decode(bytes, body::media_type(&ctx.headers))?;
    let named = object::name(&eviction);
    if !named.is_empty() && named != ctx.info.name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut options = delete_options_from(&eviction["deleteOptions"])?;
    options.dry_run |= ctx.write()?.options.dry_run;
    let subject = ("policy", "v1", "Eviction");
    server.admit_subject(Operation::Create, ctx, &served, subject, &mut eviction).await?;
    let pod = server.get(&served, &ctx.info.namespace, &ctx.info.name).await?.value();
    if !is_free(&pod) {
        spend(server, ctx, &pod, &mut options).await?;
    }
    // An eviction was admitted as such: it is no deletion of its own.
    let write = WriteContext::default();
    server.delete(&served, &ctx.info.namespace, &ctx.info.name, &options, &write).await?;
    Ok(success(201))
}

/// Pods that serve nobody any more, or not yet.
fn is_free(pod: &Value) -> bool {
    object::is_deleting(pod)
        || matches!(object::text(pod, "status.phase"), Some("Succeeded" | "Failed" | "Pending"))
}

fn is_ready(pod: &Value) -> bool {
    object::list(pod, "status.conditions").iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Takes one disruption out of the pod's budget, if it has one.
async fn spend(server: &ApiServer, ctx: &Context, pod: &Value, options: &mut DeleteOptions) -> Result<()> {
    let pdbs = kinds::by_resource("policy", "poddisruptionbudgets").expect("budgets are a kind");
    let all = server.cache.list(pdbs.index, Some(&ctx.info.namespace)).objects;
    let covering: Vec<Arc<Object>> = all.into_iter().filter(|p| covers(&p.value(), pod)).collect();
    let budget = match covering.as_slice() {
        [] => return Ok(()),
        [one] => one,
        _ => {
            return Err(ApiError::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    let name = object::name(pod).to_owned();
    let ready = is_ready(pod);
    let now = object::rfc3339(server.now());
    let mut change = |pdb: &Value| -> Result<Value> {
        if !ready && is_unhealthy_allowed(pdb) {
            return Ok(pdb.clone());
        }
        let mut new = pdb.clone();
        let status = object::child(&mut new, "status");
        check(pdb)?;
        let allowed = object::int(status, "disruptionsAllowed").unwrap_or(0);
        status["disruptionsAllowed"] = (allowed - 1).into();
        let disrupted = object::child(status, "disruptedPods");
        if disrupted.as_object().is_some_and(|d| d.len() >= MAX_DISRUPTED) {
            let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
            return Err(ApiError::forbidden(&pdbs, object::name(pdb), why));
        }
        disrupted[name.as_str()] = now.clone().into();
        Ok(new)
    };
    let mut write = WriteContext::default();
    write.options.dry_run = options.dry_run;
    "binnacle".clone_into(&mut write.options.field_manager);
    server.update(&pdbs, &ctx.info.namespace, budget.name(), &write, Part::Status, &mut change).await?;
    // The budget was spent for this pod and no later one of its name.
    options.uid.get_or_insert_with(|| object::text(pod, "metadata.uid").unwrap_or_default().to_owned());
    Ok(())
}

fn covers(pdb: &Value, pod: &Value) -> bool {
    let selector = object::get(pdb, "spec.selector");
    selector.is_some()
        && Selector::from_json(selector).is_ok_and(|s| s.matches_json(object::get(pod, "metadata.labels")))
}

/// Pods that are not ready may go where the others suffice.
fn is_unhealthy_allowed(pdb: &Value) -> bool {
    let n = |f: &str| object::int(pdb, &format!("status.{f}")).unwrap_or(0);
    match object::text(pdb, "spec.unhealthyPodEvictionPolicy") {
        Some("AlwaysAllow") => true,
        _ => n("desiredHealthy") > 0 && n("currentHealthy") >= n("desiredHealthy"),
    }
}

fn check(pdb: &Value) -> Result<()> {
    let n = |f: &str| object::int(pdb, f).unwrap_or(0);
    let name = object::name(pdb);
    let why = if n("status.observedGeneration") < n("metadata.generation") {
        format!("The disruption budget {name} is still being processed by the server.")
    } else if n("status.disruptionsAllowed") < 1 {
        format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            n("status.desiredHealthy"),
            n("status.currentHealthy")
        )
    } else {
        return Ok(());
    };
    let mut e = ApiError::new(
        429,
        "TooManyRequests",
        "Cannot evict pod as it would violate the pod's disruption budget.",
    );
    e.details = Some(json!({"causes": [{"reason": "DisruptionBudget", "message": why}]}));
    Err(e)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pdb(allowed: i64, observed: i64) -> Value {
        json!({"metadata": {"name": "web", "generation": 1}, "spec": {"selector": {"matchLabels": {"a": "b"}}},
            "status": {"disruptionsAllowed": allowed, "observedGeneration": observed, "desiredHealthy": 1, "currentHealthy": 1}})
    }

    #[test]
    fn budgets_refuse() {
        assert!(check(&pdb(1, 1)).is_ok());
        let cause = |p: &Value| {
            let e = check(p).expect_err("refused");
            (e.code, e.details.expect("details")["causes"][0]["message"].as_str().map(str::to_owned))
        };
        let needs = "The disruption budget web needs 1 healthy pods and has 1 currently";
        assert_eq!(cause(&pdb(0, 1)), (429, Some(needs.to_owned())));
        let processed = "The disruption budget web is still being processed by the server.";
        assert_eq!(cause(&pdb(1, 0)), (429, Some(processed.to_owned())));
    }

    #[test]
    fn budgets_choose_by_labels() {
        assert!(covers(&pdb(0, 1), &json!({"metadata": {"labels": {"a": "b"}}})));
        assert!(!covers(&pdb(0, 1), &json!({"metadata": {"labels": {"a": "c"}}})));
        assert!(!covers(&json!({"spec": {}}), &json!({"metadata": {"labels": {"a": "c"}}})));
    }
}
