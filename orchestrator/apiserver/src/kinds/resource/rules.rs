//! What claims of devices, their classes and the devices themselves must be
//! (kubernetes: pkg/apis/resource/validation/validation.go).

use std::collections::HashSet;
use std::sync::LazyLock;

use apimachinery::name;
use expression::Type;
use regex::Regex;
use serde_json::Value;

use super::super::check::At;
use super::super::pod_parts::{self, driver_name};
use crate::object;
use crate::validation::Errors;

/// Requests, constraints, configurations, selectors of one list.
const MOST: usize = 32;
const MOST_ALTERNATIVES: usize = 8;
const MOST_DEVICES: usize = 128;
/// Of a slice with taints or shared counters.
const MOST_ADVANCED_DEVICES: usize = 64;
const MOST_RESERVED: usize = 256;
const MOST_RESULTS: usize = 32;
const MOST_ATTRIBUTES: usize = 32;
const EXPRESSION_MAX: usize = 10 << 10;
const PARAMETERS_MAX: usize = 10 << 10;
const POOL_MAX: usize = 253;
const DOMAIN_MAX: usize = 63;
const ID_MAX: usize = 32;
const VALUE_MAX: usize = 64;

/// semver.org, 2.0.0.
static SEMVER: LazyLock<Regex> = LazyLock::new(|| {
    let number = r"(0|[1-9]\d*)";
    let pre = r"(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)";
    let build = r"[0-9a-zA-Z-]+";
    let form = format!(r"^{number}\.{number}\.{number}(-{pre}(\.{pre})*)?(\+{build}(\.{build})*)?$");
    Regex::new(&form).expect("a constant expression")
});

pub(super) fn claim(spec: &At<'_>, errors: &mut Errors) {
    let devices = spec.of("devices");
    let names = requests(&devices);
    set(&devices.of("requests"), MOST, "name", errors, request);
    bounded(&devices.of("constraints"), MOST, errors, |c, errors| {
        references(&c.of("requests"), &names, errors);
        let (same, distinct) = (c.of("matchAttribute"), c.of("distinctAttribute"));
        if same.given() {
            qualified(&same, errors);
        } else if distinct.given() {
            qualified(&distinct, errors);
        } else {
            let why = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
            errors.required(c.path.as_str(), why);
        }
    });
    bounded(&devices.of("config"), MOST, errors, |c, errors| {
        references(&c.of("requests"), &names, errors);
        configuration(c, errors);
    });
}

/// The names that requests go by: their own, and with those of their alternatives behind a slash.
fn requests(devices: &At<'_>) -> HashSet<String> {
    let mut all = HashSet::new();
    for r in devices.each("requests") {
        let of = r.text("name");
        all.extend(r.each("firstAvailable").map(|s| format!("{of}/{}", s.text("name"))));
        all.insert(of.to_owned());
    }
    all
}

fn request(r: &At<'_>, errors: &mut Errors) {
    r.of("name").name(name::dns_label, errors);
    let (exactly, first) = (r.of("exactly"), r.of("firstAvailable"));
    match (exactly.given(), r.len("firstAvailable") > 0) {
        (false, false) => {
            errors.required(r.path.as_str(), "exactly one of `exactly` or `firstAvailable` is required");
        }
        (true, true) => errors.invalid(
            r.path.as_str(),
            &Value::Null,
            "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
        ),
        (true, false) => devices_asked(&exactly, errors),
        (false, true) => set(&first, MOST_ALTERNATIVES, "name", errors, |s, errors| {
            s.of("name").name(name::dns_label, errors);
            devices_asked(s, errors);
        }),
    }
}

fn devices_asked(r: &At<'_>, errors: &mut Errors) {
    r.of("deviceClassName").must_be_name(name::dns_subdomain, errors);
    selectors(&r.of("selectors"), errors);
    let (mode, count) = (r.of("allocationMode"), r.of("count"));
    let n = count.v.as_i64().unwrap_or(0);
    match mode.str() {
        "All" if n != 0 => {
            errors.invalid(count.path, n, "must not be specified when allocationMode is 'All'");
        }
        "ExactCount" if n <= 0 => errors.invalid(count.path, n, "must be greater than zero"),
        "All" | "ExactCount" => {}
        other => errors.not_supported(mode.path.as_str(), other, &["All", "ExactCount"]),
    }
    r.each("tolerations").for_each(|t| toleration(&t, errors));
}

