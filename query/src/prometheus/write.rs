//! Remote write 1.0 and 2.0: samples, native histograms, exemplars and metadata pushed by others.

mod buffer;
mod fields;
mod v1;
mod v2;
pub(super) mod wire;

use axum::extract::{Request, State};
use axum::response::Response;
use futures::StreamExt;
use http::{HeaderMap, header};
use signal::{Accepted, Labels, MetricBatch};

use super::{fail, no_content};
use crate::App;
use crate::error::Failure;
use crate::scope::Scope;
use buffer::Buffer;

/// Which message a body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    V1,
    V2,
}

/// How many of each kind a sender is told were written (remote write 2.0).
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    samples: usize,
    histograms: usize,
    exemplars: usize,
}

/// What a body came to: what can be stored, and what of it was wrong.
#[derive(Debug, Default)]
struct Decoded {
    batch: MetricBatch,
    /// Samples and histograms that could not be understood, and why.
    refused: usize,
    reason: Option<String>,
}

impl Decoded {
    fn refuse(&mut self, n: usize, why: String) {
        self.refused += n;
        self.reason.get_or_insert(why);
    }
}

fn message(headers: &HeaderMap) -> Result<Message, Failure> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
    let encoding = text(header::CONTENT_ENCODING);
    if !(encoding.is_empty() || encoding.eq_ignore_ascii_case("snappy")) {
        return Err(Failure::Unsupported(format!(
            "{encoding:?} encoding (compression) is not accepted by this server; only snappy is acceptable"
        )));
    }
    let kind = text(header::CONTENT_TYPE);
    let mut parts = kind.split(';').map(str::trim);
    let main = parts.next().unwrap_or("");
    if !(main.is_empty() || main.eq_ignore_ascii_case("application/x-protobuf")) {
        return Err(Failure::Unsupported(format!(
            "expected application/x-protobuf as the first (media) part, got {kind:?} content-type"
        )));
    }
    match parts.find_map(|p| p.strip_prefix("proto=")) {
        None | Some("prometheus.WriteRequest") => Ok(Message::V1),
        Some("io.prometheus.write.v2.Request") => Ok(Message::V2),
        Some(other) => {
            Err(Failure::Unsupported(format!("unknown type for remote write protobuf message {other}")))
        }
    }
}

pub(super) async fn write(State(app): State<App>, scope: Scope, req: Request) -> Result<Response, Response> {
    if !scope.may_write() {
        return Err(fail(Failure::Forbidden("only cluster-wide writers may use remote write".to_owned())));
    }
    let message = message(req.headers()).map_err(fail)?;
    let (mut packed, mut raw) = (Buffer::take(), Buffer::take());
    body(req, app.config.body_bytes, &mut packed).await.map_err(fail)?;
    unpack_into(&packed, app.config.unpacked_bytes, &mut raw).map_err(fail)?;
    drop(packed);
    let mut written = Written::default();
    let mut decoded = match message {
        Message::V1 => {
            let mut request = v1::decode(&raw).map_err(fail)?;
            let (columns, mut decoded) =
                (std::mem::take(&mut request.columns), std::mem::take(&mut request.rest));
            columns_to(&app, &columns, |at| request.labels(at), &mut decoded).await?;
            decoded
        }
        Message::V2 => {
            let mut request = v2::decode(&raw).map_err(fail)?;
            let (columns, mut decoded) =
                (std::mem::take(&mut request.columns), std::mem::take(&mut request.rest));
            written.samples = columns_to(&app, &columns, |at| request.labels(at), &mut decoded).await?;
            decoded
        }
    };
    drop(raw);
    written.exemplars = decoded.batch.exemplars.len();
    // Floats and histograms go one after the other, so that what is refused can be told apart.
    let floats = MetricBatch {
        histograms: Vec::new(),
        exemplars: Vec::new(),
        series: std::mem::take(&mut decoded.batch.series),
        metadata: std::mem::take(&mut decoded.batch.metadata),
        starts: std::mem::take(&mut decoded.batch.starts),
    };
    let histograms = std::mem::take(&mut decoded.batch);
    let store = async |batch: MetricBatch| -> Result<Accepted, Response> {
        app.engines.sink.write_metrics(batch).await.map_err(|e| fail(e.into()))
    };
    if !floats.series.is_empty() || !floats.metadata.is_empty() {
        let done = store(floats).await?;
        written.samples += done.accepted;
        refused(&mut decoded, done);
    }
    if !histograms.histograms.is_empty() || !histograms.exemplars.is_empty() {
        let done = store(histograms).await?;
        written.histograms = done.accepted;
        refused(&mut decoded, done);
    }
    let mut response = match decoded.reason {
        // Senders drop what gets a 400 and must not send it again.
        Some(reason) if decoded.refused > 0 => {
            fail(Failure::Bad(format!("{} samples refused: {reason}", decoded.refused)))
        }
        _ => no_content(),
    };
    if message == Message::V2 {
        for (name, n) in [
            ("x-prometheus-remote-write-samples-written", written.samples),
            ("x-prometheus-remote-write-histograms-written", written.histograms),
            ("x-prometheus-remote-write-exemplars-written", written.exemplars),
        ] {
            response.headers_mut().insert(name, n.into());
        }
    }
    Ok(response)
}

