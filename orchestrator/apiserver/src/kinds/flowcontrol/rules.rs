//! What schemas and levels must be (kubernetes: pkg/apis/flowcontrol/validation/validation.go).

use apimachinery::name;
use serde_json::Value;

use super::super::check::At;
use crate::fairness::bootstrap;
use crate::object;
use crate::validation::Errors;

const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
const NON_NEGATIVE: &str = "must be a non-negative integer";
const MOST_QUEUES: i64 = 10_000_000;
/// Of the hash that deals hands.
const HASH_BITS: f64 = 60.0;

pub(super) fn schema(o: &Value, errors: &mut Errors) {
    let spec = At::root(o).of("spec");
    let precedence = spec.of("matchingPrecedence");
    let n = precedence.v.as_i64().unwrap_or(0);
    if n <= 0 {
        errors.invalid(precedence.path.as_str(), n, "must be a positive value");
    }
    if n > 10_000 {
        errors.invalid(precedence.path.as_str(), n, "must not be greater than 10000");
    }
    if n == 1 && object::name(o) != "exempt" {
        let why = "only the schema named 'exempt' may have matchingPrecedence 1";
        errors.invalid(precedence.path.as_str(), n, why);
    }
    if let Some(method) = spec.get("distinguisherMethod")
        && !matches!(method.text("type"), "ByNamespace" | "ByUser")
    {
        errors.not_supported_value(method.of("type").path, method.v, &["ByNamespace", "ByUser"]);
    }
    let level = spec.of("priorityLevelConfiguration.name");
    if level.required_for("must reference a priority level", errors) {
        level.name(name::dns_subdomain, errors);
    }
    spec.each("rules").for_each(|r| rule(&r, errors));
    if matches!(object::name(o), "exempt" | "catch-all") {
        fixed(o, &bootstrap::schemas(), errors);
    }
    conditions(o, errors);
}

/// The mandatory objects stay as they are.
fn fixed(o: &Value, all: &[Value], errors: &mut Errors) {
    let name = object::name(o);
    let same = all.iter().filter(|m| object::name(m) == name).all(|m| m["spec"] == o["spec"]);
    if !same {
        errors.invalid("spec", &o["spec"], &format!("spec of '{name}' must equal the fixed value"));
    }
}

pub(super) fn conditions(o: &Value, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for c in At::root(o).each("status.conditions") {
        let kind = c.of("type");
        if seen.contains(&kind.str()) {
            errors.duplicate(kind.path.as_str(), kind.str());
        }
        seen.push(kind.str());
        kind.required_for("must not be empty", errors);
    }
}

fn rule(rule: &At<'_>, errors: &mut Errors) {
    if rule.len("subjects") == 0 {
        errors.required(rule.of("subjects").path, "subjects must contain at least one value");
    }
    rule.each("subjects").for_each(|s| subject(&s, errors));
    if rule.len("resourceRules") + rule.len("nonResourceRules") == 0 {
        let why = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.required(rule.path.as_str(), why);
    }
    for r in rule.each("resourceRules") {
        verbs(&r, errors);
        for (field, one, others) in [
            ("apiGroups", "resource rules must supply at least one api group", "api groups"),
            ("resources", "resource rules must supply at least one resource", "resources"),
        ] {
            some(&r.of(field), one, others, errors);
        }
        let namespaces = r.of("namespaces");
        if r.len("namespaces") == 0 && !r.flag("clusterScope") {
            let why = "resource rules that are not cluster scoped must supply at least one namespace";
            errors.required(namespaces.path, why);
        } else if !alone(&namespaces, "namespaces", errors) {
            for ns in namespaces.items() {
                if let Err(why) = name::dns_label(ns.str()) {
                    for why in why.iter() {
                        let why = format!("each member of this list must be '*' or a DNS-1123 label; {why}");
                        ns.invalid(&why, errors);
                    }
                }
            }
        }
    }
    for r in rule.each("nonResourceRules") {
        verbs(&r, errors);
        let urls = r.of("nonResourceURLs");
        if !some(&urls, "nonResourceURLs must contain at least one value", "non-resource URLs", errors) {
            urls.items().for_each(|u| url(&u, errors));
        }
    }
}

