//! Bulk requests as clients send them, through the router.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::Request;
use serde_json::Value;
use signal::{Identity, SinkError};
use tower::ServiceExt;

use super::{Elastic, router};
use crate::Senders;
use crate::kept::Kept;

async fn send(kept: &Arc<Kept>, method: &str, path: &str, body: &str) -> (u16, Value) {
    let senders = Senders::new(Arc::default(), Identity::default(), Vec::new());
    let elastic = Elastic::new(kept.clone(), senders, signal::time::system_clock());
    let request = Request::builder()
        .method(method)
        .uri(format!("/elastic{path}"))
        .header("content-type", "application/x-ndjson")
        .extension(ConnectInfo(SocketAddr::from(([10, 0, 0, 1], 1))))
        .body(Body::from(body.to_owned()))
        .expect("a request");
    let r = router(elastic, "/elastic").oneshot(request).await.expect("an answer");
    assert_eq!(r.headers()["x-elastic-product"], "Elasticsearch");
    let status = r.status().as_u16();
    let body = to_bytes(r.into_body(), 1 << 20).await.expect("a body");
    (status, serde_json::from_slice(&body).expect("JSON"))
}

#[tokio::test]
async fn each_item_is_answered() {
    let kept = Arc::new(Kept::default());
    let body = r#"{"create":{"_index":"a"}}
{"@timestamp":"2026-11-23T10:00:00Z","message":"one"}
{"index":{"_index":"b","_id":"7"}}
{"message":"two","namespace":"x"}
{"update":{"_index":"a","_id":"1"}}
{"doc":{"x":1}}
{"delete":{"_index":"a","_id":"1"}}
{"create":{"_index":"a"}}
{"broken
{"create":{}}
{"message":"no index"}
"#;
    let (status, said) = send(&kept, "POST", "/_bulk", body).await;
    assert_eq!((status, said["errors"].as_bool()), (200, Some(true)));
    let statuses: Vec<(String, i64)> = said["items"]
        .as_array()
        .expect("items")
        .iter()
        .flat_map(|i| i.as_object().expect("an item"))
        .map(|(action, i)| (action.clone(), i["status"].as_i64().expect("a status")))
        .collect();
    let expect =
        [("create", 201), ("index", 201), ("update", 400), ("delete", 400), ("create", 400), ("create", 400)];
    assert_eq!(statuses, expect.map(|(a, s)| (a.to_owned(), s)));
    assert_eq!(kept.bodies(), ["one", "two"]);
    let logs = kept.logs.lock();
    assert_eq!(logs[0].streams[0].labels.to_string(), r#"{index="a", service_name="a"}"#);
    assert_eq!(logs[0].streams[1].records[0].attributes.get_str("exported_namespace"), Some("x"));
}

#[tokio::test]
async fn a_request_of_the_wrong_form_stores_nothing() {
    let kept = Arc::new(Kept::default());
    for (body, expect) in [
        ("{\"create\":{}}\n{\"message\":\"x\"}", "terminated by a newline"),
        ("{\"create\":{}}\n{\"message\":\"x\"}\n{\"what\":{}}\n{}\n", "line [3]"),
        ("[]\n{}\n", "line [1]"),
        ("{\"create\":{}}\n", "document is missing"),
        ("", "no requests added"),
    ] {
        let (status, said) = send(&kept, "PUT", "/x/_bulk", body).await;
        let reason = said["error"]["reason"].as_str().unwrap_or_default();
        assert!(status == 400 && reason.contains(expect), "{body:?}: {status} {said}");
    }
    assert!(kept.logs.lock().is_empty());
}

#[tokio::test]
async fn a_store_that_refuses_is_told_of() {
    let kept = Arc::new(Kept::default());
    let busy = SinkError::Overloaded { what: "q".into(), retry_after: std::time::Duration::from_secs(2) };
    for (error, expect) in [(busy, 429), (SinkError::Storage("full".to_owned()), 507)] {
        kept.failures.lock().push(error);
        let (status, said) = send(&kept, "POST", "/x/_bulk", "{\"create\":{}}\n{\"message\":\"x\"}\n").await;
        assert_eq!((status, said["status"].as_i64()), (expect, Some(i64::from(expect))));
    }
}

#[tokio::test]
async fn single_documents_and_what_clients_ask_first() {
    let kept = Arc::new(Kept::default());
    let (status, said) = send(&kept, "POST", "/x/_doc", r#"{"message":"hi"}"#).await;
    assert_eq!((status, said["result"].as_str()), (201, Some("created")));
    let (status, said) = send(&kept, "PUT", "/x/_doc/9", r#"{"message":"ho"}"#).await;
    assert_eq!((status, said["_id"].as_str()), (201, Some("9")));
    assert_eq!(kept.bodies(), ["hi", "ho"]);
    for path in ["", "/", "/_license", "/_cluster/health", "/_ilm/policy/filebeat", "/_index_template/x"] {
        assert_eq!(send(&kept, "GET", path, "").await.0, 200, "{path}");
    }
    let (status, said) = send(&kept, "POST", "/x/_search", "{}").await;
    assert!(status == 400 && said["error"]["reason"].as_str().expect("a reason").contains("LogQL"));
}
