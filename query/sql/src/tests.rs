//! Queries over real engines in a directory of their own.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use log_index::{Kind, LogIndex};
use serde_json::{Value, json};
use signal::time::system_clock;
use signal::{
    Labels, LogBatch, LogRecord, LogStream, MatchOp, Matcher, MetricBatch, Sample, Severity, Span, SpanBatch,
    SpanId, SpanStatus, SpanStream, TimeSeries, Timestamp, TraceId,
};
use std::sync::Arc;
use tsdb::Tsdb;

use super::*;

mod answers;
mod groups;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

struct World {
    _dir: tempfile::TempDir,
    engine: Engine,
    tsdb: Arc<Tsdb>,
    logs: Arc<LogIndex>,
    now: Timestamp,
}

/// Objects of two namespaces.
struct Objects;

impl ObjectSource for Objects {
    fn objects(&self, select: ObjectSelect) -> BoxStream<'static, Result<ObjectRow, String>> {
        let rows: Vec<_> = ["shop", "bank"]
            .into_iter()
            .filter(|ns| select.kind("Pod") && select.namespace(ns))
            .map(|ns| {
                Ok(ObjectRow {
                    api_version: "v1".to_owned(),
                    kind: "Pod".to_owned(),
                    namespace: ns.to_owned(),
                    name: "web-0".to_owned(),
                    uid: format!("uid-{ns}"),
                    resource_version: "7".to_owned(),
                    created: Some(Timestamp::from_secs(1_700_000_000)),
                    labels: Labels::from_pairs([("app", "web")]),
                    object: json!({"spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}).to_string(),
                })
            })
            .collect();
        futures::stream::iter(rows).boxed()
    }

    /// A pod of each namespace that came, changed and, in the bank, went; and an event about it.
    fn history(
        &self,
        select: ObjectSelect,
        start: Timestamp,
        end: Timestamp,
    ) -> BoxStream<'static, Result<HistoryRow, String>> {
        let pod = |ns: &str, n: i64, op: &str, phase: &str| HistoryRow {
            time: Timestamp::from_secs(1_700_000_000 + 60 * n),
            op: op.to_owned(),
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            namespace: ns.to_owned(),
            name: "web-0".to_owned(),
            uid: format!("uid-{ns}"),
            revision: n,
            object: match phase {
                "" => String::new(),
                p => json!({"metadata": {"labels": {"app": "web"}}, "status": {"phase": p}}).to_string(),
            },
        };
        let event = HistoryRow {
            kind: "Event".to_owned(),
            object: json!({"type": "Warning", "reason": "BackOff", "message": "again", "count": 3,
                "involvedObject": {"kind": "Pod", "name": "web-0", "uid": "u"}, "source": {"component": "kubelet"}})
            .to_string(),
            ..pod("shop", 4, "ADDED", "")
        };
        let rows = [
            pod("shop", 1, "ADDED", "Pending"),
            pod("bank", 2, "PRESENT", "Running"),
            pod("shop", 3, "MODIFIED", "Running"),
            event,
            pod("bank", 5, "DELETED", ""),
        ];
        let fits = move |r: &HistoryRow| {
            (start..=end).contains(&r.time) && select.kind(&r.kind) && select.namespace(&r.namespace)
        };
        futures::stream::iter(rows.into_iter().filter(fits).map(Ok).collect::<Vec<_>>()).boxed()
    }
}

fn before(now: Timestamp, seconds: u64) -> Timestamp {
    now.saturating_sub(Duration::from_secs(seconds))
}

