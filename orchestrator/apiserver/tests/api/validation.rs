//! What the server refuses, and in which words: `validation/*.yaml` holds requests and upstream's answers, transcribed
//! from its validation (kubernetes: pkg/apis/*/validation) and its tests' cases.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Cluster, cluster};

#[derive(Deserialize)]
struct Corpus {
    /// Objects that cases begin with.
    base: Map<String, Value>,
    cases: Vec<Case>,
}

/// One request: a base changed, and what is said of it.
#[derive(Deserialize)]
struct Case {
    /// The resource's path behind `/api` or `/apis`.
    at: String,
    base: String,
    /// Merged into the base; null removes.
    #[serde(default)]
    set: Value,
    /// Merged into what was created from base and `set`: then the update is judged.
    #[serde(default)]
    then: Value,
    /// The subresource that the update goes to.
    #[serde(default)]
    sub: String,
    /// The findings, in their order; none where the request is good.
    #[serde(default)]
    says: Vec<String>,
}

fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        if !patch.is_null() {
            *into = patch.clone();
        }
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (k, v) in patch {
        match (v, into.as_object_mut()) {
            (Value::Null, Some(m)) => drop(m.shift_remove(k)),
            _ => merge(&mut into[k], v),
        }
    }
}

async fn send(c: &Cluster, method: &str, path: &str, body: &Value) -> Result<Value, kube::core::Status> {
    let root = if path.starts_with("v1/") { "/api" } else { "/apis" };
    let request = http::Request::builder()
        .method(method)
        .uri(format!("{root}/{path}"))
        .header("content-type", "application/json")
        .body(body.to_string().into_bytes())
        .expect("a request");
    match c.client().request(request).await {
        Ok(v) => Ok(v),
        Err(kube::Error::Api(status)) => Err(*status),
        Err(e) => panic!("{path}: {e}"),
    }
}

/// The findings of an answer, by its causes.
fn findings(status: &kube::core::Status) -> Vec<String> {
    let causes = status.details.iter().flat_map(|d| &d.causes);
    let all: Vec<String> = causes.map(|c| format!("{}: {}", c.field, c.message)).collect();
    if all.is_empty() { vec![status.message.clone()] } else { all }
}

/// What comes of a case.
async fn judge(c: &Cluster, corpus: &Corpus, case: &Case, number: usize) -> Vec<String> {
    let mut o = corpus.base.get(&case.base).unwrap_or_else(|| panic!("no base {}", case.base)).clone();
    let updates = !case.then.is_null();
    if o["metadata"]["name"].is_null() {
        o["metadata"]["name"] = format!("case-{number}").into();
    }
    merge(&mut o, &case.set);
    let dry = if updates { "" } else { "?dryRun=All" };
    let made = match send(c, "POST", &format!("{}{dry}", case.at), &o).await {
        Ok(made) => made,
        Err(status) => return findings(&status),
    };
    if !updates {
        return Vec::new();
    }
    let mut new = made.clone();
    // What controllers write meanwhile is no matter.
    merge(&mut new["metadata"], &json!({"resourceVersion": null}));
    merge(&mut new, &case.then);
    let name = made["metadata"]["name"].as_str().expect("a name");
    let sub = if case.sub.is_empty() { String::new() } else { format!("/{}", case.sub) };
    let found = match send(c, "PUT", &format!("{}/{name}{sub}", case.at), &new).await {
        Ok(_) => Vec::new(),
        Err(status) => findings(&status),
    };
    let now = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0});
    drop(send(c, "DELETE", &format!("{}/{name}", case.at), &now).await);
    found
}

#[tokio::test]
async fn what_is_wrong_is_said_in_upstreams_words() {
    let c = cluster().await;
    c.account().await;
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/validation");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .expect("the cases")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    let (mut count, mut wrong) = (0, Vec::new());
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).expect("a file of cases");
        let corpus: Corpus = serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        for case in &corpus.cases {
            count += 1;
            let got = judge(&c, &corpus, case, count).await;
            if got != case.says {
                let what = format!("{} {} {}", case.base, case.set, case.then);
                let show = |all: &[String]| all.iter().map(|s| format!("\n      {s}")).collect::<String>();
                wrong.push(format!("{name}: {what}\n   got{}\n   expect{}", show(&got), show(&case.says)));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count} differ:\n{}", wrong.len(), wrong.join("\n"));
}
