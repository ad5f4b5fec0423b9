//! What is told of a request beside its answer: a count, how long it took, a span, and a line if that was long.
//!
//! Every write of a resource is a span. Reads are many and alike: one of [`SAMPLED`] is a span, those whose client sends a
//! sampled traceparent, and those that were slow, which are told of when they end. All are counted and timed, and the
//! audit log has the parts of each request it is told of.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use http::{Method, Request};
use tracing::Span;
use tracing::field::Empty;

use crate::admission::attributes::Trail;
use crate::dispatch::{PeerAddress, is_upgrade};
use crate::error::Result;
use crate::metrics::{Inflight, METRICS, RequestLabels};
use crate::request::{Query, RequestInfo};
use crate::server::ApiServer;
use crate::slow;

/// One of so many reads is a span of its own accord.
const SAMPLED: u64 = 100;
static READS: AtomicU64 = AtomicU64::new(0);

/// A request that is being answered.
pub(crate) struct Observation {
    started: Instant,
    info: RequestInfo,
    labels: RequestLabels,
    /// It lasts as long as its client likes: how long says nothing.
    pub(crate) streamed: bool,
    /// Disabled where the request is none.
    pub(crate) span: Span,
    _inflight: Inflight,
    /// Or else the client left.
    ended: bool,
}

impl Observation {
    pub(crate) fn begin(
        server: &ApiServer,
        req: &Request<Body>,
        info: &RequestInfo,
        query: &Query,
        id: &str,
    ) -> Observation {
        let mutating = !matches!(*req.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        let labels = labels(server, info, query);
        let upgrade = is_upgrade(info);
        let streamed = info.verb == "watch" || info.subresource == "log" || upgrade;
        let traced = req.headers().get("traceparent").and_then(|t| t.to_str().ok());
        let wanted = if mutating && !upgrade && info.is_resource {
            true
        } else {
            // Our own controllers send the trace of what they do with all they ask.
            let outside = req.extensions().get::<PeerAddress>().is_some();
            traced.is_some_and(|t| outside && t.ends_with("-01"))
                || READS.fetch_add(1, Ordering::Relaxed) % SAMPLED == SAMPLED - 1
        };
        let span = if wanted { span(&labels, info, id) } else { Span::none() };
        if let Some(t) = traced.filter(|_| wanted) {
            telemetry::propagation::set_parent_from(&span, t);
        }
        Observation {
            started: server.config.clock.monotonic(),
            info: info.clone(),
            labels,
            streamed,
            span,
            _inflight: Inflight::new(mutating),
            ended: false,
        }
    }

    pub(crate) fn end(mut self, server: &ApiServer, trail: &Trail, answer: &Result<Response>, code: u16) {
        let ended = server.config.clock.monotonic();
        let took = ended.saturating_duration_since(self.started);
        self.span.record("code", code);
        if trail.level().is_some() {
            trail.annotate("binnacle.io/time", trail.stations.told(self.started, ended).0);
        }
        if !self.streamed && took >= slow::SLOW {
            let (parts, longest) = trail.stations.told(self.started, ended);
            let told = if self.span.is_none() {
                let late = span(&self.labels, &self.info, &trail.id);
                late.record("code", code);
                late.record("late", true);
                late
            } else {
                self.span.clone()
            };
            told.record("took_ms", took.as_millis() as u64);
            told.record("slow", longest);
            told.record("parts", parts.as_str());
            let _entered = told.enter();
            slow::report(&self.info, &trail.id, took, code, &parts, longest);
        }
        let bytes = answer.as_ref().ok().and_then(|r| r.body().size_hint().exact());
        let labels = RequestLabels { code, ..self.labels.clone() };
        METRICS.observe(labels, took, trail.stations.elsewhere(), bytes, self.streamed);
        self.ended = true;
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        if !self.ended {
            METRICS.aborted(&self.labels);
        }
    }
}

fn span(labels: &RequestLabels, info: &RequestInfo, id: &str) -> Span {
    let word = if labels.verb == "other" { &info.verb } else { labels.verb };
    let what = if info.is_resource { labels.resource } else { "path" };
    let name = format!("{word} {what}");
    tracing::info_span!(
        target: "apiserver",
        "request",
        otel.name = name,
        verb = info.verb,
        resource = info.resource,
        namespace = info.namespace,
        name = info.name,
        audit_id = id,
        user = Empty,
        code = Empty,
        slow = Empty,
        took_ms = Empty,
        parts = Empty,
        late = Empty,
    )
}

/// Only words of our own, so that no client can make series.
pub(crate) fn labels(server: &ApiServer, info: &RequestInfo, query: &Query) -> RequestLabels {
    const VERBS: [(&str, &str); 8] = [
        ("create", "POST"),
        ("update", "PUT"),
        ("patch", "PATCH"),
        ("delete", "DELETE"),
        ("deletecollection", "DELETE"),
        ("get", "GET"),
        ("list", "LIST"),
        ("watch", "WATCH"),
    ];
    const SUBS: [&str; 13] = [
        "approval",
        "status",
        "scale",
        "binding",
        "eviction",
        "token",
        "log",
        "exec",
        "attach",
        "portforward",
        "finalize",
        "resize",
        "proxy",
    ];
    let served = server.find_kind(&info.group, &info.version, &info.resource);
    RequestLabels {
        verb: VERBS.iter().find(|(v, _)| *v == info.verb).map_or("other", |(_, l)| l),
        group: served.as_ref().map_or("", |s| s.group),
        version: served.as_ref().map_or("", |s| s.version),
        resource: served.as_ref().map_or("", |s| s.kind.resource),
        subresource: SUBS.iter().find(|s| **s == info.subresource).map_or("", |s| s),
        scope: match (info.is_resource, info.name.is_empty(), info.namespace.is_empty()) {
            (false, ..) => "",
            (true, false, _) => "resource",
            (true, true, false) => "namespace",
            (true, true, true) => "cluster",
        },
        component: "apiserver",
        dry_run: if query.has("dryRun") { "All" } else { "" },
        code: 0,
    }
}