/// Two namespaces with a counter of 60 samples, log lines, and a trace across both; one old sample and line.
async fn world(config: Config) -> World {
    let dir = tempfile::tempdir().expect("dir");
    let tsdb = Tsdb::open(tsdb::Config::new(dir.path().join("metrics"))).expect("opens");
    let logs = LogIndex::open(log_index::Config::new(dir.path().join("logs"), Kind::Logs)).expect("opens");
    let traces =
        LogIndex::open(log_index::Config::new(dir.path().join("traces"), Kind::Spans)).expect("opens");
    let now = Timestamp::from_millis(signal::time::now().millis());
    let (mut m, mut l, mut s) = (MetricBatch::default(), LogBatch::default(), SpanBatch::default());
    for (i, ns) in ["shop", "bank"].into_iter().enumerate() {
        let labels = Labels::from_pairs([
            ("__name__", "requests_total"),
            ("namespace", ns),
            ("pod", "web-0"),
            ("path", "/cart"),
        ]);
        let at = |s: u64| before(now, 60 - s).millis();
        let samples = (0..60).map(|s| Sample { timestamp: at(s), value: s as f64 }).collect();
        m.series.push(TimeSeries { labels, samples });
        let up = Labels::from_pairs([("__name__", "up"), ("namespace", ns)]);
        m.series.push(TimeSeries::single(up.clone(), at(30), 1.0));
        m.series.push(TimeSeries::single(up, at(31), signal::stale_nan()));
        let record = |age, body: &str, severity| LogRecord {
            timestamp: before(now, age),
            severity,
            body: body.to_owned(),
            attributes: [("status", "500")].into_iter().collect(),
            trace_id: TRACE.parse().expect("id"),
            span_id: SpanId([1; 8]),
        };
        l.streams.push(LogStream {
            labels: Labels::from_pairs([("namespace", ns), ("pod", "web-0"), ("container", "web")]),
            records: vec![
                record(7300, "long ago", Severity::INFO),
                record(20, "GET /cart 200", Severity::INFO),
                record(10, "GET /cart 500 'déjà'", Severity::ERROR),
            ],
        });
        s.streams.push(SpanStream {
            labels: Labels::from_pairs([("namespace", ns), ("service_name", ns)]),
            spans: vec![Span {
                trace_id: TRACE.parse::<TraceId>().expect("id"),
                span_id: SpanId([i as u8 + 1; 8]),
                parent_span_id: if i == 0 { SpanId::INVALID } else { SpanId([1; 8]) },
                name: format!("GET /{ns}"),
                start: before(now, 10),
                end: before(now, 10).saturating_add(Duration::from_millis(50 + i as u64)),
                status: SpanStatus::Error("no stock".to_owned()),
                attributes: [("http.route", "/cart")].into_iter().collect(),
                ..Span::default()
            }],
            ..SpanStream::default()
        });
    }
    tsdb.append(m).await.expect("writes");
    logs.append_logs(l).await.expect("writes");
    traces.append_spans(s).await.expect("writes");
    let sources = Sources { tsdb: tsdb.clone(), logs: logs.clone(), traces, clock: system_clock() };
    World { _dir: dir, engine: Engine::new(sources, config), tsdb, logs, now }
}

fn admin() -> Caller {
    Caller { enforce: Vec::new(), objects: Some(Arc::new(Objects)) }
}

impl World {
    async fn all(&self, sql: &str) -> Value {
        let answer = self.engine.query(sql, admin()).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        serde_json::to_value(&answer).expect("JSON")
    }

    async fn rows(&self, sql: &str) -> Value {
        self.all(sql).await["rows"].clone()
    }

    async fn error(&self, sql: &str) -> Error {
        self.engine.query(sql, admin()).await.err().unwrap_or_else(|| panic!("{sql}: should fail"))
    }
}

