//! Remote write 1.0 and 2.0: samples, native histograms, exemplars and metadata pushed by others.

mod fields;
mod v1;
mod v2;
pub(super) mod wire;

use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, header};
use signal::{Accepted, MetricBatch};

use super::{fail, no_content};
use crate::App;
use crate::error::Failure;
use crate::params::body;
use crate::scope::Scope;

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
    let packed = body(req, app.config.body_bytes).await.map_err(fail)?;
    let raw = unpack(&packed, app.config.unpacked_bytes).map_err(fail)?;
    let mut decoded = match message {
        Message::V1 => v1::decode(&raw),
        Message::V2 => v2::decode(&raw),
    }
    .map_err(fail)?;
    let mut written = Written { exemplars: decoded.batch.exemplars.len(), ..Written::default() };
    // Floats and histograms go one after the other, so that what is refused can be told apart.
    let histograms = MetricBatch {
        histograms: std::mem::take(&mut decoded.batch.histograms),
        exemplars: std::mem::take(&mut decoded.batch.exemplars),
        ..MetricBatch::default()
    };
    let store = async |batch: MetricBatch| -> Result<Accepted, Response> {
        app.engines.sink.write_metrics(batch).await.map_err(|e| fail(e.into()))
    };
    let done = store(std::mem::take(&mut decoded.batch)).await?;
    written.samples = done.accepted;
    refused(&mut decoded, done);
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

fn refused(decoded: &mut Decoded, done: Accepted) {
    if let Some(reason) = done.reason {
        decoded.refuse(done.rejected, reason);
    }
}

/// Snappy's block format; the length it claims is looked at before anything is unpacked.
pub(crate) fn unpack(packed: &[u8], limit: usize) -> Result<Vec<u8>, Failure> {
    let bad = |e: snap::Error| Failure::Bad(format!("not snappy: {e}"));
    let len = snap::raw::decompress_len(packed).map_err(bad)?;
    if len > limit {
        return Err(Failure::TooLarge(format!("{len} bytes unpacked, the limit is {limit}")));
    }
    snap::raw::Decoder::new().decompress_vec(packed).map_err(bad)
}
