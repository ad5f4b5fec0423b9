//! The protobuf form of a list of spans (openzipkin/zipkin-api: zipkin.proto), turned into what JSON says.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Annotation, Endpoint};

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ListOfSpans {
    #[prost(message, repeated, tag = "1")]
    pub(super) spans: Vec<Span>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    parent_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    id: Vec<u8>,
    #[prost(int32, tag = "4")]
    kind: i32,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(fixed64, tag = "6")]
    timestamp: u64,
    #[prost(uint64, tag = "7")]
    duration: u64,
    #[prost(message, optional, tag = "8")]
    local_endpoint: Option<PbEndpoint>,
    #[prost(message, optional, tag = "9")]
    remote_endpoint: Option<PbEndpoint>,
    #[prost(message, repeated, tag = "10")]
    annotations: Vec<PbAnnotation>,
    #[prost(map = "string, string", tag = "11")]
    tags: HashMap<String, String>,
    #[prost(bool, tag = "12")]
    debug: bool,
    #[prost(bool, tag = "13")]
    shared: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbEndpoint {
    #[prost(string, tag = "1")]
    service_name: String,
    #[prost(bytes = "vec", tag = "2")]
    ipv4: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    ipv6: Vec<u8>,
    #[prost(int32, tag = "4")]
    port: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbAnnotation {
    #[prost(fixed64, tag = "1")]
    timestamp: u64,
    #[prost(string, tag = "2")]
    value: String,
}

impl Span {
    pub(super) fn into_json(self) -> super::Span {
        let kinds = ["CLIENT", "SERVER", "PRODUCER", "CONSUMER"];
        let kind = usize::try_from(self.kind).ok().and_then(|k| kinds.get(k.checked_sub(1)?));
        let mut tags: Vec<(String, String)> = self.tags.into_iter().collect();
        tags.sort();
        super::Span {
            trace_id: hex::encode(self.trace_id),
            id: hex::encode(self.id),
            parent_id: (!self.parent_id.is_empty()).then(|| hex::encode(self.parent_id)),
            name: Some(self.name),
            kind: kind.map(|k| (*k).to_owned()),
            timestamp: (self.timestamp > 0).then_some(self.timestamp as f64),
            duration: Some(self.duration as f64),
            local_endpoint: self.local_endpoint.map(PbEndpoint::into_json),
            remote_endpoint: self.remote_endpoint.map(PbEndpoint::into_json),
            annotations: Some(
                self.annotations
                    .into_iter()
                    .map(|a| Annotation { timestamp: a.timestamp as f64, value: a.value })
                    .collect(),
            ),
            tags: Some(tags.into_iter().map(|(n, v)| (n, v.into())).collect()),
            debug: Some(self.debug),
            shared: Some(self.shared),
        }
    }
}

impl PbEndpoint {
    fn into_json(self) -> Endpoint {
        let v4 = <[u8; 4]>::try_from(self.ipv4.as_slice()).ok().map(|b| Ipv4Addr::from(b).to_string());
        let v6 = <[u8; 16]>::try_from(self.ipv6.as_slice()).ok().map(|b| Ipv6Addr::from(b).to_string());
        Endpoint {
            service_name: Some(self.service_name),
            ipv4: v4,
            ipv6: v6,
            port: Some(i64::from(self.port)),
        }
    }
}
