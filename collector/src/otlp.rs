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

use opentelemetry_proto::tonic::resource::v1::Resource;
use signal::time::SharedClock;
use signal::{Accepted, Attributes, Identity, LabelsBuilder, Sink, SinkError};

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

/// Stream labels of a resource: the identity, and `service_name`, which the sender may choose.
fn stream_labels(identity: &Identity, resource: Option<&Resource>) -> (LabelsBuilder, Attributes) {
    let sent = resource.map(|r| attribute::attributes(&r.attributes)).unwrap_or_default();
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
