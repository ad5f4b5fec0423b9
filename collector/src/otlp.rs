//! OTLP: gRPC and HTTP (protobuf and JSON, gzip), for metrics, logs and traces.
//!
//! Source: opentelemetry-proto docs/specification.md. A sender is who its address says it is; addresses
//! that belong to nobody are refused.

mod attribute;
mod grpc;
mod http;
mod json;
mod logs;
mod metrics;
mod name;
#[cfg(test)]
mod tests;
mod traces;

use std::net::IpAddr;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::resource::v1::Resource;
use signal::time::SharedClock;
use signal::{Accepted, AttributeValue, Attributes, Identity, LabelsBuilder, Sink, SinkError, SpanBatch};

use crate::encode::LABEL;
use crate::sender::{self, Senders};

pub use grpc::serve as serve_grpc;
pub use http::{authenticated_router, serve as serve_http};
pub use name::{Translation, UnknownTranslation};

/// What both doors share.
#[derive(Clone)]
pub struct Receiver {
    sink: Arc<dyn Sink>,
    senders: Senders,
    translation: Translation,
    deltas: Arc<tokio::sync::Mutex<metrics::delta::Streams>>,
    clock: SharedClock,
}

impl Receiver {
    /// One for the whole process: its clones share what deltas have come to.
    pub fn new(sink: Arc<dyn Sink>, senders: Senders, translation: Translation, clock: SharedClock) -> Self {
        Receiver { sink, senders, translation, deltas: Arc::default(), clock }
    }

    /// Who sends from this address; `None` if nobody is known there.
    fn identify(&self, peer: Option<IpAddr>) -> Option<Arc<Identity>> {
        self.senders.identify(peer?)
    }
}

/// The result of one export request.
type Exported = Result<Accepted, SinkError>;

/// Who sends, and whether its word for identities counts: that of another Binnacle with a token does.
pub(crate) struct Peer {
    identity: Arc<Identity>,
    may_label: bool,
}

impl Peer {
    pub(crate) fn new(identity: Arc<Identity>, may_label: bool) -> Self {
        Peer { identity, may_label }
    }
}

impl std::ops::Deref for Peer {
    type Target = Identity;

    fn deref(&self) -> &Identity {
        &self.identity
    }
}

/// Stream labels of a resource: the identity, and `service_name`, which the sender may choose.
fn stream_labels(identity: &Peer, resource: Option<&Resource>) -> (LabelsBuilder, Attributes) {
    let mut sent = resource.map(|r| attribute::attributes(&r.attributes)).unwrap_or_default();
    // Labels of another Binnacle's stream (`encode`).
    let given: Vec<(String, AttributeValue)> = sent.0.extract_if(.., |(n, _)| n.starts_with(LABEL)).collect();
    if identity.may_label && !given.is_empty() {
        let mut labels = LabelsBuilder::default();
        for (name, value) in &given {
            labels.set(&name[LABEL.len()..], &value.to_string());
        }
        return (labels, sent);
    }
    let labels = sender::stream(identity, sent.get_str("service.name"));
    let mut attributes = identity.resource.clone();
    for (name, value) in sent.iter() {
        match attributes.get(name) {
            None => attributes.set(name, value.clone()),
            Some(ours) if ours == value => {}
            // The platform's word stands; the payload's is kept beside it (invariant 9).
            Some(_) => attributes.set(format!("exported_{name}"), value.clone()),
        }
    }
    (labels, attributes)
}

/// Spans of a message that [`crate::encode`] made.
pub(crate) fn own_spans(request: &ExportTraceServiceRequest) -> SpanBatch {
    traces::convert(request, &Peer::new(Arc::default(), true)).0
}
