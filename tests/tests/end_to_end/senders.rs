//! Other people's senders of logs and spans: each through its own protocol, over kill -9, and on a full disk.

use anyhow::{Context, Result};
use tests::required;

use crate::clients::Server;

#[test]
fn log_and_span_senders() -> Result<()> {
    let doors = ["elasticsearch", "zipkin", "fluent", "syslog-tcp", "syslog-udp"];
    let config: String = doors.iter().map(|d| format!("{d}-addr: 127.0.0.1:0\n")).collect();
    let server = Server::start(&config)?;
    let token = server.binnacle(&["token", "create"])?;
    let data = server.data_dir().display().to_string();
    server.python("senders.py", &[&data, &token]).context("senders")
}

/// The script starts and kills servers of its own.
#[test]
fn nothing_acknowledged_is_lost() -> Result<()> {
    let dir = tempfile::Builder::new().prefix("binnacle-ingest-").tempdir()?;
    let bin = required("BINNACLE_BIN")?.display().to_string();
    crate::clients::python("ingest.py", &[&bin, &dir.path().display().to_string()])
}

#[test]
fn processed_and_forwarded() -> Result<()> {
    let there = Server::start("")?;
    let their_token = there.binnacle(&["token", "create"])?;
    let config = format!(
        "forward: [{{endpoint: 'http://{}/otlp', headers: {{Authorization: 'Bearer {their_token}'}}}}]\n\
         logs:\n  defaults: {{redact: [credit-card, jwt], attributes: auto}}\n  namespaces:\n    \
         shop: {{drop: ['GET /healthz']}}\n    small: {{lines-per-second: 1}}\n\
         traces: {{tail-sampling: {{decision-wait-seconds: 1, keep-percent: 0}}}}\n",
        there.address("http")
    );
    let here = Server::start(&config)?;
    let token = here.binnacle(&["token", "create"])?;
    let dirs = [&here, &there].map(|s| s.data_dir().display().to_string());
    here.python("processing.py", &[&dirs[0], &token, &dirs[1], &their_token])
}
