//! Rules that run: files that come, change, break and go; Debian's Alertmanager at the other end.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use axum::Json;
use axum::extract::State as Shared;
use promql::Limits;
use serde_json::Value as Body;
use signal::time::system_clock;
use signal::{Accepted, Labels, LogBatch, MetricBatch, SinkError, SpanBatch};
use tokio::sync::mpsc;

use super::*;
use crate::source::Directory;
use crate::unit_test::memory::Memory;

/// Nothing that is waited for takes as long.
const LONG: Duration = Duration::from_secs(30);

struct Store {
    memory: Arc<Memory>,
    logs: mpsc::UnboundedSender<LogBatch>,
}

#[async_trait]
impl Sink for Store {
    async fn write_metrics(&self, batch: MetricBatch) -> Result<Accepted, SinkError> {
        self.memory.append(&batch);
        Ok(Accepted { accepted: batch.samples(), ..Accepted::default() })
    }

    async fn write_logs(&self, batch: LogBatch) -> Result<Accepted, SinkError> {
        self.logs.send(batch).map_err(|_| SinkError::Closed)?;
        Ok(Accepted::default())
    }

    async fn write_spans(&self, _: SpanBatch) -> Result<Accepted, SinkError> {
        Err(SinkError::Closed)
    }
}

struct World {
    dir: tempfile::TempDir,
    rules: Arc<Rules>,
    memory: Arc<Memory>,
    logs: mpsc::UnboundedReceiver<LogBatch>,
    stop: CancellationToken,
}

