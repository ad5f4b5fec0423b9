//! Configurations, and targets on loopback that do not all behave.

use std::collections::VecDeque;
use std::convert::Infallible;

use async_trait::async_trait;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use signal::{Accepted, LogBatch, ScrapeLimits, ScrapeOptions, SinkError, SpanBatch, is_stale_nan};
use tokio::net::TcpListener;

use super::config::{Global, ScrapeConfig, StaticConfig, pools};
use super::*;

#[test]
fn a_rhythm_is_kept_within_two_milliseconds() {
    let check =
        |now, last, expect: (i64, i64)| assert_eq!(align(now, last, 15_000), expect, "{now} {last:?}");
    check(1_000, None, (1_000, 1_000));
    check(16_000, Some(1_000), (16_000, 16_000));
    check(16_002, Some(1_000), (16_000, 16_000));
    check(15_999, Some(1_000), (16_000, 16_000));
    check(16_003, Some(1_000), (16_003, 16_000));
    // Missed scrapes keep the rhythm, a clock that goes back begins a new one.
    check(46_001, Some(1_000), (46_000, 46_000));
    check(500, Some(1_000), (500, 500));
    // Of a second, a hundredth is ten milliseconds: still two.
    assert_eq!(align(2_002, Some(1_000), 1_000), (2_000, 2_000));
    assert_eq!(align(1_102, Some(1_000), 100), (1_102, 1_100));
}

fn pool(yaml: &str) -> Result<config::Pool, String> {
    let c: ScrapeConfig = serde_saphyr::from_str(yaml).map_err(|e| e.to_string())?;
    pools(&Global::default(), vec![c]).map(|mut p| p.remove(0))
}

