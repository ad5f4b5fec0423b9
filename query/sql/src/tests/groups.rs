//! Aggregation within a scan of log records gives what aggregation of its rows does.

use super::*;

/// Two streams of many blocks, partly flushed, with few texts, severities and minutes.
async fn many() -> World {
    let w = world(Config::default()).await;
    for (half, flush) in [(0, true), (1, false)] {
        let stream = |pod: &str, step: usize| LogStream {
            labels: Labels::from_pairs([("namespace", "shop"), ("pod", pod)]),
            records: (0..4000)
                .map(|n| LogRecord {
                    timestamp: before(w.now, 600 - (half * 300 + n / 20) as u64),
                    severity: if n % step == 0 { Severity::ERROR } else { Severity::INFO },
                    body: if n % 7 == 0 {
                        String::new()
                    } else {
                        format!("line {} déjà vu {n}", "x".repeat(n % 90))
                    },
                    ..LogRecord::default()
                })
                .collect(),
        };
        let batch =
            LogBatch { streams: vec![stream("a-0", 3), stream("a-longer-name-0", 5)], checkpoints: vec![] };
        w.logs.append_logs(batch).await.expect("writes");
        if flush {
            w.logs.flush().await.expect("flushes");
        }
    }
    w
}

#[tokio::test]
async fn groups_of_a_scan_are_those_of_its_rows() {
    let w = many().await;
    let plan = async |sql: &str| w.rows(&format!("explain {sql}")).await.to_string().contains("in groups");
    let from_scan = "logs where time > now() - interval '1 hour'";
    // A bound on rows keeps the scan from giving groups.
    let from_rows = format!("(select * from {from_scan} limit 100000) where true");
    for (select, in_groups) in [
        (
            "select pod, date_trunc('minute', time) m, count(*), sum(length(body)) from {} group by 1, 2 order by 1 nulls first, 2",
            true,
        ),
        (
            "select namespace, severity, count(body), min(body), max(octet_length(body)), avg(length(body)) from {} group by 1, 2 order by 1, 2",
            true,
        ),
        ("select count(*), count(*) filter (where severity = 'error'), sum(length(body)) from {}", true),
        ("select count(*) filter (where body like '%9'), upper(pod) p from {} group by p order by p", true),
        (
            "select container, date_bin(interval '90 seconds', time) m, bool_or(body is null) from {} group by 1, 2 order by 1 nulls last, 2",
            true,
        ),
        ("select pod, 1 one from {} group by 1, 2 order by 1", true),
        (
            "select date_trunc('hour', time) h, count(*), max(octet_length(body)) from {} and body like '%xx déjà%' group by 1 order by 1",
            true,
        ),
        ("select count(*), min(severity) from {} and severity <> 'info' and body ~ '[0-9]7$'", true),
        ("select pod, count(distinct body) from {} group by 1 order by 1", false),
        ("select body, count(*) from {} group by 1 order by 1", false),
        ("select time, count(*) from {} group by 1 order by 1", false),
        ("select pod, array_agg(length(body) order by time, body) from {} group by 1 order by 1", false),
    ] {
        let (scanned, listed) = (select.replace("{}", from_scan), select.replace("{}", &from_rows));
        assert_eq!((plan(&scanned).await, plan(&listed).await), (in_groups, false), "{scanned}");
        let (a, b) = (w.rows(&scanned).await, w.rows(&listed).await);
        assert_eq!(a, b, "{scanned}");
        assert!(!a.as_array().expect("rows").is_empty(), "{scanned}");
    }
    // Nothing read is still a row where there are no groups.
    assert_eq!(w.rows("select count(*), max(body) from logs where pod = 'none'").await, json!([[0, null]]));
    assert_eq!(w.rows("select pod, count(*) from logs where pod = 'none' group by 1").await, json!([]));
    let e = w.error("select pod, sum(1 / (length(body) - length(body))) from logs group by 1").await;
    assert!(matches!(&e, Error::Query(m) if m.to_lowercase().contains("divide by zero")), "{e:?}");
}

/// Bounds of time hold to the nanosecond, though no filter looks at them again.
#[tokio::test]
async fn bounds_of_time_are_the_scans() {
    let w = world(Config::default()).await;
    let at = jiff::Timestamp::from_millisecond(before(w.now, 10).millis()).expect("time");
    let wide = "time > now() - interval '3 hours'";
    for (condition, rows) in [
        (format!("time >= '{at}'"), 2),
        (format!("time > '{at}'"), 0),
        (format!("time <= '{at}'"), 6),
        (format!("'{at}' > time"), 4),
        (format!("time = '{at}'"), 2),
    ] {
        let sql = format!("select body from logs where {wide} and {condition}");
        assert_eq!(w.rows(&sql).await.as_array().map(Vec::len), Some(rows), "{sql}");
        assert!(!w.rows(&format!("explain {sql}")).await.to_string().contains("FilterExec"), "{sql}");
    }
}

/// What cannot be read is missing, and the answer says so.
#[tokio::test]
async fn damage_is_noted() {
    let w = world(Config::default()).await;
    w.logs.flush().await.expect("flushes");
    let part = w._dir.path().join("logs/0000000000000001.part");
    let mut bytes = std::fs::read(&part).expect("reads");
    // In the texts of the first block, behind the header.
    bytes[14] ^= 0x10;
    let mut file = std::fs::OpenOptions::new().write(true).open(&part).expect("opens");
    std::io::Write::write_all(&mut file, &bytes).expect("writes");
    let v = w
        .all("select namespace, max(body) from logs where time > now() - interval '3 hours' group by 1")
        .await;
    assert_eq!(v["rows"], json!([["shop", "long ago"]]));
    assert!(v["notes"][0].as_str().is_some_and(|n| n.starts_with("logs: damaged blocks left out")), "{v}");
}
