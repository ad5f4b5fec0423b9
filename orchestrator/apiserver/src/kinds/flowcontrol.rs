//! FlowSchema and PriorityLevelConfiguration: whose requests wait where (pkg/apis/flowcontrol/validation).

mod rules;

use serde_json::{Value, json};
use signal::Timestamp;

use super::{AGE, BASE, Kind, NAME, column};
use crate::{object, table};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

pub(crate) static FLOW_SCHEMA: Kind = Kind {
    group: GROUP,
    resource: "flowschemas",
    singular: "flowschema",
    kind: "FlowSchema",
    namespaced: false,
    generation: true,
    status: true,
    default: |o| {
        if let Some(spec) = o.get_mut("spec") {
            object::default(spec, "matchingPrecedence", 1000);
        }
    },
    validate: rules::schema,
    validate_status: |new, _, errors| rules::conditions(new, errors),
    columns: &[
        NAME,
        column("PriorityLevel"),
        column("MatchingPrecedence"),
        column("DistinguisherMethod"),
        AGE,
        column("MissingPL"),
    ],
    row: schema_row,
    ..BASE
};

pub(crate) static PRIORITY_LEVEL: Kind = Kind {
    group: GROUP,
    resource: "prioritylevelconfigurations",
    singular: "prioritylevelconfiguration",
    kind: "PriorityLevelConfiguration",
    namespaced: false,
    generation: true,
    status: true,
    default: default_level,
    validate: rules::level,
    validate_status: |new, _, errors| rules::conditions(new, errors),
    columns: &[
        NAME,
        column("Type"),
        column("NominalConcurrencyShares"),
        column("Queues"),
        column("HandSize"),
        column("QueueLengthLimit"),
        AGE,
    ],
    row: level_row,
    ..BASE
};

fn default_level(o: &mut Value) {
    let Some(spec) = o.get_mut("spec") else { return };
    match spec["type"].as_str() {
        Some("Exempt") => {
            let exempt = object::child(spec, "exempt");
            object::default(exempt, "nominalConcurrencyShares", 0);
            object::default(exempt, "lendablePercent", 0);
        }
        Some("Limited") => {
            let limited = object::child(spec, "limited");
            object::default(limited, "nominalConcurrencyShares", 30);
            object::default(limited, "lendablePercent", 0);
            if limited["limitResponse"]["type"] == "Queue"
                && let Some(queuing) = limited["limitResponse"].get_mut("queuing")
            {
                object::default(queuing, "queues", 64);
                object::default(queuing, "handSize", 8);
                object::default(queuing, "queueLengthLimit", 50);
            }
        }
        _ => {}
    }
}

fn schema_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let conditions = object::list(o, "status.conditions");
    let missing = conditions.iter().find(|c| c["type"] == "Dangling").and_then(|c| c["status"].as_str());
    vec![
        object::name(o).into(),
        object::text(o, "spec.priorityLevelConfiguration.name").unwrap_or_default().into(),
        object::int(o, "spec.matchingPrecedence").unwrap_or(0).to_string().into(),
        object::text(o, "spec.distinguisherMethod.type").unwrap_or("<none>").into(),
        table::age(o, now),
        missing.unwrap_or("?").into(),
    ]
}

fn level_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let number = |path: &str| object::int(o, path).map_or_else(|| json!("<none>"), |n| n.to_string().into());
    let queuing = |name: &str| number(&format!("spec.limited.limitResponse.queuing.{name}"));
    vec![
        object::name(o).into(),
        object::text(o, "spec.type").unwrap_or_default().into(),
        number("spec.limited.nominalConcurrencyShares"),
        queuing("queues"),
        queuing("handSize"),
        queuing("queueLengthLimit"),
        table::age(o, now),
    ]
}
