//! A thousand watchers: how late changes reach them, and what a change costs the server.
//!
//! Two shapes. *As kubelets*: each watcher has a part of the objects, a change is told to one of them.
//! *All*: each change is told to every watcher, at as many changes a second as are asked for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::json;
use signal::time::monotonic;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::client::Api;
use crate::load::namespace;
use crate::servers::usage;
use crate::{Result, line, percentile};

const WATCHERS: usize = 1000;

pub(crate) async fn measure(api: &Api, pid: u32, seconds: Duration) -> Result<()> {
    namespace(api, "watched").await?;
    for i in 0..WATCHERS {
        api.expect(201, "POST", "/api/v1/namespaces/watched/configmaps", Some(object(i, 0))).await?;
    }
    one(api, pid, seconds, true, 1000).await?;
    for rate in [20, 100, 1000] {
        one(api, pid, seconds, false, rate).await?;
    }
    Ok(())
}

/// When it was written stands in it, in microseconds since the run began.
fn object(i: usize, sent: u64) -> Bytes {
    let o = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": format!("w{i}"), "labels": {"part": i.to_string()}}, "data": {"sent": format!("@{sent:012}")}});
    Bytes::from(o.to_string())
}

async fn one(api: &Api, pid: u32, seconds: Duration, parts: bool, rate: usize) -> Result<()> {
    let began = monotonic();
    let (seen, mut latencies) = mpsc::unbounded_channel();
    let mut watchers = JoinSet::new();
    for i in 0..WATCHERS {
        let selector = if parts { format!("&labelSelector=part%3D{i}") } else { String::new() };
        let path = format!(
            "/api/v1/namespaces/watched/configmaps?watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan{selector}"
        );
        let answer = api.send("GET", &path, None).await?;
        if answer.status() != 200 {
            return Err(format!("watch: {}", answer.status()).into());
        }
        let seen = seen.clone();
        watchers.spawn(async move {
            let mut body = answer.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                if let Some(data) = frame.data_ref()
                    && seen.send(stamps(data, began)).is_err()
                {
                    return;
                }
            }
        });
    }
    drop(seen);
    let (cpu, start) = (usage(pid)?.0, monotonic());
    let written = write(api, began, seconds, rate).await?;
    let wrote = start.elapsed();
    let expected = if parts { written } else { written * WATCHERS };
    let mut times = Vec::new();
    let all = async {
        while times.len() < expected {
            let Some(more) = latencies.recv().await else { break };
            times.extend(more);
        }
    };
    let complete = tokio::time::timeout(Duration::from_secs(60), all).await.is_ok();
    let cpu = usage(pid)?.0 - cpu;
    watchers.shutdown().await;
    let told = times.len();
    let shape = if parts { "each told to one" } else { "all told to all" };
    let what = format!("1,000 watchers, {:.0} changes/s, {shape}", written as f64 / wrote.as_secs_f64());
    let (p50, p99) = (percentile(&mut times, 50), percentile(&mut times, 99));
    let missing = if complete { String::new() } else { format!(", {} MISSING", expected - told) };
    line(
        &what,
        &format!(
            "p50 {:.1} ms, p99 {:.1} ms, {:.0} events/s, server CPU {:.1} µs each{missing}",
            p50.as_secs_f64() * 1e3,
            p99.as_secs_f64() * 1e3,
            told as f64 / start.elapsed().as_secs_f64(),
            cpu * 1e6 / told as f64
        ),
    )
}

/// How old the changes are that a frame begins, by the time that stands in them.
fn stamps(data: &[u8], began: Instant) -> Vec<Duration> {
    let now = began.elapsed();
    let stamp = |s: &[u8]| {
        let digits = std::str::from_utf8(s.get(1..13)?).ok()?;
        Some(now.saturating_sub(Duration::from_micros(digits.parse().ok()?)))
    };
    memchr_all(data).filter_map(|at| stamp(&data[at..])).collect()
}

fn memchr_all(data: &[u8]) -> impl Iterator<Item = usize> {
    data.iter().enumerate().filter(|(_, b)| **b == b'@').map(|(i, _)| i)
}

/// Writes at a steady rate; a write does not wait for the one before it. Gives how many there were.
async fn write(api: &Api, began: Instant, seconds: Duration, rate: usize) -> Result<usize> {
    const WRITERS: usize = 32;
    let start = tokio::time::Instant::now();
    let mut writers: JoinSet<Result<usize>> = JoinSet::new();
    let pause = Duration::from_secs_f64(WRITERS as f64 / rate as f64);
    let api = Arc::new(api.clone());
    for w in 0..WRITERS {
        let api = api.clone();
        writers.spawn(async move {
            let mut ticks = tokio::time::interval_at(start + pause * w as u32 / WRITERS as u32, pause);
            let mut n = 0;
            while start.elapsed() < seconds {
                ticks.tick().await;
                let i = (n * WRITERS + w) % WATCHERS;
                let body = object(i, began.elapsed().as_micros() as u64);
                api.expect(200, "PUT", &format!("/api/v1/namespaces/watched/configmaps/w{i}"), Some(body))
                    .await?;
                n += 1;
            }
            Ok(n)
        });
    }
    writers.join_all().await.into_iter().sum()
}