/// Stores floats of series that are known by a key; gives back how many.
async fn columns_to(
    app: &App,
    columns: &tsdb::Columns,
    labels: impl Fn(usize) -> Result<Labels, String>,
    decoded: &mut Decoded,
) -> Result<usize, Response> {
    if columns.series.is_empty() {
        return Ok(0);
    }
    let done = app.engines.tsdb.append_columns(columns, labels).await.map_err(|e| fail(e.into()))?;
    let accepted = done.accepted;
    refused(decoded, done);
    Ok(accepted)
}

fn refused(decoded: &mut Decoded, done: Accepted) {
    if let Some(reason) = done.reason {
        decoded.refuse(done.rejected, reason);
    }
}

/// The body as it comes, up to `limit` bytes.
async fn body(req: Request, limit: usize, out: &mut Vec<u8>) -> Result<(), Failure> {
    out.clear();
    let mut parts = req.into_body().into_data_stream();
    while let Some(part) = parts.next().await {
        let part = part.map_err(|e| Failure::Bad(format!("the body did not arrive whole: {e}")))?;
        if out.len() + part.len() > limit {
            return Err(Failure::TooLarge(format!("the body is longer than {limit} bytes")));
        }
        out.extend_from_slice(&part);
    }
    Ok(())
}

/// Snappy's block format; the length it claims is looked at before anything is unpacked.
pub(crate) fn unpack(packed: &[u8], limit: usize) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::new();
    unpack_into(packed, limit, &mut out)?;
    Ok(out)
}

fn unpack_into(packed: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Failure> {
    let bad = |e: snap::Error| Failure::Bad(format!("not snappy: {e}"));
    let len = snap::raw::decompress_len(packed).map_err(bad)?;
    // Snappy's best is a copy of 64 bytes in three.
    if len > limit || len > packed.len().saturating_mul(64) {
        return Err(Failure::TooLarge(format!("{len} bytes unpacked, the limit is {limit}")));
    }
    out.resize(len, 0);
    let n = snap::raw::Decoder::new().decompress(packed, out).map_err(bad)?;
    out.truncate(n);
    Ok(())
}

/// Decodes a body, for the fuzz targets: it must be read or refused, and neither may panic.
#[doc(hidden)]
pub fn decode(raw: &[u8], is_v2: bool) {
    if is_v2 {
        drop(v2::decode(raw));
    } else if let Ok(request) = v1::decode(raw) {
        (0..16).for_each(|at| drop(request.labels(at)));
    }
}