#[test]
fn configurations_become_targets() {
    let yaml = r#"
job_name: node
scrape_interval: 1m30s
scheme: https
params: {module: [http_2xx], x: [a, b]}
static_configs:
- targets: ["a:1", "b:2", "dropped:3"]
  labels: {env: prod}
relabel_configs:
- {source_labels: [__address__], regex: "dropped:.*", action: drop}
- {source_labels: [__address__], regex: "(.*):.*", target_label: host}
- {target_label: __param_module, replacement: icmp}
metric_relabel_configs:
- {source_labels: [__name__], regex: "go_.*", action: drop}
"#;
    let p = pool(yaml).expect("a pool");
    let groups: Vec<_> = p.config.static_configs.iter().map(|g| (None, g.clone())).collect();
    let found = p.targets(&groups);
    assert_eq!((found.targets.len(), found.dropped.len(), found.wrong.len()), (2, 1, 0));
    let a = found.targets.values().next().expect("a target");
    assert_eq!(a.url, "https://a:1/metrics?module=icmp&x=a&x=b");
    assert_eq!(a.labels.to_string(), r#"{env="prod", host="a", instance="a:1", job="node"}"#);
    assert_eq!((a.interval, a.timeout), (Duration::from_secs(90), Duration::from_secs(10)));
    assert_eq!(a.discovered.get("__address__"), Some("a:1"));
}

#[test]
fn wrong_configurations_are_refused_where_they_are_wrong() {
    let check = |yaml: &str, expect: &str| {
        let e = pool(yaml).expect_err(yaml);
        assert!(e.contains(expect), "{yaml}: {e}");
    };
    check("job_name: a\nkubernetes_sd_configs: []\n", "line 2");
    check("job_name: a\nscrape_interval: 5x\n", "not a valid duration");
    check("job_name: a\nscrape_interval: 5s\nscrape_timeout: 6s\n", "greater than scrape interval");
    check("job_name: a\nrelabel_configs: [{action: replac}]\n", "unknown relabel action");
    check("job_name: a\nrelabel_configs: [{action: hashmod, target_label: x}]\n", "non-zero modulus");
    check("job_name: a\nbearer_token: x\nbasic_auth: {username: u}\n", "at most one of");
    check("job_name: a\nscheme: ftp\n", "http or https");
    check("{}", "job_name is empty");
    let two = vec![ScrapeConfig { job_name: "a".into(), ..ScrapeConfig::default() }; 2];
    assert!(pools(&Global::default(), two).expect_err("two").contains("multiple scrape configs"));
}

#[test]
fn too_many_targets_fail_all() {
    let p = pool("job_name: a\ntarget_limit: 1\n").expect("a pool");
    let targets = vec!["a:1".to_owned(), "b:1".to_owned()];
    let found = p.targets(&[(None, StaticConfig { targets, ..StaticConfig::default() })]);
    let fault = "target_limit exceeded (number of targets: 2, limit: 1)";
    assert!(found.targets.values().all(|t| t.fault.as_deref() == Some(fault)));
}

/// Keeps what it is given.
#[derive(Default)]
struct Store(Mutex<Vec<MetricBatch>>);

#[async_trait]
impl Sink for Store {
    async fn write_metrics(&self, batch: MetricBatch) -> Result<Accepted, SinkError> {
        let accepted = batch.samples();
        self.0.lock().push(batch);
        Ok(Accepted { accepted, ..Accepted::default() })
    }

    async fn write_logs(&self, _: LogBatch) -> Result<Accepted, SinkError> {
        Ok(Accepted::default())
    }

    async fn write_spans(&self, _: SpanBatch) -> Result<Accepted, SinkError> {
        Ok(Accepted::default())
    }
}

/// One answer of a target: content type, content encoding, body. A target that has none left is silent.
type Answer = (&'static str, &'static str, Vec<u8>);

async fn target(answers: Vec<Answer>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
    telemetry::task::spawn("target", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answers = answers.clone();
            let service = hyper::service::service_fn(move |_| {
                let answer = answers.lock().pop_front();
                async move {
                    let Some((kind, encoding, body)) = answer else {
                        return std::future::pending().await;
                    };
                    let mut r = http::Response::builder().header("content-type", kind);
                    if !encoding.is_empty() {
                        r = r.header("content-encoding", encoding);
                    }
                    Ok::<_, Infallible>(r.body(Full::new(bytes::Bytes::from(body))).expect("a response"))
                }
            });
            telemetry::task::spawn("connection", async move {
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                drop(server.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    format!("http://{address}/metrics")
}

fn scraper(url: String, options: ScrapeOptions) -> (Arc<Store>, Scraper) {
    let store = Arc::new(Store::default());
    let target = ScrapeTarget {
        url,
        labels: Labels::from_pairs([("job", "t"), ("instance", "i")]),
        interval: Duration::from_secs(5),
        timeout: Duration::from_millis(300),
        options: Arc::new(options),
        ..ScrapeTarget::default()
    };
    let s = Scraper {
        key: "k".to_owned(),
        client: Clients::default().of(&target),
        intake: Intake::new(target.labels.clone(), target.options.clone()),
        target,
        sink: store.clone(),
        clock: signal::time::system_clock(),
        health: Arc::default(),
        aligned: None,
        reported: Vec::new(),
    };
    (store, s)
}

/// `name{labels}` → value of the last batch; stale markers as `stale`.
fn last(store: &Store) -> BTreeMap<String, String> {
    let batch = store.0.lock().pop().expect("a batch");
    let show = |v: f64| if is_stale_nan(v) { "stale".to_owned() } else { v.to_string() };
    batch
        .series
        .iter()
        .filter(|s| s.labels.metric_name() != "scrape_duration_seconds")
        .map(|s| {
            let b = s.labels.builder().remove("job").remove("instance").build();
            (b.to_string(), s.samples.iter().map(|s| show(s.value)).collect::<Vec<_>>().join(" "))
        })
        .collect()
}

const TEXT: &str = "text/plain; version=0.0.4";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0";

fn text(body: &str) -> Answer {
    (TEXT, "", body.as_bytes().to_vec())
}

#[tokio::test]
async fn a_scrape_says_what_came_and_what_ended() {
    let url = target(vec![
        text("a 1\nb{x=\"1\"} 2\nb{x=\"1\"} 3\nc 1 1000\n"),
        text("a 5\n"),
        text("a{\n"),
        text("a 6\n"),
    ])
    .await;
    let (store, mut s) = scraper(url, ScrapeOptions::default());
    s.scrape().await;
    let got = last(&store);
    assert_eq!((got["a"].as_str(), got["b{x=\"1\"}"].as_str(), got["up"].as_str()), ("1", "2", "1"));
    // A series that stands twice is taken once; one with a time of its own is another matter.
    assert_eq!((got["scrape_samples_scraped"].as_str(), got["scrape_series_added"].as_str()), ("4", "3"));
    s.scrape().await;
    let got = last(&store);
    assert_eq!((got["a"].as_str(), got["b{x=\"1\"}"].as_str()), ("5", "stale"));
    assert!(!got.contains_key("c"));
    // What cannot be read ends all, and says so.
    s.scrape().await;
    let got = last(&store);
    assert_eq!((got["a"].as_str(), got["up"].as_str()), ("stale", "0"));
    assert!(s.health.get("k").expect("health").last_error.contains("line 1"));
    s.scrape().await;
    assert_eq!(last(&store)["a"], "6");
    // Silence is a failure after the timeout.
    s.scrape().await;
    let got = last(&store);
    assert_eq!((got["a"].as_str(), got["up"].as_str()), ("stale", "0"));
    assert!(s.health.get("k").expect("health").last_error.contains("no answer within"));
}

#[tokio::test]
async fn the_end_of_a_target_ends_its_series() {
    let (store, mut s) = scraper(target(vec![text("a 1\n")]).await, ScrapeOptions::default());
    s.scrape().await;
    last(&store);
    let stop = CancellationToken::new();
    stop.cancel();
    s.run(stop).await;
    let got = last(&store);
    assert_eq!((got["a"].as_str(), got["up"].as_str()), ("stale", "stale"));
}

#[tokio::test]
async fn limits_fail_the_scrape() {
    let check = async |limits: ScrapeLimits, expect: &str| {
        let body = "a{long_name=\"a long value\"} 1\nb 2\n";
        let (store, mut s) =
            scraper(target(vec![text(body)]).await, ScrapeOptions { limits, ..ScrapeOptions::default() });
        s.scrape().await;
        let error = s.health.get("k").expect("health").last_error;
        assert!(error.starts_with(expect), "{error}");
        assert_eq!(last(&store)["up"], "0");
    };
    let none = ScrapeLimits { samples: 0, labels: 0, label_name: 0, label_value: 0, body: 0 };
    check(ScrapeLimits { samples: 1, ..none }, "sample limit exceeded").await;
    check(ScrapeLimits { labels: 3, ..none }, "label_limit exceeded").await;
    check(ScrapeLimits { label_name: 8, ..none }, "label_name_length_limit exceeded").await;
    check(ScrapeLimits { label_value: 8, ..none }, "label_value_length_limit exceeded").await;
    check(ScrapeLimits { body: 10, ..none }, "body size limit exceeded").await;
}

#[tokio::test]
async fn a_bomb_is_refused_and_gzip_taken() {
    use std::io::Write;
    let pack = |body: &[u8]| {
        let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        e.write_all(body).expect("packs");
        e.finish().expect("packs")
    };
    let bomb = pack(&vec![b'#'; 40 << 20]);
    let url = target(vec![(TEXT, "gzip", pack(b"a 1\n")), (TEXT, "gzip", bomb)]).await;
    let (store, mut s) = scraper(url, ScrapeOptions::default());
    s.scrape().await;
    assert_eq!(last(&store)["a"], "1");
    s.target.timeout = Duration::from_secs(30);
    s.scrape().await;
    assert_eq!(last(&store)["up"], "0");
    assert_eq!(s.health.get("k").expect("health").last_error, "body size limit exceeded");
}

#[tokio::test]
async fn labels_meet_and_rules_apply() {
    let check = async |yaml: &str, body: &str, expect: &[&str]| {
        let p = pool(&format!("job_name: t\n{yaml}")).expect(yaml);
        let one = StaticConfig { targets: vec!["i".to_owned()], ..StaticConfig::default() };
        let t = p.targets(&[(None, one)]).targets.into_values().next().expect("a target");
        let (store, mut s) = scraper(target(vec![text(body)]).await, (*t.options).clone());
        s.scrape().await;
        let batch = store.0.lock().pop().expect("a batch");
        let got: Vec<String> = batch.series.iter().map(|s| s.labels.to_string()).collect();
        assert_eq!(got[..got.len() - 5], *expect, "{yaml}");
    };
    let body = "a{job=\"theirs\",b=\"1\"} 1\ngo_x 2\n";
    check(
        "metric_relabel_configs: [{source_labels: [__name__], regex: go_.*, action: drop}]",
        body,
        &[r#"a{b="1", exported_job="theirs", instance="i", job="t"}"#],
    )
    .await;
    check(
        "honor_labels: true",
        body,
        &[r#"a{b="1", instance="i", job="theirs"}"#, r#"go_x{instance="i", job="t"}"#],
    )
    .await;
    // Two texts that relabelling makes one series: the first stands.
    check(
        "metric_relabel_configs: [{regex: b, action: labeldrop}]",
        "a{b=\"1\"} 1\na{b=\"2\"} 2\n",
        &[r#"a{instance="i", job="t"}"#],
    )
    .await;
    check(
        "",
        "# TYPE h histogram\nh_bucket{le=\"1\"} 1\n",
        &[r#"h_bucket{instance="i", job="t", le="1.0"}"#],
    )
    .await;
}

#[tokio::test]
async fn openmetrics_says_when_counting_began() {
    let body = "# TYPE a counter\na_total{x=\"1\"} 5 # {trace_id=\"t\"} 1\na_created{x=\"1\"} 12.5\n\
        # TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_created 3\n# EOF\n";
    let answer = || (OPENMETRICS, "", body.as_bytes().to_vec());
    let (store, mut s) = scraper(target(vec![answer(), answer()]).await, ScrapeOptions::default());
    for _ in 0..2 {
        s.scrape().await;
        let batch = store.0.lock().pop().expect("a batch");
        let starts: Vec<_> =
            batch.starts.iter().map(|s| (s.labels.metric_name().to_owned(), s.times[0].1)).collect();
        assert_eq!(starts, [("a_total".to_owned(), 12_500), ("h_bucket".to_owned(), 3_000)]);
        assert!(!batch.series.iter().any(|s| s.labels.metric_name().ends_with("_created")));
        assert_eq!(batch.exemplars.len(), 1);
    }
}

#[tokio::test]
async fn who_says_no_format_is_refused_unless_one_is_agreed() {
    let strict = ScrapeOptions { fallback: None, ..ScrapeOptions::default() };
    let html = || ("text/html", "", b"a 1\n".to_vec());
    let (store, mut s) = scraper(target(vec![html()]).await, strict);
    s.scrape().await;
    assert_eq!(last(&store)["up"], "0");
    assert!(s.health.get("k").expect("health").last_error.contains("no fallback_scrape_protocol"));
    let (store, mut s) = scraper(target(vec![html()]).await, ScrapeOptions::default());
    s.scrape().await;
    assert_eq!(last(&store)["a"], "1");
}

#[tokio::test]
async fn series_that_come_and_go_are_forgotten() {
    let mut intake = Intake::new(Labels::default(), Arc::default());
    for round in 0..20 {
        let body: String = (0..400).map(|i| format!("a{{i=\"{i}\",round=\"{round}\"}} 1\n")).collect();
        let mut counts = Counts::default();
        let batch = intake.take(Body::Text(&body, Format::Text), round, &mut counts).expect("an exposition");
        assert_eq!((counts.kept, counts.added), (400, 400));
        assert_eq!(batch.series.len(), if round == 0 { 400 } else { 800 });
        assert!(intake.remembered() <= 1300, "{}", intake.remembered());
    }
}
