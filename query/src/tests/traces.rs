//! Traces by what their spans are, as Jaeger's and Tempo's clients ask.

use std::time::Duration;

use signal::{Attributes, SpanEvent, SpanKind, SpanLink, SpanStatus};

use super::*;

fn span(trace: u8, id: u8, parent: u8, name: &str, start: Timestamp, took: u64) -> Span {
    Span {
        trace_id: TraceId([trace; 16]),
        span_id: SpanId([id; 8]),
        parent_span_id: if parent == 0 { SpanId::INVALID } else { SpanId([parent; 8]) },
        name: name.to_owned(),
        start,
        end: start.saturating_add(Duration::from_millis(took)),
        ..Span::default()
    }
}

/// Five traces of the services `api`, `store` and `worker`, a minute apart, the newest a minute old.
async fn traced() -> World {
    let w = world().await;
    let at = |minutes: u64| w.now.saturating_sub(Duration::from_secs(60 * minutes));
    let stream = |service: &str, resource: Attributes, spans: Vec<Span>| SpanStream {
        labels: Labels::from_pairs([("namespace", "shop"), ("service_name", service)]),
        resource,
        spans,
    };
    let mut read = span(0x51, 1, 0, "GET /items", at(5), 100);
    read.kind = SpanKind::Server;
    read.attributes = [("http.status_code", 200i64)].into_iter().collect();
    read.attributes.set("user", "ann");
    let mut select = span(0x51, 2, 1, "select", at(5), 40);
    select.kind = SpanKind::Client;
    select.attributes.set("db.rows", 7i64);
    let mut write = span(0x52, 3, 0, "POST /items", at(4), 900);
    write.kind = SpanKind::Server;
    write.status = SpanStatus::Error("no space".to_owned());
    write.attributes.set("http.status_code", 500i64);
    write.attributes.set("ok", false);
    write.events.push(SpanEvent {
        timestamp: at(4),
        name: "exception".to_owned(),
        attributes: [("exception.type", "Full")].into_iter().collect(),
    });
    let insert = span(0x52, 4, 3, "insert", at(4), 800);
    let mut work = span(0x53, 5, 0, "work", at(3), 5000);
    work.kind = SpanKind::Consumer;
    work.links.push(SpanLink {
        trace_id: TraceId([0x52; 16]),
        span_id: SpanId([3; 8]),
        attributes: Attributes::default(),
    });
    let again = span(0x54, 6, 0, "GET /items", at(2), 2);
    let mut last = span(0x55, 7, 0, "GET /items", at(1), 300);
    last.attributes.set("user", "bob \"the\" builder");
    let eu: Attributes = [("region", "eu"), ("host.name", "h1")].into_iter().collect();
    let us: Attributes = [("region", "us")].into_iter().collect();
    let batch = SpanBatch {
        streams: vec![
            stream("api", eu.clone(), vec![read, write]),
            stream("api", us.clone(), vec![again, last]),
            stream("store", eu, vec![select, insert]),
            stream("worker", us, vec![work]),
        ],
    };
    w.sink.write_spans(batch).await.expect("writes");
    w
}