fn subject(s: &At<'_>, errors: &mut Errors) {
    const KINDS: [(&str, &str); 3] =
        [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let kind = s.text("kind");
    let Some((_, part)) = KINDS.iter().find(|(k, _)| *k == kind) else {
        return errors.not_supported(s.of("kind").path, kind, &["Group", "ServiceAccount", "User"]);
    };
    let who = s.of(part);
    if who.given() {
        let named = who.of("name");
        if named.required(errors) && kind == "ServiceAccount" && named.str() != "*" {
            named.name(name::dns_subdomain, errors);
        }
        let space = who.of("namespace");
        if kind == "ServiceAccount"
            && space.required_for("must specify namespace for service account", errors)
        {
            space.name(name::dns_label, errors);
        }
    } else {
        errors.required(who.path, &format!("{part} is required when subject kind is '{kind}'"));
    }
    for (other, part) in KINDS.iter().filter(|(k, _)| *k != kind) {
        let at = s.of(part);
        if at.given() {
            at.forbidden(&format!("{part} is forbidden when subject kind is not '{other}'"), errors);
        }
    }
}

fn verbs(rule: &At<'_>, errors: &mut Errors) {
    let verbs = rule.of("verbs");
    if !some(&verbs, "verbs must contain at least one value", "verbs", errors)
        && !verbs.clone().items().all(|v| VERBS.contains(&v.str()))
    {
        errors.not_supported_value(verbs.path.as_str(), verbs.v, &VERBS);
    }
}

/// A list with something in it; tells whether there is nothing more to judge.
fn some(list: &At<'_>, one: &str, others: &str, errors: &mut Errors) -> bool {
    let none = list.v.as_array().is_none_or(Vec::is_empty);
    if none {
        errors.required(list.path.as_str(), one);
    }
    none || alone(list, others, errors)
}

/// Whether there is a star, which stands alone.
fn alone(list: &At<'_>, others: &str, errors: &mut Errors) -> bool {
    let items = list.v.as_array().map_or(&[][..], Vec::as_slice);
    let star = items.iter().any(|v| v == "*");
    if star && items.len() > 1 {
        list.invalid(&format!("if '*' is present, must not specify other {others}"), errors);
    }
    star
}

fn url(url: &At<'_>, errors: &mut Errors) {
    let path = url.str();
    let stars = path.matches('*').count();
    let why = if path.is_empty() {
        "must not be empty"
    } else if path == "/" {
        return;
    } else if !path.starts_with('/') {
        "must start with slash"
    } else if path.contains(' ') {
        "must not contain white-space"
    } else if path.contains("//") {
        "must not contain double slash"
    } else if stars > 1 || stars == 1 && !path.ends_with("/*") {
        "wildcard can only do suffix matching"
    } else {
        return;
    };
    url.invalid(why, errors);
}

pub(super) fn level(o: &Value, errors: &mut Errors) {
    let spec = At::root(o).of("spec");
    let (kind, limited, exempt) = (spec.of("type"), spec.of("limited"), spec.of("exempt"));
    if (object::name(o) == "exempt") != (kind.str() == "Exempt") {
        let why = "type must be 'Exempt' if and only if name is 'exempt'";
        errors.invalid(kind.path.as_str(), kind.str(), why);
    }
    match kind.str() {
        "Exempt" => {
            if limited.given() {
                limited.forbidden("must be nil if the type is not Limited", errors);
            }
            if exempt.given() {
                shares(&exempt, errors);
            } else {
                errors.required(exempt.path.as_str(), "must not be empty when type is Exempt");
            }
        }
        "Limited" => {
            if exempt.given() {
                exempt.forbidden("must be nil if the type is Limited", errors);
            }
            if limited.given() {
                shares(&limited, errors);
                let why = "if specified, must be a non-negative integer";
                limited.of("borrowingLimitPercent").at_least(0, why, errors);
                response(&limited.of("limitResponse"), errors);
            } else {
                errors.required(limited.path.as_str(), "must not be empty when type is Limited");
            }
        }
        other => errors.not_supported(kind.path.as_str(), other, &["Exempt", "Limited"]),
    }
    match object::name(o) {
        "catch-all" => fixed(o, &bootstrap::levels(), errors),
        // Its shares may be changed, and nothing else is in it.
        "exempt" if kind.str() != "Exempt" || limited.given() => {
            let why = "spec of 'exempt' except the 'spec.exempt' field must equal the fixed value";
            spec.invalid(why, errors);
        }
        _ => {}
    }
    conditions(o, errors);
}

fn shares(of: &At<'_>, errors: &mut Errors) {
    of.of("nominalConcurrencyShares").at_least(0, NON_NEGATIVE, errors);
    of.of("lendablePercent").between(0, 100, errors);
}

fn response(r: &At<'_>, errors: &mut Errors) {
    let queuing = r.of("queuing");
    match r.text("type") {
        "Reject" => {
            if queuing.given() {
                queuing.forbidden("must be nil if limited.limitResponse.type is not Limited", errors);
            }
        }
        "Queue" if queuing.given() => queues(&queuing, errors),
        "Queue" => {
            errors.required(queuing.path, "must not be empty if limited.limitResponse.type is Limited")
        }
        other => errors.not_supported(r.of("type").path, other, &["Queue", "Reject"]),
    }
}

fn queues(q: &At<'_>, errors: &mut Errors) {
    const POSITIVE: &str = "must be positive";
    let of = |name: &str| q.int(name).unwrap_or(0);
    let mut positive = |name: &str| {
        let n = of(name);
        if n <= 0 {
            errors.invalid(q.of(name).path, n, POSITIVE);
        }
        n > 0
    };
    positive("queueLengthLimit");
    let (queues, hand) = (of("queues"), of("handSize"));
    let (some_queues, some_hand) = (positive("queues"), positive("handSize"));
    if some_queues && queues > MOST_QUEUES {
        let why = format!("must not be greater than {MOST_QUEUES}");
        errors.invalid(q.of("queues").path, queues, &why);
    }
    if !some_hand {
        return;
    }
    let at = q.of("handSize").path;
    if hand > queues {
        errors.invalid(at, hand, &format!("should not be greater than queues ({queues})"));
    } else if (0..hand).map(|i| ((queues - i) as f64).log2()).sum::<f64>().ceil() > HASH_BITS {
        let why = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}"
        );
        errors.invalid(at, hand, &why);
    }
}
