//! Says in every FlowSchema's status whether its priority level is there
//! (apiserver: pkg/util/flowcontrol/apf_controller.go syncFlowSchemaStatus).

use std::sync::Arc;

use serde_json::{Value, json};
use signal::Timestamp;

use super::GROUP;
use crate::error::Result;
use crate::follow::Changes;
use crate::kinds::{self, Served};
use crate::object;
use crate::registry::{Part, WriteContext};
use crate::server::ApiServer;

const MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";

fn kind(resource: &str) -> Served {
    kinds::by_resource(GROUP, resource).expect("flowcontrol's kinds are known")
}

/// Follows schemas and levels until the server stops.
pub(crate) async fn run(server: Arc<ApiServer>) {
    let (schemas, levels) = (kind("flowschemas"), kind("prioritylevelconfigurations"));
    let mut changes = Changes::of(&server, &[schemas.index, levels.index]);
    while changes.next(&server).await {
        for o in server.cache.list(schemas.index, None).objects {
            if let Err(e) = look(&server, &schemas, &levels, &o.value()).await {
                tracing::warn!(schema = o.name(), error = %e.message, "a flow schema's status could not be written");
                changes.again();
            }
        }
    }
}

async fn look(server: &ApiServer, schemas: &Served, levels: &Served, o: &Value) -> Result<()> {
    let level = object::text(o, "spec.priorityLevelConfiguration.name").unwrap_or_default();
    let exists = server.cache.get(levels.index, level).is_some();
    let now = server.now();
    if condition(o, exists, now).is_none() {
        return Ok(());
    }
    let mut ctx = WriteContext::default();
    MANAGER.clone_into(&mut ctx.options.field_manager);
    let mut apply = |old: &Value| {
        let mut new = old.clone();
        if let Some(conditions) = condition(old, exists, now) {
            object::child(&mut new, "status")["conditions"] = conditions;
        }
        Ok(new)
    };
    match server.update(schemas, "", object::name(o), &ctx, Part::Status, &mut apply).await {
        Err(e) if e.code != 404 => Err(e),
        _ => Ok(()),
    }
}

/// The conditions a schema should have; `None` if it has them.
pub(crate) fn condition(o: &Value, exists: bool, now: Timestamp) -> Option<Value> {
    let level = object::text(o, "spec.priorityLevelConfiguration.name").unwrap_or_default();
    let names = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    let (status, reason, message) = if exists {
        ("False", "Found", format!("{names} and it exists"))
    } else {
        ("True", "NotFound", format!("{names} but there is no such object"))
    };
    let mut all = object::list(o, "status.conditions").to_vec();
    let old = all.iter().position(|c| c["type"] == "Dangling");
    let same = old.and_then(|i| all.get(i));
    if same.is_some_and(|c| c["status"] == status && c["reason"] == reason && c["message"] == *message) {
        return None;
    }
    let since = same.filter(|c| c["status"] == status).map(|c| c["lastTransitionTime"].clone());
    let made = json!({"type": "Dangling", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": since.unwrap_or_else(|| object::rfc3339(now).into())});
    match old.and_then(|i| all.get_mut(i)) {
        Some(c) => *c = made,
        None => all.push(made),
    }
    Some(all.into())
}
