//! Writes: so many writers at once for so long, on ours and on etcd.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use signal::time::monotonic;
use tokio::task::JoinSet;

use crate::client::Api;
use crate::servers::{Etcd, usage};
use crate::{Result, percentile};

const WRITERS: usize = 64;
/// What is written, about.
const BYTES: usize = 1024;

/// What a load came to.
pub(crate) struct Rate {
    done: usize,
    took: Duration,
    /// CPU seconds of the server.
    cpu: f64,
    times: Vec<Duration>,
}

impl Rate {
    pub(crate) fn per_second(&self) -> f64 {
        self.done as f64 / self.took.as_secs_f64()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut times = self.times.clone();
        let (p50, p99) = (percentile(&mut times, 50), percentile(&mut times, 99));
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        let cpu = self.cpu * 1e6 / self.done as f64;
        write!(
            f,
            "{:.0}/s, p50 {:.1} ms, p99 {:.1} ms, server CPU {cpu:.0} µs each",
            self.per_second(),
            ms(p50),
            ms(p99)
        )
    }
}

/// Runs `work(writer, turn)` in all writers until the time is over.
async fn run<F, W>(pid: u32, seconds: Duration, work: W) -> Result<Rate>
where
    F: Future<Output = Result<()>> + Send,
    W: Fn(usize, usize) -> F + Clone + Send + 'static,
{
    let (began, cpu) = (monotonic(), usage(pid)?.0);
    let mut writers: JoinSet<Result<Vec<Duration>>> = JoinSet::new();
    for w in 0..WRITERS {
        let work = work.clone();
        writers.spawn(async move {
            let mut times = Vec::new();
            while began.elapsed() < seconds {
                let at = monotonic();
                work(w, times.len()).await?;
                times.push(at.elapsed());
            }
            Ok(times)
        });
    }
    let mut times = Vec::new();
    for t in writers.join_all().await {
        times.extend(t?);
    }
    Ok(Rate { done: times.len(), took: began.elapsed(), cpu: usage(pid)?.0 - cpu, times })
}

pub(crate) async fn etcd_puts(etcd: &Etcd, seconds: Duration) -> Result<Rate> {
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(etcd_client::Client::connect([&etcd.endpoint], None).await?);
    }
    let clients = Arc::new(clients);
    let value = vec![b'x'; BYTES];
    run(etcd.pid(), seconds, move |w, n| {
        let (mut client, value) = (clients[w % clients.len()].kv_client(), value.clone());
        async move {
            client.put(format!("/registry/configmaps/bench/{w}-{n}"), value, None).await?;
            Ok(())
        }
    })
    .await
}

/// The body of a ConfigMap whose stored form has about [`BYTES`] bytes.
fn config_map(name: &str, filling: &str) -> Bytes {
    let o =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": filling}});
    Bytes::from(o.to_string())
}

fn filling(seed: usize) -> String {
    format!("{seed:08}{}", "x".repeat(BYTES - 424))
}

pub(crate) async fn creates(api: &Api, pid: u32, seconds: Duration, prefix: &'static str) -> Result<Rate> {
    namespace(api, "bench").await?;
    let api = api.clone();
    run(pid, seconds, move |w, n| {
        let api = api.clone();
        async move {
            let body = config_map(&format!("{prefix}-{w}-{n}"), &filling(n));
            api.expect(201, "POST", "/api/v1/namespaces/bench/configmaps", Some(body)).await?;
            Ok(())
        }
    })
    .await
}

/// Each writer updates 16 objects of its own in turn.
pub(crate) async fn updates(api: &Api, pid: u32, seconds: Duration) -> Result<Rate> {
    let api = api.clone();
    run(pid, seconds, move |w, n| {
        let api = api.clone();
        async move {
            let name = format!("a-{w}-{}", n % 16);
            let body = config_map(&name, &filling(n + 1_000_000));
            api.expect(200, "PUT", &format!("/api/v1/namespaces/bench/configmaps/{name}"), Some(body))
                .await?;
            Ok(())
        }
    })
    .await
}

pub(crate) async fn namespace(api: &Api, name: &str) -> Result<()> {
    let ns = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    api.expect(201, "POST", "/api/v1/namespaces", Some(ns.to_string().into())).await?;
    let account = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
    while api.send("GET", &account, None).await?.status() != 200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Does `work(i)` for each i below `n`, all writers at once.
async fn each<F, W>(n: usize, work: W) -> Result<()>
where
    F: Future<Output = Result<()>> + Send,
    W: Fn(usize) -> F + Clone + Send + 'static,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut writers: JoinSet<Result<()>> = JoinSet::new();
    for _ in 0..WRITERS {
        let (next, work) = (next.clone(), work.clone());
        writers.spawn(async move {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= n {
                    return Ok(());
                }
                work(i).await?;
            }
        });
    }
    writers.join_all().await.into_iter().collect()
}

/// Pods as a Deployment makes them, waiting for a scheduler that is not there.
pub(crate) async fn pods(api: &Api, n: usize) -> Result<()> {
    let api = api.clone();
    each(n, move |i| {
        let api = api.clone();
        async move {
            let labels = json!({"app": "shop", "pod-template-hash": "5f7b9c6d4", "hundredth": (i % 100).to_string()});
            let port = json!({"containerPort": 8080, "name": "http", "protocol": "TCP"});
            let probe = json!({"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 5});
            let body = json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": format!("p{i}"), "labels": labels},
                "spec": {"schedulerName": "nobody", "containers": [{
                    "name": "shop", "image": "registry.example/shop:1.2.3", "ports": [port],
                    "env": [{"name": "ROLE", "value": "stock"}, {"name": "UPSTREAM", "value": "http://stock.shop.svc:8080"}],
                    "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
                    "readinessProbe": probe}]}});
            api.expect(201, "POST", "/api/v1/namespaces/bench/pods", Some(body.to_string().into())).await?;
            Ok(())
        }
    })
    .await
}

/// ConfigMaps until there are as many objects as a start shall find.
pub(crate) async fn fill(api: &Api, n: usize) -> Result<()> {
    let api = api.clone();
    each(n, move |i| {
        let api = api.clone();
        async move {
            let body = config_map(&format!("f-{i}"), &filling(i));
            api.expect(201, "POST", "/api/v1/namespaces/bench/configmaps", Some(body)).await?;
            Ok(())
        }
    })
    .await
}

/// ConfigMaps and pods there are.
pub(crate) async fn count(api: &Api) -> Result<usize> {
    let mut n = 0;
    for resource in ["configmaps", "pods"] {
        let page = api.expect(200, "GET", &format!("/api/v1/{resource}?limit=1"), None).await?;
        let page: Value = serde_json::from_slice(&page)?;
        n += 1 + page["metadata"]["remainingItemCount"].as_u64().unwrap_or(0) as usize;
    }
    Ok(n)
}
