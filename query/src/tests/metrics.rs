//! Remote write, native histograms, exemplars and statistics over the metrics API.

use super::*;

/// Fields of a protobuf message, put together by hand: the test must not use the code it tests.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(mut self, field: u32, mut v: u64) -> Self {
        self.0.push((field << 3) as u8);
        if field >= 16 {
            self.0.pop();
            self.0.extend([(field << 3 & 0x7f) as u8 | 0x80, (field >> 4) as u8]);
        }
        while v >= 0x80 {
            self.0.push(v as u8 | 0x80);
            v >>= 7;
        }
        self.0.push(v as u8);
        self
    }

    fn zigzag(self, field: u32, v: i64) -> Self {
        self.varint(field, ((v << 1) ^ (v >> 63)) as u64)
    }

    fn double(mut self, field: u32, v: f64) -> Self {
        self.0.push((field << 3 | 1) as u8);
        self.0.extend(v.to_le_bytes());
        self
    }

    fn bytes(mut self, field: u32, v: &[u8]) -> Self {
        self.0.push((field << 3 | 2) as u8);
        self.0.push(u8::try_from(v.len()).expect("short"));
        self.0.extend(v);
        self
    }

    fn packed(&self) -> Vec<u8> {
        snap::raw::Encoder::new().compress_vec(&self.0).expect("compresses")
    }
}

async fn post(
    w: &World,
    path: &str,
    kind: &str,
    m: &Message,
    scope: Scope,
) -> (http::response::Parts, Vec<u8>) {
    let mut req =
        Request::post(path).header("content-type", kind).body(Body::from(m.packed())).expect("request");
    req.extensions_mut().insert(scope);
    let (parts, body) = w.router.clone().oneshot(req).await.expect("answers").into_parts();
    (parts, axum::body::to_bytes(body, 1 << 20).await.expect("body").to_vec())
}