fn toleration(t: &At<'_>, errors: &mut Errors) {
    let (key, operator, value) = (t.of("key"), t.of("operator"), t.of("value"));
    key.name_if(name::qualified_name, errors);
    match operator.str() {
        "Exists" => {
            if !value.str().is_empty() {
                value.invalid("must be empty for operator `Exists`", errors);
            }
        }
        "Equal" => {
            if key.str().is_empty() {
                errors.required(key.path, "must be specified when operator is `Equal`");
            }
            value.name(name::label_value, errors);
        }
        "" => errors.required(operator.path, ""),
        other => errors.not_supported(operator.path.as_str(), other, &["Equal", "Exists"]),
    }
    let effect = t.of("effect");
    if !effect.str().is_empty() {
        effect.one_of(&["NoExecute", "NoSchedule", "None"], errors);
    }
}

pub(super) fn selectors(all: &At<'_>, errors: &mut Errors) {
    bounded(all, MOST, errors, |s, errors| {
        let Some(source) = s.get("cel.expression") else {
            return errors.required(s.of("cel").path, "");
        };
        if source.str().len() > EXPRESSION_MAX {
            return errors.too_long(source.path, EXPRESSION_MAX as u64);
        }
        let anything = || Type::map(Type::String(None), Type::map(Type::String(None), Type::Dyn));
        let device = Type::object(
            "kubernetes.DRADevice",
            [
                ("driver".to_owned(), Type::String(None)),
                ("allowMultipleAllocations".to_owned(), Type::Bool),
                ("attributes".to_owned(), anything()),
                ("capacity".to_owned(), anything()),
            ],
        );
        match expression::compile(source.str(), &[("device", device)]) {
            Err(e) => source.invalid(&format!("compilation failed: {e}"), errors),
            Ok(p) if !p.is_bool() => source.invalid("must evaluate to bool", errors),
            Ok(_) => {}
        }
    });
}

fn configuration(c: &At<'_>, errors: &mut Errors) {
    let opaque = c.of("opaque");
    if !opaque.given() {
        return errors.required(opaque.path, "");
    }
    driver_name(&opaque.of("driver"), errors);
    let parameters = opaque.of("parameters");
    match parameters.v {
        Value::Null => errors.required(parameters.path, ""),
        Value::Object(_) if parameters.v.to_string().len() > PARAMETERS_MAX => {
            errors.too_long(parameters.path, PARAMETERS_MAX as u64);
        }
        Value::Object(_) => {}
        _ => errors.invalid(parameters.path, "<value omitted>", "must be a valid JSON object"),
    }
}

fn references(names: &At<'_>, known: &HashSet<String>, errors: &mut Errors) {
    const WHY: &str = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    let mut seen = HashSet::new();
    bounded(names, MOST, errors, |n, errors| {
        if !seen.insert(n.str().to_owned()) {
            return errors.duplicate(n.path.as_str(), n.str());
        }
        reference(n, known, WHY, errors);
    });
}

fn reference(n: &At<'_>, known: &HashSet<String>, why: &str, errors: &mut Errors) {
    let parts: Vec<&str> = n.str().split('/').collect();
    if parts.len() > 2 {
        return n.invalid(why, errors);
    }
    for part in parts {
        if let Err(why) = name::dns_label(part) {
            errors.invalid(n.path.as_str(), part, &why);
        }
    }
    if !known.contains(n.str()) {
        n.invalid(why, errors);
    }
}

/// `domain/identifier`
fn qualified(at: &At<'_>, errors: &mut Errors) {
    if !at.required_for("name required", errors) {
        return;
    }
    match at.str().split_once('/') {
        None => at.invalid("must include a domain", errors),
        Some((domain, id)) => {
            if domain.is_empty() {
                errors.required(at.path.as_str(), "the domain must not be empty");
            } else {
                domain_of(at, domain, errors);
            }
            if id.is_empty() {
                errors.required(at.path.as_str(), "the name must not be empty");
            } else {
                identifier(at, id, errors);
            }
        }
    }
}

fn domain_of(at: &At<'_>, domain: &str, errors: &mut Errors) {
    if domain.len() > DOMAIN_MAX {
        errors.too_long(at.path.as_str(), DOMAIN_MAX as u64);
    }
    if let Err(why) = name::dns_subdomain(domain) {
        errors.invalid(at.path.as_str(), domain, &why);
    }
}

