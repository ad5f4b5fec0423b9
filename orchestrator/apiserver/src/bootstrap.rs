//! What every cluster has from its first second: namespaces, default roles and bindings, the `kubernetes`
//! service (kubernetes: plugin/pkg/auth/authorizer/rbac/bootstrappolicy/policy.go).

use serde_json::{Value, json};

use crate::error::{ApiError, Error};
use crate::server::ApiServer;
use crate::{addresses, fairness};

const RBAC: &str = "rbac.authorization.k8s.io";
const READ: [&str; 3] = ["get", "list", "watch"];
const WRITE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];

pub(crate) async fn run(server: &ApiServer) -> Result<(), Error> {
    let spaces = ["default", "kube-system", "kube-public", "kube-node-lease"];
    let spaces = spaces.map(|ns| json!({"metadata": {"name": ns}}));
    all(server, "", "namespaces", spaces).await?;
    all(server, RBAC, "clusterroles", cluster_roles()).await?;
    let bindings = BINDINGS.iter().map(|(role, kind, subject)| binding(role, kind, subject));
    // Nodes are the Node authorizer's; the binding is there as upstream's is, for nobody.
    let mut nodes = binding("system:node", "Group", "");
    nodes["subjects"] = json!([]);
    all(server, RBAC, "clusterrolebindings", bindings.chain([nodes])).await?;
    let classes = PRIORITIES
        .iter()
        .map(|(name, value, what)| json!({"metadata": {"name": name}, "value": value, "description": what}));
    all(server, "scheduling.k8s.io", "priorityclasses", classes).await?;
    let levels = fairness::bootstrap::levels();
    let mut schemas = fairness::bootstrap::schemas();
    for s in &mut schemas {
        // Their levels come with them.
        if let Some(conditions) = fairness::dangling::condition(s, true, server.now()) {
            s["status"]["conditions"] = conditions;
        }
    }
    for (resource, objects) in [("prioritylevelconfigurations", levels), ("flowschemas", schemas)] {
        let theirs = |o: &Value| fairness::bootstrap::is_left_alone(&server.cache, resource, o);
        let objects: Vec<Value> = objects.into_iter().filter(|o| !theirs(o)).collect();
        all(server, fairness::GROUP, resource, objects).await?;
    }
    let service = json!({
        "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": server.config.service_cidr.nth(1).to_string(),
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}],
        },
    });
    server.put("", "services", "default", service).await?;
    let failed =
        |e: ApiError| Error::Bootstrap { what: "servicecidrs kubernetes".to_owned(), message: e.message };
    addresses::sync(server).await.map_err(failed)
}

/// Puts objects without namespaces, together: the store syncs them as one.
async fn all(
    server: &ApiServer,
    group: &str,
    resource: &str,
    objects: impl IntoIterator<Item = Value>,
) -> Result<(), Error> {
    let each = objects.into_iter().map(|o| Box::pin(server.put(group, resource, "", o)));
    futures::future::try_join_all(each).await.map(drop)
}

/// The system's own pods come before everyone's.
const PRIORITIES: [(&str, i64, &str); 2] = [
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
];

/// Role, kind of subject, subject.
const BINDINGS: [(&str, &str, &str); 8] = [
    ("cluster-admin", "Group", "system:masters"),
    ("system:basic-user", "Group", "system:authenticated"),
    ("system:discovery", "Group", "system:authenticated"),
    ("system:public-info-viewer", "Group", "system:authenticated"),
    ("system:service-account-issuer-discovery", "Group", "system:serviceaccounts"),
    ("system:kube-scheduler", "User", "system:kube-scheduler"),
    ("system:kube-controller-manager", "User", "system:kube-controller-manager"),
    ("system:node-proxier", "User", "system:kube-proxy"),
];

fn binding(role: &str, kind: &str, subject: &str) -> Value {
    json!({
        "metadata": {"name": role, "labels": labels(), "annotations": annotations()},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": RBAC, "kind": kind, "name": subject}],
    })
}

fn labels() -> Value {
    json!({"kubernetes.io/bootstrapping": "rbac-defaults"})
}

fn annotations() -> Value {
    json!({"rbac.authorization.kubernetes.io/autoupdate": "true"})
}

fn rule(verbs: &[&str], groups: &[&str], resources: &[&str]) -> Value {
    json!({"verbs": verbs, "apiGroups": groups, "resources": resources})
}

fn urls(paths: &[&str]) -> Value {
    json!({"verbs": ["get"], "nonResourceURLs": paths})
}

fn role(name: &str, rules: Vec<Value>) -> Value {
    json!({"metadata": {"name": name, "labels": labels(), "annotations": annotations()}, "rules": rules})
}