impl World {
    fn new(alertmanagers: &[String]) -> World {
        let dir = tempfile::tempdir().expect("a directory");
        let memory = Arc::new(Memory::new(0, 1000, [].into_iter()).expect("empty"));
        let (sender, logs) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let config = Config {
            external_labels: Labels::from_pairs([("cluster", "c1")]),
            external_url: "http://house:7070".to_owned(),
            alertmanagers: alertmanagers.to_vec(),
            ..Config::new(dir.path().to_owned())
        };
        let rules = Rules::new(
            config,
            Box::new(Directory::new(dir.path().to_owned())),
            Engine::new(memory.clone(), Limits::default()),
            memory.clone(),
            Arc::new(Store { memory: memory.clone(), logs: sender }),
            system_clock(),
            stop.clone(),
        );
        World { dir, rules, memory, logs, stop }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).expect("written");
    }

    async fn reload(&self) -> Result<(), Vec<String>> {
        self.rules.clone().reload().await
    }

    fn names(&self) -> Vec<String> {
        self.rules.groups().iter().map(|g| g.name.clone()).collect()
    }

    /// The next record of an alert's change, as its body.
    async fn record(&mut self) -> Body {
        let batch = tokio::time::timeout(LONG, self.logs.recv()).await.expect("in time").expect("a record");
        let stream = &batch.streams[0];
        assert_eq!(stream.labels.get("record"), Some("alert"));
        serde_json::from_str(&stream.records[0].body).expect("JSON")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_come_change_break_and_go() {
    let w = World::new(&[]);
    assert_eq!((w.reload().await, w.names().len()), (Ok(()), 0));
    w.write("b.yaml", "groups: [{name: two, rules: [{record: r, expr: '1'}]}]");
    w.write("a.yml", "groups: [{name: one, rules: [{record: r, expr: '1'}]}, {name: zero}]");
    w.write("c.txt", "groups: [{name: three}]");
    assert_eq!(w.reload().await, Ok(()));
    assert_eq!(w.names(), ["one", "zero", "two"]);

    // A broken file leaves what it said before in force.
    w.write("b.yaml", "groups: [{name: two, rules: [{record: r, expr: 'sum('}]}]");
    let problems = w.reload().await.expect_err("broken");
    assert!(
        problems[0].contains("b.yaml: ") && problems[0].contains("could not parse expression"),
        "{problems:?}"
    );
    assert_eq!(w.names(), ["one", "zero", "two"]);
    assert_eq!(w.rules.groups()[2].rules[0].query, "1");

    w.write("b.yaml", "groups: [{name: two, rules: [{record: r, expr: '2'}]}]");
    std::fs::remove_file(w.dir.path().join("a.yml")).expect("removed");
    assert_eq!(w.reload().await, Ok(()));
    assert_eq!(w.names(), ["two"]);
    assert_eq!((w.rules.groups()[0].rules[0].query.as_str(), w.rules.problems().len()), ("2", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_only_broken_runs_nothing() {
    let w = World::new(&[]);
    w.write("a.yaml", "groups: [{name: g, rule: []}]");
    assert!(w.reload().await.is_err());
    assert_eq!(w.names().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_keep_their_state_when_files_change() {
    let mut w = World::new(&[]);
    let file = |more: &str| {
        format!(
            "groups: [{{name: g, interval: 100ms, rules: [{{alert: A, expr: vector(1), for: 1h}}{more}]}}]"
        )
    };
    w.write("a.yaml", &file(""));
    w.reload().await.expect("good");
    let began = w.record().await;
    assert_eq!((began["from"].as_str(), began["state"].as_str()), (Some("inactive"), Some("pending")));
    w.write("a.yaml", &file(", {alert: B, expr: vector(2), labels: {severity: page, namespace: shop}}"));
    w.reload().await.expect("good");
    // Were the group begun anew, A would pend once more before B fires.
    let next = w.record().await;
    assert_eq!((next["alertname"].as_str(), next["state"].as_str()), (Some("B"), Some("firing")));
    let active = |rule: usize| {
        let view = &w.rules.groups()[0];
        view.rules[rule].alerting.as_ref().expect("alerting").alerts[0].active_at
    };
    assert!(active(0) < active(1));
}

/// Debian's Alertmanager, which tells a web hook of what it hears.
struct Alertmanager {
    process: Child,
    url: String,
}

impl Alertmanager {
    fn start(dir: &Path, hook: &str) -> Alertmanager {
        let config = format!(
            "route: {{receiver: hook, group_wait: 0s, group_interval: 1s, group_by: [alertname]}}\nreceivers: [{{name: hook, webhook_configs: [{{url: '{hook}', send_resolved: true}}]}}]\n"
        );
        std::fs::write(dir.join("alertmanager.yml"), config).expect("written");
        let mut process = Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", dir.join("alertmanager.yml").display()))
            .arg(format!("--storage.path={}", dir.display()))
            .args(["--web.listen-address=127.0.0.1:0", "--cluster.listen-address="])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("prometheus-alertmanager is missing");
        let mut lines = BufReader::new(process.stderr.take().expect("stderr")).lines();
        let url = loop {
            let line = lines.next().expect("it says where it listens").expect("line");
            if let Some((_, address)) = line.split_once("msg=\"Listening on\" address=") {
                break format!("http://{address}");
            }
        };
        // What it says must be taken, or it would stop in the middle of a line.
        std::thread::spawn(move || lines.for_each(drop));
        Alertmanager { process, url }
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

async fn hear(Shared(heard): Shared<mpsc::UnboundedSender<Body>>, Json(body): Json<Body>) {
    drop(heard.send(body));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alertmanager_hears_of_alerts_and_of_their_end() {
    let (sender, mut heard) = mpsc::unbounded_channel();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let hook = format!("http://{}/", listener.local_addr().expect("an address"));
    let router = axum::Router::new().route("/", axum::routing::post(hear)).with_state(sender);
    let serving = telemetry::task::spawn("hook", async move { axum::serve(listener, router).await });

    let dir = tempfile::tempdir().expect("a directory");
    let alertmanager = Alertmanager::start(dir.path(), &hook);
    // One that does not answer keeps nobody from hearing.
    let w = World::new(&["http://127.0.0.1:1".to_owned(), alertmanager.url.clone()]);
    let down = Labels::from_pairs([("__name__", "down"), ("host", "a")]);
    let set = |v: f64| {
        let mut batch = MetricBatch::default();
        batch.push(down.clone(), system_clock().now().millis(), v);
        w.memory.append(&batch);
    };
    set(1.0);
    w.write("a.yaml", "groups: [{name: g, interval: 200ms, rules: [{alert: Down, expr: down > 0, labels: {severity: page}, annotations: {summary: '{{ $labels.host }} is down'}}]}]");
    let running = telemetry::task::spawn("rules", w.rules.clone().run());

    let told = tokio::time::timeout(LONG, heard.recv()).await.expect("in time").expect("told");
    assert_eq!(told["status"], "firing");
    let alert = &told["alerts"][0];
    let labels: BTreeMap<String, String> = serde_json::from_value(alert["labels"].clone()).expect("labels");
    let expect = [("alertname", "Down"), ("cluster", "c1"), ("host", "a"), ("severity", "page")];
    assert_eq!(labels, expect.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect());
    assert_eq!(alert["annotations"]["summary"], "a is down");
    assert_eq!(alert["generatorURL"], "http://house:7070/graph?g0.expr=down+%3E+0&g0.tab=1");

    set(0.0);
    let told = tokio::time::timeout(LONG, heard.recv()).await.expect("in time").expect("told");
    assert_eq!(told["status"], "resolved");
    assert_eq!(told["alerts"][0]["labels"]["alertname"], "Down");
    w.stop.cancel();
    running.await.expect("ends");
    serving.abort();
}