async fn push(w: &World, kind: &str, m: &Message) -> (StatusCode, http::HeaderMap, String) {
    let (parts, body) = post(w, "/api/v1/write", kind, m, Scope::All).await;
    (parts.status, parts.headers, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn remote_read_gives_samples_of_what_the_caller_may_see() {
    let w = world().await;
    let matcher = Message::default().varint(1, 2).bytes(2, b"__name__").bytes(3, b"requests_.+");
    let now = w.now.millis() as u64;
    let query = Message::default().varint(1, now - 60_000).varint(2, now).bytes(3, &matcher.0);
    let ask = async |scope: Scope| {
        let (parts, body) =
            post(&w, "/api/v1/read", "application/x-protobuf", &Message::default().bytes(1, &query.0), scope)
                .await;
        assert_eq!(parts.status, StatusCode::OK);
        assert_eq!(parts.headers["content-encoding"], "snappy");
        let raw = snap::raw::Decoder::new().decompress_vec(&body).expect("snappy");
        String::from_utf8_lossy(&raw).into_owned()
    };
    let all = ask(Scope::All).await;
    assert!(all.contains("requests_total") && all.contains("bank") && all.contains("shop"), "{all:?}");
    let some = ask(only("shop").expect("a scope")).await;
    assert!(some.contains("shop") && !some.contains("bank"), "{some:?}");
}

#[tokio::test]
async fn remote_read_streams_chunks_to_who_asks_for_them_first() {
    let w = world().await;
    let matcher = Message::default().varint(1, 2).bytes(2, b"__name__").bytes(3, b"requests_.+");
    let now = w.now.millis() as u64;
    let query = Message::default().varint(1, now - 60_000).varint(2, now).bytes(3, &matcher.0);
    let ask = async |types: &[u8], scope: Scope| {
        let request = Message::default().bytes(1, &query.0).bytes(2, types);
        post(&w, "/api/v1/read", "application/x-protobuf", &request, scope).await
    };
    let (parts, mut body) = ask(&[1, 0], Scope::All).await;
    assert_eq!(
        parts.headers["content-type"],
        "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse"
    );
    let (mut namespaces, mut samples) = (Vec::new(), 0);
    while let Some(frame) = exchange::remote::take_frame(&mut body).expect("a frame") {
        for s in frame.chunked_series {
            let columns = s.columns().expect("chunks");
            namespaces.push(columns.labels.get("namespace").unwrap_or_default().to_owned());
            samples += columns.values.len();
        }
    }
    assert!(body.is_empty() && samples > 0, "{samples}");
    assert!(namespaces.contains(&"bank".to_owned()) && namespaces.contains(&"shop".to_owned()));
    let (_, body) = ask(&[1], only("shop").expect("a scope")).await;
    assert!(!String::from_utf8_lossy(&body).contains("bank"));
    let (parts, _) = ask(&[0, 1], Scope::All).await;
    assert_eq!(parts.headers["content-encoding"], "snappy");
    let (parts, _) = ask(&[7], Scope::All).await;
    assert_eq!(parts.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn old_samples_are_imported_by_who_may_write_all() {
    let w = world().await;
    let old = w.now.millis() - 3 * 86_400_000;
    let label = |n: &[u8], v: &[u8]| Message::default().bytes(1, n).bytes(2, v).0;
    let sample = Message::default().double(1, 42.0).varint(2, old as u64);
    let series = Message::default().bytes(1, &label(b"__name__", b"ancient")).bytes(2, &sample.0);
    let request = Message::default().bytes(1, &series.0);
    let kind = "application/x-protobuf";
    let (parts, _) = post(&w, "/api/v1/import", kind, &request, only("shop").expect("a scope")).await;
    assert_eq!(parts.status, StatusCode::FORBIDDEN);
    let (_, body) = post(&w, "/api/v1/import", kind, &request, Scope::All).await;
    let answer: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!((&answer["data"]["accepted"], &answer["data"]["rejected"]), (&1.into(), &0.into()));
    let path = format!("/api/v1/query?query=ancient&time={}", old / 1000 + 1);
    let (_, found) = w.get(&path, Some(Scope::All)).await;
    assert!(found.to_string().contains("42"), "{found}");
}

const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

/// A histogram of schema 0 with one observation in (1,2] and two in (2,4].
fn histogram(ms: i64) -> Message {
    let span = Message::default().zigzag(1, 1).varint(2, 2);
    Message::default()
        .varint(1, 3)
        .double(3, 7.5)
        .bytes(11, &span.0)
        .zigzag(12, 1)
        .zigzag(12, 1)
        .varint(15, ms as u64)
}

#[tokio::test]
async fn remote_write_2_takes_histograms_starts_and_exemplars() {
    let w = world().await;
    let now = w.now.millis();
    let mut request = Message::default();
    for s in ["", "__name__", "latency", "jobs_total", "trace_id", "abc", "how long", "seconds"] {
        request = request.bytes(4, s.as_bytes());
    }
    let exemplar = Message::default().bytes(1, &[4, 5]).double(2, 1.5).varint(3, now as u64);
    let metadata = Message::default().varint(1, 3).varint(3, 6).varint(4, 7);
    let latency = Message::default()
        .bytes(1, &[1, 2])
        .bytes(3, &histogram(now).0)
        .bytes(4, &exemplar.0)
        .bytes(5, &metadata.0);
    let sample = Message::default().double(1, 4.0).varint(2, now as u64).varint(3, (now - 2000) as u64);
    let jobs = Message::default().bytes(1, &[1, 3]).bytes(2, &sample.0);
    // One without a start time, told twice: the second time its series is known.
    let plain = |ms: i64| {
        let sample = Message::default().double(1, 2.0).varint(2, ms as u64);
        Message::default().bytes(1, &[1, 6]).bytes(2, &sample.0).bytes(5, &metadata.0)
    };
    let first = request.bytes(5, &plain(now - 1000).0);
    assert_eq!(push(&w, V2, &first).await.0, StatusCode::NO_CONTENT);
    let mut request = Message::default();
    for s in ["", "__name__", "latency", "jobs_total", "trace_id", "abc", "how long", "seconds"] {
        request = request.bytes(4, s.as_bytes());
    }
    let request = request.bytes(5, &plain(now).0).bytes(5, &latency.0).bytes(5, &jobs.0);
    let (status, headers, text) = push(&w, V2, &request).await;
    assert_eq!(status, StatusCode::NO_CONTENT, "{text}");
    let both = w
        .ok(&format!(
            "/api/v1/query?query=count_over_time(%7B__name__%3D%22how%20long%22%7D%5B1m%5D)&time={}",
            now / 1000 + 1
        ))
        .await;
    assert_eq!(both["data"]["result"][0]["value"][1], "2");
    for (name, n) in [("samples", "2"), ("histograms", "1"), ("exemplars", "1")] {
        assert_eq!(headers[format!("x-prometheus-remote-write-{name}-written")], n, "{name}");
    }
    let time = now as f64 / 1000.0;
    let v = w.ok(&format!("/api/v1/query?query=latency&time={time}")).await;
    let h = &v["data"]["result"][0]["histogram"][1];
    assert_eq!(*h, json!({"count": "3", "sum": "7.5", "buckets": [[0, "1", "2", "1"], [0, "2", "4", "2"]]}));
    let v = w.ok(&format!("/api/v1/query_range?query=latency&start={time}&end={time}&step=1")).await;
    assert_eq!(v["data"]["result"][0]["histograms"][0][1]["count"], "3");
    let v = w.ok(&format!("/api/v1/query?query=start_timestamp(jobs_total)&time={time}")).await;
    assert_eq!(v["data"]["result"][0]["value"][1], ((now - 2000) as f64 / 1000.0).to_string());
    let v = w
        .ok(&format!("/api/v1/query_exemplars?query=rate(latency[5m])&start={}&end={time}", time - 10.0))
        .await;
    assert_eq!(v["data"][0]["exemplars"][0]["labels"], json!({"trace_id": "abc"}));
    assert_eq!(v["data"][0]["seriesLabels"], json!({"__name__": "latency"}));
    let v = w.ok("/api/v1/metadata?metric=latency").await;
    assert_eq!(v["data"]["latency"][0], json!({"type": "histogram", "help": "how long", "unit": "seconds"}));
    // It has no namespace, so who may see one only does not learn that it is there.
    assert_eq!(w.get("/api/v1/metadata", only("shop")).await.1["data"], json!({}));
}

#[tokio::test]
async fn remote_write_refuses_what_it_does_not_understand() {
    let w = world().await;
    let check = async |kind: &str, m: Message, status: StatusCode, text: &str| {
        let (got, _, body) = push(&w, kind, &m).await;
        assert_eq!(got, status, "{body}");
        assert!(body.contains(text), "{body}");
    };
    let media = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    check("text/plain", Message::default(), media, "x-protobuf").await;
    check("application/x-protobuf;proto=x.Y", Message::default(), media, "x.Y").await;
    let outside =
        Message::default().bytes(4, b"").bytes(5, &Message::default().bytes(1, &[1, 2]).bytes(2, &[]).0);
    check(V2, outside, StatusCode::BAD_REQUEST, "outside of symbols table").await;
    // Version 1, with a histogram.
    let label = Message::default().bytes(1, b"__name__").bytes(2, b"old");
    let series = Message::default().bytes(1, &label.0).bytes(4, &histogram(w.now.millis()).0);
    check("application/x-protobuf", Message::default().bytes(1, &series.0), StatusCode::NO_CONTENT, "").await;
    let v = w.ok("/api/v1/query?query=histogram_count(old)").await;
    assert_eq!(v["data"]["result"][0]["value"][1], "3");
}

#[tokio::test]
async fn statistics_are_told_when_asked_for() {
    let w = world().await;
    let v = w.ok("/api/v1/query?query=sum(rate(requests_total[1m]))&stats=all").await;
    assert!(v["data"]["stats"]["samples"]["samplesRead"].as_u64().is_some_and(|n| n >= 100), "{v}");
    assert!(v["data"]["stats"]["timings"]["evalTotalTime"].is_number(), "{v}");
    assert_eq!(w.ok("/api/v1/query?query=1").await["data"]["stats"], Value::Null);
}

#[tokio::test]
async fn what_grafana_and_other_servers_ask() {
    let w = world().await;
    let (status, text) = w.get("/federate?match[]=requests_total", Some(Scope::All)).await;
    assert_eq!(status, StatusCode::OK);
    let text = text.as_str().expect("text");
    assert!(text.starts_with("# TYPE requests_total untyped\nrequests_total{namespace=\"bank\",pod=\"web-0\",instance=\"\"} 120 "), "{text}");
    let (_, text) = w.get("/federate?match[]=requests_total", only("shop")).await;
    assert!(!text.as_str().expect("text").contains("bank"), "{text}");
    let v = w.ok("/api/v1/parse_query?query=sum%20by(a)(rate(up%5B5m%5D))").await;
    assert_eq!(v["data"]["type"], "aggregation");
    assert_eq!(v["data"]["expr"]["args"][0]["range"], 300_000);
    assert_eq!(w.ok("/api/v1/features").await["data"]["promql_functions"]["rate"], true);
    w.ok("/api/v1/status/walreplay").await;
    w.ok("/api/v1/scrape_pools").await;
}

/// A large answer is sent in pieces, which together are the JSON that a small one is.
#[tokio::test]
async fn large_answers_are_whole() {
    let w = world().await;
    let terms: Vec<String> =
        (0..8).map(|i| format!("label_replace(vector({i}), \"n\", \"{i}\", \"\", \"\")")).collect();
    let query = encode(&terms.join(" or "));
    let path = format!("/api/v1/query_range?query={query}&start=0&end=10000&step=1&stats=all");
    let v = w.ok(&path).await;
    let series = v["data"]["result"].as_array().expect("series");
    let points: Vec<usize> = series.iter().map(|s| s["values"].as_array().map_or(0, Vec::len)).collect();
    assert_eq!(points, [10_001; 8]);
    assert_eq!(series[3]["metric"], json!({"n": "3"}));
    assert_eq!(series[3]["values"][10_000], json!([10_000, "3"]));
    assert!(
        v["data"]["stats"]["samples"]["peakBytes"].as_u64() > Some(8 * 10_001 * 16),
        "{}",
        v["data"]["stats"]
    );
    assert_eq!(v.get("warnings"), None);
    let v = w.ok(&format!("{path}&limit=7")).await;
    assert_eq!(v["data"]["result"].as_array().map(Vec::len), Some(7));
    assert_eq!(v["warnings"], json!(["results truncated due to limit"]));
}
