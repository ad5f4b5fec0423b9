//! Failures, and how each API says them.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::json;

/// How long a query that found no room should wait.
const OVERLOADED: Duration = Duration::from_secs(1);

/// What went wrong, before an API words it.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The request is wrong.
    Bad(String),
    Forbidden(String),
    NotFound(String),
    /// The query cannot be evaluated.
    Execution(String),
    Timeout(String),
    Canceled(String),
    TooLarge(String),
    /// A body of a kind that is not taken.
    Unsupported(String),
    /// Send again, not before so long.
    Overloaded(String, Duration),
    /// Turned off.
    Unavailable(String),
    Internal(String),
}

impl Failure {
    fn parts(&self) -> (StatusCode, &'static str, &str) {
        match self {
            Failure::Bad(m) => (StatusCode::BAD_REQUEST, "bad_data", m),
            Failure::Forbidden(m) => (StatusCode::FORBIDDEN, "forbidden", m),
            Failure::NotFound(m) => (StatusCode::NOT_FOUND, "not_found", m),
            Failure::Execution(m) => (StatusCode::UNPROCESSABLE_ENTITY, "execution", m),
            Failure::Timeout(m) => (StatusCode::SERVICE_UNAVAILABLE, "timeout", m),
            Failure::Canceled(m) => (StatusCode::SERVICE_UNAVAILABLE, "canceled", m),
            Failure::TooLarge(m) => (StatusCode::PAYLOAD_TOO_LARGE, "bad_data", m),
            Failure::Unsupported(m) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad_data", m),
            Failure::Overloaded(m, _) => (StatusCode::TOO_MANY_REQUESTS, "unavailable", m),
            Failure::Unavailable(m) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", m),
            Failure::Internal(m) => (StatusCode::INTERNAL_SERVER_ERROR, "internal", m),
        }
    }

    /// As Prometheus' API has it.
    pub(crate) fn prometheus(self) -> Response {
        let (status, kind, message) = self.parts();
        let body = json!({"status": "error", "errorType": kind, "error": message});
        let answer = (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response();
        self.with_retry(answer)
    }

    /// When to send again, if that is known.
    fn with_retry(&self, mut answer: Response) -> Response {
        if let Failure::Overloaded(_, after) = self {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            answer.headers_mut().insert(header::RETRY_AFTER, seconds.max(1).into());
        }
        answer
    }

    /// SQL has no API to follow: the same words, flat.
    pub(crate) fn sql(self) -> Response {
        let (status, kind, message) = self.parts();
        let body = json!({"error": message, "errorType": kind});
        (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
    }

    /// Loki and Tempo answer with plain text.
    pub(crate) fn plain(self) -> Response {
        let (status, _, message) = self.parts();
        // Loki calls a query that cannot run a bad request.
        let status =
            if status == StatusCode::UNPROCESSABLE_ENTITY { StatusCode::BAD_REQUEST } else { status };
        let answer = (status, message.to_owned()).into_response();
        self.with_retry(answer)
    }

    /// As Jaeger's query service has it.
    pub(crate) fn jaeger(self) -> Response {
        let (status, _, message) = self.parts();
        let body = json!({"data": null, "total": 0, "limit": 0, "offset": 0,
            "errors": [{"code": status.as_u16(), "msg": message}]});
        (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
    }
}

impl From<promql::Error> for Failure {
    fn from(e: promql::Error) -> Self {
        let m = e.to_string();
        match e {
            promql::Error::Parse(_) => Failure::Bad(format!("invalid parameter \"query\": {m}")),
            promql::Error::Execution(_) | promql::Error::Limit(_) => Failure::Execution(m),
            promql::Error::Overloaded(..) => Failure::Overloaded(m, OVERLOADED),
            promql::Error::Timeout => Failure::Timeout(m),
            promql::Error::Canceled => Failure::Canceled(m),
            promql::Error::Storage(_) => Failure::Internal(m),
        }
    }
}

impl From<logql::Error> for Failure {
    fn from(e: logql::Error) -> Self {
        let m = e.to_string();
        match e {
            logql::Error::Parse { .. } | logql::Error::Limit(_) | logql::Error::Pipeline { .. } => {
                Failure::Bad(m)
            }
            logql::Error::Metric(promql::Error::Parse(_)) => Failure::Bad(m),
            logql::Error::Metric(e) => e.into(),
            logql::Error::Index(_) => Failure::Internal(m),
            logql::Error::Timeout => Failure::Timeout(m),
            logql::Error::Canceled => Failure::Canceled(m),
        }
    }
}

impl From<sql::Error> for Failure {
    fn from(e: sql::Error) -> Self {
        let m = e.to_string();
        match e {
            sql::Error::Query(_) | sql::Error::Refused(_) => Failure::Bad(m),
            sql::Error::Memory { .. } => Failure::Execution(m),
            sql::Error::Timeout(_) => Failure::Timeout(m),
            sql::Error::Canceled(_) => Failure::Canceled(m),
            sql::Error::Storage(_) | sql::Error::Internal(_) => Failure::Internal(m),
        }
    }
}

impl From<log_index::Error> for Failure {
    fn from(e: log_index::Error) -> Self {
        Failure::Internal(e.to_string())
    }
}

impl From<signal::SourceError> for Failure {
    fn from(e: signal::SourceError) -> Self {
        Failure::Internal(e.to_string())
    }
}

impl From<signal::SinkError> for Failure {
    fn from(e: signal::SinkError) -> Self {
        let m = e.to_string();
        match e {
            signal::SinkError::Overloaded { retry_after, .. } => Failure::Overloaded(m, retry_after),
            signal::SinkError::Invalid(_) => Failure::Bad(m),
            signal::SinkError::Storage(_) => Failure::Internal(m),
            signal::SinkError::Closed => Failure::Canceled(m),
        }
    }
}
