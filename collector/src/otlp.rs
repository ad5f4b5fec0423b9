//! OTLP: gRPC and HTTP (protobuf and JSON, gzip), for metrics, logs and traces.
//!
//! Source: opentelemetry-proto docs/specification.md. A sender is who its address says it is; addresses
//! that belong to nobody are refused.

mod attribute;
mod grpc;
mod http;
mod logs;
mod metrics;
mod name;
mod traces;

use std::net::IpAddr;
use std::sync::Arc;

use opentelemetry_proto::tonic::resource::v1::Resource;
use signal::time::SharedClock;
use signal::{Accepted, Attributes, Identities, Identity, LabelsBuilder, Sink, SinkError};

pub use grpc::serve as serve_grpc;
pub use http::{metrics_router, serve as serve_http};
pub use name::{Translation, UnknownTranslation};

/// Largest request taken, decompressed (the specification recommends 64 MiB for servers with room to spare).
pub(crate) const MOST_BYTES: usize = 16 << 20;

/// What both doors share.
#[derive(Clone)]
pub struct Receiver {
    sink: Arc<dyn Sink>,
    identities: Arc<Identities>,
    /// Who loopback senders are: processes of this machine that belong to no pod.
    local: Arc<Identity>,
    translation: Translation,
    deltas: Arc<tokio::sync::Mutex<metrics::delta::Streams>>,
    clock: SharedClock,
}

impl Receiver {
    /// One for the whole process: its clones share what deltas have come to.
    pub fn new(
        sink: Arc<dyn Sink>,
        identities: Arc<Identities>,
        local: Identity,
        translation: Translation,
        clock: SharedClock,
    ) -> Self {
        Receiver { sink, identities, local: Arc::new(local), translation, deltas: Arc::default(), clock }
    }

    /// Who sends from this address; `None` if nobody is known there.
    fn identify(&self, peer: Option<IpAddr>) -> Option<Arc<Identity>> {
        let ip = peer?.to_canonical();
        self.identities.get(ip).or_else(|| ip.is_loopback().then(|| self.local.clone()))
    }
}

/// The result of one export request.
type Exported = Result<Accepted, SinkError>;

/// Stream labels of a resource: the identity, and `service_name`, which the sender may choose.
fn stream_labels(identity: &Identity, resource: Option<&Resource>) -> (LabelsBuilder, Attributes) {
    let sent = resource.map(|r| attribute::attributes(&r.attributes)).unwrap_or_default();
    let mut labels = identity.labels.builder();
    let service = sent.get_str("service.name").filter(|s| !s.is_empty()).map(str::to_owned);
    let service = service
        .or_else(|| {
            identity.labels.get("container").or_else(|| identity.labels.get("pod")).map(str::to_owned)
        })
        .unwrap_or_else(|| "unknown_service".to_owned());
    labels.set("service_name", &service);
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
