//! Rings when something a pod's volumes show has changed, and when a token grows old.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::Notify;

use super::token::TOKEN_SECONDS;

/// Watches the pod's config maps and secrets, each by name, for as long as it is polled.
pub(crate) async fn follow(client: Client, pod: Arc<Pod>, changed: Arc<Notify>) {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let (mut maps, mut secrets, mut token) = (BTreeSet::new(), BTreeSet::new(), None::<i64>);
    for v in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        maps.extend(v.config_map.iter().map(|c| c.name.clone()));
        secrets.extend(v.secret.iter().filter_map(|s| s.secret_name.clone()));
        for s in v.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            maps.extend(s.config_map.iter().map(|c| c.name.clone()));
            secrets.extend(s.secret.iter().map(|c| c.name.clone()));
            if let Some(t) = &s.service_account_token {
                let seconds = t.expiration_seconds.unwrap_or(TOKEN_SECONDS);
                token = Some(token.map_or(seconds, |b| b.min(seconds)));
            }
        }
    }
    let mut all: Vec<BoxStream<'static, ()>> = Vec::new();
    all.extend(maps.iter().map(|n| watch::<ConfigMap>(&client, &namespace, n).boxed()));
    all.extend(secrets.iter().map(|n| watch::<Secret>(&client, &namespace, n).boxed()));
    if let Some(seconds) = token {
        let every = Duration::from_secs(u64::try_from(seconds * 4 / 5).unwrap_or(60).clamp(60, 24 * 3600));
        let ticks = stream::unfold((), move |()| async move {
            tokio::time::sleep(every).await;
            Some(((), ()))
        });
        all.push(ticks.boxed());
    }
    let mut all = stream::select_all(all);
    while all.next().await.is_some() {
        changed.notify_one();
    }
}

/// One item for each change after the first sight.
fn watch<K>(client: &Client, namespace: &str, name: &str) -> impl Stream<Item = ()> + Send + 'static
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
{
    let api = Api::<K>::namespaced(client.clone(), namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    watcher(api, config).default_backoff().filter_map(|e| async move {
        match e {
            Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_) | watcher::Event::InitDone) => Some(()),
            Ok(_) => None,
            // The watcher tries again by itself.
            Err(e) => {
                tracing::debug!(error = %e, "watching a volume's source");
                None
            }
        }
    })
}
