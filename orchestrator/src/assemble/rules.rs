//! Recording and alerting rules: from the rules directory, over the engines.

use std::net::SocketAddr;
use std::sync::Arc;

use rules::{Config, Directory, Rules};
use tokio::runtime::Handle;

use super::Shared;
use super::engines::Engines;

/// Starts what reads rule files, evaluates groups and tells of alerts. `http` is where people reach this server,
/// unless the configuration knows better.
pub(super) fn start(shared: &Shared, engines: &Engines, http: SocketAddr, threads: &Handle) -> Arc<Rules> {
    let c = &shared.config;
    let config = Config {
        interval: c.rules_interval,
        external_labels: c.external_labels.clone(),
        external_url: c.external_url.clone().unwrap_or_else(|| format!("http://{http}")),
        alertmanagers: c.alertmanagers.clone(),
        node: c.node_name.clone(),
        ..Config::new(c.rules_dir.clone())
    };
    let source = Box::new(Directory::new(c.rules_dir.clone()));
    let rules = Rules::new(
        config,
        source,
        (*engines.promql).clone(),
        engines.metrics.clone(),
        engines.sink.clone(),
        shared.clock.clone(),
        shared.stop.clone(),
    );
    let _inside = threads.enter();
    telemetry::task::spawn("rules", rules.clone().run());
    rules
}
