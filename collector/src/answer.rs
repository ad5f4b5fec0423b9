//! What HTTP senders are told, and how their bodies are unpacked: the same for every receiver that speaks HTTP.

use std::borrow::Cow;
use std::io::Read;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::serve::{ListenerExt, TapIo};
use signal::SinkError;
use tokio::net::{TcpListener, TcpStream};

/// Largest body taken, also unpacked (OTLP's specification recommends 64 MiB).
pub(crate) const MOST_BYTES: usize = 64 << 20;

/// A listener whose connections send what they have at once: an answer of two small writes otherwise waits 40 ms for the
/// client's acknowledgement of the first (Nagle's algorithm and the delayed acknowledgement).
pub fn prompt(listener: TcpListener) -> TapIo<TcpListener, fn(&mut TcpStream)> {
    listener.tap_io(|tcp| {
        if let Err(e) = tcp.set_nodelay(true) {
            tracing::debug!(error = %e, "no TCP_NODELAY");
        }
    })
}

/// Why a request was not taken.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    pub(crate) why: String,
    /// Seconds after which the same request may succeed.
    pub(crate) retry_after: Option<u64>,
}

impl Refused {
    pub(crate) fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Refused { status, why: why.into(), retry_after: None }
    }

    pub(crate) fn bad(why: impl Into<String>) -> Self {
        Refused::new(StatusCode::BAD_REQUEST, why)
    }

    pub(crate) fn unknown_sender() -> Self {
        Refused::new(StatusCode::UNAUTHORIZED, "the sender's address belongs to no pod of this cluster")
    }
}

impl From<&SinkError> for Refused {
    /// A full disk is 507, which says what is wrong; senders that repeat only a few codes are told otherwise.
    fn from(e: &SinkError) -> Self {
        let (status, retry_after) = match e {
            SinkError::Invalid(_) => (StatusCode::BAD_REQUEST, None),
            SinkError::Overloaded { retry_after, .. } => {
                let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
                (StatusCode::TOO_MANY_REQUESTS, Some(seconds.max(1)))
            }
            SinkError::Storage(_) => (StatusCode::INSUFFICIENT_STORAGE, Some(5)),
            SinkError::Closed => (StatusCode::SERVICE_UNAVAILABLE, Some(1)),
        };
        Refused { status, why: e.to_string(), retry_after }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut r = (self.status, self.why).into_response();
        if let Some(seconds) = self.retry_after {
            r.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        r
    }
}

/// The body without its content encoding.
pub(crate) fn unpack<'a>(headers: &HeaderMap, body: &'a [u8]) -> Result<Cow<'a, [u8]>, Refused> {
    let encoding =
        headers.get(header::CONTENT_ENCODING).map(|v| v.to_str().unwrap_or("?").to_ascii_lowercase());
    match encoding.as_deref() {
        None | Some("" | "identity") => Ok(Cow::Borrowed(body)),
        Some("gzip") => read_bounded(flate2::read::MultiGzDecoder::new(body)).map(Cow::Owned),
        Some("deflate") => read_bounded(flate2::read::ZlibDecoder::new(body)).map(Cow::Owned),
        Some(other) => Err(Refused::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("content encoding {other:?}: use gzip, deflate or none"),
        )),
    }
}

fn read_bounded(packed: impl Read) -> Result<Vec<u8>, Refused> {
    let mut out = Vec::new();
    packed
        .take(MOST_BYTES as u64 + 1)
        .read_to_end(&mut out)
        .map_err(|e| Refused::bad(format!("the body cannot be unpacked: {e}")))?;
    if out.len() > MOST_BYTES {
        let why = format!("more than {MOST_BYTES} bytes unpacked: send smaller batches");
        return Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, why));
    }
    Ok(out)
}

/// `application/json` of `application/json; charset=utf-8`.
pub(crate) fn content_type(headers: &HeaderMap) -> &str {
    let text = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim()
}
