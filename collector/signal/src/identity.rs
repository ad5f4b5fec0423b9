//! Who a network address belongs to: the platform's word, never a payload's (invariant 9).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::{Attributes, Labels};

/// Who sends. Filled from cluster objects, in OpenTelemetry's and Prometheus' words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    /// `namespace`, `pod`, `node`, `service_account`, and `container` where one is certain.
    pub labels: Labels,
    /// Kubernetes resource attributes: `k8s.namespace.name`, `k8s.pod.name`, `k8s.pod.uid`, `k8s.deployment.name`, …
    pub resource: Attributes,
}

/// Address → identity, shared between `discovery`, which fills it, and the collector, which asks.
#[derive(Debug, Default)]
pub struct Identities {
    by_ip: RwLock<HashMap<IpAddr, Arc<Identity>>>,
}

impl Identities {
    pub fn set(&self, ip: IpAddr, identity: Identity) {
        self.by_ip.write().insert(ip, Arc::new(identity));
    }

    pub fn remove(&self, ip: IpAddr) {
        self.by_ip.write().remove(&ip);
    }

    pub fn get(&self, ip: IpAddr) -> Option<Arc<Identity>> {
        self.by_ip.read().get(&ip.to_canonical()).cloned()
    }
}