#[tokio::test]
async fn every_table_answers() {
    let w = world(Config::default()).await;
    let check = async |sql: &str, expect: Value| assert_eq!(w.rows(sql).await, expect, "{sql}");
    check("select 1 + 1, 'a', true, null, 0.5, 'NaN'::double", json!([[2, "a", true, null, 0.5, "NaN"]]))
        .await;
    check(
        "select name, count(*) n from metrics group by name order by name",
        json!([["requests_total", 120], ["up", 2]]),
    )
    .await;
    check(
        "select namespace, max(value) from metrics where labels['path'] = '/cart' group by 1 order by 1",
        json!([["bank", 59.0], ["shop", 59.0]]),
    )
    .await;
    check(
        "select labels from metrics where name = 'requests_total' and namespace = 'shop' limit 1",
        json!([[{"namespace": "shop", "path": "/cart", "pod": "web-0"}]]),
    )
    .await;
    check(
        "select time from metrics where name = 'up' and namespace = 'shop'",
        json!([[jiff::Timestamp::from_millisecond(before(w.now, 30).millis()).expect("time").to_string()]]),
    )
    .await;
    check("select body, severity, attributes['status'], container, trace_id, span_id from logs where body like '%500%' and namespace = 'bank'",
        json!([["GET /cart 500 'déjà'", "error", "500", "web", TRACE, "0101010101010101"]])).await;
    check("select name, kind, status, status_message, duration_ms, parent_span_id, attributes['http.route'] from spans order by name",
        json!([["GET /bank", "internal", "error", "no stock", 51.0, "0101010101010101", "/cart"],
               ["GET /shop", "internal", "error", "no stock", 50.0, null, "/cart"]])).await;
    check(
        "select name from spans where \"end\" - start > interval '50 milliseconds'",
        json!([["GET /bank"]]),
    )
    .await;
    check("select api_version, kind, name, created, labels['app'], json_get(object, 'status.phase') from objects where kind = 'Pod' and namespace = 'shop'",
        json!([["v1", "Pod", "web-0", "2023-11-14T22:13:20Z", "web", "Running"]])).await;
    check(
        "select table_name from information_schema.tables where table_schema = 'public' order by 1",
        json!([
            ["audit"],
            ["decisions"],
            ["events"],
            ["logs"],
            ["metrics"],
            ["object_history"],
            ["objects"],
            ["requests_total"],
            ["samples"],
            ["spans"],
            ["up"]
        ]),
    )
    .await;
    check(
        "select namespace, value from promql('sum by (namespace) (requests_total)') order by 1",
        json!([["bank", 59.0], ["shop", 59.0]]),
    )
    .await;
    check("select count(*) from promql('requests_total{namespace=\"shop\"}', '30s', '10s')", json!([[4]]))
        .await;
    let v = w.all("describe metrics").await;
    assert_eq!(v["stats"]["rows"], 8, "{v}");
    let v =
        w.all("select time, value, name, labels, count(*) n from metrics group by 1, 2, 3, 4 limit 1").await;
    let types: Vec<&str> =
        v["columns"].as_array().expect("columns").iter().filter_map(|c| c["type"].as_str()).collect();
    assert_eq!(types, ["timestamp", "double", "varchar", "map", "bigint"]);
}

/// Each metric is a table under its own name, with its labels as columns.
#[tokio::test]
async fn a_metric_is_a_table() {
    let w = world(Config::default()).await;
    let check = async |sql: &str, expect: Value| assert_eq!(w.rows(sql).await, expect, "{sql}");
    check(
        "select namespace, pod, path, count(*), max(value) from requests_total where pod = 'web-0' group by 1, 2, 3 order by 1",
        json!([["bank", "web-0", "/cart", 60, 59.0], ["shop", "web-0", "/cart", 60, 59.0]]),
    )
    .await;
    check(
        "select count(*) from requests_total where namespace = 'shop' and ts > now() - interval '31 seconds'",
        json!([[30]]),
    )
    .await;
    check("select namespace from up where namespace in ('shop', 'x')", json!([["shop"]])).await;
    check("select namespace from up where namespace like 'sh%'", json!([["shop"]])).await;
    check("select count(*) from samples where name = 'up'", json!([[2]])).await;
    let v = w.all("describe requests_total").await;
    assert_eq!(v["rows"].as_array().map(Vec::len), Some(5), "{v}");
    // What the caller may not see has no table, nor does what is not there.
    let other = Caller { enforce: vec![Matcher::equal("namespace", "none")], objects: None };
    for (sql, caller) in [("select * from up", other), ("select * from down", admin())] {
        let e = w.engine.query(sql, caller).await.expect_err(sql).to_string();
        assert!(e.contains("not found"), "{e}");
    }
    // What is equal is told to the index.
    let plan = w.all("explain select * from requests_total where pod = 'web-0'").await.to_string();
    assert!(plan.contains("partial_filters=[requests_total.pod"), "{plan}");
}

