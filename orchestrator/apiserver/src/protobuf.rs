//! Protobuf bodies: read from typed clients, written for those who ask for them. Inside everything is JSON; an answer
//! becomes protobuf at the door. The table of fields is in [`apimachinery::protobuf`].

use apimachinery::protobuf::{self, Broken};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, header};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::error::{ApiError, Result};
use crate::kinds::Served;

pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// Of a watch: frames with their lengths.
pub(crate) const STREAM: &str = "application/vnd.kubernetes.protobuf;stream=watch";

/// A body → JSON.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value> {
    protobuf::decode(bytes).map_err(|e| match e {
        Broken::Malformed => ApiError::bad_request("the request body is no Kubernetes protobuf object"),
        Broken::Unknown(kind) => ApiError::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, not {MEDIA_TYPE} of a {kind}"
            ),
        ),
    })
}

/// Whether JSON would do as well for a client that would rather have protobuf; `None` if it would not rather.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) or_json: bool,
}

impl Wanted {
    pub(crate) fn of(headers: &HeaderMap) -> Option<Wanted> {
        let accept = headers.get(header::ACCEPT)?.to_str().ok()?;
        // A table is no message.
        let possible = accept.split(',').filter(|m| !(m.contains(MEDIA_TYPE) && m.contains("as=Table")));
        let mut kinds = possible.map(|m| m.split(';').next().unwrap_or_default().trim());
        let first = kinds.find(|k| *k == MEDIA_TYPE || is_json(k))?;
        (first == MEDIA_TYPE).then(|| Wanted { or_json: kinds.any(is_json) })
    }

    /// Refused before anything is done: a kind without a message for a client that takes nothing else.
    pub(crate) fn check(self, served: &Served) -> Result<()> {
        if self.or_json || protobuf::knows(&served.api_version(), served.kind.kind) {
            return Ok(());
        }
        let message = "only the following media types are accepted: application/json, application/yaml";
        Err(ApiError::not_acceptable(message))
    }

    /// The same answer as protobuf, if it is an object or a list of a kind that has a message.
    pub(crate) async fn answer(self, answer: Response) -> Response {
        let is_json = answer.headers().get(header::CONTENT_TYPE).is_some_and(|t| t == "application/json");
        if !is_json {
            return answer;
        }
        let (mut parts, body) = answer.into_parts();
        let bytes = match body.collect().await {
            Ok(b) => b.to_bytes(),
            Err(e) => return ApiError::internal(e.to_string()).into_response(),
        };
        let encoded = serde_json::from_slice(&bytes).ok().and_then(|v: Value| protobuf::encode(&v));
        match encoded {
            Some(b) => {
                parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
                parts.headers.remove(header::CONTENT_LENGTH);
                Response::from_parts(parts, Body::from(b))
            }
            None => Response::from_parts(parts, Body::from(bytes)),
        }
    }
}

/// What is answered with JSON.
pub(crate) fn is_json(media: &str) -> bool {
    matches!(media, "application/json" | "*/*" | "application/*" | "" | "application/yaml" | "text/plain")
}
