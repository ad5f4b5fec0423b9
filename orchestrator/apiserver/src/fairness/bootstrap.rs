//! The FlowSchemas and PriorityLevelConfigurations every cluster has (apiserver: pkg/apis/flowcontrol/bootstrap).

use serde_json::{Value, json};

use crate::cache::Cache;
use crate::{kinds, object};

/// Says on a suggested object whether the server keeps it as it suggests.
const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// Whether an administrator keeps a suggested object for himself
/// (apiserver: pkg/util/apihelpers, registry/flowcontrol/ensurer); the mandatory ones nobody does.
pub(crate) fn is_left_alone(cache: &Cache, resource: &str, suggested: &Value) -> bool {
    let name = object::name(suggested);
    let served = kinds::by_resource(super::GROUP, resource).expect("flowcontrol's kinds are known");
    let Some(held) = cache.get(served.index, name).filter(|_| !matches!(name, "exempt" | "catch-all")) else {
        return false;
    };
    let held = held.value();
    match object::get(&held, "metadata.annotations").and_then(|a| a[AUTOUPDATE].as_str()) {
        Some("true") => false,
        Some("false") => true,
        _ => object::int(&held, "metadata.generation").unwrap_or(1) > 1,
    }
}

fn metadata(name: &str) -> Value {
    json!({"name": name, "annotations": {AUTOUPDATE: "true"}})
}

/// Name, shares, lendable percent, and queues, hand, length where requests may wait.
type LevelRow = (&'static str, u32, u32, Option<(u32, u32, u32)>);

const LEVELS: [LevelRow; 7] = [
    ("catch-all", 5, 0, None),
    ("system", 30, 33, Some((64, 6, 50))),
    ("node-high", 40, 25, Some((64, 6, 50))),
    ("leader-election", 10, 0, Some((16, 4, 50))),
    ("workload-high", 40, 50, Some((128, 6, 50))),
    ("workload-low", 100, 90, Some((128, 6, 50))),
    ("global-default", 20, 50, Some((128, 6, 50))),
];

pub(crate) fn levels() -> Vec<Value> {
    let exempt = json!({"metadata": metadata("exempt"), "spec": {"type": "Exempt",
        "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}});
    let limited = LEVELS.iter().map(|(name, shares, lendable, queuing)| {
        let response = match queuing {
            None => json!({"type": "Reject"}),
            Some((queues, hand, length)) => json!({"type": "Queue", "queuing":
                {"queues": queues, "handSize": hand, "queueLengthLimit": length}}),
        };
        json!({"metadata": metadata(name), "spec": {"type": "Limited", "limited":
            {"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response}}})
    });
    std::iter::once(exempt).chain(limited).collect()
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "group": {"name": name}})
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": name}})
}

fn account(name: &str) -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": name}})
}

fn resources(
    verbs: &[&str],
    groups: &[&str],
    resources: &[&str],
    namespaces: &[&str],
    cluster: bool,
) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": groups, "resources": resources});
    if cluster {
        rule["clusterScope"] = true.into();
    }
    if !namespaces.is_empty() {
        rule["namespaces"] = json!(namespaces);
    }
    rule
}

fn everything() -> (Vec<Value>, Vec<Value>) {
    let urls = json!({"verbs": ["*"], "nonResourceURLs": ["*"]});
    (vec![resources(&["*"], &["*"], &["*"], &["*"], true)], vec![urls])
}

fn schema(
    name: &str,
    level: &str,
    precedence: u32,
    by: &str,
    subjects: &[Value],
    (resources, urls): (Vec<Value>, Vec<Value>),
) -> Value {
    let mut rule = json!({"subjects": subjects});
    for (key, rules) in [("resourceRules", resources), ("nonResourceRules", urls)] {
        if !rules.is_empty() {
            rule[key] = rules.into();
        }
    }
    let mut spec = json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence});
    if !by.is_empty() {
        spec["distinguisherMethod"] = json!({"type": by});
    }
    spec["rules"] = json!([rule]);
    json!({"metadata": metadata(name), "spec": spec})
}

pub(crate) fn schemas() -> Vec<Value> {
    let everyone = [group("system:unauthenticated"), group("system:authenticated")];
    let health = json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]});
    let lead = |namespaces: &[&str]| {
        let rule =
            resources(&["get", "create", "update"], &["coordination.k8s.io"], &["leases"], namespaces, false);
        (vec![rule], Vec::new())
    };
    let endpoints = resources(&["get", "create", "update"], &[""], &["endpoints"], &["*"], false);
    let nodes = vec![
        resources(&["*"], &[""], &["nodes", "nodes/status"], &["*"], true),
        resources(&["*"], &["coordination.k8s.io"], &["leases"], &["*"], false),
    ];
    let (manager, scheduler) = (user("system:kube-controller-manager"), user("system:kube-scheduler"));
    let accounts = account("*");
    let controllers = [manager.clone(), account("endpoint-controller")];
    let leaders = [manager.clone(), scheduler.clone(), accounts.clone()];
    vec![
        schema("exempt", "exempt", 1, "", &[group("system:masters")], everything()),
        schema("probes", "exempt", 2, "", &everyone, (Vec::new(), vec![health])),
        schema("system-leader-election", "leader-election", 100, "ByUser", &leaders, lead(&["kube-system"])),
        schema(
            "endpoint-controller",
            "workload-high",
            150,
            "ByUser",
            &controllers,
            (vec![endpoints], Vec::new()),
        ),
        schema(
            "workload-leader-election",
            "leader-election",
            200,
            "ByUser",
            std::slice::from_ref(&accounts),
            lead(&["*"]),
        ),
        schema("system-node-high", "node-high", 400, "ByUser", &[group("system:nodes")], (nodes, Vec::new())),
        schema("system-nodes", "system", 500, "ByUser", &[group("system:nodes")], everything()),
        schema("kube-controller-manager", "workload-high", 800, "ByNamespace", &[manager], everything()),
        schema("kube-scheduler", "workload-high", 800, "ByNamespace", &[scheduler], everything()),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            "ByNamespace",
            &[accounts],
            everything(),
        ),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            "ByUser",
            &[group("system:serviceaccounts")],
            everything(),
        ),
        schema("global-default", "global-default", 9900, "ByUser", &everyone, everything()),
        schema("catch-all", "catch-all", 10_000, "ByUser", &everyone, everything()),
    ]
}
