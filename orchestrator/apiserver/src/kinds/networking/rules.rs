//! What may come in, and how, must be this (kubernetes: pkg/apis/networking/validation/validation.go).

use apimachinery::name;
use serde_json::Value;

use super::super::check::{At, within};
use crate::validation::Errors;

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const CONTROLLER_MAX: u64 = 250;

pub(super) fn ingress(o: &Value, errors: &mut Errors) {
    let spec = At::root(o).of("spec");
    if spec.len("rules") == 0 && !spec.of("defaultBackend").given() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.invalid("spec", &Value::Null, detail);
    }
    if let Some(default) = spec.get("defaultBackend") {
        backend(&default, errors);
    }
    for rule in spec.each("rules") {
        host(&rule.of("host"), errors);
        let Some(http) = rule.get("http") else { continue };
        if http.len("paths") == 0 {
            errors.required(http.of("paths").path, "");
        }
        for path in http.each("paths") {
            http_path(&path, errors);
        }
    }
    for tls in spec.each("tls") {
        for host in tls.each("hosts") {
            let star = host.str().contains('*');
            host.name(if star { name::wildcard_subdomain } else { name::dns_subdomain }, errors);
        }
        tls.of("secretName").name_if(name::dns_subdomain, errors);
    }
    if let Some(class) = spec.get("ingressClassName") {
        class.name(name::dns_subdomain, errors);
    }
}

/// Of the two ways to name a class, both say the same.
pub(super) fn new_ingress(o: &Value, errors: &mut Errors) {
    let o = At::root(o);
    let annotation = o.of("metadata.annotations").v.get(CLASS_ANNOTATION);
    let class = o.of("spec.ingressClassName");
    if let Some(value) = annotation.filter(|a| class.given() && *a != class.v) {
        let detail = "must match `ingressClassName` when both are specified";
        errors.invalid(format!("annotations.{CLASS_ANNOTATION}"), value, detail);
    }
}

fn host(host: &At<'_>, errors: &mut Errors) {
    if host.str().is_empty() {
        return;
    }
    if host.str().parse::<std::net::IpAddr>().is_ok() {
        host.invalid("must be a DNS name, not an IP address", errors);
    }
    let star = host.str().contains('*');
    host.name(if star { name::wildcard_subdomain } else { name::dns_subdomain }, errors);
}

fn http_path(p: &At<'_>, errors: &mut Errors) {
    const ABSOLUTE: &str = "must be an absolute path";
    let (kind, path) = (p.of("pathType"), p.of("path"));
    let text = path.str();
    match kind.v.as_str() {
        None => return errors.required(kind.path.as_str(), "pathType must be specified"),
        Some("Exact" | "Prefix") => {
            if !text.starts_with('/') {
                errors.invalid(path.path.as_str(), text, ABSOLUTE);
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"] {
                if text.contains(part) {
                    path.invalid(&format!("must not contain '{part}'"), errors);
                }
            }
            for end in ["/..", "/."] {
                if text.ends_with(end) {
                    path.invalid(&format!("cannot end with '{end}'"), errors);
                }
            }
        }
        Some("ImplementationSpecific") => {
            if !text.is_empty() && !text.starts_with('/') {
                path.invalid(ABSOLUTE, errors);
            }
        }
        Some(_) => kind.one_of(&["Exact", "ImplementationSpecific", "Prefix"], errors),
    }
    backend(&p.of("backend"), errors);
}

fn backend(b: &At<'_>, errors: &mut Errors) {
    let (service, resource) = (b.of("service"), b.of("resource"));
    match (service.given(), resource.given()) {
        (true, true) => errors.invalid(b.path.as_str(), "", "cannot set both resource and service backends"),
        (false, true) => reference(&resource, errors),
        (false, false) => {
            errors.invalid(b.path.as_str(), "", "resource or service backend is required");
        }
        (true, false) => {
            service.of("name").must_be_name(name::dns1035_label, errors);
            let (named, number) = (service.of("port.name"), service.of("port.number"));
            match (!named.str().is_empty(), number.v.as_i64().unwrap_or(0) != 0) {
                (true, true) => {
                    errors.invalid(b.path.as_str(), "", "cannot set both port name & port number");
                }
                (true, false) => named.name(name::port_name, errors),
                (false, true) => number.port_number(errors),
                (false, false) => errors.required(b.path.as_str(), "port name or number is required"),
            }
        }
    }
}

/// A kind and a name of an object.
fn reference(r: &At<'_>, errors: &mut Errors) {
    if let Some(group) = r.get("apiGroup") {
        group.name(name::dns_subdomain, errors);
    }
    for field in ["kind", "name"] {
        let at = r.of(field);
        if at.required_for(&format!("{field} is required"), errors) {
            at.name(name::path_segment, errors);
        }
    }
}

