//! What the server tells of itself and of its targets.

use super::*;

#[tokio::test]
async fn a_server_tells_of_itself() {
    let w = world().await;
    assert_eq!(w.ok("/api/v1/status/flags").await["data"], json!({}));
    assert_eq!(w.ok("/api/v1/status/config").await["data"], json!({"yaml": ""}));
    let (status, _) = w.get("/api/v1/status/config", only("shop")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let runtime = w.ok("/api/v1/status/runtimeinfo").await;
    let is_time = |v: &Value| v.as_str().is_some_and(|t| t.parse::<jiff::Timestamp>().is_ok());
    for name in ["startTime", "serverTime", "lastConfigTime"] {
        assert!(is_time(&runtime["data"][name]), "{name}: {runtime}");
    }
    assert_eq!(runtime["data"]["reloadConfigSuccess"], true);
    assert_eq!(w.ok("/api/v1/notifications").await["data"], json!([]));
    let features = w.ok("/api/v1/features").await;
    assert_eq!(features["data"]["templating_functions"]["humanizeDuration"], true);
    assert_eq!(features["data"]["rules"]["keep_firing_for"], true);
    for (path, text) in
        [("/-/healthy", "Prometheus Server is Healthy.\n"), ("/-/ready", "Prometheus Server is Ready.\n")]
    {
        assert_eq!(w.ok(path).await, Value::String(text.to_owned()));
    }
}

#[tokio::test]
async fn targets_are_chosen_by_state_and_pool() {
    let w = world().await;
    let count = |v: &Value, key: &str| v["data"][key].as_array().map(Vec::len);
    let v = w.ok("/api/v1/targets").await;
    assert_eq!((count(&v, "activeTargets"), count(&v, "droppedTargets")), (Some(1), Some(0)));
    let v = w.ok("/api/v1/targets?state=dropped").await;
    assert_eq!((count(&v, "activeTargets"), count(&v, "droppedTargets")), (Some(0), Some(0)));
    let v = w.ok("/api/v1/targets?state=active&scrapePool=none").await;
    assert_eq!((count(&v, "activeTargets"), &v["data"]["droppedTargetCounts"]), (Some(0), &Value::Null));
    let (_, v) = w.get("/api/v1/targets", only("shop")).await;
    assert_eq!(count(&v, "activeTargets"), Some(0));
    assert_eq!(w.ok("/api/v1/targets/metadata?limit=2").await["data"], json!([]));
    let (status, v) = w.get("/api/v1/targets/metadata?limit=x", Some(Scope::All)).await;
    assert_eq!((status, &v["error"]), (StatusCode::BAD_REQUEST, &json!("limit must be a number")));
}
