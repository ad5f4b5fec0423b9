//! What rules are evaluated with.

use std::path::PathBuf;
use std::time::Duration;

use signal::Labels;

#[derive(Clone, Debug)]
pub struct Config {
    /// The directory of rule files; it may be missing.
    pub dir: PathBuf,
    /// The directory is looked at this often.
    pub poll: Duration,
    /// The interval of groups that name none.
    pub interval: Duration,
    /// Added to alerts that are sent, unless they have such labels.
    pub external_labels: Labels,
    /// How people reach this server: links in alerts begin with it.
    pub external_url: String,
    /// Alertmanagers: `http://HOST:PORT`, with a path if they stand below one.
    pub alertmanagers: Vec<String>,
    /// An alert that goes on is sent again after this long.
    pub resend: Duration,
    /// After a longer outage nothing is known of how long alerts had waited.
    pub outage: Duration,
    /// An alert that was pending before a restart fires no sooner than this after it.
    pub grace: Duration,
    /// Groups evaluated at once; others wait.
    pub concurrency: usize,
    /// Names the machine in records.
    pub node: String,
}

impl Config {
    pub fn new(dir: PathBuf) -> Config {
        Config {
            dir,
            poll: Duration::from_secs(5),
            interval: Duration::from_secs(60),
            external_labels: Labels::empty(),
            external_url: String::new(),
            alertmanagers: Vec::new(),
            resend: Duration::from_secs(60),
            outage: Duration::from_secs(3600),
            grace: Duration::from_secs(600),
            concurrency: 4,
            node: String::new(),
        }
    }
}