/// Asks Jaeger, and says which traces came, in order.
async fn jaeger(w: &World, params: &str) -> String {
    let v = w.ok(&format!("/jaeger/api/traces?{params}")).await;
    let all = v["data"].as_array().expect("a list");
    all.iter()
        .map(|t| t["traceID"].as_str().unwrap_or_default()[..2].to_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

#[tokio::test]
async fn jaeger_finds_traces_by_everything_it_can_be_asked() {
    let w = traced().await;
    let micros = |minutes: u64| w.now.saturating_sub(Duration::from_secs(60 * minutes)).nanos() / 1000;
    let half = micros(3) - 30_000_000;
    let json = |t: &str| encode(t);
    let cases = [
        // The service, whose newest trace comes first.
        ("service=api".to_owned(), "55 54 52 51"),
        ("service=store".to_owned(), "52 51"),
        ("service=worker".to_owned(), "53"),
        ("service=nobody".to_owned(), ""),
        // The operation.
        (format!("service=api&operation={}", encode("GET /items")), "55 54 51"),
        (format!("service=api&operation={}", encode("POST /items")), "52"),
        ("service=api&operation=insert".to_owned(), ""),
        ("service=store&operation=insert".to_owned(), "52"),
        ("service=api&operation=all".to_owned(), "55 54 52 51"),
        // Tags of the span, of its process, of its logs; as JSON, as logfmt, one by one.
        (format!("service=api&tags={}", json(r#"{"http.status_code":"500"}"#)), "52"),
        (format!("service=api&tags={}", json(r#"{"http.status_code":200}"#)), "51"),
        (format!("service=api&tags={}", json(r#"{"user":"ann"}"#)), "51"),
        (format!("service=api&tags={}", encode("user=ann")), "51"),
        (format!("service=api&tags={}", encode("user=ann http.status_code=200")), "51"),
        (format!("service=api&tags={}", encode("user=ann http.status_code=500")), ""),
        ("service=api&tag=user:ann".to_owned(), "51"),
        ("service=api&tag=ok:false".to_owned(), "52"),
        ("service=api&tag=user:ann&tag=region:eu".to_owned(), "51"),
        ("service=api&tag=region:us".to_owned(), "55 54"),
        (format!("service=api&tags={}", json(r#"{"host.name":"h1"}"#)), "52 51"),
        (format!("service=api&tags={}", json(r#"{"exception.type":"Full"}"#)), "52"),
        (format!("service=api&tags={}", json(r#"{"event":"exception"}"#)), "52"),
        ("service=api&tag=error:true".to_owned(), "52"),
        ("service=api&tag=error:false".to_owned(), "55 54 51"),
        ("service=api&tag=span.kind:server".to_owned(), "52 51"),
        ("service=store&tag=span.kind:client".to_owned(), "51"),
        ("service=api&tag=otel.status_code:ERROR".to_owned(), "52"),
        ("service=store&tags=db.rows%3D7".to_owned(), "51"),
        ("service=api&tags=db.rows%3D7".to_owned(), ""),
        // Durations.
        ("service=api&minDuration=200ms".to_owned(), "55 52"),
        ("service=api&maxDuration=100ms".to_owned(), "54 51"),
        ("service=api&minDuration=50ms&maxDuration=500ms".to_owned(), "55 51"),
        ("service=api&minDuration=1.5s".to_owned(), ""),
        ("service=worker&minDuration=5s".to_owned(), "53"),
        ("service=api&maxDuration=2000us".to_owned(), "54"),
        // Times.
        (format!("service=api&start={half}"), "55 54"),
        (format!("service=api&end={half}"), "52 51"),
        (format!("service=api&start={}&end={}", micros(4), micros(2)), "54 52"),
        ("service=api&lookback=150s".to_owned(), "55 54"),
        // Limits.
        ("service=api&limit=1".to_owned(), "55"),
        (format!("service=api&limit=1&end={half}"), "52"),
        // Ids, whatever else is said.
        (format!("traceID={}&traceID={}", "51".repeat(16), "53".repeat(16)), "51 53"),
        (format!("traceID={}", "ff".repeat(16)), ""),
        // All together.
        (
            format!(
                "service=api&operation={}&tag=region:eu&tags={}&minDuration=10ms&maxDuration=1s&start={}&end={}&limit=5",
                encode("GET /items"),
                json(r#"{"user":"ann","span.kind":"server"}"#),
                micros(6),
                micros(4)
            ),
            "51",
        ),
    ];
    for (params, expect) in cases {
        assert_eq!(jaeger(&w, &params).await, expect, "{params}");
    }
}

#[tokio::test]
async fn a_span_lists_what_was_logged_in_it() {
    let w = traced().await;
    let record = |span: u8, body: &str| LogRecord {
        timestamp: w.now.saturating_sub(Duration::from_secs(240)),
        body: body.to_owned(),
        severity: Severity::ERROR,
        trace_id: TraceId([0x52; 16]),
        span_id: SpanId([span; 8]),
        ..LogRecord::default()
    };
    let stream = |ns: &str, records| LogStream {
        labels: Labels::from_pairs([("namespace", ns), ("pod", "p")]),
        records,
    };
    let streams = vec![
        stream("shop", vec![record(3, "cannot write"), record(4, "disk is full")]),
        stream("bank", vec![record(4, "not yours")]),
    ];
    w.sink.write_logs(LogBatch { streams, checkpoints: Vec::new() }).await.expect("writes");
    let (_, v) = w.get(&format!("/jaeger/api/traces/{}", "52".repeat(16)), only("shop")).await;
    let said = |span: &str| {
        let all = v["data"][0]["spans"].as_array().expect("spans");
        let s = all.iter().find(|s| s["spanID"] == span).expect("the span");
        let logs = s["logs"].as_array().expect("logs").iter();
        logs.map(|l| l["fields"][0]["value"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let mut first = said(&"03".repeat(8));
    first.sort();
    assert_eq!(first, ["cannot write", "exception"]);
    assert_eq!(said(&"04".repeat(8)), ["disk is full"]);
}

#[tokio::test]
async fn jaeger_lists_operations_and_who_calls_whom_and_says_what_is_wrong() {
    let w = traced().await;
    let v = w.ok("/jaeger/api/services").await;
    assert_eq!((&v["data"], &v["total"]), (&json!(["api", "bank", "shop", "store", "worker"]), &json!(5)));
    let v = w.ok("/jaeger/api/services/store/operations").await;
    assert_eq!(v["data"], json!(["insert", "select"]));
    let v = w.ok("/jaeger/api/operations?service=store&spanKind=client").await;
    assert_eq!(v["data"], json!([{"name": "select", "spanKind": "client"}]));
    let v = w.ok("/jaeger/api/dependencies?lookback=600000").await;
    assert!(
        v["data"]
            .as_array()
            .is_some_and(|d| d.contains(&json!({"parent": "api", "child": "store", "callCount": 2}))),
        "{v}"
    );
    let v = w.ok(&format!("/jaeger/api/traces/{}", "53".repeat(16))).await;
    let s = &v["data"][0]["spans"][0];
    assert_eq!(s["references"][0]["refType"], "FOLLOWS_FROM");
    assert_eq!((&s["duration"], &s["processID"]), (&json!(5_000_000), &json!("p1")));
    for (params, expect) in [
        ("", "parameter 'service' is required"),
        ("service=api&start=x", "unable to parse param 'start'"),
        ("service=api&minDuration=x", "unable to parse param 'minDuration'"),
        ("service=api&minDuration=2s&maxDuration=1s", "'maxDuration' should be greater than 'minDuration'"),
        ("service=api&limit=x", "unable to parse param 'limit'"),
        ("service=api&tag=x", "malformed 'tag' parameter"),
        ("service=api&tags=%7Bx", "malformed 'tags' parameter"),
        ("service=api&tags=x", "malformed 'tags' parameter"),
        ("traceID=xyz", "invalid trace id"),
    ] {
        let (status, v) = w.get(&format!("/jaeger/api/traces?{params}"), Some(Scope::All)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{params}");
        assert_eq!(v["errors"][0]["code"], 400);
        assert!(v["errors"][0]["msg"].as_str().is_some_and(|m| m.contains(expect)), "{params}: {v}");
    }
    let (status, v) = w.get(&format!("/jaeger/api/traces/{}", "f".repeat(32)), Some(Scope::All)).await;
    assert_eq!((status, &v["errors"][0]["msg"]), (StatusCode::NOT_FOUND, &json!("trace not found")));
}

async fn tempo(w: &World, params: &str) -> String {
    let v = w.ok(&format!("/tempo/api/search?{params}")).await;
    let all = v["traces"].as_array().expect("a list");
    all.iter()
        .map(|t| t["traceID"].as_str().unwrap_or_default()[..2].to_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

#[tokio::test]
async fn tempo_searches_by_traceql_and_by_tags() {
    let w = traced().await;
    for (params, expect) in [
        (format!("q={}", encode("{ resource.service.name = \"api\" && status = error }")), "52"),
        (format!("q={}", encode("{ resource.service.name = \"api\" } >> { name = \"select\" }")), "51"),
        (format!("q={}", encode("{ duration > 1s }")), "53"),
        (format!("q={}&limit=2", encode("{ resource.service.name = \"api\" }")), "55 54"),
        (format!("tags={}", encode("service.name=store")), "52 51"),
        (format!("tags={}", encode("http.status_code=500")), "52"),
        (format!("tags={}", encode("user=\"ann\" region=eu")), "51"),
        ("tags=error%3Dtrue".to_owned(), "52"),
        ("minDuration=1s".to_owned(), "53"),
        (format!("tags={}&maxDuration=50ms", encode("service.name=api")), "54"),
        (format!("tags={}&q={}", encode("service.name=store"), encode("{ name = \"insert\" }")), "52"),
    ] {
        assert_eq!(tempo(&w, &params).await, expect, "{params}");
    }
    let v = w
        .ok(&format!(
            "/tempo/api/search?spss=1&q={}",
            encode("{ span.http.status_code >= 500 } | select(.ok)")
        ))
        .await;
    let t = &v["traces"][0];
    assert_eq!((&t["rootServiceName"], &t["rootTraceName"]), (&json!("api"), &json!("POST /items")));
    assert_eq!(t["serviceStats"]["api"], json!({"spanCount": 1, "errorCount": 1}));
    let s = &t["spanSets"][0]["spans"][0];
    assert_eq!((&s["name"], &s["durationNanos"]), (&json!("POST /items"), &json!("900000000")));
    assert_eq!(s["attributes"][0], json!({"key": "http.status_code", "value": {"intValue": "500"}}));
    assert_eq!(s["attributes"][1], json!({"key": "ok", "value": {"boolValue": false}}));
    let (status, v) = w.get(&format!("/tempo/api/search?q={}", encode("{ .a = }")), Some(Scope::All)).await;
    assert_eq!(
        (status, v),
        (StatusCode::BAD_REQUEST, json!("parse error at line 1, col 8: syntax error: unexpected }"))
    );
}

#[tokio::test]
async fn tempo_knows_tags_values_series_and_protobuf() {
    let w = traced().await;
    let v = w.ok("/tempo/api/v2/search/tags").await;
    let scope = |name: &str| {
        let all = v["scopes"].as_array().and_then(|s| s.iter().find(|s| s["name"] == name).cloned());
        all.unwrap_or_default()["tags"].clone()
    };
    assert!(scope("span").as_array().is_some_and(|t| t.contains(&json!("db.rows"))), "{v}");
    assert!(scope("resource").as_array().is_some_and(|t| t.contains(&json!("region"))), "{v}");
    assert_eq!(scope("event"), json!(["exception.type"]));
    assert!(scope("intrinsic").as_array().is_some_and(|t| t.contains(&json!("span:status"))), "{v}");
    let v = w.ok("/tempo/api/v2/search/tags?scope=event").await;
    assert_eq!(v["scopes"].as_array().map(Vec::len), Some(1));
    let v = w.ok("/tempo/api/v2/search/tag/span.http.status_code/values").await;
    assert_eq!(v["tagValues"], json!([{"type": "int", "value": "200"}, {"type": "int", "value": "500"}]));
    let v = w.ok("/tempo/api/v2/search/tag/status/values").await;
    assert_eq!(
        v["tagValues"],
        json!([{"type": "keyword", "value": "error"}, {"type": "keyword", "value": "unset"}])
    );
    let q = encode("{ resource.service.name = \"store\" }");
    let v = w.ok(&format!("/tempo/api/v2/search/tag/name/values?q={q}")).await;
    assert_eq!(
        v["tagValues"],
        json!([{"type": "string", "value": "insert"}, {"type": "string", "value": "select"}])
    );
    let v = w.ok("/tempo/api/search/tag/region/values").await;
    assert_eq!(v["tagValues"], json!(["eu", "us"]));

    let q = encode("{ resource.service.name = \"api\" } | count_over_time() by (status)");
    let v = w.ok(&format!("/tempo/api/metrics/query_range?q={q}&since=10m&step=1h")).await;
    let sum = |s: &Value| {
        s["samples"].as_array().map_or(0.0, |p| p.iter().filter_map(|p| p["value"].as_f64()).sum())
    };
    let series = v["series"].as_array().expect("series");
    assert_eq!(series.iter().map(sum).collect::<Vec<f64>>(), [1.0, 3.0], "{v}");
    assert_eq!(series[0]["promLabels"], r#"{status="error"}"#);
    assert_eq!(series[0]["exemplars"][0]["labels"][0]["value"]["stringValue"], "52".repeat(16));
    let v = w
        .ok(&format!("/tempo/api/metrics/query?q={}&since=10m", encode("{ } | max_over_time(duration)")))
        .await;
    assert_eq!(
        (&v["series"][0]["value"], &v["series"][0]["promLabels"]),
        (&json!(5.0), &json!(r#"{__name__="max_over_time"}"#))
    );
    let (status, _) =
        w.get(&format!("/tempo/api/metrics/query_range?q={}", encode("{ }")), Some(Scope::All)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);

    for path in ["traces", "v2/traces"] {
        let mut req = Request::get(format!("/tempo/api/{path}/{}", "52".repeat(16)))
            .header("accept", "application/protobuf")
            .body(Body::empty())
            .expect("request");
        req.extensions_mut().insert(Scope::All);
        let (status, body) = w.send(req).await;
        assert_eq!(status, StatusCode::OK);
        assert!(body.contains("POST /items") && body.contains("exception.type"), "{path}");
    }
    assert_eq!(w.ok("/tempo/api/echo").await, json!("echo"));
}
