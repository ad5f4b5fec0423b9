//! FlowSchema and PriorityLevelConfiguration: whose requests wait where (pkg/apis/flowcontrol/validation).

use serde_json::{Value, json};
use signal::Timestamp;

use super::{AGE, BASE, Kind, NAME, column};
use crate::validation::Errors;
use crate::{object, table};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const VERBS: [&str; 9] =
    ["*", "create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

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
    validate: validate_schema,
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
    validate: validate_level,
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

fn validate_schema(o: &Value, errors: &mut Errors) {
    let spec = o.get("spec").unwrap_or(&Value::Null);
    let precedence = object::int(spec, "matchingPrecedence").unwrap_or(1000);
    if precedence <= 0 {
        errors.invalid("spec.matchingPrecedence", precedence, "must be a positive value");
    }
    if precedence > 10_000 {
        errors.invalid("spec.matchingPrecedence", precedence, "must not be greater than 10000");
    }
    if precedence == 1 && object::name(o) != "exempt" {
        errors.invalid(
            "spec.matchingPrecedence",
            precedence,
            "only the schema named 'exempt' may have matchingPrecedence 1",
        );
    }
    match object::text(spec, "distinguisherMethod.type") {
        None | Some("ByUser" | "ByNamespace") => {}
        Some(other) => {
            errors.not_supported("spec.distinguisherMethod", other, &["ByNamespace", "ByUser"]);
        }
    }
    match object::text(spec, "priorityLevelConfiguration.name") {
        None | Some("") => {
            errors.required("spec.priorityLevelConfiguration.name", "must reference a priority level");
        }
        Some(name) => {
            if let Err(why) = apimachinery::name::dns_subdomain(name) {
                errors.invalid("spec.priorityLevelConfiguration.name", name, &why);
            }
        }
    }
    for (i, rule) in object::list(spec, "rules").iter().enumerate() {
        validate_rule(rule, &format!("spec.rules[{i}]"), errors);
    }
}

fn validate_rule(rule: &Value, path: &str, errors: &mut Errors) {
    if object::list(rule, "subjects").is_empty() {
        errors.required(format!("{path}.subjects"), "subjects must contain at least one value");
    }
    for (i, subject) in object::list(rule, "subjects").iter().enumerate() {
        let path = format!("{path}.subjects[{i}]");
        let (part, name) = match object::text(subject, "kind") {
            Some("User") => ("user", "user.name"),
            Some("Group") => ("group", "group.name"),
            Some("ServiceAccount") => ("serviceAccount", "serviceAccount.name"),
            other => {
                let kinds = ["Group", "ServiceAccount", "User"];
                errors.not_supported(format!("{path}.kind"), other.unwrap_or_default(), &kinds);
                continue;
            }
        };
        if object::get(subject, part).is_none() {
            let why = format!(
                "{part} is required when subject kind is '{}'",
                subject["kind"].as_str().unwrap_or_default()
            );
            errors.required(format!("{path}.{part}"), &why);
        } else if object::text(subject, name).is_none_or(str::is_empty) {
            errors.required(format!("{path}.{name}"), "");
        }
    }
    let (resources, urls) = (object::list(rule, "resourceRules"), object::list(rule, "nonResourceRules"));
    if resources.is_empty() && urls.is_empty() {
        errors.required(
            path.to_owned(),
            "at least one of resourceRules and nonResourceRules has to be non-empty",
        );
    }
    for (i, r) in resources.iter().enumerate() {
        let path = format!("{path}.resourceRules[{i}]");
        verbs(r, &path, errors);
        for key in ["apiGroups", "resources"] {
            if object::list(r, key).is_empty() {
                errors.required(format!("{path}.{key}"), &format!("{key} must contain at least one value"));
            }
        }
        if object::list(r, "namespaces").is_empty() && !object::flag(r, "clusterScope") {
            errors.required(
                format!("{path}.namespaces"),
                "resource rules that are not cluster scoped must supply at least one namespace",
            );
        }
    }
    for (i, r) in urls.iter().enumerate() {
        let path = format!("{path}.nonResourceRules[{i}]");
        verbs(r, &path, errors);
        if object::list(r, "nonResourceURLs").is_empty() {
            errors.required(
                format!("{path}.nonResourceURLs"),
                "nonResourceURLs must contain at least one value",
            );
        }
    }
}

fn verbs(rule: &Value, path: &str, errors: &mut Errors) {
    let verbs = object::list(rule, "verbs");
    if verbs.is_empty() {
        errors.required(format!("{path}.verbs"), "verbs must contain at least one value");
    }
    if verbs.len() > 1 && verbs.iter().any(|v| v == "*") {
        let all = Value::Array(verbs.to_vec());
        errors.invalid(format!("{path}.verbs"), &all, "if '*' is present, must not specify other verbs");
    }
    let unknown = verbs.iter().filter_map(Value::as_str).any(|v| !VERBS.contains(&v));
    if unknown && path.contains("resourceRules") && !path.contains("nonResource") {
        errors.not_supported(format!("{path}.verbs"), "", &VERBS);
    }
}

fn validate_level(o: &Value, errors: &mut Errors) {
    let spec = o.get("spec").unwrap_or(&Value::Null);
    let (limited, exempt) = (object::get(spec, "limited"), object::get(spec, "exempt"));
    match object::text(spec, "type") {
        Some("Exempt") => {
            if limited.is_some() {
                errors.forbidden("spec.limited", "must be nil if the type is not Limited");
            }
        }
        Some("Limited") => {
            if exempt.is_some() {
                errors.forbidden("spec.exempt", "must be nil if the type is Limited");
            }
            match limited {
                None => errors.required("spec.limited", "must not be empty when type is Limited"),
                Some(l) => validate_limited(l, errors),
            }
        }
        other => {
            errors.not_supported("spec.type", other.unwrap_or_default(), &["Exempt", "Limited"]);
        }
    }
}

fn validate_limited(limited: &Value, errors: &mut Errors) {
    let shares = object::int(limited, "nominalConcurrencyShares").unwrap_or(30);
    if shares < 0 {
        errors.invalid("spec.limited.nominalConcurrencyShares", shares, "must be a non-negative integer");
    }
    let lendable = object::int(limited, "lendablePercent").unwrap_or(0);
    if !(0..=100).contains(&lendable) {
        errors.invalid("spec.limited.lendablePercent", lendable, "must be between 0 and 100, inclusive");
    }
    let path = "spec.limited.limitResponse";
    let queuing = object::get(limited, "limitResponse.queuing");
    match (object::text(limited, "limitResponse.type"), queuing) {
        (Some("Reject"), Some(_)) => {
            errors.forbidden(
                format!("{path}.queuing"),
                "must be nil if limited.limitResponse.type is not Limited",
            );
        }
        (Some("Reject"), None) => {}
        (Some("Queue"), None) => errors.required(
            format!("{path}.queuing"),
            "must not be empty if limited.limitResponse.type is Limited",
        ),
        (Some("Queue"), Some(q)) => validate_queuing(q, &format!("{path}.queuing"), errors),
        (other, _) => {
            errors.not_supported(format!("{path}.type"), other.unwrap_or_default(), &["Queue", "Reject"]);
        }
    }
}

fn validate_queuing(q: &Value, path: &str, errors: &mut Errors) {
    const MOST_QUEUES: i64 = 10_000_000;
    let of = |name: &str| object::int(q, name).unwrap_or(0);
    for name in ["queueLengthLimit", "queues"] {
        if of(name) <= 0 {
            errors.invalid(format!("{path}.{name}"), of(name), "must be positive");
        }
    }
    if of("queues") > MOST_QUEUES {
        errors.invalid(format!("{path}.queues"), of("queues"), "must not be greater than 10000000");
    }
    let (hand, queues) = (of("handSize"), of("queues"));
    if hand <= 0 {
        errors.invalid(format!("{path}.handSize"), hand, "must be positive");
    } else if hand > queues {
        errors.invalid(
            format!("{path}.handSize"),
            hand,
            &format!("should not be greater than queues ({queues})"),
        );
    } else if (0..hand).map(|i| ((queues - i) as f64).log2()).sum::<f64>() > 60.0 {
        errors.invalid(
            format!("{path}.handSize"),
            hand,
            "required entropy bits of deckSize and handSize should not be greater than 60",
        );
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
