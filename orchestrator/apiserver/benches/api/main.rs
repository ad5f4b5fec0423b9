//! The API server beside Debian's etcd, on one machine, one disk and in one run: `make bench-api`.
//!
//! Environment: `BINNACLE_BIN`; `BENCH_DIR` (default: the temporary directory) says which disk; `BENCH_SECONDS` (default 10)
//! how long each load runs; `BENCH_OBJECTS` (default 100000) how many objects a start finds.
//! The same client drives both: 64 writers, values of 1 KiB, HTTP/2. Nothing is asserted: quote ratios of one run.

mod client;
mod load;
mod servers;
mod watchers;

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use signal::time::monotonic;

use client::Api;
use load::Rate;
use servers::{Binnacle, Etcd};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const PODS: usize = 10_000;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run())
}

fn number(name: &str, default: usize) -> Result<usize> {
    match std::env::var(name) {
        Ok(v) => Ok(v.parse()?),
        Err(_) => Ok(default),
    }
}

fn line(what: &str, value: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{what:<58} {value}")?)
}

fn rate(what: &str, r: &Rate) -> Result<()> {
    line(what, &format!("{r}"))
}

fn millis(d: Duration) -> String {
    format!("{:.1} ms", d.as_secs_f64() * 1e3)
}

async fn run() -> Result<()> {
    let bin = PathBuf::from(
        std::env::var("BINNACLE_BIN").map_err(|_| "BINNACLE_BIN is not set: run `make bench-api`")?,
    );
    let root = std::env::var("BENCH_DIR").map_or_else(|_| std::env::temp_dir(), PathBuf::from);
    let dir = tempfile::Builder::new().prefix("bench-api-").tempdir_in(root)?;
    let seconds = Duration::from_secs(number("BENCH_SECONDS", 10)? as u64);
    let objects = number("BENCH_OBJECTS", 100_000)?;

    let mut server = Binnacle::new(bin, dir.path().join("binnacle"));
    let took = server.start().await?;
    line("start, empty", &millis(took))?;
    tokio::time::sleep(Duration::from_secs(30)).await;
    line("idle RSS after 30 s (aim: 60 MB)", &format!("{:.1} MB", server.rss()? / 1e6))?;

    // Alternating, so that a disk with moods is as moody to both.
    let api = Api::connect(&server, 8).await?;
    let etcd = Etcd::start(dir.path().join("etcd")).await?;
    let puts = load::etcd_puts(&etcd, seconds).await?;
    let creates = load::creates(&api, server.pid(), seconds, "a").await?;
    let updates = load::updates(&api, server.pid(), seconds).await?;
    let puts_again = load::etcd_puts(&etcd, seconds).await?;
    rate("etcd puts", &puts)?;
    rate("etcd puts, again", &puts_again)?;
    rate("binnacle creates", &creates)?;
    rate("binnacle updates", &updates)?;
    let per_second = (puts.per_second() + puts_again.per_second()) / 2.0;
    line("creates per put (aim: 1)", &format!("{:.2}", creates.per_second() / per_second))?;
    line("updates per put (aim: 1)", &format!("{:.2}", updates.per_second() / per_second))?;
    drop(etcd);

    let before = server.rss()?;
    load::pods(&api, PODS).await?;
    line("RSS for 10,000 pods", &format!("{:.1} MB", (server.rss()? - before) / 1e6))?;
    reads(&api).await?;
    watchers::measure(&api, server.pid(), seconds).await?;

    let there = load::count(&api).await?;
    load::fill(&api, objects.saturating_sub(there)).await?;
    let full = load::count(&api).await?;
    drop(api);
    server.stop()?;
    let took = server.start().await?;
    line(&format!("start with {full} objects (aim: 2 s)"), &millis(took))?;
    line("RSS then", &format!("{:.1} MB", server.rss()? / 1e6))?;
    server.stop()
}

async fn reads(api: &Api) -> Result<()> {
    let mut gets = Vec::new();
    for i in 0..1000 {
        let began = monotonic();
        api.expect(200, "GET", &format!("/api/v1/namespaces/bench/pods/p{}", i * 7 % PODS), None).await?;
        gets.push(began.elapsed());
    }
    line("get of a pod, p50 / p99", &percentiles(&mut gets))?;
    let lists = [
        ("list of 10,000 pods (aim: 50 ms)", "/api/v1/pods", ""),
        ("… in pages of 500, all of them", "/api/v1/pods?limit=500", "pages"),
        ("… of which 100 by label", "/api/v1/pods?labelSelector=hundredth%3D7", ""),
        ("… of which none by field", "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-7", ""),
    ];
    for (what, path, shape) in lists {
        let mut times = Vec::new();
        for _ in 0..10 {
            let began = monotonic();
            if shape == "pages" {
                api.pages(path).await?
            } else {
                api.read(path).await?
            }
            times.push(began.elapsed());
        }
        line(what, &percentiles(&mut times))?;
    }
    Ok(())
}

fn percentiles(times: &mut [Duration]) -> String {
    format!("{} / {}", millis(percentile(times, 50)), millis(percentile(times, 99)))
}

/// The p-th of a hundred.
pub(crate) fn percentile(times: &mut [Duration], p: usize) -> Duration {
    times.sort_unstable();
    times.get((times.len() * p / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}