fn identifier(at: &At<'_>, id: &str, errors: &mut Errors) {
    const WHY: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
    if id.len() > ID_MAX {
        errors.too_long(at.path.as_str(), ID_MAX as u64);
    }
    let begins = id.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !begins || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        errors.invalid(at.path.as_str(), id, WHY);
    }
}

/// A list that is not too long.
fn bounded(list: &At<'_>, most: usize, errors: &mut Errors, mut judge: impl FnMut(&At<'_>, &mut Errors)) {
    let count = list.v.as_array().map_or(0, Vec::len);
    if count > most {
        return errors.too_many(list.path.as_str(), count as u64, most as u64);
    }
    list.clone().items().for_each(|item| judge(&item, errors));
}

/// As [`bounded`], of items that differ in `key`.
fn set(list: &At<'_>, most: usize, key: &str, errors: &mut Errors, judge: fn(&At<'_>, &mut Errors)) {
    let mut seen = HashSet::new();
    bounded(list, most, errors, |item, errors| {
        judge(item, errors);
        let id = item.text(key);
        if !seen.insert(id.to_owned()) {
            errors.duplicate(item.path.as_str(), id);
        }
    });
}

pub(super) fn class(o: &Value, errors: &mut Errors) {
    let spec = At::root(o).of("spec");
    selectors(&spec.of("selectors"), errors);
    bounded(&spec.of("config"), MOST, errors, configuration);
    if let Some(extended) = spec.get("extendedResourceName")
        && !super::super::resources::is_extended(extended.str())
    {
        extended.invalid("must be a valid extended resource name", errors);
    }
}

/// Who uses a claim, and what was given for it.
pub(super) fn claim_status(new: &Value, old: &Value, errors: &mut Errors) {
    let status = At::root(new).of("status");
    let reserved = status.of("reservedFor");
    set(&reserved, MOST_RESERVED, "uid", errors, |r, errors| {
        for key in ["resource", "name", "uid"] {
            r.of(key).required(errors);
        }
    });
    let (before, now) = (At::root(old).of("status.allocation"), status.of("allocation"));
    if status.len("reservedFor") > 0 {
        let known = object::list(old, "status.reservedFor");
        if !now.given() {
            reserved.forbidden("may not be specified when `allocated` is not set", errors);
        } else if object::is_deleting(new) && !reserved.clone().items().all(|r| known.contains(r.v)) {
            let why =
                "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            reserved.forbidden(why, errors);
        }
    }
    if before.given() && now.given() {
        now.immutable(&before, errors);
    } else if now.given() {
        allocation(&now, &requests(&At::root(new).of("spec.devices")), errors);
    }
}

fn allocation(a: &At<'_>, names: &HashSet<String>, errors: &mut Errors) {
    const WHY: &str = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    bounded(&a.of("devices.results"), MOST_RESULTS, errors, |r, errors| {
        reference(&r.of("request"), names, WHY, errors);
        driver_name(&r.of("driver"), errors);
        pool_name(&r.of("pool"), errors);
        r.of("device").name(name::dns_label, errors);
    });
    bounded(&a.of("devices.config"), 2 * MOST, errors, |c, errors| {
        c.of("source").must_be_one_of(&["FromClaim", "FromClass"], errors);
        references(&c.of("requests"), names, errors);
        configuration(c, errors);
    });
    if let Some(selector) = a.get("nodeSelector") {
        pod_parts::node_selector(selector.v, &selector.path, errors);
    }
}

fn pool_name(pool: &At<'_>, errors: &mut Errors) {
    if !pool.required(errors) {
        return;
    }
    if pool.str().len() > POOL_MAX {
        errors.too_long(pool.path.as_str(), POOL_MAX as u64);
    }
    for part in pool.str().split('/') {
        if let Err(why) = name::dns_subdomain(part) {
            errors.invalid(pool.path.as_str(), part, &why);
        }
    }
}

