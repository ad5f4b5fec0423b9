//! Watches Services and EndpointSlices and keeps the service table and the DNS zone true.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::dns::{self, Zone};
use crate::metrics::METRICS;
use crate::{Config, Error, Ruleset, conntrack, link, nft, plan};

/// How long changes are gathered before a write: a rollout changes many slices at once.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Before a write that nft refused is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The running service proxy and cluster DNS.
pub struct Network {
    tasks: Vec<tokio::task::JoinHandle<()>>,
    dns_addr: std::net::SocketAddr,
}

impl Network {
    /// Starts the service proxy and cluster DNS; both stop at the token's word. Rules stay, so that running pods
    /// keep their services while the process restarts.
    pub async fn start(config: Config, client: Client, stop: CancellationToken) -> Result<Network, Error> {
        let netlink = link::connect().map_err(Error::io("open netlink"))?;
        link::ensure_bridge(&netlink, &config).await?;
        let zone = Arc::new(dns::SharedZone::new(&config.cluster_domain, config.dns_ip));
        let (dns_task, dns_addr) = dns::start(&config, zone.clone(), stop.clone()).await?;

        let changed = Arc::new(Notify::new());
        let (services, services_task) = reflect::<Service>(&client, &changed, &stop);
        let (slices, slices_task) = reflect::<EndpointSlice>(&client, &changed, &stop);
        let sync = telemetry::task::spawn("service-proxy", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = sync(&config, services, slices, &zone, &changed) => {}
            }
        });
        Ok(Network { tasks: vec![dns_task, services_task, slices_task, sync], dns_addr })
    }

    /// Where cluster DNS answers.
    pub fn dns_addr(&self) -> std::net::SocketAddr {
        self.dns_addr
    }

    /// Waits for the tasks to end after the token was cancelled.
    pub async fn stopped(self) {
        for task in self.tasks {
            if let Err(e) = task.await {
                tracing::error!(error = %e, "a network task failed");
            }
        }
    }
}

/// One reflector for all objects of a kind, ringing `changed`.
fn reflect<K>(
    client: &Client,
    changed: &Arc<Notify>,
    stop: &CancellationToken,
) -> (reflector::Store<K>, tokio::task::JoinHandle<()>)
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Default + Eq + std::hash::Hash + Clone + Send + Sync,
{
    let (reader, writer) = reflector::store();
    let stream = watcher(Api::<K>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .modify(|o| {
            o.meta_mut().managed_fields = None;
        })
        .reflect(writer);
    let (changed, stop) = (changed.clone(), stop.clone());
    let task = telemetry::task::spawn("network-watch", async move {
        let mut stream = std::pin::pin!(stream);
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                e = stream.next() => e,
            };
            match event {
                None => return,
                // The watcher lists and watches again by itself, with back-off.
                Some(Err(e)) => tracing::debug!(error = %e, "watching for the network"),
                Some(Ok(watcher::Event::Init | watcher::Event::InitApply(_))) => {}
                Some(Ok(_)) => changed.notify_one(),
            }
        }
    });
    (reader, task)
}

async fn sync(
    config: &Config,
    services: reflector::Store<Service>,
    slices: reflector::Store<EndpointSlice>,
    zone: &dns::SharedZone,
    changed: &Notify,
) {
    let mut written: Option<Ruleset> = None;
    // Not before both are complete: a half-known table would refuse services that have endpoints.
    for ready in [services.wait_until_ready().await, slices.wait_until_ready().await] {
        if let Err(e) = ready {
            tracing::error!(error = %e, "the network's watch ended");
            return;
        }
    }
    loop {
        let (s, e) = (services.state(), slices.state());
        zone.set(Zone::build(
            s.iter().map(|s| &**s),
            e.iter().map(|e| &**e),
            &config.cluster_domain,
            config.dns_ip,
        ));
        let next = plan(s.iter().map(|s| &**s), e.iter().map(|e| &**e), &config.node_name, config.dns_ip);
        if written.as_ref() != Some(&next) {
            let started = signal::time::monotonic();
            match nft::apply(&next.render(&config.table, written.as_ref())).await {
                Ok(()) => {
                    METRICS.rule_writes.inc();
                    METRICS.services.set(i64::try_from(next.ports.len()).unwrap_or(i64::MAX));
                    match conntrack::forget_stale(written.as_ref(), &next).await {
                        Ok(n) if n > 0 => tracing::debug!(n, "UDP connections to gone endpoints forgotten"),
                        Ok(_) => {}
                        // Their clients wait until the kernel forgets them by itself.
                        Err(e) => tracing::warn!(error = %e, "forgetting UDP connections to gone endpoints"),
                    }
                    written = Some(next);
                }
                Err(e) => {
                    METRICS.rule_failures.inc();
                    tracing::error!(error = %e, "writing service rules");
                    // Someone else may have changed the table: the next write replaces it as a whole.
                    written = None;
                    tokio::time::sleep(RETRY).await;
                    changed.notify_one();
                }
            }
            METRICS.rule_seconds.observe(signal::time::monotonic().duration_since(started).as_secs_f64());
        }
        changed.notified().await;
        tokio::time::sleep(DEBOUNCE).await;
    }
}
