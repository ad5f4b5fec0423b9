//! IPAddress and ServiceCIDR: which addresses services have, and out of which networks. Ours are kept by `addresses.rs`.

use apimachinery::name;
use serde_json::Value;
use signal::Timestamp;

use super::check::{At, canonical_address};
use super::{AGE, BASE, Kind, NAME, column};
use crate::validation::Errors;
use crate::{object, table};

pub(crate) const GROUP: &str = "networking.k8s.io";

pub(crate) static ADDRESS: Kind = Kind {
    group: GROUP,
    resource: "ipaddresses",
    singular: "ipaddress",
    kind: "IPAddress",
    short: &["ip"],
    namespaced: false,
    name_rule: canonical_address,
    validate_create: parent,
    validate_update: |new, old, errors| {
        let at = "spec.parentRef";
        At::root(new).of(at).immutable(&At::root(old).of(at), errors);
    },
    fields: &[
        "spec.parentRef.group",
        "spec.parentRef.resource",
        "spec.parentRef.namespace",
        "spec.parentRef.name",
    ],
    columns: &[NAME, column("ParentRef"), AGE],
    row: address_row,
    ..BASE
};

pub(crate) static CIDR: Kind = Kind {
    group: GROUP,
    resource: "servicecidrs",
    singular: "servicecidr",
    kind: "ServiceCIDR",
    namespaced: false,
    status: true,
    prepare_create: |o| o["status"] = serde_json::json!({}),
    validate_create: cidrs,
    validate_update: cidrs_stay,
    columns: &[NAME, column("CIDRs"), AGE],
    row: cidr_row,
    ..BASE
};

fn parent(o: &Value, errors: &mut Errors) {
    let parent = At::root(o).of("spec.parentRef");
    if !parent.given() {
        return errors.required(parent.path, "");
    }
    parent.of("group").name_if(name::dns_subdomain, errors);
    parent.of("resource").must_be_name(name::path_segment, errors);
    parent.of("name").must_be_name(name::path_segment, errors);
    parent.of("namespace").name_if(name::path_segment, errors);
}

fn cidrs(o: &Value, errors: &mut Errors) {
    let all = At::root(o).of("spec.cidrs");
    let count = all.v.as_array().map_or(0, Vec::len);
    if count == 0 {
        return errors.required(all.path, "at least one CIDR required");
    }
    if count > 2 {
        return errors.invalid(all.path.as_str(), &o["spec"], "may only hold up to 2 values");
    }
    let families: Vec<_> =
        all.clone().items().map(|c| c.canonical_cidr(errors).map(|ip| ip.is_ipv4())).collect();
    if let [Some(a), Some(b)] = families[..]
        && a == b
    {
        all.invalid(
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
            errors,
        );
    }
}

/// A network of the other family may be added.
fn cidrs_stay(new: &Value, old: &Value, errors: &mut Errors) {
    const STAYS: &str = "field is immutable";
    let at = At::root(new).of("spec.cidrs");
    let (now, before) = (object::list(new, "spec.cidrs"), object::list(old, "spec.cidrs"));
    let added = before.len() == 1 && now.len() == 2;
    if now.len() != before.len() && !added {
        return at.invalid(STAYS, errors);
    }
    for (item, _) in at.items().zip(before).filter(|(item, before)| item.v != *before) {
        item.invalid(STAYS, errors);
    }
    if added {
        cidrs(new, errors);
    }
}

fn address_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let parent = object::get(o, "spec.parentRef").map_or_else(
        || "<none>".to_owned(),
        |p| {
            let of = |k: &str| object::text(p, k).unwrap_or_default();
            let dot = if of("group").is_empty() { "" } else { "." };
            let resource = format!("{}{dot}{}", of("resource"), of("group")).to_lowercase();
            let parts = [resource.as_str(), of("namespace"), of("name")];
            parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("/")
        },
    );
    vec![object::name(o).into(), parent.into(), table::age(o, now)]
}

fn cidr_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let all: Vec<&str> = object::list(o, "spec.cidrs").iter().filter_map(Value::as_str).collect();
    vec![object::name(o).into(), all.join(",").into(), table::age(o, now)]
}
