//! Objects there and back, and bodies that clients really send.

use super::*;
use serde_json::json;

fn round_trip(o: Value) {
    let bytes = encode(&o).expect("a known kind");
    assert_eq!(decode(&bytes).expect("decoded"), o);
    for cut in 0..bytes.len() {
        // Torn bodies are refused or read as far as they are whole; never a panic.
        let _ = decode(&bytes[..cut]);
    }
}

#[test]
fn objects_come_back_as_they_went() {
    round_trip(json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "a", "creationTimestamp": "2026-01-02T03:04:05Z", "labels": {"a": "", "b": "c"}},
        "spec": {
            "volumes": [{"name": "v", "configMap": {"name": "c"}}, {"name": "e", "emptyDir": {"sizeLimit": "1Gi"}}],
            "containers": [{
                "name": "c", "image": "i",
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                "resources": {"limits": {"cpu": "500m"}},
                "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 5},
            }],
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": false, "fsGroup": -1},
        }, "status": {}}));
    round_trip(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {}, "data": {"a": "AP8="}}));
    round_trip(json!({"apiVersion": "v1", "kind": "Event", "metadata": {},
        "involvedObject": {"name": "a"}, "source": {}, "eventTime": "2026-01-02T03:04:05.000678Z"}));
    round_trip(json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {},
        "data": {"spec": [1, "x"]}, "revision": 2}));
    round_trip(
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {},
        "spec": {"user": "u", "groups": ["g"], "extra": {"k": ["a", "b"], "none": []}},
        "status": {"allowed": false}}),
    );
    round_trip(json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {},
        "deleteOptions": {"gracePeriodSeconds": 0, "dryRun": ["All"]}}));
    round_trip(json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {}, "spec": {"containers": [{"name": "c", "resources": {}}]}},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%", "maxSurge": 0}}},
        "status": {"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0}}));
}

#[test]
fn zeros_that_go_cannot_tell_from_absent_are_absent() {
    // port 80 (3), nodePort 0 (5) and name "" (1) of a service's port.
    let port = [&[0x0a, 0][..], &[0x18, 80], &[0x28, 0]].concat();
    let mut spec = Vec::new();
    wire::put_bytes(&mut spec, 1, &port);
    let mut raw = Vec::new();
    wire::put_bytes(&mut raw, 2, &spec);
    let mut meta = Vec::new();
    wire::put_bytes(&mut meta, 1, b"v1");
    wire::put_bytes(&mut meta, 2, b"Service");
    let mut body = MAGIC.to_vec();
    wire::put_bytes(&mut body, 1, &meta);
    wire::put_bytes(&mut body, 2, &raw);
    let expect = json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80}]}});
    assert_eq!(decode(&body), Ok(expect));
}

#[test]
fn every_kind_of_the_schemas_has_its_message() {
    for (group, version, kind) in crate::schema::schemas().kinds() {
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        // Meta kinds are registered in every group.
        if matches!(kind, "DeleteOptions" | "WatchEvent" | "Status" | "Scale") {
            continue;
        }
        // Our own kinds are JSON only, as custom resources are.
        if group == "policy.binnacle.io" {
            continue;
        }
        assert!(message_of(&api_version, kind).is_some(), "{api_version} {kind}");
    }
}

#[test]
fn other_bodies_are_refused() {
    assert_eq!(decode(b"{}"), Err(Broken::Malformed));
    let mut meta = Vec::new();
    wire::put_bytes(&mut meta, 2, b"Nothing");
    let mut body = MAGIC.to_vec();
    wire::put_bytes(&mut body, 1, &meta);
    assert_eq!(decode(&body), Err(Broken::Unknown("Nothing".to_owned())));
}

#[test]
fn definitions_of_custom_resources_come_back_as_they_went() {
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "tabs.example.com"},
        "spec": {"group": "example.com", "names": {"plural": "tabs", "kind": "Tab"}, "scope": "Namespaced",
            "versions": [{"name": "v1", "served": true, "storage": false, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "required": ["spec"], "properties": {
                    "spec": {"type": "object", "additionalProperties": false, "default": {"a": [1, "b"]}},
                    "free": {"type": "object", "additionalProperties": true},
                    "texts": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 0}},
                    "list": {"type": "array", "items": {"x-kubernetes-int-or-string": true, "enum": ["a", 1, true]}},
                    "tuple": {"type": "array", "items": [{"type": "string"}, {"type": "number", "maximum": 0.5}]},
                    "any": {"x-kubernetes-preserve-unknown-fields": true, "x-kubernetes-validations": [{"rule": "true"}]},
                }}}}]},
    });
    let encoded = encode(&definition).expect("it has a message");
    assert_eq!(decode(&encoded), Ok(definition));
    let service = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.example.com"},
        "spec": {"service": {"namespace": "a", "name": "b", "port": 443}, "group": "example.com", "version": "v1",
            "groupPriorityMinimum": 10, "versionPriority": 0, "caBundle": "AAEC"},
    });
    let encoded = encode(&service).expect("it has a message");
    assert_eq!(decode(&encoded), Ok(service));
}
