//! Who sends: the platform's word for an address, the same for every receiver (invariant 9).

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use signal::{Attributes, Identities, Identity, Labels, LabelsBuilder};

/// Names that only the platform gives; a payload's are kept as `exported_<name>`.
const RESERVED: [&str; 7] =
    ["namespace", "pod", "container", "node", "service_account", "workload", "sender"];

/// Addresses and whom they belong to. Cloned for each receiver.
#[derive(Clone)]
pub struct Senders {
    identities: Arc<Identities>,
    /// Who loopback senders are: processes of this machine that belong to no pod.
    local: Arc<Identity>,
    /// Networks whose senders are taken although they belong to no pod.
    trusted: Arc<Vec<IpNet>>,
}

impl Senders {
    pub fn new(identities: Arc<Identities>, local: Identity, trusted: Vec<IpNet>) -> Self {
        Senders { identities, local: Arc::new(local), trusted: Arc::new(trusted) }
    }

    /// Who sends from this address: a pod, this machine, or a machine of a trusted network, which is known by its
    /// address alone (label `sender`). `None` if nobody is known there.
    pub(crate) fn identify(&self, peer: IpAddr) -> Option<Arc<Identity>> {
        let ip = peer.to_canonical();
        if let Some(known) = self.identities.get(ip) {
            return Some(known);
        }
        if ip.is_loopback() {
            return Some(self.local.clone());
        }
        let trusted = self.trusted.iter().any(|n| n.contains(&ip));
        trusted.then(|| {
            let ip = ip.to_string();
            let mut resource = Attributes::default();
            resource.set("host.ip", ip.as_str());
            Arc::new(Identity { labels: Labels::from_pairs([("sender", &ip)]), resource })
        })
    }
}

/// The name under which a payload's field is kept.
pub(crate) fn exported(name: &str) -> Option<String> {
    RESERVED.contains(&name).then(|| format!("exported_{name}"))
}

/// The labels of a sender's stream: the identity and the service, which the sender may choose.
pub(crate) fn stream(identity: &Identity, service: Option<&str>) -> LabelsBuilder {
    let mut labels = identity.labels.builder();
    let service = service
        .filter(|s| !s.is_empty())
        .or_else(|| identity.labels.get("container"))
        .or_else(|| identity.labels.get("pod"))
        .unwrap_or("unknown_service");
    labels.set("service_name", service);
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_tells_who_sends() {
        let identities = Arc::new(Identities::default());
        let pod = Identity { labels: Labels::from_pairs([("pod", "p")]), ..Identity::default() };
        identities.set([10, 42, 0, 9].into(), pod);
        let local = Identity { labels: Labels::from_pairs([("node", "n")]), ..Identity::default() };
        let trusted = vec!["192.168.0.0/16".parse().expect("a network")];
        let senders = Senders::new(identities, local, trusted);
        let check = |ip: &str, expect: Option<&str>| {
            let got = senders.identify(ip.parse().expect("an address")).map(|i| i.labels.to_string());
            assert_eq!(got.as_deref(), expect, "{ip}");
        };
        check("10.42.0.9", Some(r#"{pod="p"}"#));
        check("::ffff:10.42.0.9", Some(r#"{pod="p"}"#));
        check("127.0.0.1", Some(r#"{node="n"}"#));
        check("192.168.7.1", Some(r#"{sender="192.168.7.1"}"#));
        check("10.42.0.10", None);
        assert_eq!(exported("pod").as_deref(), Some("exported_pod"));
        assert_eq!(exported("message"), None);
    }
}
