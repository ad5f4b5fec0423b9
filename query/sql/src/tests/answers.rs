//! Answers as streams, and questions about the past.

use futures::StreamExt;

use super::*;

/// Rows leave while they come, as CSV or as an Arrow stream.
#[tokio::test]
async fn answers_are_streamed() {
    let w = world(Config::default()).await;
    let bytes = async |sql: &str, format| {
        let pieces = w.engine.export(sql, admin(), format).await?;
        let all: Vec<Result<Vec<u8>, Error>> = pieces.collect().await;
        Ok::<_, Error>(all.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
    };
    let csv =
        async |sql: &str| String::from_utf8(bytes(sql, Format::Csv).await.expect("rows")).expect("text");
    let text = csv("select body, attributes, null n, 1.5 f, trace_id from logs where body like '%500%' and namespace = 'bank'").await;
    assert_eq!(
        text,
        format!(
            "body,attributes,n,f,trace_id\nGET /cart 500 'déjà',\"{{\"\"status\"\":\"\"500\"\"}}\",,1.5,{TRACE}\n"
        )
    );
    assert_eq!(csv("select 'a,b' as \"x,y\", 'q\"q' z").await, "\"x,y\",z\n\"a,b\",\"q\"\"q\"\n");
    assert_eq!(csv("select name from spans where false").await, "name\n");
    let arrow = bytes("select ts, value, namespace from requests_total", Format::Arrow).await.expect("rows");
    let reader = arrow::ipc::reader::StreamReader::try_new(arrow.as_slice(), None).expect("a stream");
    let rows: usize = reader.map(|b| b.expect("a batch").num_rows()).sum();
    assert_eq!(rows, 120);
    // Mistakes in the plan come before anything else; those of a running query end it.
    assert!(matches!(bytes("select nothing from logs", Format::Csv).await, Err(Error::Query(_))));
    assert!(bytes("select 1 / (value - value)::int from requests_total", Format::Csv).await.is_err());
}

/// What was when.
#[tokio::test]
async fn the_past_is_asked_for() {
    let w = world(Config::default()).await;
    let check = async |sql: &str, expect: Value| assert_eq!(w.rows(sql).await, expect, "{sql}");
    check(
        "select revision, op, json_get(object, 'status.phase') from object_history where kind = 'Pod' and namespace = 'shop' order by 1",
        json!([[1, "ADDED", "Pending"], [3, "MODIFIED", "Running"]]),
    )
    .await;
    check("select count(*) from object_history where time < '2023-11-14T22:15:30Z'", json!([[2]])).await;
    let at = |t: &str| {
        format!(
            "select namespace, json_get(object, 'status.phase'), labels['app'] from objects_at('{t}') where kind = 'Pod' order by 1"
        )
    };
    check(&at("2023-11-14T22:14:20Z"), json!([["shop", "Pending", "web"]])).await;
    check(&at("2023-11-14T22:17:00Z"), json!([["bank", "Running", "web"], ["shop", "Running", "web"]])).await;
    check(&at("0s"), json!([["shop", "Running", "web"]])).await;
    check(
        "select type, reason, object_name, message, source, count from events",
        json!([["Warning", "BackOff", "web-0", "again", "kubelet", 3]]),
    )
    .await;
    let e = w.error("select * from objects_at('yesterday')").await;
    assert!(e.to_string().contains("objects_at('1h')"), "{e}");
    let decision = LogRecord {
        timestamp: before(w.now, 5),
        body: "{\"hpa\":\"web\"}".to_owned(),
        attributes: [("hpa", "web"), ("reason", "cpu")].into_iter().collect(),
        ..LogRecord::default()
    };
    let mut decision = decision;
    decision.attributes.set("from", 2);
    decision.attributes.set("to", 5);
    let labels = Labels::from_pairs([("namespace", "shop"), ("record", "hpa-decision")]);
    let streams = vec![LogStream { labels, records: vec![decision] }];
    w.logs.append_logs(LogBatch { streams, checkpoints: Vec::new() }).await.expect("appended");
    check(
        "select namespace, hpa, from_replicas, to_replicas, reason, json_get(decision, 'hpa') from decisions",
        json!([["shop", "web", 2, 5, "cpu", "web"]]),
    )
    .await;
    let event = LogRecord {
        timestamp: before(w.now, 5),
        body: "{\"auditID\":\"1\"}".to_owned(),
        attributes: [
            ("audit_id", "1"),
            ("verb", "delete"),
            ("user", "jane"),
            ("resource", "pods"),
            ("code", "200"),
        ]
        .into_iter()
        .collect(),
        ..LogRecord::default()
    };
    let labels = Labels::from_pairs([("record", "audit"), ("level", "Metadata")]);
    let streams = vec![LogStream { labels, records: vec![event] }];
    w.logs.append_logs(LogBatch { streams, checkpoints: Vec::new() }).await.expect("appended");
    check(
        "select level, verb, user, resource, code, json_get(event, 'auditID') from audit where verb = 'delete'",
        json!([["Metadata", "delete", "jane", "pods", 200, "1"]]),
    )
    .await;
}
