//! What the server adds to a manifest: upstream's defaults, transcribed in `defaults/*.yaml` from its documentation
//! ("Defaults to …") and the rules it applies. A case names what is created and what is more in the answer; nothing else may
//! be. What the server alone decides (uid, addresses, …) is left out of both.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::cluster;

#[derive(Deserialize)]
struct Corpus {
    /// Things that many cases name, by `$name`.
    fragments: Map<String, Value>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    /// The resource's path behind `/api/v1` or `/apis`.
    at: String,
    of: Value,
    /// Merged into `of`: objects by key, lists by position.
    #[serde(default)]
    more: Value,
}

const FILES: [(&str, &str); 4] = [
    ("pods", include_str!("defaults/pods.yaml")),
    ("core", include_str!("defaults/core.yaml")),
    ("workloads", include_str!("defaults/workloads.yaml")),
    ("others", include_str!("defaults/others.yaml")),
];

/// Puts fragments in place of their names: a text is the fragment, a key `$name` is merged into its object.
fn fill(v: &mut Value, fragments: &Map<String, Value>) {
    match v {
        Value::String(s) => {
            if let Some(f) = s.strip_prefix('$') {
                let mut whole = fragments.get(f).unwrap_or_else(|| panic!("no fragment {f}")).clone();
                fill(&mut whole, fragments);
                *v = whole;
            }
        }
        Value::Object(m) => {
            let named: Vec<String> = m.keys().filter(|k| k.starts_with('$')).cloned().collect();
            for key in named {
                m.shift_remove(&key);
                let mut whole =
                    fragments.get(&key[1..]).unwrap_or_else(|| panic!("no fragment {key}")).clone();
                fill(&mut whole, fragments);
                for (k, v) in whole.as_object().into_iter().flatten() {
                    m.entry(k.clone()).or_insert_with(|| v.clone());
                }
            }
            m.values_mut().for_each(|v| fill(v, fragments));
        }
        Value::Array(l) => l.iter_mut().for_each(|v| fill(v, fragments)),
        _ => {}
    }
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(m), Value::Object(more)) => {
            for (k, v) in more {
                merge(m.entry(k).or_insert(Value::Null), v);
            }
        }
        (Value::Array(l), Value::Array(more)) if !l.is_empty() => {
            for (i, v) in more.into_iter().enumerate() {
                if l.len() <= i {
                    l.push(Value::Null);
                }
                merge(&mut l[i], v);
            }
        }
        (into, more) => *into = more,
    }
}

/// What the server alone knows.
fn strip(v: &mut Value) {
    let Some(m) = v.as_object_mut() else { return };
    if let Some(Value::Object(meta)) = m.get_mut("metadata") {
        for k in [
            "uid",
            "resourceVersion",
            "creationTimestamp",
            "managedFields",
            "generation",
            "namespace",
            "generateName",
        ] {
            meta.shift_remove(k);
        }
        if let Some(Value::Object(a)) = meta.get_mut("annotations") {
            a.shift_remove("binnacle.io/traceparent");
            if a.is_empty() {
                meta.shift_remove("annotations");
            }
        }
    }
    m.shift_remove("status");
    if let Some(Value::Object(spec)) = m.get_mut("spec") {
        for k in ["clusterIP", "clusterIPs"] {
            if spec.get(k).is_some_and(|v| v != "None" && v != &serde_json::json!(["None"])) {
                spec.shift_remove(k);
            }
        }
        if let Some(Value::Array(ports)) = spec.get_mut("ports") {
            ports.iter_mut().filter_map(Value::as_object_mut).for_each(|p| drop(p.shift_remove("nodePort")));
        }
    }
}

#[tokio::test]
async fn two_hundred_manifests_get_upstreams_defaults() {
    let c = cluster().await;
    c.account().await;
    let client = c.client();
    let (mut count, mut wrong) = (0, Vec::new());
    for (file, text) in FILES {
        let corpus: Corpus = serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{file}: {e}"));
        for mut case in corpus.cases {
            count += 1;
            fill(&mut case.of, &corpus.fragments);
            fill(&mut case.more, &corpus.fragments);
            let root = if case.at.starts_with("v1/") { "/api" } else { "/apis" };
            let request = http::Request::post(format!("{root}/{}", case.at))
                .header("content-type", "application/json")
                .body(case.of.to_string().into_bytes())
                .expect("a request");
            let mut got: Value = match client.request(request).await {
                Ok(v) => v,
                Err(kube::Error::Api(status)) => {
                    wrong.push(format!("{file}/{}: {}", case.name, status.message));
                    continue;
                }
                Err(e) => {
                    wrong.push(format!("{file}/{}: {e}", case.name));
                    continue;
                }
            };
            let mut expect = case.of;
            if !case.more.is_null() {
                merge(&mut expect, case.more);
            }
            strip(&mut got);
            strip(&mut expect);
            if got != expect {
                wrong.push(format!("{file}/{}:\n     got {got}\n  expect {expect}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count >= 200, "only {count} cases");
}
