//! `binnacle import metrics` and `binnacle export metrics`: samples from and to files of other systems.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use collector::exposition::{Format, samples};
use exchange::block::Block;
use exchange::remote::{
    FloatSample, LabelMatcher, Query, ReadRequest, TimeSeries, WriteRequest, labels, series, take_frame,
};
use exchange::table::Table;
use http_body_util::BodyExt;
use prost::Message;
use serde_json::Value;
use signal::time::now;
use signal::{Labels, MatchOp};

use super::print;
use super::remote::Remote;
use super::time::parse;
use crate::cli::{ExportArgs, ExportWhat, ImportArgs, ImportWhat};

/// Samples of one request: some megabytes.
const SAMPLES: usize = 200_000;
/// Series of one request.
const SERIES: usize = 20_000;

/// What has been sent, by the server's count.
struct Import {
    remote: Remote,
    request: WriteRequest,
    waiting: usize,
    accepted: u64,
    rejected: u64,
    reason: Option<String>,
}

pub(crate) async fn import(a: ImportArgs) -> Result<()> {
    let ImportWhat::Metrics { paths, data } = a.what;
    let mut i = Import {
        remote: Remote::new(&data.data_dir)?,
        request: WriteRequest::default(),
        waiting: 0,
        accepted: 0,
        rejected: 0,
        reason: None,
    };
    for path in &paths {
        let found = blocks(path)?;
        if path.is_dir() {
            ensure!(!found.is_empty(), "{}: no Prometheus block is in this directory", path.display());
        }
        for dir in found {
            let block = Block::open(&dir)?;
            for s in block.iter() {
                i.add(series(&s?)).await?;
            }
        }
        if !path.is_dir() {
            i.exposition(path).await.with_context(|| path.display().to_string())?;
        }
    }
    i.send().await?;
    print(&format!("{} samples imported, {} refused", i.accepted, i.rejected))?;
    if let Some(reason) = i.reason {
        bail!("{} samples were refused: {reason}", i.rejected);
    }
    Ok(())
}

/// The blocks a directory is or holds, oldest first: their names begin with their time.
fn blocks(path: &Path) -> Result<Vec<PathBuf>> {
    if Block::is_at(path) {
        return Ok(vec![path.to_owned()]);
    }
    if !path.is_dir() {
        return Ok(Vec::new());
    }
    let mut out = Vec::new();
    for entry in std::fs::read_dir(path).with_context(|| path.display().to_string())? {
        let dir = entry.with_context(|| path.display().to_string())?.path();
        if Block::is_at(&dir) {
            out.push(dir);
        }
    }
    out.sort();
    Ok(out)
}

impl Import {
    /// A text file: OpenMetrics if it ends with `# EOF`, the older format otherwise. Each sample must have a timestamp.
    async fn exposition(&mut self, path: &Path) -> Result<()> {
        let text = std::fs::read_to_string(path)?;
        let format = if text.trim_end().ends_with("# EOF") { Format::OpenMetrics } else { Format::Text };
        let mut last = (Labels::empty(), Vec::new());
        for s in samples(&text, format) {
            let s = s?;
            let l = Labels::from_pairs(s.labels.iter().map(|(n, v)| (n, v)));
            let timestamp = s.timestamp.with_context(|| {
                format!("{l} has no timestamp: without one there is no telling when it was")
            })?;
            if l != last.0 || last.1.len() >= SAMPLES {
                let whole = std::mem::replace(&mut last, (l, Vec::new()));
                self.floats(whole).await?;
            }
            last.1.push(FloatSample { value: s.value, timestamp });
        }
        self.floats(last).await
    }

    async fn floats(&mut self, (l, samples): (Labels, Vec<FloatSample>)) -> Result<()> {
        if samples.is_empty() {
            return Ok(());
        }
        self.add(TimeSeries { labels: labels(&l), samples, histograms: Vec::new() }).await
    }

    async fn add(&mut self, s: TimeSeries) -> Result<()> {
        self.waiting += s.samples.len() + 16 * s.histograms.len();
        self.request.timeseries.push(s);
        if self.waiting >= SAMPLES || self.request.timeseries.len() >= SERIES {
            self.send().await?;
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<()> {
        if self.request.timeseries.is_empty() {
            return Ok(());
        }
        let raw = std::mem::take(&mut self.request).encode_to_vec();
        self.waiting = 0;
        let body = snap::raw::Encoder::new().compress_vec(&raw).context("pack the samples")?;
        let answer = self.remote.post_bytes("/api/v1/import", body).await?;
        let data = &answer["data"];
        self.accepted += data["accepted"].as_u64().unwrap_or(0);
        self.rejected += data["rejected"].as_u64().unwrap_or(0);
        if let (None, Some(reason)) = (&self.reason, data["reason"].as_str()) {
            self.reason = Some(reason.to_owned());
        }
        Ok(())
    }
}

pub(crate) async fn export(a: ExportArgs) -> Result<()> {
    let ExportWhat::Metrics { matches, start, end, out, data } = a.what;
    let remote = Remote::new(&data.data_dir)?;
    let now = now().millis();
    let (start, end) = (parse(&start, now)?, parse(&end, now)?);
    ensure!(start <= end, "--start is after --end");
    let seconds = |ms: i64| format!("{:.3}", ms as f64 / 1000.0);
    let params = [("match[]", matches.as_str()), ("start", &seconds(start)), ("end", &seconds(end))];
    let found = remote.get("/api/v1/labels", &params).await?;
    let names: Vec<String> =
        found["data"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let query = Query { start, end, matchers: matchers(&matches)?, hints: None };
    let request = ReadRequest { queries: vec![query], accepted_response_types: vec![1] };
    let body = snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).context("pack the query")?;
    let mut answer = remote.stream("/api/v1/read", body).await?;
    // It appears whole or not at all.
    let temporary = out.with_extension("parquet.tmp");
    let file = File::create(&temporary).with_context(|| temporary.display().to_string())?;
    let written = async {
        let mut table = Table::new(BufWriter::new(file), names)?;
        let mut buffer = Vec::new();
        while let Some(frame) = answer.frame().await {
            let frame = frame.context("the answer ended before its end")?;
            let Ok(part) = frame.into_data() else { continue };
            buffer.extend_from_slice(&part);
            while let Some(frame) = take_frame(&mut buffer)? {
                for s in &frame.chunked_series {
                    table.add(&s.columns()?)?;
                }
            }
        }
        ensure!(buffer.is_empty(), "the answer ended within a frame");
        Ok(table.finish()?)
    };
    let (samples, histograms) = match written.await {
        Ok(n) => n,
        Err(e) => {
            // What is left of it is of no use to anybody.
            drop(std::fs::remove_file(&temporary));
            return Err(e);
        }
    };
    std::fs::rename(&temporary, &out).with_context(|| out.display().to_string())?;
    print(&format!("{samples} samples exported to {}", out.display()))?;
    if histograms > 0 {
        print(&format!("{histograms} native histograms left out: they have no column of numbers"))?;
    }
    Ok(())
}

/// A selector's matchers, as remote read has them.
fn matchers(selector: &str) -> Result<Vec<LabelMatcher>> {
    let all = promql::parse_selector(selector).map_err(|e| anyhow::anyhow!("--match: {e}"))?;
    let one = |m: &signal::Matcher| LabelMatcher {
        op: match m.op {
            MatchOp::Equal => 0,
            MatchOp::NotEqual => 1,
            MatchOp::Regex => 2,
            MatchOp::NotRegex => 3,
        },
        name: m.name.clone(),
        value: m.value.clone(),
    };
    Ok(all.matchers.iter().map(one).collect())
}
