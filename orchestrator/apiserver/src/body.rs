//! Request bodies in, response bodies out.

pub(crate) mod output;
pub(crate) mod twice;

use std::time::Duration;

use apimachinery::schema::json_type;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;

use crate::error::{ApiError, Result};
use crate::patch::APPLY;
use twice::Twice;

/// Upstream's bound on a request.
const MAX_BYTES: usize = 3 << 20;
/// A body that takes longer is not waited for: upstream's --request-timeout.
const WITHIN: Duration = Duration::from_secs(60);
/// Bigger answers are compressed for clients that take it.
const COMPRESS_FROM: usize = 128 << 10;

pub(crate) async fn read(body: Body) -> Result<Bytes> {
    read_within(body, WITHIN).await
}

async fn read_within(body: Body, within: Duration) -> Result<Bytes> {
    match tokio::time::timeout(within, Limited::new(body, MAX_BYTES).collect()).await {
        Ok(Ok(b)) => Ok(b.to_bytes()),
        Ok(Err(e)) if e.is::<http_body_util::LengthLimitError>() => {
            let message = format!("Request entity too large: limit is {MAX_BYTES}");
            Err(ApiError::new(413, "RequestEntityTooLarge", message))
        }
        Ok(Err(e)) => Err(ApiError::bad_request(format!("reading the request body: {e}"))),
        Err(_) => {
            let message = "Timeout: request did not complete within the allotted timeout";
            Err(ApiError::new(504, "Timeout", message))
        }
    }
}

/// The media type without its parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("application/json");
    value.split(';').next().unwrap_or_default().trim()
}

/// An object from JSON, YAML or protobuf.
pub(crate) fn decode(bytes: &[u8], media: &str) -> Result<Value> {
    Ok(read_as(bytes, media, false)?.0)
}

/// As [`decode`], with what stands twice in it.
pub(crate) fn decode_noting(bytes: &[u8], media: &str) -> Result<(Value, Twice)> {
    read_as(bytes, media, true)
}

fn read_as(bytes: &[u8], media: &str, noting: bool) -> Result<(Value, Twice)> {
    let (v, twice) = match media {
        "application/json" | "" => {
            let v = serde_json::from_slice(bytes).map_err(|e| {
                let why = match bytes.trim_ascii() {
                    b"" => "unexpected end of JSON input".to_owned(),
                    _ => e.to_string(),
                };
                ApiError::bad_request(format!("couldn't get version/kind; json parse error: {why}"))
            })?;
            let twice = if noting { Twice::in_json(bytes, &v) } else { Twice::default() };
            (v, twice)
        }
        crate::protobuf::MEDIA_TYPE => (crate::protobuf::decode(bytes)?, Twice::default()),
        "application/yaml" | APPLY => decode_yaml(bytes)?,
        _ => {
            return Err(unknown_format(&[
                "application/json",
                "application/yaml",
                crate::protobuf::MEDIA_TYPE,
            ]));
        }
    };
    if v.is_object() {
        return Ok((v, twice));
    }
    Err(ApiError::bad_request(format!(
        "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}",
        json_type(&v)
    )))
}

/// A body in a media type that is not taken.
pub(crate) fn unknown_format(accepted: &[&str]) -> ApiError {
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        accepted.join(", ")
    );
    let mut e = ApiError::new(415, "UnsupportedMediaType", message);
    e.details = Some(serde_json::json!({}));
    e
}

fn decode_yaml(bytes: &[u8]) -> Result<(Value, Twice)> {
    use serde_saphyr::options::DuplicateKeyPolicy::{Error, LastWins};
    // JSON is YAML, and its own parser is faster and stricter.
    if let Ok(v) = serde_json::from_slice(bytes) {
        let twice = Twice::in_json(bytes, &v);
        return Ok((v, twice));
    }
    let text =
        std::str::from_utf8(bytes).map_err(|e| ApiError::bad_request(format!("yaml is not UTF-8: {e}")))?;
    let parse =
        |policy| serde_saphyr::from_str_with_options(text, serde_saphyr::options! { duplicate_keys: policy });
    let refused = match parse(Error) {
        Ok(v) => return Ok((v, Twice::default())),
        Err(e) => e,
    };
    // What is good but for its keys is taken as it stands last.
    match parse(LastWins) {
        Ok(v) => Ok((v, Twice::in_yaml(&refused.to_string()))),
        Err(_) => Err(ApiError::bad_request(format!("error converting YAML to JSON: {refused}"))),
    }
}

pub(crate) fn json(status: u16, bytes: impl Into<Bytes>) -> Response {
    let mut r = Response::new(Body::from(bytes.into()));
    *r.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    r.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    r
}

pub(crate) fn text(status: u16, body: impl Into<Bytes>) -> Response {
    let mut r = json(status, body);
    r.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    r
}

pub(crate) fn takes_gzip(request: &HeaderMap) -> bool {
    let accepted = request.get(header::ACCEPT_ENCODING).and_then(|v| v.to_str().ok());
    accepted.is_some_and(|v| v.contains("gzip"))
}

/// JSON, compressed if it is big and the client takes gzip.
pub(crate) fn json_for(request: &HeaderMap, status: u16, bytes: Bytes) -> Response {
    if !takes_gzip(request) || bytes.len() < COMPRESS_FROM {
        return json(status, bytes);
    }
    let mut encoder =
        flate2::write::GzEncoder::new(Vec::with_capacity(bytes.len() / 8), flate2::Compression::fast());
    let written = std::io::Write::write_all(&mut encoder, &bytes).and_then(|()| encoder.finish());
    match written {
        Ok(small) => {
            let mut r = json(status, small);
            r.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            r.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
            r
        }
        Err(_) => json(status, bytes),
    }
}

/// The `Warning` headers kubectl prints.
pub(crate) fn warn(r: &mut Response, warnings: &[String]) {
    for w in warnings {
        let text: String = w
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| match c {
                '"' | '\\' => vec!['\\', c],
                c => vec![c],
            })
            .collect();
        if let Ok(v) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            r.headers_mut().append(header::WARNING, v);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_that_trickles_is_not_waited_for() {
        let begun = futures::stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from_static(b"{"))]);
        let body = Body::from_stream(futures::StreamExt::chain(begun, futures::stream::pending()));
        let refused = read_within(body, Duration::ZERO).await.expect_err("it never ends");
        assert_eq!((refused.code, &*refused.reason), (504, "Timeout"));
    }
}