/// The planner is told in which order rows come and how many there are, about.
#[tokio::test]
async fn plans_use_order_and_size() {
    let w = world(Config::default()).await;
    let more = |pod: &str, value| {
        let labels = Labels::from_pairs([("__name__", "requests_total"), ("pod", pod)]);
        TimeSeries::single(labels, before(w.now, 5).millis(), value)
    };
    let batch =
        MetricBatch { series: vec![more("web-9", 1.0), more("api-0", 2.0)], ..MetricBatch::default() };
    w.tsdb.append(batch).await.expect("appended");
    let plan = async |sql: &str| {
        let rows = w.rows(&format!("explain format indent {sql}")).await;
        rows.as_array().expect("rows").iter().map(|r| r[1].as_str().unwrap_or("")).collect::<String>()
    };
    let grouped = "select namespace, pod, count(*), max(value) from requests_total group by 1, 2";
    let text = plan(grouped).await;
    assert!(text.contains("output_ordering=[namespace@1 ASC, pod@2 ASC]"), "{text}");
    assert!(text.contains("ordering_mode=Sorted"), "{text}");
    // Those without a label come first, as the order says.
    let rows = json!([
        [null, "api-0", 1, 2.0],
        [null, "web-9", 1, 1.0],
        ["bank", "web-0", 60, 59.0],
        ["shop", "web-0", 60, 59.0]
    ]);
    assert_eq!(w.rows(&format!("{grouped} order by 1 nulls first, 2")).await, rows);
    let text = plan("select pod, namespace, path, ts from requests_total order by namespace nulls first, path nulls first, pod nulls first, ts").await;
    assert!(!text.contains("SortExec"), "{text}");
    // The smaller side of a join is held, whichever is named first.
    let tables = [("up", "requests_total"), ("requests_total", "up")];
    for (a, b) in tables {
        let text = plan(&format!("select count(*) from {a} a join {b} b on a.namespace = b.namespace")).await;
        let join = text.split("HashJoinExec").nth(1).expect("a hash join");
        let (small, large) = (join.find("metric up: rows="), join.find("metric requests_total: rows="));
        assert!(small.is_some() && small < large, "{text}");
    }
}

/// LogQL's lines and samples as rows.
#[tokio::test]
async fn logql_is_a_table() {
    let w = world(Config::default()).await;
    let check = async |sql: &str, expect: Value| assert_eq!(w.rows(sql).await, expect, "{sql}");
    check(
        "select namespace, line, labels['trace_id'] is not null from logql('{namespace=~\".+\"} |= \"500\"', '1h') order by 1",
        json!([["bank", "GET /cart 500 'déjà'", true], ["shop", "GET /cart 500 'déjà'", true]]),
    )
    .await;
    check(
        "select labels['namespace'], value from logql('sum by (namespace) (count_over_time({container=\"web\"} |= \"500\" [1h]))') order by 1",
        json!([["bank", 1.0], ["shop", 1.0]]),
    )
    .await;
    for (sql, expect) in [
        ("select * from logql('{a=')", "logql: parse error at line 1, col"),
        ("select * from logql(1)", "write logql('expr')"),
    ] {
        let e = w.error(sql).await.to_string();
        assert!(e.contains(expect), "{e}");
    }
}

