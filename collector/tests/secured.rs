//! Targets that ask who comes: Debian's node_exporter behind TLS, with passwords and certificates, and a server that sends
//! its visitors elsewhere.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use collector::scrape::TargetHealth;
use collector::scrape::config::{Global, ScrapeConfig, pools};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use signal::{Accepted, LogBatch, MetricBatch, Registry, ScrapeTarget, Sink, SinkError, SpanBatch};
use tokio_util::sync::CancellationToken;

/// Far longer than a scrape takes.
const SOON: Duration = Duration::from_secs(30);
/// "secret", as bcrypt.
const HASH: &str = "$2b$04$Yj68mqQMcKo5PDmWsOu/rO3XMuwxK6fgfEtswsKczYoqVk/D3trTK";

/// Keeps nothing: what a scrape came to is told by the target's health.
struct Nowhere;

#[async_trait]
impl Sink for Nowhere {
    async fn write_metrics(&self, batch: MetricBatch) -> Result<Accepted, SinkError> {
        Ok(Accepted { accepted: batch.series.len(), ..Accepted::default() })
    }

    async fn write_logs(&self, _: LogBatch) -> Result<Accepted, SinkError> {
        Ok(Accepted::default())
    }

    async fn write_spans(&self, _: SpanBatch) -> Result<Accepted, SinkError> {
        Ok(Accepted::default())
    }
}

/// A process that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("it runs until it is killed");
    }
}

/// Starts a process and waits until it says on which port it listens: the number behind `before` in a line.
fn start(command: &mut Command, before: &str) -> (Server, u16) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}; `make test` installs it"));
    let mut err = BufReader::new(child.stderr.take().expect("a pipe"));
    let server = Server(child);
    let mut said = String::new();
    loop {
        let at = said.len();
        assert!(err.read_line(&mut said).expect("text") > 0, "it ended: {said}");
        let digits = said[at..].split(before).nth(1).map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest[..end].to_owned()
        });
        if let Some(port) = digits.and_then(|d| d.parse().ok()) {
            // A pipe that nobody reads fills up.
            std::thread::spawn(move || err.read_to_end(&mut Vec::new()));
            return (server, port);
        }
    }
}

