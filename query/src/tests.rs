//! The APIs over real engines: what goes in by one door comes out by the others, and nothing leaves its namespace.

mod loki;
mod metrics;
mod rules;
mod status;
mod traces;

use std::collections::BTreeSet;

use axum::body::Body;
use axum::extract::Request;
use http::{Method, StatusCode};
use log_index::{Kind, LogIndex};
use serde_json::{Value, json};
use signal::{
    Accepted, Labels, LogBatch, LogRecord, LogStream, MetricBatch, Severity, Sink, SinkError, Span,
    SpanBatch, SpanId, SpanStream, Timestamp, TraceId,
};
use tower::ServiceExt;

use super::*;

struct Stores {
    tsdb: Arc<tsdb::Tsdb>,
    logs: Arc<LogIndex>,
    traces: Arc<LogIndex>,
}

struct Door(Arc<Stores>);

// Written out by hand because the crate needs no macro for one implementation.
impl Sink for Door {
    fn write_metrics<'a, 't>(
        &'a self,
        batch: MetricBatch,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Accepted, SinkError>> + Send + 't>>
    where
        'a: 't,
        Self: 't,
    {
        Box::pin(self.0.tsdb.append(batch))
    }

    fn write_logs<'a, 't>(
        &'a self,
        batch: LogBatch,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Accepted, SinkError>> + Send + 't>>
    where
        'a: 't,
        Self: 't,
    {
        Box::pin(self.0.logs.append_logs(batch))
    }

    fn write_spans<'a, 't>(
        &'a self,
        batch: SpanBatch,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Accepted, SinkError>> + Send + 't>>
    where
        'a: 't,
        Self: 't,
    {
        Box::pin(self.0.traces.append_spans(batch))
    }
}

struct World {
    _dir: tempfile::TempDir,
    router: Router,
    now: Timestamp,
    sink: Arc<dyn Sink>,
    rules: Arc<::rules::Rules>,
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Two namespaces, `shop` and `bank`, with a metric, log lines and a span each.
async fn world() -> World {
    world_with(Config::default()).await
}

async fn world_with(config: Config) -> World {
    let dir = tempfile::tempdir().expect("dir");
    let stores = Arc::new(Stores {
        tsdb: tsdb::Tsdb::open(tsdb::Config::new(dir.path().join("metrics"))).expect("opens"),
        logs: LogIndex::open(log_index::Config::new(dir.path().join("logs"), Kind::Logs)).expect("opens"),
        traces: LogIndex::open(log_index::Config::new(dir.path().join("traces"), Kind::Spans))
            .expect("opens"),
    });
    let now = signal::time::now();
    let mut metrics = MetricBatch::default();
    let mut logs = LogBatch::default();
    let mut spans = SpanBatch::default();
    for (i, ns) in ["shop", "bank"].into_iter().enumerate() {
        for s in 0..61 {
            let l = Labels::from_pairs([("__name__", "requests_total"), ("namespace", ns), ("pod", "web-0")]);
            metrics.push(l, now.millis() - 60_000 + s * 1000, (s * 2) as f64);
        }
        let labels = Labels::from_pairs([("namespace", ns), ("pod", "web-0"), ("container", "web")]);
        let record = |body: &str, severity| LogRecord {
            timestamp: now.saturating_sub(std::time::Duration::from_secs(1)),
            body: body.to_owned(),
            severity,
            trace_id: TRACE.parse().expect("id"),
            ..LogRecord::default()
        };
        logs.streams.push(LogStream {
            labels: labels.clone(),
            records: vec![record("GET /cart 200", Severity::INFO), record("GET /cart 500", Severity::ERROR)],
        });
        spans.streams.push(SpanStream {
            labels: Labels::from_pairs([("namespace", ns), ("service_name", ns)]),
            spans: vec![Span {
                trace_id: TRACE.parse().expect("id"),
                span_id: SpanId([i as u8 + 1; 8]),
                parent_span_id: if i == 0 { SpanId::INVALID } else { SpanId([1; 8]) },
                name: format!("GET /{ns}"),
                start: now.saturating_sub(std::time::Duration::from_millis(100)),
                end: now.saturating_sub(std::time::Duration::from_millis(50)),
                attributes: [("http.route", "/cart")].into_iter().collect(),
                ..Span::default()
            }],
            ..SpanStream::default()
        });
    }
    let door = Door(stores.clone());
    door.write_metrics(metrics).await.expect("writes");
    door.write_logs(logs).await.expect("writes");
    door.write_spans(spans).await.expect("writes");
    let sink: Arc<dyn Sink> = Arc::new(door);
    let rules_dir = dir.path().join("rules");
    let rules = ::rules::Rules::new(
        ::rules::Config::new(rules_dir.clone()),
        Box::new(::rules::Directory::new(rules_dir)),
        promql::Engine::new(stores.tsdb.clone(), promql::Limits::default()),
        stores.tsdb.clone(),
        sink.clone(),
        signal::time::system_clock(),
        tokio_util::sync::CancellationToken::new(),
    );
    let engines = Engines {
        tsdb: stores.tsdb.clone(),
        logs: stores.logs.clone(),
        traces: stores.traces.clone(),
        sink: sink.clone(),
        rules: rules.clone(),
        targets: Arc::new(
            || json!({"activeTargets": [{"labels": {"namespace": "bank"}}], "droppedTargets": []}),
        ),
        clock: signal::time::system_clock(),
    };
    World { _dir: dir, router: router(engines, config), now, sink, rules }
}

impl World {
    async fn send(&self, req: Request) -> (StatusCode, String) {
        let response = self.router.clone().oneshot(req).await.expect("answers");
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 24).await.expect("body");
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    async fn get(&self, path: &str, scope: Option<Scope>) -> (StatusCode, Value) {
        let mut req = Request::get(path).body(Body::empty()).expect("request");
        if let Some(s) = scope {
            req.extensions_mut().insert(s);
        }
        let (status, text) = self.send(req).await;
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn ask(&self, method: Method, path: &str, scope: Scope) -> (StatusCode, String) {
        let mut req = Request::builder().method(method).uri(path).body(Body::empty()).expect("request");
        req.extensions_mut().insert(scope);
        self.send(req).await
    }

    async fn ok(&self, path: &str) -> Value {
        let (status, v) = self.get(path, Some(Scope::All)).await;
        assert_eq!(status, StatusCode::OK, "{path}: {v}");
        v
    }
}

fn encode(s: &str) -> String {
    s.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { (b as char).to_string() } else { format!("%{b:02X}") })
        .collect()
}

fn only(ns: &str) -> Option<Scope> {
    Some(Scope::Namespaces(BTreeSet::from([ns.to_owned()])))
}

#[tokio::test]
async fn prometheus_answers() {
    let w = world().await;
    let v = w
        .ok(&format!("/api/v1/query?query={}", encode("sum by (namespace) (rate(requests_total[1m]))")))
        .await;
    assert_eq!(v["status"], "success");
    assert_eq!(v["data"]["resultType"], "vector");
    assert_eq!(v["data"]["result"][0]["metric"], json!({"namespace": "bank"}));
    let end = w.now.millis() as f64 / 1000.0;
    let v = w
        .ok(&format!("/api/v1/query_range?query=requests_total&start={}&end={end}&step=15", end - 30.0))
        .await;
    assert_eq!(v["data"]["resultType"], "matrix");
    assert_eq!(v["data"]["result"][0]["values"].as_array().map(Vec::len), Some(3));
    assert_eq!(w.ok("/api/v1/labels").await["data"], json!(["__name__", "namespace", "pod"]));
    assert_eq!(w.ok("/api/v1/label/namespace/values").await["data"], json!(["bank", "shop"]));
    assert_eq!(w.ok("/api/v1/series?match[]=requests_total").await["data"].as_array().map(Vec::len), Some(2));
    assert_eq!(w.ok("/api/v1/rules").await["data"], json!({"groups": []}));
    assert_eq!(w.ok("/api/v1/format_query?query=sum(up)by(a)").await["data"], "sum by (a) (up)");
    w.ok("/api/v1/status/buildinfo").await;
    w.ok("/api/v1/status/tsdb").await;
    let (status, v) = w.get("/api/v1/query?query=sum(", Some(Scope::All)).await;
    assert_eq!((status, &v["errorType"]), (StatusCode::BAD_REQUEST, &json!("bad_data")));
    assert!(v["error"].as_str().is_some_and(|e| e.contains("1:5: parse error")), "{v}");
    let (status, v) = w.get("/api/v1/query_range?query=up&start=0&end=100000&step=1", Some(Scope::All)).await;
    assert_eq!((status, &v["errorType"]), (StatusCode::BAD_REQUEST, &json!("bad_data")));
}

#[tokio::test]
async fn posted_forms_are_read() {
    let w = world().await;
    let mut req = Request::post("/api/v1/query")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from("query=1%2B1&time=10"))
        .expect("request");
    req.extensions_mut().insert(Scope::All);
    let (status, text) = w.send(req).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(text, r#"{"status":"success","data":{"resultType":"scalar","result":[10,"2"]}}"#);
}

#[tokio::test]
async fn loki_answers() {
    let w = world().await;
    let v =
        w.ok(&format!("/loki/api/v1/query_range?query={}", encode(r#"{namespace="shop"} |= "500""#))).await;
    assert_eq!(v["data"]["resultType"], "streams");
    let stream = &v["data"]["result"][0];
    assert_eq!(stream["values"][0][1], "GET /cart 500");
    assert_eq!(stream["stream"]["detected_level"], "error");
    for q in [
        format!(r#"{{namespace="shop"}} | trace_id="{TRACE}""#),
        r#"{namespace="shop"} | level="info" or level="error""#.to_owned(),
    ] {
        let v = w.ok(&format!("/loki/api/v1/query_range?query={}", encode(&q))).await;
        let lines: usize = v["data"]["result"]
            .as_array()
            .expect("streams")
            .iter()
            .map(|s| s["values"].as_array().map_or(0, Vec::len))
            .sum();
        assert_eq!(lines, 2, "{q}");
    }
    let v = w.ok("/loki/api/v1/query?query=vector(1)%2Bvector(1)&time=4000000000").await;
    assert_eq!(v["data"]["result"][0]["value"][1], "2");
    let v = w
        .ok(&format!("/loki/api/v1/query?query={}", encode(r#"sum(count_over_time({namespace=~".+"}[5m]))"#)))
        .await;
    assert_eq!(v["data"]["result"][0]["value"][1], "4");
    assert_eq!(w.ok("/loki/api/v1/labels").await["data"], json!(["container", "namespace", "pod"]));
    assert_eq!(w.ok("/loki/api/v1/label/namespace/values").await["data"], json!(["bank", "shop"]));
    assert_eq!(w.ok("/loki/api/v1/index/stats").await["entries"], 4);
    let (status, v) = w.get("/loki/api/v1/query_range?query=%7B%7D", Some(Scope::All)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(v.as_str().is_some_and(|e| e.starts_with("parse error at line 1")), "{v}");
}

#[tokio::test]
async fn what_is_pushed_is_found() {
    let w = world().await;
    let body = json!({"streams": [{"stream": {"app": "pushed"}, "values": [
        [w.now.to_string(), "a line", {"trace_id": TRACE}], [w.now.to_string(), "another"],
    ]}]});
    let post = |path: &str, kind: &str, body: Vec<u8>, scope: Scope| {
        let mut req =
            Request::post(path).header("content-type", kind).body(Body::from(body)).expect("request");
        req.extensions_mut().insert(scope);
        req
    };
    let text = body.to_string().into_bytes();
    let (status, _) = w.send(post("/loki/api/v1/push", "application/json", text.clone(), Scope::All)).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (status, _) =
        w.send(post("/loki/api/v1/push", "application/json", text, only("shop").expect("scope"))).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let v =
        w.ok(&format!("/loki/api/v1/query?query={}", encode(r#"count_over_time({app="pushed"}[5m])"#))).await;
    assert_eq!(v["data"]["result"][0]["value"][1], "2");
    // A remote write request written out by hand: one series, one sample.
    let field = |tag: u8, data: &[u8]| [&[tag, data.len() as u8], data].concat();
    let label =
        |n: &str, v: &str| field(0x0a, &[field(0x0a, n.as_bytes()), field(0x12, v.as_bytes())].concat());
    let mut sample = vec![0x09];
    sample.extend(7f64.to_le_bytes());
    sample.push(0x10);
    let mut t = w.now.millis() as u64;
    while t >= 0x80 {
        sample.push(t as u8 | 0x80);
        t >>= 7;
    }
    sample.push(t as u8);
    let series = [label("__name__", "written"), label("job", "x"), field(0x12, &sample)].concat();
    let request = snap::raw::Encoder::new().compress_vec(&field(0x0a, &series)).expect("packs");
    let (status, text) = w.send(post("/api/v1/write", "application/x-protobuf", request, Scope::All)).await;
    assert_eq!(status, StatusCode::NO_CONTENT, "{text}");
    assert_eq!(w.ok("/api/v1/query?query=written").await["data"]["result"][0]["value"][1], "7");
}

#[tokio::test]
async fn traces_are_served_as_tempo_and_jaeger_do() {
    let w = world().await;
    let v = w.ok(&format!("/tempo/api/traces/{TRACE}")).await;
    assert_eq!(v["batches"].as_array().map(Vec::len), Some(2));
    let v = w
        .ok(&format!(
            "/tempo/api/search?q={}",
            encode(r#"{ resource.service.name = "bank" && span.http.route = "/cart" }"#)
        ))
        .await;
    assert_eq!(v["traces"][0]["traceID"], TRACE);
    assert_eq!(v["traces"][0]["rootServiceName"], "shop");
    let v =
        w.ok(&format!("/tempo/api/search?tags={}", encode("service.name=shop http.route=/nowhere"))).await;
    assert_eq!(v["traces"], json!([]));
    assert_eq!(w.ok("/tempo/api/search/tag/service.name/values").await["tagValues"], json!(["bank", "shop"]));
    assert_eq!(w.ok("/jaeger/api/services").await["data"], json!(["bank", "shop"]));
    assert_eq!(w.ok("/jaeger/api/services/shop/operations").await["data"], json!(["GET /shop"]));
    assert_eq!(
        w.ok("/jaeger/api/traces?service=shop").await["data"][0]["spans"].as_array().map(Vec::len),
        Some(2)
    );
    let (status, _) = w.get(&format!("/tempo/api/traces/{}", "1".repeat(32)), Some(Scope::All)).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn sql_answers_within_the_scope() {
    let w = world().await;
    let post = async |kind: &str, body: &str, scope: Option<Scope>| {
        let mut req = Request::post("/sql")
            .header("content-type", kind)
            .body(Body::from(body.to_owned()))
            .expect("request");
        if let Some(s) = scope {
            req.extensions_mut().insert(s);
        }
        let (status, text) = w.send(req).await;
        (status, serde_json::from_str::<Value>(&text).unwrap_or(Value::String(text)))
    };
    let sql = "select distinct m.namespace, l.body, s.name from metrics m join logs l on l.namespace = m.namespace \
        join spans s on s.namespace = l.namespace where l.body like '%500%' order by 1";
    let (status, v) = post("text/plain", sql, Some(Scope::All)).await;
    assert_eq!(status, StatusCode::OK, "{v}");
    let expect = json!([["bank", "GET /cart 500", "GET /bank"], ["shop", "GET /cart 500", "GET /shop"]]);
    assert_eq!((&v["rows"], &v["truncated"]), (&expect, &json!(false)));
    assert_eq!(v["columns"][0], json!({"name": "namespace", "type": "varchar"}));
    let body = json!({"query": sql}).to_string();
    let (status, v) = post("application/json", &body, only("shop")).await;
    assert_eq!((status, &v["rows"]), (StatusCode::OK, &json!([["shop", "GET /cart 500", "GET /shop"]])));
    let (_, v) = post("application/json", &body, Some(Scope::Namespaces(BTreeSet::new()))).await;
    assert_eq!(v["rows"], json!([]));
    let (status, _) = post("text/plain", "select 1", None).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    for (kind, body) in
        [("text/plain", "drop table logs"), ("text/plain", "selec"), ("application/json", "{}")]
    {
        let (status, v) = post(kind, body, Some(Scope::All)).await;
        assert_eq!((status, &v["errorType"]), (StatusCode::BAD_REQUEST, &json!("bad_data")), "{v}");
        assert!(v["error"].is_string(), "{v}");
    }
}

#[tokio::test]
async fn nothing_leaves_its_namespace_by_any_path() {
    let w = world().await;
    let logs = encode(r#"{namespace=~".+"}"#);
    let paths = [
        "/api/v1/query?query=requests_total".to_owned(),
        format!("/api/v1/query?query={}", encode(r#"requests_total{namespace="bank"} or requests_total"#)),
        format!("/api/v1/query?query={}", encode("count_over_time(requests_total[1m:10s])")),
        format!("/api/v1/query_range?query=requests_total&start={0}&end={0}&step=1", w.now.millis() / 1000),
        "/api/v1/series?match[]=requests_total".to_owned(),
        format!("/api/v1/series?match[]={}", encode(r#"{namespace="bank"}"#)),
        "/api/v1/label/namespace/values".to_owned(),
        "/api/v1/targets".to_owned(),
        format!("/loki/api/v1/query_range?query={logs}"),
        format!(
            "/loki/api/v1/query?query={}",
            encode(r#"sum by (namespace) (count_over_time({pod="web-0"}[5m]))"#)
        ),
        "/loki/api/v1/label/namespace/values".to_owned(),
        "/loki/api/v1/series".to_owned(),
        format!("/loki/api/v1/series?match[]={logs}"),
        format!("/tempo/api/traces/{TRACE}"),
        format!("/tempo/api/v2/traces/{TRACE}"),
        "/tempo/api/search".to_owned(),
        "/tempo/api/search/tag/service.name/values".to_owned(),
        "/tempo/api/search/tag/name/values".to_owned(),
        "/jaeger/api/services".to_owned(),
        "/jaeger/api/services/bank/operations".to_owned(),
        "/jaeger/api/traces?service=shop".to_owned(),
        format!("/jaeger/api/traces/{TRACE}"),
    ];
    for path in paths {
        let (status, _) = w.get(&path, None).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        let (status, v) = w.get(&path, only("shop")).await;
        assert_eq!(status, StatusCode::OK, "{path}: {v}");
        assert!(!v.to_string().contains("bank"), "{path}: {v}");
        let (_, v) = w.get(&path, Some(Scope::Namespaces(BTreeSet::new()))).await;
        assert!(!v.to_string().contains("\"shop\"") && !v.to_string().contains("\"bank\""), "{path}: {v}");
    }
    let id: TraceId = TRACE.parse().expect("id");
    assert!(id.is_valid());
}