#[tokio::test]
async fn promql_takes_two_times() {
    let w = world(Config::default()).await;
    let at = |s| jiff::Timestamp::from_millisecond(before(w.now, s).millis()).expect("time");
    let (from, to) = (at(40), at(20));
    let seconds = |t: jiff::Timestamp| t.as_millisecond() as f64 / 1000.0;
    for (start, end, step) in [
        (format!("'{from}'"), format!("'{to}'"), "'10s'"),
        (format!("timestamp '{from}'"), format!("timestamp '{to}'"), "10"),
        (format!("{}", seconds(from)), format!("{}", seconds(to)), "10.0"),
    ] {
        let sql = format!(
            "select value from promql('requests_total{{namespace=\"shop\"}}', {start}, {end}, {step}) order by time"
        );
        assert_eq!(w.rows(&sql).await, json!([[20.0], [30.0], [40.0]]), "{sql}");
    }
    let sql = "select count(*) from promql('up', now() - interval '1 minute', now(), '30s')";
    assert_eq!(w.rows(sql).await, json!([[2]]));
    for bad in
        ["promql('up', 'x', 'now', '1s')", "promql('up', 'now', 'now', '0s')", "promql('up', 1, 2, 3, 4)"]
    {
        let e = w.error(&format!("select * from {bad}")).await.to_string();
        assert!(e.contains("write promql("), "{e}");
    }
}

#[tokio::test]
async fn signals_are_joined() {
    let w = world(Config::default()).await;
    let sql = "
        select o.name, json_get(o.object, 'spec.nodeName') node, count(distinct l.body) lines, max(m.value) most
        from objects o
        join logs l on l.pod = o.name and l.namespace = o.namespace
        join metrics m on m.labels['pod'] = o.name and m.namespace = o.namespace
        join spans s on s.trace_id = l.trace_id and s.namespace = o.namespace
        where o.kind = 'Pod' and m.name = 'requests_total' and l.severity = 'error'
        group by 1, 2, o.namespace order by o.namespace";
    assert_eq!(w.rows(sql).await, json!([["web-0", "n1", 1, 59.0], ["web-0", "n1", 1, 59.0]]));
}

/// Conditions that an engine uses itself, each beside a form of it that it cannot use.
#[tokio::test]
async fn what_is_pushed_down_gives_the_same_rows() {
    let w = world(Config::default()).await;
    let at = jiff::Timestamp::from_millisecond(before(w.now, 15).millis()).expect("time");
    let wide = "time > now() - interval '3 hours' and";
    let cases = [
        ("metrics", "name = 'up'".to_owned(), "name || '' = 'up'".to_owned()),
        ("metrics", "name in ('up', 'down')".to_owned(), "name || '' in ('up', 'down')".to_owned()),
        ("metrics", "name in ('up','a','b','c','d')".to_owned(), "name || '' = 'up'".to_owned()),
        ("metrics", "name like 'req%_total'".to_owned(), "name || '' like 'req%_total'".to_owned()),
        ("metrics", "name ~ 'sts_'".to_owned(), "name || '' ~ 'sts_'".to_owned()),
        ("metrics", "pod <> 'web-0'".to_owned(), "pod || '' <> 'web-0'".to_owned()),
        ("metrics", "pod is null".to_owned(), "pod || '' is null".to_owned()),
        ("metrics", "labels['path'] = '/cart'".to_owned(), "labels['path'] || '' = '/cart'".to_owned()),
        ("metrics", "labels['path'] <> '/x'".to_owned(), "labels['path'] || '' <> '/x'".to_owned()),
        (
            "metrics",
            "namespace = 'shop' or name = 'up'".to_owned(),
            "namespace || '' = 'shop' or name = 'up'".to_owned(),
        ),
        ("metrics", "not (namespace = 'shop')".to_owned(), "namespace || '' <> 'shop'".to_owned()),
        ("metrics", format!("time >= '{at}'"), format!("time + interval '0 s' >= '{at}'")),
        ("metrics", format!("'{at}' > time"), format!("time + interval '0 s' < '{at}'")),
        ("metrics", format!("time between '{at}' and '{at}'"), format!("time + interval '0 s' = '{at}'")),
        (
            "metrics",
            format!("time::timestamp(0) <= '{at}'::timestamp"),
            format!("(time + interval '0 s')::timestamp(0) <= '{at}'::timestamp"),
        ),
        ("logs", "body like '%cart%déjà%'".to_owned(), "body || '' like '%cart%déjà%'".to_owned()),
        ("logs", "body = 'GET /cart 200'".to_owned(), "body || '' = 'GET /cart 200'".to_owned()),
        ("logs", "contains(body, '500')".to_owned(), "contains(body || '', '500')".to_owned()),
        ("logs", "body not like '%500%'".to_owned(), "body || '' not like '%500%'".to_owned()),
        ("logs", "severity = 'error'".to_owned(), "severity || '' = 'error'".to_owned()),
        ("logs", format!("trace_id = '{TRACE}'"), format!("trace_id || '' = '{TRACE}'")),
        ("logs", "container in ('web', 'db')".to_owned(), "container || '' = 'web'".to_owned()),
        ("logs", format!("time < '{at}'"), format!("time + interval '0 s' < '{at}'")),
    ];
    for (table, pushed, plain) in cases {
        let rows = async |condition: &str| {
            w.rows(&format!("select * from {table} where {wide} {condition} order by time, namespace, {table}.labels['path'], {}",
                if table == "logs" { "body" } else { "name" })).await
        };
        let (a, b) = (rows(&pushed).await, rows(&plain).await);
        assert_eq!(a, b, "{table}: {pushed}");
        let nothing = pushed.contains("<> 'web-0'");
        assert_eq!(a.as_array().expect("rows").is_empty(), nothing, "{table}: {pushed}");
    }
    for (pushed, plain) in [
        ("name = 'GET /shop'", "name || '' = 'GET /shop'"),
        ("duration_ms > 50.5", "duration_ms + 0 > 50.5"),
        ("duration_ms <= 50", "duration_ms + 0 <= 50"),
        ("service_name = 'bank'", "service_name || '' = 'bank'"),
        (&format!("trace_id = '{TRACE}'"), "true"),
    ] {
        let rows = async |c: &str| w.rows(&format!("select * from spans where {c} order by name")).await;
        assert_eq!(rows(pushed).await, rows(plain).await, "{pushed}");
    }
}

