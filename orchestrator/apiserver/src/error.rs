//! What the API answers when it refuses: upstream's Status objects, word for word
//! (apimachinery: pkg/api/errors/errors.go).

use std::borrow::Cow;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::{Map, Value, json};

use crate::kinds::Served;
use crate::validation::Errors;

/// Why the server could not be opened or served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("certificate: {0}")]
    Certificate(String),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("{0}")]
    Config(String),
    #[error("bootstrap of {what} failed: {message}")]
    Bootstrap { what: String, message: String },
}

/// A refusal, on its way to becoming a Status object.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub(crate) code: u16,
    pub(crate) reason: Cow<'static, str>,
    pub(crate) message: String,
    pub(crate) details: Option<Value>,
    pub(crate) retry_after_s: Option<u32>,
}

pub(crate) type Result<T> = std::result::Result<T, ApiError>;

impl ApiError {
    pub(crate) fn new(code: u16, reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        ApiError { code, reason: reason.into(), message: message.into(), details: None, retry_after_s: None }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let mut d = Map::new();
        for (k, v) in [("name", name), ("group", group), ("kind", kind)] {
            if !v.is_empty() {
                d.insert(k.to_owned(), v.into());
            }
        }
        self.details = Some(Value::Object(d));
        self
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        ApiError::new(400, "BadRequest", message)
    }

    pub(crate) fn internal(message: impl std::fmt::Display) -> Self {
        ApiError::new(500, "InternalError", format!("Internal error occurred: {message}"))
    }

    pub(crate) fn unauthorized() -> Self {
        ApiError::new(401, "Unauthorized", "Unauthorized")
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        let mut e = ApiError::new(503, "ServiceUnavailable", message);
        e.retry_after_s = Some(1);
        e
    }

    pub(crate) fn no_such_path() -> Self {
        let mut e = ApiError::new(404, "NotFound", "the server could not find the requested resource");
        e.details = Some(json!({}));
        e
    }

    pub(crate) fn not_found(kind: &Served, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", kind.qualified_resource());
        ApiError::new(404, "NotFound", message).about(kind.group, kind.kind.resource, name)
    }

    pub(crate) fn already_exists(kind: &Served, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", kind.qualified_resource());
        ApiError::new(409, "AlreadyExists", message).about(kind.group, kind.kind.resource, name)
    }

    pub(crate) fn conflict(kind: &Served, name: &str, why: &str) -> Self {
        let what = kind.qualified_resource();
        let message = format!("Operation cannot be fulfilled on {what} \"{name}\": {why}");
        ApiError::new(409, "Conflict", message).about(kind.group, kind.kind.resource, name)
    }

    pub(crate) fn modified(kind: &Served, name: &str) -> Self {
        ApiError::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub(crate) fn forbidden(kind: &Served, name: &str, why: &str) -> Self {
        let what = kind.qualified_resource();
        let message = if name.is_empty() {
            format!("{what} is forbidden: {why}")
        } else {
            format!("{what} \"{name}\" is forbidden: {why}")
        };
        ApiError::new(403, "Forbidden", message).about(kind.group, kind.kind.resource, name)
    }

    pub(crate) fn invalid(kind: &Served, name: &str, errors: &Errors) -> Self {
        ApiError::invalid_of(kind.group, kind.kind.kind, name, errors)
    }

    /// As [`ApiError::invalid`], for what is no kind of ours to keep.
    pub(crate) fn invalid_of(group: &'static str, kind: &'static str, name: &str, errors: &Errors) -> Self {
        let what = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut e = ApiError::new(422, "Invalid", format!("{what} \"{name}\" is invalid: {errors}"))
            .about(group, kind, name);
        if let Some(d) = &mut e.details {
            d["causes"] = errors.causes();
        }
        e
    }

    pub(crate) fn method_not_allowed() -> Self {
        let mut e = ApiError::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        );
        e.details = Some(json!({}));
        e
    }

    pub(crate) fn not_acceptable(message: impl Into<String>) -> Self {
        ApiError::new(406, "NotAcceptable", message)
    }

    pub(crate) fn expired(message: impl Into<String>) -> Self {
        ApiError::new(410, "Expired", message)
    }

    pub(crate) fn too_old(requested: u64, oldest: u64) -> Self {
        ApiError::expired(format!("too old resource version: {requested} ({oldest})"))
    }

    /// The Status object.
    pub(crate) fn status(&self) -> Value {
        let mut s = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        });
        if let Some(d) = &self.details {
            s["details"] = d.clone();
        }
        if let Some(after) = self.retry_after_s {
            s["details"]["retryAfterSeconds"] = after.into();
        }
        s["code"] = self.code.into();
        s
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut r = Response::new(Body::from(self.status().to_string()));
        *r.status_mut() = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        r.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        if let Some(after) = self.retry_after_s {
            r.headers_mut().insert(header::RETRY_AFTER, after.into());
        }
        r
    }
}

impl From<store::Error> for ApiError {
    fn from(e: store::Error) -> Self {
        match e {
            store::Error::Compacted { .. } => ApiError::expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.",
            ),
            e if e.retryable() => ApiError::unavailable(e.to_string()),
            e => ApiError::internal(e),
        }
    }
}