/// An authority, a server's certificate for localhost, and a client's, as files.
fn certificates(dir: &Path) {
    let write = |name: &str, text: String| std::fs::write(dir.join(name), text).expect("written");
    let mut ca = CertificateParams::new(Vec::new()).expect("no names");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().expect("a key");
    write("ca.crt", ca.self_signed(&ca_key).expect("signed").pem());
    let issuer = Issuer::new(ca, ca_key);
    for (name, host) in [("server", "localhost"), ("client", "scraper")] {
        let key = KeyPair::generate().expect("a key");
        let cert = CertificateParams::new(vec![host.to_owned()]).expect("a name");
        write(&format!("{name}.crt"), cert.signed_by(&key, &issuer).expect("signed").pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
}

/// What the first scrape of each of these jobs comes to, in order of their names.
async fn scrape(jobs: &str) -> Vec<(String, TargetHealth)> {
    let jobs: Vec<ScrapeConfig> = serde_saphyr::from_str(jobs).expect("configurations");
    let targets: Arc<Registry<ScrapeTarget>> = Arc::default();
    for pool in pools(&Global::default(), jobs).expect("pools") {
        let groups: Vec<_> = pool.config.static_configs.iter().map(|g| (None, g.clone())).collect();
        for (_, target) in pool.targets(&groups).targets {
            targets.set(&pool.config.job_name, target);
        }
    }
    let (health, stop): (Arc<Registry<TargetHealth>>, _) = (Arc::default(), CancellationToken::new());
    let mut changes = health.changes();
    let wanted = targets.snapshot().len();
    let run = telemetry::task::spawn(
        "scrape-manager",
        collector::scrape::run(
            targets,
            health.clone(),
            Arc::new(Nowhere),
            signal::time::system_clock(),
            stop.clone(),
        ),
    );
    let all = async {
        while health.snapshot().len() < wanted {
            changes.changed().await.expect("the registry is there");
        }
    };
    tokio::time::timeout(SOON, all).await.expect("every target is scraped");
    let found = health.snapshot();
    stop.cancel();
    run.await.expect("no panic");
    found
}

#[tokio::test]
async fn targets_that_ask_who_comes() {
    let dir = tempfile::tempdir().expect("a directory");
    certificates(dir.path());
    let file = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(file("password"), "secret\n").expect("written");
    let web = format!(
        "tls_server_config:\n  cert_file: {}\n  key_file: {}\n  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: {}\nbasic_auth_users:\n  scraper: {HASH}\n",
        file("server.crt"),
        file("server.key"),
        file("ca.crt"),
    );
    std::fs::write(file("web.yml"), web).expect("written");
    let (_exporter, port) = start(
        Command::new("prometheus-node-exporter")
            .args(["--web.listen-address=127.0.0.1:0", "--collector.disable-defaults", "--collector.loadavg"])
            .arg(format!("--web.config.file={}", file("web.yml"))),
        "127.0.0.1:",
    );
    let (ca, cert, key) = (file("ca.crt"), file("client.crt"), file("client.key"));
    let tls = format!("ca_file: {ca}, cert_file: {cert}, key_file: {key}");
    let job = |name: &str, tls: &str, rest: &str| {
        format!(
            "- job_name: {name}\n  scheme: https\n  tls_config: {{{tls}}}\n  static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n{rest}"
        )
    };
    let basic = |password: &str| format!("  basic_auth: {{username: scraper, {password}}}\n");
    let named = format!("{tls}, server_name: localhost");
    let jobs = [
        job("a-right", &named, &basic("password: secret")),
        job("b-password-file", &named, &basic(&format!("password_file: {}", file("password")))),
        job("c-wrong-password", &named, &basic("password: guessed")),
        job("d-wrong-name", &tls, &basic("password: secret")),
        job(
            "e-no-authority",
            &format!("cert_file: {cert}, key_file: {key}, server_name: localhost"),
            &basic("password: secret"),
        ),
        job(
            "f-anybody",
            &format!("cert_file: {cert}, key_file: {key}, insecure_skip_verify: true"),
            &basic("password: secret"),
        ),
        job(
            "g-no-certificate",
            &format!("ca_file: {ca}, server_name: localhost"),
            &basic("password: secret"),
        ),
        job("h-plain", "", "").replace("scheme: https", "scheme: http"),
        job("i-no-file", "ca_file: /nowhere.crt", ""),
    ];
    let found = scrape(&jobs.concat()).await;
    let expect = [
        "",
        "",
        "server returned HTTP status 401 Unauthorized",
        "not valid for name",
        "UnknownIssuer",
        "",
        "received fatal alert: BadCertificate",
        "server returned HTTP status 400 Bad Request",
        "/nowhere.crt: ",
    ];
    assert_eq!(found.len(), expect.len());
    for ((job, health), expect) in found.iter().zip(expect) {
        assert_eq!(health.up, expect.is_empty(), "{job}: {health:?}");
        assert!(health.last_error.contains(expect), "{job}: {:?} is not {expect:?}", health.last_error);
    }
}

#[tokio::test]
async fn visitors_who_are_sent_elsewhere() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("metrics")).expect("made");
    std::fs::write(dir.path().join("metrics/index.html"), "a 1\nb 2\n").expect("written");
    // Python's server sends those who ask for a directory to the same name with a slash.
    let (_server, port) = start(
        Command::new("python3")
            .args(["-u", "-c"])
            .arg(
                "import http.server as h, sys\n\
                 s = h.ThreadingHTTPServer(('127.0.0.1', 0), h.SimpleHTTPRequestHandler)\n\
                 print('port', s.server_port, file=sys.stderr)\n\
                 s.serve_forever()",
            )
            .current_dir(dir.path()),
        "port ",
    );
    let job = |name: &str, rest: &str| {
        format!("- job_name: {name}\n  static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n{rest}")
    };
    let fallback = "  fallback_scrape_protocol: PrometheusText0.0.4\n";
    let jobs = [
        job("a-follows", fallback),
        job("b-stays", &format!("{fallback}  follow_redirects: false\n")),
        job("c-unknown-format", ""),
        job("d-nothing-there", &format!("{fallback}  metrics_path: /nothing\n")),
    ];
    let found = scrape(&jobs.concat()).await;
    let expect = [
        "",
        "server returned HTTP status 301 Moved Permanently",
        "received unsupported Content-Type \"text/html\" and no fallback_scrape_protocol specified for target",
        "server returned HTTP status 404 Not Found",
    ];
    let found: Vec<&str> = found.iter().map(|(_, h)| h.last_error.as_str()).collect();
    assert_eq!(found, expect);
}