pub(super) fn slice(o: &Value, errors: &mut Errors) {
    let spec = At::root(o).of("spec");
    driver_name(&spec.of("driver"), errors);
    let pool = spec.of("pool");
    pool_name(&pool.of("name"), errors);
    let count = pool.int("resourceSliceCount").unwrap_or(0);
    if count <= 0 {
        errors.invalid(pool.of("resourceSliceCount").path, count, "must be greater than zero");
    }
    pool.of("generation").not_negative(errors);
    nodes(&spec, errors);
    let shared = spec.of("sharedCounters");
    if shared.given() && spec.of("devices").given() {
        errors.invalid(spec.path.as_str(), "", "only one of `sharedCounters` or `devices` is allowed");
    }
    let advanced = spec.each("devices").any(|d| d.len("taints") > 0 || d.len("consumesCounters") > 0);
    let most = if advanced { MOST_ADVANCED_DEVICES } else { MOST_DEVICES };
    set(&spec.of("devices"), most, "name", errors, |d, errors| {
        d.of("name").name(name::dns_label, errors);
        device(d, errors);
    });
}

/// The one way to say which nodes the devices are at.
fn nodes(spec: &At<'_>, errors: &mut Errors) {
    let mut given = Vec::new();
    if let Some(node) = spec.get("nodeName") {
        if node.str().is_empty() {
            node.invalid("must be either unset or set to a non-empty string", errors);
        } else {
            given.push("`nodeName`");
            node.name(name::dns_subdomain, errors);
        }
    }
    if let Some(selector) = spec.get("nodeSelector") {
        given.push("`nodeSelector`");
        pod_parts::node_selector(selector.v, &selector.path, errors);
        if selector.len("nodeSelectorTerms") != 1 {
            selector.of("nodeSelectorTerms").invalid("must have exactly one node selector term", errors);
        }
    }
    for (field, words) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")]
    {
        match spec.get(field) {
            Some(f) if f.v == true => given.push(words),
            Some(f) => f.invalid("must be either unset or set to true", errors),
            None => {}
        }
    }
    const ONE: &str =
        "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match given.len() {
        0 => errors.required(spec.path.as_str(), ONE),
        1 => {}
        _ => {
            let all = format!("{{{}}}", given.join(", "));
            let why = format!("{ONE}, but multiple fields are set");
            errors.invalid(spec.path.as_str(), all.as_str(), &why);
        }
    }
}

fn device(d: &At<'_>, errors: &mut Errors) {
    let (attributes, capacity) = (d.len("attributes"), d.len("capacity"));
    if attributes + capacity > MOST_ATTRIBUTES {
        let why = format!("the total number of attributes and capacities must not exceed {MOST_ATTRIBUTES}");
        errors.invalid(d.path.as_str(), (attributes + capacity) as i64, &why);
    }
    for (key, attribute) in d.entries("attributes") {
        device_key(&attribute, key, errors);
        let given = ["bool", "int", "string", "version"].iter().filter(|k| attribute.of(k).given()).count();
        match given {
            0 => errors.invalid(attribute.path.as_str(), "", "exactly one value must be specified"),
            1 => {}
            _ => attribute.invalid("exactly one value must be specified", errors),
        }
        for field in ["string", "version"] {
            let Some(value) = attribute.get(field) else { continue };
            if field == "version" && !SEMVER.is_match(value.str()) {
                value.invalid("must be a string compatible with semver.org spec 2.0.0", errors);
            }
            if value.str().len() > VALUE_MAX {
                errors.too_long(value.path, VALUE_MAX as u64);
            }
        }
    }
    for (key, capacity) in d.entries("capacity") {
        device_key(&capacity, key, errors);
    }
    for taint in d.each("taints") {
        taint.of("key").must_be_name(name::qualified_name, errors);
        taint.of("value").name_if(name::label_value, errors);
        taint.of("effect").must_be_one_of(&["NoExecute", "NoSchedule", "None"], errors);
    }
}

/// An identifier, with a domain if it is not the driver's.
fn device_key(at: &At<'_>, key: &str, errors: &mut Errors) {
    match key.split_once('/') {
        None => identifier(at, key, errors),
        Some((domain, id)) => {
            domain_of(at, domain, errors);
            identifier(at, id, errors);
        }
    }
}

pub(super) fn slice_stays(new: &Value, old: &Value, errors: &mut Errors) {
    for path in ["spec.pool.name", "spec.driver", "spec.nodeName"] {
        At::root(new).of(path).immutable(&At::root(old).of(path), errors);
    }
}
