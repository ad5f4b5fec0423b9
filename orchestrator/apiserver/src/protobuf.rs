//! Protobuf bodies: read from typed clients, written for those who take nothing else. The table of fields is in
//! [`apimachinery::protobuf`].

use apimachinery::protobuf::{self, Broken};
use serde_json::Value;

use crate::error::{ApiError, Result};

pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

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