/// A role that collects the rules of others by a label, and adds itself to a greater one.
fn aggregated(name: &str, into: Option<&str>, rules: Vec<Value>) -> Vec<Value> {
    let part = format!("system:aggregate-to-{name}");
    let mut small = role(&part, rules);
    small["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{name}")] = "true".into();
    let mut whole = role(name, Vec::new());
    let mut selectors =
        vec![json!({"matchLabels": {format!("rbac.authorization.k8s.io/aggregate-to-{name}"): "true"}})];
    // Aggregation goes one step: what view may, edit and admin select as well.
    let below: &[&str] = match name {
        "admin" => &["edit", "view"],
        "edit" => &["view"],
        _ => &[],
    };
    selectors.extend(
        below
            .iter()
            .map(|b| json!({"matchLabels": {format!("rbac.authorization.k8s.io/aggregate-to-{b}"): "true"}})),
    );
    whole["aggregationRule"] = json!({"clusterRoleSelectors": selectors});
    if let Some(into) = into {
        whole["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{into}")] = "true".into();
    }
    vec![small, whole]
}

fn cluster_roles() -> Vec<Value> {
    let all_write: Vec<&str> = WRITE.to_vec();
    let any: Vec<&str> = READ.iter().chain(&WRITE).copied().collect();
    let core_read = [
        "configmaps",
        "endpoints",
        "persistentvolumeclaims",
        "persistentvolumeclaims/status",
        "pods",
        "replicationcontrollers",
        "replicationcontrollers/scale",
        "serviceaccounts",
        "services",
        "services/status",
        "bindings",
        "events",
        "limitranges",
        "namespaces/status",
        "pods/log",
        "pods/status",
        "replicationcontrollers/status",
        "resourcequotas",
        "resourcequotas/status",
        "namespaces",
    ];
    let apps = [
        "controllerrevisions",
        "daemonsets",
        "daemonsets/status",
        "deployments",
        "deployments/scale",
        "deployments/status",
        "replicasets",
        "replicasets/scale",
        "replicasets/status",
        "statefulsets",
        "statefulsets/scale",
        "statefulsets/status",
    ];
    let hpa = ["horizontalpodautoscalers", "horizontalpodautoscalers/status"];
    let mut roles = vec![role(
        "cluster-admin",
        vec![rule(&["*"], &["*"], &["*"]), json!({"verbs": ["*"], "nonResourceURLs": ["*"]})],
    )];
    roles.extend(aggregated(
        "admin",
        None,
        vec![
            rule(&["create"], &["authorization.k8s.io"], &["localsubjectaccessreviews"]),
            rule(&any, &[RBAC], &["rolebindings", "roles"]),
        ],
    ));
    roles.extend(aggregated(
        "edit",
        None,
        vec![
            rule(
                &READ,
                &[""],
                &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"],
            ),
            rule(&["impersonate"], &[""], &["serviceaccounts"]),
            rule(&all_write, &[""], &["pods", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy"]),
            rule(&["create"], &[""], &["pods/eviction", "serviceaccounts/token"]),
            rule(
                &all_write,
                &[""],
                &[
                    "configmaps",
                    "events",
                    "persistentvolumeclaims",
                    "replicationcontrollers",
                    "replicationcontrollers/scale",
                    "secrets",
                    "serviceaccounts",
                    "services",
                    "services/proxy",
                ],
            ),
            rule(
                &all_write,
                &["apps"],
                &[
                    "daemonsets",
                    "deployments",
                    "deployments/rollback",
                    "deployments/scale",
                    "replicasets",
                    "replicasets/scale",
                    "statefulsets",
                    "statefulsets/scale",
                ],
            ),
            rule(&all_write, &["autoscaling"], &["horizontalpodautoscalers"]),
            rule(&all_write, &["batch"], &["cronjobs", "jobs"]),
            rule(&all_write, &["networking.k8s.io"], &["ingresses", "networkpolicies"]),
            rule(&all_write, &["policy"], &["poddisruptionbudgets"]),
            rule(&any, &["coordination.k8s.io"], &["leases"]),
        ],
    ));
    roles.extend(aggregated(
        "view",
        None,
        vec![
            rule(&READ, &[""], &core_read),
            rule(&READ, &["discovery.k8s.io"], &["endpointslices"]),
            rule(&READ, &["apps"], &apps),
            rule(&READ, &["autoscaling"], &hpa),
            rule(&READ, &["batch"], &["cronjobs", "cronjobs/status", "jobs", "jobs/status"]),
            rule(&READ, &["networking.k8s.io"], &["ingresses", "ingresses/status", "networkpolicies"]),
            rule(&READ, &["policy"], &["poddisruptionbudgets", "poddisruptionbudgets/status"]),
            rule(&READ, &["metrics.k8s.io"], &["pods"]),
            rule(&READ, &["events.k8s.io"], &["events"]),
        ],
    ));
    roles.extend(system_roles(&any, &all_write));
    roles
}

/// Whose kubelet certificates are approved without a person.
fn for_requests(subresource: &str) -> Value {
    let resource = format!("certificatesigningrequests/{subresource}");
    role(
        &format!("system:certificates.k8s.io:certificatesigningrequests:{subresource}"),
        vec![rule(&["create"], &["certificates.k8s.io"], &[&resource])],
    )
}

fn approver(signer: &str) -> Value {
    let mut may = rule(&["approve"], &["certificates.k8s.io"], &["signers"]);
    may["resourceNames"] = json!([format!("kubernetes.io/{signer}")]);
    role(&format!("system:certificates.k8s.io:{signer}-approver"), vec![may])
}

fn system_roles(any: &[&str], write: &[&str]) -> Vec<Value> {
    let events = || rule(&["create", "patch", "update"], &["", "events.k8s.io"], &["events"]);
    let discovery = [
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/openapi",
        "/openapi/*",
        "/readyz",
        "/version",
        "/version/",
    ];
    let reviews = ["selfsubjectaccessreviews", "selfsubjectrulesreviews"];
    vec![
        role(
            "system:basic-user",
            vec![
                rule(&["create"], &["authorization.k8s.io"], &reviews),
                rule(&["create"], &["authentication.k8s.io"], &["selfsubjectreviews"]),
            ],
        ),
        role("system:discovery", vec![urls(&discovery)]),
        role(
            "system:public-info-viewer",
            vec![urls(&["/healthz", "/livez", "/readyz", "/version", "/version/"])],
        ),
        role(
            "system:service-account-issuer-discovery",
            vec![urls(&["/.well-known/openid-configuration", "/openid/v1/jwks"])],
        ),
        role(
            "system:node-bootstrapper",
            vec![rule(
                &["create", "get", "list", "watch"],
                &["certificates.k8s.io"],
                &["certificatesigningrequests"],
            )],
        ),
        for_requests("nodeclient"),
        for_requests("selfnodeclient"),
        approver("kube-apiserver-client"),
        approver("kube-apiserver-client-kubelet"),
        approver("kubelet-serving"),
        approver("legacy-unknown"),
        role("system:monitoring", vec![urls(&["/metrics", "/healthz", "/livez", "/readyz"])]),
        role(
            "system:auth-delegator",
            vec![
                rule(&["create"], &["authentication.k8s.io"], &["tokenreviews"]),
                rule(&["create"], &["authorization.k8s.io"], &["subjectaccessreviews"]),
            ],
        ),
        role(
            "system:kube-scheduler",
            vec![
                events(),
                rule(any, &["coordination.k8s.io"], &["leases"]),
                rule(
                    &READ,
                    &[""],
                    &[
                        "nodes",
                        "pods",
                        "namespaces",
                        "services",
                        "persistentvolumeclaims",
                        "persistentvolumes",
                    ],
                ),
                rule(&["delete"], &[""], &["pods"]),
                rule(&["create"], &[""], &["bindings", "pods/binding"]),
                rule(&["patch", "update"], &[""], &["pods/status"]),
                rule(&READ, &["apps"], &["replicasets", "statefulsets"]),
            ],
        ),
        role(
            "system:kube-controller-manager",
            vec![
                events(),
                rule(&READ, &["*"], &["*"]),
                rule(any, &["coordination.k8s.io"], &["leases"]),
                rule(
                    write,
                    &[""],
                    &[
                        "configmaps",
                        "endpoints",
                        "namespaces",
                        "namespaces/finalize",
                        "namespaces/status",
                        "nodes",
                        "nodes/status",
                        "pods",
                        "pods/status",
                        "pods/eviction",
                        "secrets",
                        "serviceaccounts",
                    ],
                ),
                rule(&["create"], &[""], &["serviceaccounts/token"]),
                rule(write, &["apps"], &["*"]),
                rule(write, &["autoscaling"], &["*"]),
                rule(write, &["discovery.k8s.io"], &["endpointslices", "endpointslices/restricted"]),
                // The namespace controller empties namespaces, the garbage collector takes orphans.
                rule(&["delete", "deletecollection", "patch", "update"], &["*"], &["*"]),
            ],
        ),
        role(
            "system:node",
            vec![
                events(),
                rule(&["create"], &["authentication.k8s.io"], &["tokenreviews"]),
                rule(&["create"], &["authorization.k8s.io"], &["subjectaccessreviews"]),
                rule(&READ, &[""], &["services", "configmaps", "secrets", "namespaces", "endpoints"]),
                rule(&["create", "get", "list", "watch", "update", "patch", "delete"], &[""], &["nodes"]),
                rule(&["patch", "update"], &[""], &["nodes/status"]),
                rule(&["get", "list", "watch", "create", "delete"], &[""], &["pods"]),
                rule(&["patch", "update"], &[""], &["pods/status"]),
                rule(&["create"], &[""], &["pods/eviction", "serviceaccounts/token"]),
                rule(&READ, &[""], &["serviceaccounts"]),
                rule(&READ, &["discovery.k8s.io"], &["endpointslices"]),
                rule(
                    &["create", "get", "update", "patch", "delete", "list", "watch"],
                    &["coordination.k8s.io"],
                    &["leases"],
                ),
            ],
        ),
        role(
            "system:node-proxier",
            vec![
                events(),
                rule(&READ, &[""], &["endpoints", "services", "nodes"]),
                rule(&READ, &["discovery.k8s.io"], &["endpointslices"]),
            ],
        ),
    ]
}
