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

async fn push(w: &World, lines: &[&str]) {
    let values: Vec<Value> =
        lines.iter().map(|l| json!([signal::time::now().nanos().to_string(), l])).collect();
    let body =
        json!({"streams": [{"stream": {"namespace": "shop", "app": "x"}, "values": values}]}).to_string();
    let mut req = Request::post("/loki/api/v1/push")
        .header("content-type", "application/json")
        .body(Body::from(body))
        .expect("request");
    req.extensions_mut().insert(Scope::All);
    assert_eq!(w.send(req).await.0, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn patterns_are_mined_as_lines_arrive_and_new_ones_are_told() {
    let w = world().await;
    push(&w, &["user 1 came in", "user 2 came in", "disk is full"]).await;
    let q = encode(r#"{app="x"}"#);
    // Since before this process: of the stored lines.
    let v = w.ok(&format!("/loki/api/v1/patterns?query={q}")).await;
    assert_eq!(v["data"].as_array().map(Vec::len), Some(2), "{v}");
    let new = format!("/loki/api/v1/patterns?query={q}&new_since={}", w.now.nanos());
    // The miner follows behind the append.
    let mined = async || loop {
        let v = w.ok(&new).await;
        if v["data"].as_array().is_some_and(|d| d.len() == 2) {
            return v;
        }
        tokio::task::yield_now().await;
    };
    let v = tokio::time::timeout(std::time::Duration::from_secs(20), mined()).await.expect("mined in time");
    assert_eq!(v["data"][0]["pattern"], "user <_> came in", "{v}");
    assert_eq!(v["data"][0]["samples"][0][1], 2, "{v}");
    assert_eq!(v["data"][0]["labels"]["app"], "x");
    assert!(
        v["data"][0]["first"].as_str().is_some_and(|t| t.parse::<i64>().is_ok_and(|t| t >= w.now.nanos()))
    );
    let later = signal::time::now().nanos() + 1_000_000_000;
    let v = w.ok(&format!("/loki/api/v1/patterns?query={q}&new_since={later}")).await;
    assert_eq!(v["data"], json!([]));
    let (_, v) = w.get(&new, only("bank")).await;
    assert_eq!(v["data"], json!([]));
}

#[tokio::test]
async fn searches_become_logql_that_reads_the_fields_it_needs() {
    let w = world().await;
    push(&w, &[r#"{"status":503,"msg":"no"}"#, r#"{"status":200,"msg":"yes"}"#]).await;
    let asked = async |selector: &str, search: &str| {
        let path = format!("/loki/api/v1/translate?query={}&search={}", encode(selector), encode(search));
        w.ok(&path).await["data"]["query"].as_str().unwrap_or_default().to_owned()
    };
    let query = asked(r#"{app="x"}"#, "no status:>=500").await;
    assert_eq!(query, r#"{app="x"} |~ "(?i)no" | json | status>=500"#);
    let v = w.ok(&format!("/loki/api/v1/query_range?query={}", encode(&query))).await;
    assert_eq!(v["data"]["result"][0]["values"].as_array().map(Vec::len), Some(1), "{v}");
    // What is a label needs no parser; nor does what is nowhere.
    assert_eq!(
        asked(r#"{namespace="shop"}"#, "level:error").await,
        r#"{namespace="shop"} | detected_level="error""#
    );
    assert_eq!(asked(r#"{app="x"}"#, "nosuch:1").await, r#"{app="x"} | nosuch="1""#);
    assert_eq!(asked(r#"{app="x"}"#, "((a \"b").await, r#"{app="x"} |~ "(?i)a" |~ "(?i)b""#);
    let (status, _) = w.get("/loki/api/v1/translate?query=%7B&search=x", Some(Scope::All)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn answers_have_statistics_and_errors_are_text() {
    let w = world().await;
    let ask = |q: &str| format!("/loki/api/v1/query_range?query={}", encode(q));
    let v = w.ok(&ask(r#"{namespace="shop"}"#)).await;
    let s = &v["data"]["stats"]["summary"];
    assert_eq!((&s["totalLinesProcessed"], &s["totalEntriesReturned"]), (&json!(2), &json!(2)), "{v}");
    assert!(s["totalBytesProcessed"].as_u64().is_some_and(|n| n > 20), "{v}");
    let v = w.ok(&format!("{}&step=1", ask(r#"sum(rate({namespace="shop"}[1m]))"#))).await;
    assert_eq!(v["data"]["stats"]["summary"]["totalLinesProcessed"], 2, "{v}");
    let v = w.ok(&format!("{}&interval=1h", ask(r#"{namespace="shop"} | keep namespace"#))).await;
    assert_eq!(v["data"]["result"][0]["values"].as_array().map(Vec::len), Some(1), "{v}");
    let v = w.ok(&format!("/loki/api/v1/format_query?query={}", encode(r#"{a="b"}|="c""#))).await;
    assert_eq!(v["data"], r#"{a="b"} |= "c""#);
    for (path, expect) in [
        (ask("{"), "parse error at line 1, col 2"),
        (
            format!("{}&step=1", ask(r#"count_over_time({namespace="shop"} | json [1m])"#)),
            "pipeline error: 'JSONParserErr'",
        ),
        (format!("{}&limit=100000", ask(r#"{a="b"}"#)), "max entries limit"),
        (format!("{}&start=x", ask(r#"{a="b"}"#)), "could not parse"),
        (format!("{}&direction=up", ask(r#"{a="b"}"#)), "invalid direction"),
        (format!("{}&start=10&end=5", ask(r#"{a="b"}"#)), "end timestamp"),
        ("/loki/api/v1/query".to_owned(), "unexpected $end"),
        ("/loki/api/v1/tail?query=rate(%7Ba%3D%22b%22%7D%5B1m%5D)".to_owned(), "only log queries"),
    ] {
        let (status, v) = w.get(&path, Some(Scope::All)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
        assert!(v.as_str().is_some_and(|m| m.contains(expect)), "{path}: {v}");
    }
    let (status, text) = w.get("/loki/api/v1/status/config", Some(Scope::All)).await;
    assert!(
        status == StatusCode::OK && text.to_string().contains("max_entries_limit_per_query: 5000"),
        "{text}"
    );
}

#[tokio::test]
async fn pushes_may_be_packed_and_must_be_pushes() {
    let w = world().await;
    let send = async |kind: &str, encoding: Option<&str>, body: Vec<u8>| {
        let mut req = Request::post("/loki/api/v1/push").header("content-type", kind);
        if let Some(e) = encoding {
            req = req.header("content-encoding", e);
        }
        let mut req = req.body(Body::from(body)).expect("request");
        req.extensions_mut().insert(Scope::All);
        w.send(req).await
    };
    let zipped = |text: &str| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut out, text.as_bytes()).expect("packs");
        out.finish().expect("packs")
    };
    let push =
        format!(r#"{{"streams":[{{"stream":{{"app":"z"}},"values":[["{}","zipped"]]}}]}}"#, w.now.nanos());
    let (status, text) = send("application/json", Some("gzip"), zipped(&push)).await;
    assert_eq!(status, StatusCode::NO_CONTENT, "{text}");
    let v = w.ok(&format!("/loki/api/v1/query?query={}", encode(r#"count_over_time({app="z"}[5m])"#))).await;
    assert_eq!(v["data"]["result"][0]["value"][1], "1");
    for (kind, encoding, body, expect) in [
        ("application/json", None, b"{".to_vec(), "not a push request"),
        ("application/json", Some("gzip"), b"{}".to_vec(), "not gzip"),
        (
            "application/json",
            None,
            br#"{"streams":[{"stream":{},"values":[["1","x"]]}]}"#.to_vec(),
            "at least one label",
        ),
        (
            "application/json",
            None,
            br#"{"streams":[{"stream":{"a":"b"},"values":[["x","x"]]}]}"#.to_vec(),
            "not a time",
        ),
        ("application/x-protobuf", None, b"xyz".to_vec(), ""),
    ] {
        let (status, text) = send(kind, encoding, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{text}");
        assert!(text.contains(expect), "{text}");
    }
    let bomb = zipped(&" ".repeat(65 << 20));
    let (status, text) = send("application/json", Some("gzip"), bomb).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{text}");
}

#[tokio::test]
async fn deleted_lines_are_gone() {
    let path = |query: &str, more: &str| format!("/loki/api/v1/delete?query={}{more}", encode(query));
    let cart = r#"{namespace="shop"} |= "500""#;
    let w = world().await;
    let (status, text) = w.ask(Method::POST, &path(cart, "&start=1"), Scope::All).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "off by default: {text}");

    let w = world_with(Config { admin_api: true, ..Config::default() }).await;
    let (status, _) = w.ask(Method::POST, &path(cart, "&start=1"), only("shop").expect("a scope")).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "who sees a namespace does not delete");
    for (more, says) in [
        ("", "start time not set"),
        ("&start=10&end=5", "start time can't be greater than end time"),
        ("&start=1&end=4000000000", "deletes in the future are not allowed"),
    ] {
        let (status, text) = w.ask(Method::POST, &path(cart, more), Scope::All).await;
        assert_eq!((status, text.trim()), (StatusCode::BAD_REQUEST, says));
    }
    let (status, text) = w.ask(Method::POST, &path("rate({a=\"b\"}[1m])", "&start=1"), Scope::All).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "a metric query deletes nothing: {text}");

    let count = async || {
        let q = encode(r#"{namespace=~"shop|bank"}"#);
        let v = w.ok(&format!("/loki/api/v1/query_range?query={q}")).await;
        let streams = v["data"]["result"].as_array().cloned().unwrap_or_default();
        streams.iter().map(|s| s["values"].as_array().map_or(0, Vec::len)).sum::<usize>()
    };
    assert_eq!(count().await, 4);
    let (status, text) = w.ask(Method::PUT, &path(cart, "&start=1"), Scope::All).await;
    assert_eq!((status, text.as_str()), (StatusCode::NO_CONTENT, ""));
    assert_eq!(count().await, 3);
    let v = w.ok("/loki/api/v1/delete").await;
    assert_eq!(
        (&v[0]["query"], &v[0]["status"], &v[0]["deleted_lines"]),
        (&json!(cart), &json!("processed"), &json!(1))
    );
    let gone = format!("/loki/api/v1/delete?request_id={}", v[0]["request_id"].as_str().expect("an id"));
    assert_eq!(w.ask(Method::DELETE, &gone, Scope::All).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(
        w.ask(Method::DELETE, "/loki/api/v1/delete?request_id=x", Scope::All).await.0,
        StatusCode::NOT_FOUND
    );
}

/// One block that cannot be read takes its own lines from an answer, not the answer.
#[tokio::test]
async fn an_answer_says_what_is_damaged() {
    let w = world_with(Config { admin_api: true, ..Config::default() }).await;
    let query = "/loki/api/v1/query_range?query=";
    let all = format!("{query}{}", encode(r#"{namespace=~"shop|bank"} |~ ".+""#));
    assert_eq!(w.ok(&all).await.get("warnings"), None);
    // What deletes writes all that is in memory to the disk first.
    let delete = format!("/loki/api/v1/delete?start=1&query={}", encode(r#"{namespace="shop"} |= "500""#));
    assert_eq!(w.ask(Method::POST, &delete, Scope::All).await.0, StatusCode::NO_CONTENT);
    let parts = std::fs::read_dir(w._dir.path().join("logs")).expect("a directory");
    let part =
        parts.map(|e| e.expect("an entry").path()).find(|p| p.extension().is_some_and(|e| e == "part"));
    let part = part.expect("a partition");
    let mut bytes = std::fs::read(&part).expect("reads");
    // In the first column of the first block, behind the header.
    bytes[14] ^= 0x10;
    let mut file = std::fs::OpenOptions::new().write(true).open(&part).expect("opens");
    std::io::Write::write_all(&mut file, &bytes).expect("writes");
    let v = w.ok(&all).await;
    assert_eq!(v["data"]["result"].as_array().map(Vec::len), Some(1), "{v}");
    assert!(
        v["warnings"][0].as_str().is_some_and(|m| m.contains("damaged blocks left out") && m.contains(": 1")),
        "{v}"
    );
}