#[tokio::test]
async fn time_without_bound_is_the_last_hour_and_says_so() {
    let w = world(Config::default()).await;
    let v = w.all("select count(*) from logs").await;
    assert_eq!(v["rows"], json!([[4]]));
    assert_eq!(v["notes"], json!(["logs: no lower bound on time, so only the last hour is read"]));
    let v = w.all("select count(*) from logs where time > now() - interval '1 day'").await;
    assert_eq!((&v["rows"], &v["notes"]), (&json!([[6]]), &json!([])));
    // A trace is found wherever it lies.
    let v = w.all(&format!("select count(*) from logs where trace_id = '{TRACE}'")).await;
    assert_eq!((&v["rows"], &v["notes"]), (&json!([[6]]), &json!([])));
}

#[tokio::test]
async fn nothing_leaves_the_callers_namespaces() {
    let w = world(Config::default()).await;
    let caller = || Caller {
        enforce: vec![Matcher::new("namespace", MatchOp::Regex, "shop").expect("pattern")],
        objects: None,
    };
    for sql in [
        "select * from metrics",
        "select * from metrics where namespace = 'bank' or namespace = 'shop'",
        "select labels['namespace'] from metrics where labels['namespace'] = 'bank' union all select namespace from metrics",
        "select * from logs",
        &format!("select * from logs where trace_id = '{TRACE}'"),
        "select * from spans",
        &format!("select * from spans where trace_id = '{TRACE}'"),
        "select * from promql('requests_total')",
        "select * from promql('requests_total or up', '1m')",
    ] {
        let answer = w.engine.query(sql, caller()).await.expect(sql);
        assert!(!answer.rows.get().contains("bank"), "{sql}: {}", answer.rows);
        assert!(answer.rows.get().contains("shop"), "{sql}: {}", answer.rows);
    }
    let answer = w.engine.query("select * from objects", caller()).await.expect("empty");
    assert_eq!(answer.row_count, 0);
}

