//! Rules and alerts over the API, and who sees which of them.

use std::time::Duration;

use super::*;

const FILE: &str = "groups:
- name: alerts
  interval: 100ms
  limit: 10
  rules:
  - {alert: Busy, expr: requests_total > 100, for: 0s, labels: {severity: page}, annotations: {summary: '{{ $labels.namespace }} has {{ $value }}'}}
  - {alert: Slow, expr: requests_total > 100, for: 1h, keep_firing_for: 2h}
- name: records
  interval: 100ms
  rules:
  - {record: total, expr: sum(requests_total)}
  - {record: bad, expr: requests_total, labels: {namespace: shop, pod: one}}
";

/// A world whose rules have been evaluated.
async fn evaluated() -> World {
    let w = world().await;
    let dir = w._dir.path().join("rules");
    std::fs::create_dir(&dir).expect("a directory");
    std::fs::write(dir.join("r.yaml"), FILE).expect("written");
    w.rules.clone().reload().await.expect("good rules");
    let all = async {
        while w.rules.groups().iter().any(|g| g.evaluated_at.is_none()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("evaluated in time");
    w
}

fn names(v: &Value) -> Vec<String> {
    let groups = v["data"]["groups"].as_array().into_iter().flatten();
    let rules = groups.flat_map(|g| g["rules"].as_array().into_iter().flatten());
    rules.map(|r| r["name"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_and_alerts_have_prometheus_shapes() {
    let w = evaluated().await;
    let v = w.ok("/api/v1/rules").await;
    let g = &v["data"]["groups"][0];
    assert_eq!((&g["name"], &g["interval"], &g["limit"]), (&json!("alerts"), &json!(0.1), &json!(10)));
    assert!(g["file"].as_str().is_some_and(|f| f.ends_with("/rules/r.yaml")));
    let busy = &g["rules"][0];
    assert_eq!(
        (&busy["state"], &busy["type"], &busy["health"], &busy["query"]),
        (&json!("firing"), &json!("alerting"), &json!("ok"), &json!("requests_total > 100"))
    );
    assert_eq!((&busy["duration"], &g["rules"][1]["keepFiringFor"]), (&json!(0), &json!(7200)));
    let alert = &busy["alerts"][0];
    assert_eq!(
        alert["labels"],
        json!({"alertname": "Busy", "namespace": "bank", "pod": "web-0", "severity": "page"})
    );
    assert_eq!(alert["annotations"], json!({"summary": "bank has 120"}));
    assert_eq!((&alert["state"], &alert["value"]), (&json!("firing"), &json!("1.2e+02")));
    assert_eq!(g["rules"][1]["state"], "pending");
    let records = &v["data"]["groups"][1]["rules"];
    assert_eq!((&records[0]["type"], &records[0]["health"]), (&json!("recording"), &json!("ok")));
    assert_eq!(records[1]["health"], "err");
    assert_eq!(
        records[1]["lastError"],
        "vector contains metrics with the same labelset after applying rule labels"
    );

    let v = w.ok("/api/v1/alerts").await;
    let states: Vec<&str> =
        v["data"]["alerts"].as_array().into_iter().flatten().filter_map(|a| a["state"].as_str()).collect();
    assert_eq!(states, ["firing", "firing", "pending", "pending"]);
    let v = w.ok("/api/v1/query?query=total").await;
    assert_eq!(v["data"]["result"][0]["value"][1], "240");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_asks_for_some_rules() {
    let w = evaluated().await;
    let check = async |params: &str, expect: &[&str]| {
        assert_eq!(names(&w.ok(&format!("/api/v1/rules?{params}")).await), expect, "{params}");
    };
    check("type=alert", &["Busy", "Slow"]).await;
    check("type=record", &["total", "bad"]).await;
    check("rule_name[]=Slow&rule_name[]=total", &["Slow", "total"]).await;
    check("rule_group[]=records", &["total", "bad"]).await;
    check("file[]=none", &[]).await;
    check("match[]=%7Bseverity%3D%22page%22%7D&match[]=%7Bpod%3D%22one%22%7D", &["Busy", "bad"]).await;
    let v = w.ok("/api/v1/rules?exclude_alerts=true").await;
    assert_eq!(v["data"]["groups"][0]["rules"][0]["alerts"], Value::Null);

    let v = w.ok("/api/v1/rules?group_limit=1").await;
    assert_eq!(names(&v), ["Busy", "Slow"]);
    let token = v["data"]["groupNextToken"].as_str().expect("a token");
    let v = w.ok(&format!("/api/v1/rules?group_limit=1&group_next_token={token}")).await;
    assert_eq!(
        (names(&v), &v["data"]["groupNextToken"]),
        (vec!["total".to_owned(), "bad".to_owned()], &Value::Null)
    );

    let wrong = async |params: &str, expect: &str| {
        let (status, v) = w.get(&format!("/api/v1/rules?{params}"), Some(Scope::All)).await;
        assert_eq!((status, v["error"].as_str()), (StatusCode::BAD_REQUEST, Some(expect)), "{params}");
    };
    wrong("type=x", "invalid parameter \"type\": not supported value \"x\"").await;
    wrong("group_limit=0", "invalid parameter \"group_limit\": group_limit needs to be greater than 0").await;
    wrong("group_next_token=a", "invalid parameter \"group_next_token\": group_limit needs to be present in order to paginate over the groups").await;
    wrong(
        "group_limit=1&group_next_token=a",
        "invalid parameter \"group_next_token\": invalid group_next_token 'a'. were rule groups changed?",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_stay_in_their_namespace() {
    let w = evaluated().await;
    let (_, v) = w.get("/api/v1/alerts", only("shop")).await;
    let text = v.to_string();
    assert!(text.contains("shop") && !text.contains("bank"), "{text}");
    let (_, v) = w.get("/api/v1/rules", only("shop")).await;
    let text = v.to_string();
    assert!(text.contains("shop") && !text.contains("bank") && !text.contains("lastError"), "{text}");
    // `total` belongs to no namespace.
    assert_eq!(names(&v), ["Busy", "Slow", "bad"]);
    let (_, v) = w.get("/api/v1/rules", only("none")).await;
    assert_eq!(v["data"], json!({"groups": []}));
    let (status, _) = w.get("/api/v1/rules", None).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_read_again_when_asked() {
    let w = evaluated().await;
    let reload = async |scope: Scope| {
        let mut req = Request::post("/-/reload").body(Body::empty()).expect("request");
        req.extensions_mut().insert(scope);
        w.send(req).await
    };
    let file = w._dir.path().join("rules/r.yaml");
    std::fs::write(&file, "groups: [{name: g, rules: [{record: x, expr: '1'}]}]").expect("written");
    assert_eq!(reload(only("shop").expect("a scope")).await.0, StatusCode::FORBIDDEN);
    assert_eq!(reload(Scope::All).await.0, StatusCode::OK);
    assert_eq!(names(&w.ok("/api/v1/rules").await), ["x"]);
    std::fs::write(&file, "groups: [{name: g, rules: [{record: x, expr: 'sum('}]}]").expect("written");
    let (status, text) = reload(Scope::All).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(
        text.starts_with("failed to reload config: ") && text.contains("could not parse expression"),
        "{text}"
    );
    let v = w.ok("/api/v1/rules").await;
    assert_eq!(names(&v), ["x"]);
    assert!(v["warnings"][0].as_str().is_some_and(|m| m.contains("r.yaml")));
}
