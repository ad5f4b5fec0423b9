//! What a log browser asks before anybody has written a query.

use super::*;

#[tokio::test]
async fn volumes_fields_and_patterns() {
    let w = world().await;
    let q = encode("{namespace=~\"shop|bank\"}");
    let v = w.ok(&format!("/loki/api/v1/index/volume?query={q}&targetLabels=namespace")).await;
    assert_eq!(v["data"]["resultType"], "vector");
    let found: BTreeSet<&str> = v["data"]["result"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|r| r["metric"]["namespace"].as_str())
        .collect();
    assert_eq!(found, BTreeSet::from(["bank", "shop"]));
    assert!(
        v["data"]["result"][0]["value"][1].as_str().is_some_and(|b| b.parse::<u64>().is_ok_and(|b| b > 0)),
        "{v}"
    );
    let v = w.ok(&format!("/loki/api/v1/index/volume?query={q}&aggregateBy=labels&targetLabels=pod")).await;
    assert_eq!(v["data"]["result"][0]["metric"], json!({"pod": ""}));
    let v = w.ok(&format!("/loki/api/v1/index/volume_range?query={q}&step=60")).await;
    assert_eq!(v["data"]["resultType"], "matrix", "{v}");
    // Two lines of 13 bytes each.
    assert_eq!(v["data"]["result"][0]["values"][0][1], "26", "{v}");
    let v = w.ok(&format!("/loki/api/v1/detected_labels?query={q}")).await;
    assert!(
        v["detectedLabels"]
            .as_array()
            .is_some_and(|l| l.contains(&json!({"label": "namespace", "cardinality": 2}))),
        "{v}"
    );
    let v = w.ok(&format!("/loki/api/v1/patterns?query={q}")).await;
    assert_eq!(v["data"][0]["pattern"], "GET /cart <_>", "{v}");
    let total: i64 =
        v["data"][0]["samples"].as_array().expect("a list").iter().filter_map(|s| s[1].as_i64()).sum();
    assert_eq!(total, 4);
    // Nothing of another namespace.
    let (_, v) = w.get(&format!("/loki/api/v1/patterns?query={q}"), only("shop")).await;
    assert_eq!(v["data"][0]["samples"][0][1], 2, "{v}");
    let (_, v) =
        w.get(&format!("/loki/api/v1/index/volume?query={q}&targetLabels=namespace"), only("shop")).await;
    assert_eq!(v["data"]["result"].as_array().map(Vec::len), Some(1), "{v}");
}

#[tokio::test]
async fn fields_of_json_and_logfmt_are_detected() {
    let w = world().await;
    let lines = [
        r#"{"level":"info","took":12,"user":{"id":7}}"#,
        r#"{"level":"warn","took":13,"ok":true}"#,
        "level=info ratio=0.5 wait=3s",
    ];
    let values: Vec<Value> = lines.iter().map(|l| json!([w.now.nanos().to_string(), l])).collect();
    let body =
        json!({"streams": [{"stream": {"namespace": "shop", "app": "x"}, "values": values}]}).to_string();
    let mut req = Request::post("/loki/api/v1/push")
        .header("content-type", "application/json")
        .body(Body::from(body))
        .expect("request");
    req.extensions_mut().insert(Scope::All);
    let (status, text) = w.send(req).await;
    assert_eq!(status, StatusCode::NO_CONTENT, "{text}");
    let q = encode("{app=\"x\"}");
    let end = w.now.nanos() + 1_000_000_000;
    let v = w.ok(&format!("/loki/api/v1/detected_fields?query={q}&end={end}&since=1h")).await;
    let field = |name: &str| {
        v["fields"]
            .as_array()
            .and_then(|f| f.iter().find(|f| f["label"] == name).cloned())
            .unwrap_or_default()
    };
    assert_eq!(field("took"), json!({"label": "took", "type": "int", "cardinality": 2, "parsers": ["json"]}));
    assert_eq!(field("user_id")["type"], "int");
    assert_eq!(field("ok")["type"], "boolean");
    assert_eq!(field("ratio")["type"], "float");
    assert_eq!(field("wait")["type"], "duration");
    assert_eq!(field("level")["parsers"], json!(["json", "logfmt"]));
    let v = w.ok(&format!("/loki/api/v1/detected_field/level/values?query={q}&end={end}&since=1h")).await;
    assert_eq!(v["values"], json!(["info", "warn"]));
}