pub(super) fn class(o: &Value, errors: &mut Errors) {
    let spec = At::root(o).of("spec");
    let controller = spec.of("controller");
    if controller.str().len() as u64 > CONTROLLER_MAX {
        errors.too_long(controller.path.as_str(), CONTROLLER_MAX);
    }
    controller.domain_path(errors);
    let Some(parameters) = spec.get("parameters") else { return };
    reference(&parameters, errors);
    let (scope, namespace) = (parameters.of("scope"), parameters.of("namespace"));
    scope.one_of(&["Cluster", "Namespace"], errors);
    match (scope.str(), namespace.given()) {
        ("Namespace", false) => {
            errors.required(namespace.path.as_str(), "`parameters.scope` is set to 'Namespace'");
        }
        ("Namespace", true) => namespace.name(name::dns_label, errors),
        ("Cluster", true) => namespace.forbidden("`parameters.scope` is set to 'Cluster'", errors),
        _ => {}
    }
}

pub(super) fn policy(o: &Value, errors: &mut Errors) {
    let spec = At::root(o).of("spec");
    spec.of("podSelector").selector(errors);
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.each(rules) {
            rule.each("ports").for_each(|p| policy_port(&p, errors));
            rule.each(peers).for_each(|p| peer(&p, errors));
        }
    }
    let types = spec.of("policyTypes");
    if spec.len("policyTypes") > 2 {
        return types.invalid("may not specify more than two policyTypes", errors);
    }
    types.items().for_each(|t| t.one_of(&["Egress", "Ingress"], errors));
}

fn policy_port(p: &At<'_>, errors: &mut Errors) {
    p.of("protocol").one_of(&["SCTP", "TCP", "UDP"], errors);
    let (first, last) = (p.of("port"), p.of("endPort"));
    if first.given() {
        first.port(errors);
    }
    if let Some(n) = last.v.as_i64() {
        match (first.given(), first.v.as_i64()) {
            (false, _) => last.invalid("may not be specified when `port` is not specified", errors),
            (true, None) => last.invalid("may not be specified when `port` is non-numeric", errors),
            (true, Some(first)) if n < first => {
                last.invalid("must be greater than or equal to `port`", errors);
            }
            (true, Some(_)) => last.port_number(errors),
        }
    }
}

fn peer(peer: &At<'_>, errors: &mut Errors) {
    let selectors = ["podSelector", "namespaceSelector"].map(|s| peer.of(s));
    selectors.iter().for_each(|s| s.selector(errors));
    let block = peer.of("ipBlock");
    if block.given() {
        ip_block(&block, errors);
    }
    match (selectors.iter().any(At::given), block.given()) {
        (true, true) => peer.forbidden("may not specify both ipBlock and another peer", errors),
        (false, false) => errors.required(peer.path.as_str(), "must specify a peer"),
        _ => {}
    }
}

fn ip_block(block: &At<'_>, errors: &mut Errors) {
    let cidr = block.of("cidr");
    if !cidr.required(errors) {
        return;
    }
    let Some(whole) = cidr.cidr(errors) else { return };
    for except in block.each("except") {
        let Some(part) = except.cidr(errors) else { return };
        if part.1 == whole.1 || !within(part, whole) {
            except.invalid("must be a strict subset of `cidr`", errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn policies() {
        let check = |rule: Value, expect: &str| {
            let mut errors = Errors::default();
            policy(&json!({"spec": {"podSelector": {}, "ingress": [rule]}}), &mut errors);
            assert_eq!(errors.to_string(), expect);
        };
        let at = "spec.ingress[0].ports[0]";
        let port = |p: Value| json!({"ports": [p]});
        check(
            port(json!({"port": 0})),
            &format!("{at}.port: Invalid value: 0: must be between 1 and 65535, inclusive"),
        );
        check(
            port(json!({"protocol": "ICMP", "port": 1})),
            &format!(
                "{at}.protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\""
            ),
        );
        check(
            port(json!({"endPort": 2})),
            &format!("{at}.endPort: Invalid value: 2: may not be specified when `port` is not specified"),
        );
        check(
            port(json!({"port": "web", "endPort": 2})),
            &format!("{at}.endPort: Invalid value: 2: may not be specified when `port` is non-numeric"),
        );
        check(
            port(json!({"port": 3, "endPort": 2})),
            &format!("{at}.endPort: Invalid value: 2: must be greater than or equal to `port`"),
        );
        check(
            json!({"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}}]}),
            "spec.ingress[0].from[0].podSelector.matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        );
    }
}
