//! Endpoints and EndpointSlices: where a service's traffic goes.

use serde_json::Value;
use signal::Timestamp;

use super::{AGE, BASE, Kind, NAME, column};
use crate::validation::Errors;
use crate::{object, table};

pub(crate) static ENDPOINTS: Kind = Kind {
    resource: "endpoints",
    singular: "endpoints",
    kind: "Endpoints",
    short: &["ep"],
    default: default_endpoints,
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
        errors.immutable("addressType", new.get("addressType"), old.get("addressType"));
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

fn validate_slice(o: &Value, errors: &mut Errors) {
    match object::text(o, "addressType") {
        Some("IPv4" | "IPv6" | "FQDN") => {}
        None | Some("") => errors.required("addressType", ""),
        Some(other) => errors.not_supported("addressType", other, &["FQDN", "IPv4", "IPv6"]),
    }
    for (i, e) in object::list(o, "endpoints").iter().enumerate() {
        let n = object::list(e, "addresses").len();
        if n == 0 {
            errors.required(format!("endpoints[{i}].addresses"), "must contain at least 1 address");
        } else if n > 100 {
            errors.invalid(format!("endpoints[{i}].addresses"), n as i64, "must have at most 100 items");
        }
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
