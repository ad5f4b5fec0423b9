//! Endpoints and EndpointSlices: where a service's traffic goes.

use std::collections::HashSet;

use apimachinery::name;
use serde_json::Value;
use signal::Timestamp;

use super::check::At;
use super::service::rules;
use super::{AGE, BASE, Kind, NAME, column};
use crate::validation::Errors;
use crate::{object, table};

pub(crate) static ENDPOINTS: Kind = Kind {
    resource: "endpoints",
    singular: "endpoints",
    kind: "Endpoints",
    short: &["ep"],
    deprecated: "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    default: default_endpoints,
    validate: validate_endpoints,
    columns: &[NAME, column("Endpoints"), AGE],
    row: endpoints_row,
    ..BASE
};

pub(crate) static SLICE: Kind = Kind {
    group: "discovery.k8s.io",
    resource: "endpointslices",
    singular: "endpointslice",
    kind: "EndpointSlice",
    default: default_slice,
    validate: validate_slice,
    validate_update: |new, old, errors| {
        let at = "addressType";
        At::root(new).of(at).immutable(&At::root(old).of(at), errors);
    },
    columns: &[NAME, column("AddressType"), column("Ports"), column("Endpoints"), AGE],
    row: slice_row,
    ..BASE
};

fn default_endpoints(o: &mut Value) {
    for subset in object::list_mut(o, "subsets") {
        for port in object::list_mut(subset, "ports") {
            object::default_text(port, "protocol", "TCP");
        }
    }
}

fn default_slice(o: &mut Value) {
    object::default(o, "endpoints", Value::Array(Vec::new()));
    for endpoint in object::list_mut(o, "endpoints") {
        object::child(endpoint, "conditions");
    }
    for port in object::list_mut(o, "ports") {
        object::default(port, "name", "");
        object::default_text(port, "protocol", "TCP");
    }
}

/// What the ports of endpoints have in common.
fn validate_port(port: &At<'_>, errors: &mut Errors) {
    port.of("protocol").must_be_one_of(&["SCTP", "TCP", "UDP"], errors);
    if let Some(protocol) = port.get("appProtocol") {
        protocol.name(name::qualified_name, errors);
    }
}

/// kubernetes: pkg/apis/core/validation/validation.go validateEndpointSubsets
fn validate_endpoints(o: &Value, errors: &mut Errors) {
    for subset in At::root(o).each("subsets") {
        if subset.len("addresses") + subset.len("notReadyAddresses") == 0 {
            errors.required(subset.path.as_str(), "must specify `addresses` or `notReadyAddresses`");
        }
        for address in ["addresses", "notReadyAddresses"].into_iter().flat_map(|list| subset.each(list)) {
            let ip = address.of("ip");
            let parsed = ip.address(errors);
            address.of("hostname").name_if(name::dns_label, errors);
            if let Some(node) = address.get("nodeName") {
                node.name(name::dns_subdomain, errors);
            }
            match parsed {
                Some(parsed) => rules::ordinary(&ip, parsed, errors),
                None => errors.invalid(ip.path.as_str(), ip.str(), "must be a valid IP address"),
            }
        }
        for port in subset.each("ports") {
            let name = port.of("name");
            if subset.len("ports") > 1 && name.str().is_empty() {
                errors.required(name.path.as_str(), "");
            }
            name.name_if(name::dns_label, errors);
            port.of("port").port_number(errors);
            validate_port(&port, errors);
        }
    }
}

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;

/// kubernetes: pkg/apis/discovery/validation/validation.go
fn validate_slice(o: &Value, errors: &mut Errors) {
    let o = At::root(o);
    let kind = o.of("addressType");
    kind.must_be_one_of(&["FQDN", "IPv4", "IPv6"], errors);
    let at_most = |list: &At<'_>, n: usize, max: usize, errors: &mut Errors| {
        if n > max {
            errors.too_many(list.path.as_str(), n as u64, max as u64);
        }
    };
    at_most(&o.of("endpoints"), o.len("endpoints"), ENDPOINTS_MAX, errors);
    for endpoint in o.each("endpoints") {
        let addresses = endpoint.of("addresses");
        if endpoint.len("addresses") == 0 {
            errors.required(addresses.path.as_str(), "must contain at least 1 address");
        }
        at_most(&addresses, endpoint.len("addresses"), ADDRESSES_MAX, errors);
        for address in addresses.items() {
            slice_address(&address, kind.str(), errors);
        }
        if let Some(node) = endpoint.get("nodeName") {
            node.name(name::dns_subdomain, errors);
        }
        if let Some(host) = endpoint.get("hostname") {
            host.name(name::dns_label, errors);
        }
    }
    let ports = o.of("ports");
    at_most(&ports, o.len("ports"), PORTS_MAX, errors);
    let mut names = HashSet::new();
    for port in ports.items() {
        let name = port.of("name");
        name.name_if(name::dns_label, errors);
        if !names.insert(name.str()) {
            errors.duplicate(name.path.as_str(), name.str());
        }
        validate_port(&port, errors);
    }
}

fn slice_address(address: &At<'_>, kind: &str, errors: &mut Errors) {
    match kind {
        "IPv4" | "IPv6" => {
            let Some(parsed) = address.address(errors) else { return };
            if parsed.is_ipv4() != (kind == "IPv4") {
                address.invalid(&format!("must be an {kind} address"), errors);
            }
            rules::ordinary(address, parsed, errors);
        }
        "FQDN" => {
            let plain = address.str().strip_suffix('.').unwrap_or(address.str());
            if !address.required(errors) {
            } else if let Err(why) = name::dns_subdomain(plain) {
                errors.invalid(address.path.as_str(), plain, &why);
            } else if !plain.contains('.') {
                let detail = "should be a domain with at least two segments separated by dots";
                errors.invalid(address.path.as_str(), plain, detail);
            }
        }
        _ => {}
    }
}

/// At most three, then how many more.
fn shorten(all: &[String]) -> Value {
    match all.len() {
        0 => "<none>".into(),
        1..=3 => all.join(",").into(),
        n => format!("{} + {} more...", all[..3].join(","), n - 3).into(),
    }
}

fn endpoints_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in object::list(o, "subsets") {
        for address in object::list(subset, "addresses") {
            let ip = address["ip"].as_str().unwrap_or_default();
            let ports = object::list(subset, "ports");
            if ports.is_empty() {
                all.push(ip.to_owned());
            }
            all.extend(ports.iter().map(|p| format!("{ip}:{}", p["port"])));
        }
    }
    vec![object::name(o).into(), shorten(&all), table::age(o, now)]
}

fn slice_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = object::list(o, "ports")
        .iter()
        .map(|p| match p["port"].as_i64() {
            Some(n) => n.to_string(),
            None => "*".to_owned(),
        })
        .collect();
    let addresses = object::list(o, "endpoints").iter().flat_map(|e| object::list(e, "addresses"));
    let addresses: Vec<String> = addresses.filter_map(|a| a.as_str().map(str::to_owned)).collect();
    let unset = |v: Value| if v == "<none>" { "<unset>".into() } else { v };
    vec![
        object::name(o).into(),
        object::text(o, "addressType").unwrap_or_default().into(),
        unset(shorten(&ports)),
        unset(shorten(&addresses)),
        table::age(o, now),
    ]
}
