//! What a person sees while the process starts: one line per step on stderr, then how to go on.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use signal::time::monotonic;

use super::directory::Addresses;
use crate::config::Config;

pub(super) struct Startup {
    began: Instant,
    color: bool,
}

impl Startup {
    pub(super) fn new() -> Self {
        Startup { began: monotonic(), color: std::io::stderr().is_terminal() }
    }

    fn line(&self, text: &str) {
        // A closed stderr must not stop a server.
        drop(writeln!(std::io::stderr(), "{text}"));
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(super) fn step(&self, what: &str) {
        let ms = self.began.elapsed().as_millis();
        self.line(&format!("{} {what} {}", self.paint("32", "✓"), self.paint("2", &format!("({ms} ms)"))));
    }

    pub(super) fn ready(&self, config: &Config, a: &Addresses, link: &str, with_node: bool) {
        let seconds = self.began.elapsed().as_secs_f64();
        let what = if with_node {
            format!("node {} is Ready", config.node_name)
        } else {
            "the server is ready".to_owned()
        };
        self.line(&format!(
            "\n{}\n\n  kubectl   export KUBECONFIG={}\n  browser   {link}\n            (good once, for ten minutes; `binnacle open` prints another)\n  data      {}\n  API       https://{}\n  OTLP      http://{} (HTTP), http://{} (gRPC)\n",
            self.paint("1", &format!("Binnacle: {what} after {seconds:.2} s")),
            config.data_dir.join("admin.kubeconfig").display(),
            config.data_dir.display(),
            a.api,
            a.otlp_http,
            a.otlp_grpc,
        ));
    }

    pub(super) fn stopping(&self) {
        self.line("Stopping. Containers go on running; `binnacle down` stops them.");
    }
}