#[tokio::test]
async fn mistakes_are_told_in_words() {
    let w = world(Config::default()).await;
    let check = async |sql: &str, expect: &str| {
        let e = w.error(sql).await;
        assert!(e.to_string().contains(expect), "{sql}: {e:?}");
        e
    };
    check("selec 1", "syntax error").await;
    check("select nothing from metrics", "nothing").await;
    check("select * from nowhere", "nowhere").await;
    check("select * from promql('sum(')", "parse error").await;
    check("select * from promql(1)", "write promql('expr')").await;
    check("select json_get('{}', 'a..b')", "not a path").await;
    check("select repeat('x', 1000000000)", "repeat").await;
    check("select * from '/etc/passwd'", "/etc/passwd").await;
    let e = check("drop table metrics", "DROP TABLE is not allowed").await;
    assert!(matches!(e, Error::Refused(_)));
    let e = check("select * into x from metrics", "").await;
    assert!(matches!(e, Error::Query(_) | Error::Refused(_)), "{e:?}");
    let many = vec!["select count(*) from metrics"; 40].join(" union all ");
    check(&many, "more than 32 times").await;
}

#[tokio::test]
async fn bounds_hold() {
    let small = Config { memory_bytes: 1 << 20, rows: 10, ..Config::default() };
    let w = world(small).await;
    let e = w.error("select a.value, b.value, row_number() over (order by a.value + b.value) from (select value from metrics) a, (select value from metrics) b, (select value from metrics limit 5) c").await;
    assert!(matches!(e, Error::Memory { limit_mib: 1, .. }), "{e:?}");
    assert!(e.to_string().starts_with("the query needs more memory than the 1 MiB"), "{e}");
    let v = w.all("select * from metrics").await;
    assert_eq!((&v["truncated"], &v["stats"]["rows"]), (&json!(true), &json!(10)));
    let e = w.error(&format!("select {}", vec!["1"; 8000].join("+"))).await;
    assert!(e.to_string().contains("more than 500 operators"), "{e}");
    // The longest chain that is let in neither overflows a stack nor takes for ever.
    let chain = vec!["1"; 500].join("+");
    let e = w.engine.query(&format!("select {chain}"), admin()).await;
    assert!(e.is_ok(), "{e:?}");
    let hurried = world(Config { timeout: Duration::from_millis(200), ..Config::default() }).await;
    let e = hurried.error("select count(*) from generate_series(1, 100000000000) a(x) where x % 7 = 3").await;
    assert!(matches!(e, Error::Timeout(_)), "{e:?}");
    // Whoever waits longest still gets an answer: places of stopped queries are free again.
    assert_eq!(hurried.rows("select 1").await, json!([[1]]));
}

#[tokio::test]
async fn a_large_table_is_grouped() {
    let w = world(Config::default()).await;
    let mut batch = MetricBatch::default();
    for s in 0..200 {
        let labels = Labels::from_pairs([
            ("__name__", "big_seconds_total"),
            ("pod", &format!("pod-of-a-workload-{s}")),
        ]);
        let samples = (0..1000i64)
            .map(|i| Sample { timestamp: w.now.millis() - 1_000_000 + i * 1000, value: i as f64 })
            .collect();
        batch.series.push(TimeSeries { labels, samples });
    }
    w.tsdb.append(batch).await.expect("writes");
    let v = w.all("select name, count(*) from metrics group by name order by 2 desc limit 1").await;
    assert_eq!(v["rows"], json!([["big_seconds_total", 200_000]]));
    println!("group by name: {} ms", v["stats"]["elapsed_ms"]);
    let v = w.all("select pod, labels['pod'], avg(value) from metrics where name = 'big_seconds_total' group by 1, 2").await;
    assert_eq!(v["stats"]["rows"], 200);
    println!("group by pod and label: {} ms", v["stats"]["elapsed_ms"]);
}
