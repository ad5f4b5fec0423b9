//! Upstream's words for what is wrong with a pod, part by part.

use serde_json::{Value, json};

use super::super::pod_validation::validate_spec;
use crate::validation::Errors;

/// A pod's spec with these fields, and its one container with those.
fn said(fields: Value, container: Value) -> String {
    let mut c = json!({"name": "c", "image": "i", "imagePullPolicy": "Always"});
    let mut spec = json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 30});
    for (to, from) in [(&mut c, container), (&mut spec, fields)] {
        for (k, v) in from.as_object().expect("fields") {
            to[k] = v.clone();
        }
    }
    spec["containers"] = json!([c]);
    let mut errors = Errors::default();
    validate_spec(&spec, "spec", &mut errors);
    if errors.is_empty() { String::new() } else { errors.to_string() }
}

#[test]
fn containers() {
    let check = |c: Value, expect: &str| assert_eq!(said(json!({}), c), expect);
    let at = "spec.containers[0]";
    check(json!({"livenessProbe": {"exec": {"command": ["a"]}, "successThreshold": 1}}), "");
    check(
        json!({"livenessProbe": {}}),
        &format!("{at}.livenessProbe: Required value: must specify a handler type"),
    );
    check(
        json!({"livenessProbe": {"exec": {"command": ["a"]}, "tcpSocket": {"port": 1}}}),
        &format!("{at}.livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"),
    );
    check(
        json!({"readinessProbe": {"tcpSocket": {"port": 0}}}),
        &format!(
            "{at}.readinessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive"
        ),
    );
    check(
        json!({"readinessProbe": {"httpGet": {"path": "/", "port": 80, "scheme": "FTP"}}}),
        &format!(
            "{at}.readinessProbe.httpGet.scheme: Unsupported value: \"FTP\": supported values: \"HTTP\", \"HTTPS\""
        ),
    );
    check(
        json!({"readinessProbe": {"exec": {"command": ["a"]}, "terminationGracePeriodSeconds": 5}}),
        &format!(
            "{at}.readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes"
        ),
    );
    check(
        json!({"livenessProbe": {"exec": {}, "terminationGracePeriodSeconds": 0}}),
        &format!(
            "[{at}.livenessProbe.exec.command: Required value, {at}.livenessProbe.terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0]"
        ),
    );
    check(
        json!({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}}),
        &format!(
            "{at}.lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)"
        ),
    );
    check(
        json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.whatever"}}}]}),
        &format!(
            "{at}.env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"metadata.whatever\": error converting fieldPath: field label not supported: metadata.whatever"
        ),
    );
    check(
        json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.phase"}}}]}),
        &format!(
            "{at}.env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"status.phase\": supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\""
        ),
    );
    check(
        json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}}]}),
        "",
    );
    check(
        json!({"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1m"}}}]}),
        &format!(
            "{at}.env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.memory\": only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the memory resource"
        ),
    );
    check(
        json!({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "a", "key": ""}}}]}),
        &format!("{at}.env[0].valueFrom.configMapKeyRef.key: Required value"),
    );
    check(
        json!({"envFrom": [{}]}),
        &format!("{at}.envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`"),
    );
    check(
        json!({"securityContext": {"runAsUser": -1}}),
        &format!(
            "{at}.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive"
        ),
    );
    check(
        json!({"securityContext": {"seccompProfile": {"type": "Localhost"}}}),
        &format!(
            "{at}.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost"
        ),
    );
    check(
        json!({"terminationMessagePolicy": "Other"}),
        &format!(
            "{at}.terminationMessagePolicy: Unsupported value: \"Other\": supported values: \"File\", \"FallbackToLogsOnError\""
        ),
    );
}

#[test]
fn placement() {
    let check = |fields: Value, expect: &str| assert_eq!(said(fields, json!({})), expect);
    let node = |terms: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
    let at = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    check(node(json!([])), &format!("{at}: Required value: must have at least one node selector term"));
    check(
        node(json!([{"matchExpressions": [{"key": "a", "operator": "In"}]}])),
        &format!(
            "{at}[0].matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"
        ),
    );
    check(
        node(json!([{"matchExpressions": [{"key": "a", "operator": "Is"}]}])),
        &format!(
            "{at}[0].matchExpressions[0].operator: Invalid value: \"Is\": not a valid selector operator"
        ),
    );
    check(
        json!({"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 101, "podAffinityTerm": {}}]}}}),
        "[spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be in the range 1-100, spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Required value: can not be empty, spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Invalid value: \"\": name part must be non-empty, spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')]",
    );
    let spread =
        json!({"maxSkew": 0, "topologyKey": "a", "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 1});
    check(
        json!({"topologySpreadConstraints": [spread]}),
        "[spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero, spec.topologySpreadConstraints[0].minDomains: Invalid value: 1: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway]",
    );
    let spread = json!({"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"});
    check(
        json!({"topologySpreadConstraints": [spread, spread]}),
        "spec.topologySpreadConstraints[1].{topologyKey, whenUnsatisfiable}: Duplicate value: \"{a, DoNotSchedule}\"",
    );
    check(
        json!({"tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 1}]}),
        "spec.tolerations[0].effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` is set",
    );
}

#[test]
fn volumes_and_the_rest() {
    let check = |fields: Value, expect: &str| assert_eq!(said(fields, json!({})), expect);
    let volume = |source: Value| {
        let mut v = source;
        v["name"] = "v".into();
        json!({"volumes": [v]})
    };
    let at = "spec.volumes[0]";
    check(
        volume(json!({"hostPath": {"path": "/a/../b"}})),
        &format!("{at}.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"),
    );
    check(
        volume(json!({"secret": {"secretName": "s", "defaultMode": 512}})),
        &format!(
            "{at}.secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive"
        ),
    );
    check(
        volume(json!({"configMap": {"name": "s", "items": [{"key": "a", "path": "/a"}]}})),
        &format!("{at}.configMap.items[0].path: Invalid value: \"/a\": must be a relative path"),
    );
    check(
        volume(json!({"persistentVolumeClaim": {}})),
        &format!("{at}.persistentVolumeClaim.claimName: Required value"),
    );
    check(
        volume(
            json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 599}}]}}),
        ),
        &format!(
            "{at}.projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"
        ),
    );
    check(
        volume(
            json!({"downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "spec.nodeName"}}]}}),
        ),
        &format!(
            "{at}.downwardAPI.fieldRef.fieldPath: Unsupported value: \"spec.nodeName\": supported values: \"metadata.annotations\", \"metadata.labels\", \"metadata.name\", \"metadata.namespace\", \"metadata.uid\""
        ),
    );
    check(
        json!({"shareProcessNamespace": true, "hostPID": true}),
        "spec.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled",
    );
    check(
        json!({"os": {"name": "beos"}}),
        "spec.os.name: Unsupported value: \"beos\": supported values: \"linux\", \"windows\"",
    );
    check(
        json!({"schedulingGates": [{"name": "a"}, {"name": "a"}]}),
        "spec.schedulingGates[1]: Duplicate value: \"a\"",
    );
    assert_eq!(
        said(
            json!({"hostNetwork": true}),
            json!({"ports": [{"containerPort": 80, "hostPort": 81, "protocol": "TCP"}]})
        ),
        "spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is true"
    );
}
