//! What rules are written with: a value and the path it stands at, and the rules that many fields share
//! (kubernetes: pkg/apis/core/validation/validation.go, apimachinery: pkg/util/validation).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use apimachinery::name::Faults;
use apimachinery::quantity::Quantity;
use serde_json::Value;

use super::pod_parts;
use crate::object;
use crate::validation::Errors;

pub(crate) const NEGATIVE: &str = "must be greater than or equal to 0";
const ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
const QUANTITY: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// Bytes of all annotations of an object.
const ANNOTATIONS_MAX: usize = 256 << 10;

static NULL: Value = Value::Null;

/// A value, null where it is absent, and its path.
#[derive(Clone)]
pub(crate) struct At<'a> {
    pub(crate) v: &'a Value,
    pub(crate) path: String,
}

impl<'a> At<'a> {
    pub(crate) fn new(v: &'a Value, path: impl Into<String>) -> Self {
        At { v, path: path.into() }
    }

    /// A whole object.
    pub(crate) fn root(v: &'a Value) -> Self {
        At::new(v, "")
    }

    /// The same value, told of by another path.
    pub(crate) fn renamed(self, path: impl Into<String>) -> Self {
        At { v: self.v, path: path.into() }
    }

    /// Paths are made for every field that is looked at, most of which have no fault.
    fn under(&self, key: &str) -> String {
        let mut path = String::with_capacity(self.path.len() + 1 + key.len());
        if !self.path.is_empty() {
            path.push_str(&self.path);
            path.push('.');
        }
        path.push_str(key);
        path
    }

    /// The field, or the field of fields behind dots.
    pub(crate) fn of(&self, keys: &str) -> At<'a> {
        if keys.is_empty() {
            return self.clone();
        }
        At { v: object::get(self.v, keys).unwrap_or(&NULL), path: self.under(keys) }
    }

    /// As [`At::of`], if it is there.
    pub(crate) fn get(&self, keys: &str) -> Option<At<'a>> {
        let v = object::get(self.v, keys)?;
        Some(At { v, path: self.under(keys) })
    }

    /// The items of the list in a field.
    pub(crate) fn each(&self, keys: &str) -> impl Iterator<Item = At<'a>> + use<'a> {
        self.of(keys).items()
    }

    /// The items of a list.
    pub(crate) fn items(self) -> impl Iterator<Item = At<'a>> {
        let list = self.v.as_array().map_or(&[][..], Vec::as_slice);
        list.iter().enumerate().map(move |(i, v)| At { v, path: format!("{}[{i}]", self.path) })
    }

    /// The entries of the map in a field, each at `path[key]`.
    pub(crate) fn entries(&self, keys: &str) -> impl Iterator<Item = (&'a str, At<'a>)> + use<'a> {
        let map = self.of(keys);
        map.v.as_object().into_iter().flatten().map(move |(k, v)| {
            let at = At { v, path: format!("{}[{k}]", map.path) };
            (k.as_str(), at)
        })
    }

    pub(crate) fn given(&self) -> bool {
        !self.v.is_null()
    }

    pub(crate) fn len(&self, keys: &str) -> usize {
        match object::get(self.v, keys) {
            Some(Value::Array(l)) => l.len(),
            Some(Value::Object(m)) => m.len(),
            _ => 0,
        }
    }

    /// The text, empty where there is none.
    pub(crate) fn str(&self) -> &'a str {
        self.v.as_str().unwrap_or_default()
    }

    pub(crate) fn text(&self, keys: &str) -> &'a str {
        object::text(self.v, keys).unwrap_or_default()
    }

    pub(crate) fn int(&self, keys: &str) -> Option<i64> {
        object::int(self.v, keys)
    }

    pub(crate) fn flag(&self, keys: &str) -> bool {
        object::flag(self.v, keys)
    }

    /// The quantity that a value is, if it is one.
    pub(crate) fn quantity(&self) -> Option<Quantity> {
        match self.v {
            Value::String(s) => s.parse().ok(),
            Value::Number(n) => n.to_string().parse().ok(),
            _ => None,
        }
    }

    pub(crate) fn invalid(&self, detail: &str, errors: &mut Errors) {
        errors.invalid(self.path.as_str(), self.v, detail);
    }

    pub(crate) fn forbidden(&self, detail: &str, errors: &mut Errors) {
        errors.forbidden(self.path.as_str(), detail);
    }

    /// A text that must be there; tells whether it is.
    pub(crate) fn required(&self, errors: &mut Errors) -> bool {
        self.required_for("", errors)
    }

    pub(crate) fn required_for(&self, detail: &str, errors: &mut Errors) -> bool {
        let there = !self.str().is_empty();
        if !there {
            errors.required(self.path.as_str(), detail);
        }
        there
    }

    pub(crate) fn not_negative(&self, errors: &mut Errors) {
        self.at_least(0, NEGATIVE, errors);
    }

    pub(crate) fn at_least(&self, least: i64, detail: &str, errors: &mut Errors) {
        if let Some(n) = self.v.as_i64().filter(|n| *n < least) {
            errors.invalid(self.path.as_str(), n, detail);
        }
    }

    /// A number within bounds.
    pub(crate) fn between(&self, low: i64, high: i64, errors: &mut Errors) {
        if let Some(n) = self.v.as_i64().filter(|n| !(low..=high).contains(n)) {
            errors.invalid(self.path.as_str(), n, &format!("must be between {low} and {high}, inclusive"));
        }
    }

    /// If it is given, one of these.
    pub(crate) fn one_of(&self, supported: &[&str], errors: &mut Errors) {
        if let Some(given) = self.v.as_str().filter(|given| !supported.contains(given)) {
            errors.not_supported(self.path.as_str(), given, supported);
        }
    }

    /// One of these, and required.
    pub(crate) fn must_be_one_of(&self, supported: &[&str], errors: &mut Errors) {
        if self.required(errors) {
            self.one_of(supported, errors);
        }
    }

    /// A name after a rule, the empty one too.
    pub(crate) fn name(&self, rule: fn(&str) -> Result<(), Faults>, errors: &mut Errors) {
        if let Err(why) = rule(self.str()) {
            errors.invalid(self.path.as_str(), self.str(), &why);
        }
    }

    /// A name after a rule, if there is one.
    pub(crate) fn name_if(&self, rule: fn(&str) -> Result<(), Faults>, errors: &mut Errors) {
        if !self.str().is_empty() {
            self.name(rule, errors);
        }
    }

    /// A name that must be there, after a rule.
    pub(crate) fn must_be_name(&self, rule: fn(&str) -> Result<(), Faults>, errors: &mut Errors) {
        if self.required(errors) {
            self.name(rule, errors);
        }
    }

    /// The keys of a map that are label keys, and their values label values.
    pub(crate) fn labels(&self, errors: &mut Errors) {
        for (k, v) in self.v.as_object().into_iter().flatten() {
            if let Err(why) = apimachinery::name::qualified_name(k) {
                errors.invalid(self.path.as_str(), k.as_str(), &why);
            }
            if let Some(Err(why)) = v.as_str().map(apimachinery::name::label_value) {
                errors.invalid(self.path.as_str(), v, &why);
            }
        }
    }

    /// Keys as of labels but for their case, and not too much in all.
    pub(crate) fn annotations(&self, errors: &mut Errors) {
        let mut size = 0;
        for (k, v) in self.v.as_object().into_iter().flatten() {
            size += k.len() + v.as_str().map_or(0, str::len);
            if let Err(why) = apimachinery::name::qualified_name(&k.to_lowercase()) {
                errors.invalid(self.path.as_str(), k.as_str(), &why);
            }
        }
        if size > ANNOTATIONS_MAX {
            errors.too_long(self.path.as_str(), ANNOTATIONS_MAX as u64);
        }
    }

    /// `acme.io/foo`, which must be there.
    pub(crate) fn domain_path(&self, errors: &mut Errors) {
        const PATH: &str = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
        if !self.required(errors) {
            return;
        }
        match self.str().split_once('/') {
            Some((host, path)) if !host.is_empty() && !path.is_empty() => {
                if let Err(why) = apimachinery::name::dns_subdomain(host) {
                    errors.invalid(self.path.as_str(), host, &why);
                }
                let fits = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
                if !path.bytes().all(fits) {
                    errors.invalid(self.path.as_str(), path, PATH);
                }
            }
            _ => self.invalid("must be a domain-prefixed path (such as \"acme.io/foo\")", errors),
        }
    }

    /// The requirements of a label selector.
    pub(crate) fn selector(&self, errors: &mut Errors) {
        pod_parts::selector(self.v, &self.path, errors);
    }

    /// Whether a label selector has no requirements.
    pub(crate) fn selects_all(&self) -> bool {
        self.len("matchLabels") + self.len("matchExpressions") == 0
    }

    /// A port's number or name.
    pub(crate) fn port(&self, errors: &mut Errors) {
        pod_parts::port(self.v, &self.path, errors);
    }

    /// A port's number.
    pub(crate) fn port_number(&self, errors: &mut Errors) {
        At { v: &Value::from(self.v.as_i64().unwrap_or(0)), path: self.path.clone() }
            .between(1, 65535, errors);
    }

    /// An address; tells which.
    pub(crate) fn address(&self, errors: &mut Errors) -> Option<IpAddr> {
        let parsed = self.str().parse().ok();
        if parsed.is_none() {
            errors.invalid(self.path.as_str(), self.str(), ADDRESS);
        }
        parsed
    }

    /// An address and the length of its prefix.
    pub(crate) fn cidr(&self, errors: &mut Errors) -> Option<(IpAddr, u8)> {
        let parsed = parse_cidr(self.str());
        if parsed.is_none() {
            errors.invalid(self.path.as_str(), self.str(), CIDR);
        }
        parsed
    }

    /// A network in the one form it may be written in.
    pub(crate) fn canonical_cidr(&self, errors: &mut Errors) -> Option<IpAddr> {
        match canonical_cidr(self.str()) {
            Ok(base) => Some(base),
            Err(why) => {
                errors.invalid(self.path.as_str(), self.str(), &why);
                None
            }
        }
    }

    /// A number that is not negative, or a percentage.
    pub(crate) fn amount(&self, errors: &mut Errors) {
        match self.v {
            Value::Number(_) => self.not_negative(errors),
            Value::String(s) if percent(s).is_none() => self.invalid(PERCENT, errors),
            _ => {}
        }
    }

    /// The number, or the number before the percent sign.
    pub(crate) fn amount_value(&self) -> i64 {
        match self.v {
            Value::String(s) => percent(s).unwrap_or_else(|| s.parse().unwrap_or(0)),
            v => v.as_i64().unwrap_or(0),
        }
    }

    pub(crate) fn at_most_all(&self, errors: &mut Errors) {
        if self.v.as_str().and_then(percent).is_some_and(|p| p > 100) {
            self.invalid("must not be greater than 100%", errors);
        }
    }

    /// An amount of a resource: not negative.
    pub(crate) fn quantity_not_negative(&self, errors: &mut Errors) {
        match self.quantity() {
            None => self.invalid(QUANTITY, errors),
            Some(q) if q < Quantity::ZERO => self.invalid(NEGATIVE, errors),
            Some(_) => {}
        }
    }

    /// An amount of a resource: more than nothing.
    pub(crate) fn quantity_positive(&self, errors: &mut Errors) {
        match self.quantity() {
            None => self.invalid(QUANTITY, errors),
            Some(q) if q <= Quantity::ZERO => self.invalid("must be greater than zero", errors),
            Some(_) => {}
        }
    }

    /// Refuses another value than the old object's.
    pub(crate) fn immutable(&self, old: &At<'_>, errors: &mut Errors) {
        if self.v != old.v {
            errors.invalid(self.path.as_str(), self.v, "field is immutable");
        }
    }
}

/// The number of a percentage.
fn percent(s: &str) -> Option<i64> {
    s.strip_suffix('%').filter(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}

/// An address as old fields take it: numbers of the fourth version may begin with zeros.
fn sloppy_address(s: &str) -> Option<IpAddr> {
    let (rest, v4) = s.rsplit_once(':').map_or(("", s), |(rest, v4)| (&s[..=rest.len()], v4));
    if !v4.contains('.') {
        return s.parse().ok();
    }
    let trimmed = v4.split('.').map(|n| match n.trim_start_matches('0') {
        "" if !n.is_empty() => "0",
        n => n,
    });
    format!("{rest}{}", trimmed.collect::<Vec<_>>().join(".")).parse().ok()
}

/// An address in the one form it may be written in (apimachinery: pkg/util/validation/ip.go).
pub(crate) fn canonical_address(s: &str) -> Result<(), Faults> {
    let Some(sloppy) = sloppy_address(s) else { return Err(ADDRESS.into()) };
    match s.parse::<IpAddr>() {
        Err(_) => Err("must not have leading 0s".into()),
        Ok(IpAddr::V6(a)) if a.to_ipv4_mapped().is_some() => {
            Err("must not be an IPv4-mapped IPv6 address".into())
        }
        Ok(_) if sloppy.to_string() != s => Err(format!("must be in canonical form (\"{sloppy}\")").into()),
        Ok(_) => Ok(()),
    }
}

/// As [`canonical_address`], of a network; gives its base.
fn canonical_cidr(s: &str) -> Result<IpAddr, Faults> {
    let sloppy = s.split_once('/').and_then(|(address, length)| {
        let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
        let (address, length): (_, u8) = (sloppy_address(address)?, length.parse().ok().filter(|_| digits)?);
        (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
    });
    let Some((address, length)) = sloppy else { return Err(CIDR.into()) };
    let zeros = s
        .split_once('/')
        .is_some_and(|(a, l)| a.parse::<IpAddr>().is_err() || l.len() > 1 && l.starts_with('0'));
    if zeros {
        return Err("must not have leading 0s in IP or prefix length".into());
    }
    if matches!(address, IpAddr::V6(a) if a.to_ipv4_mapped().is_some()) {
        return Err("must not have an IPv4-mapped IPv6 address".into());
    }
    if base(address, length) != address {
        return Err("must not have bits set beyond the prefix length".into());
    }
    let canonical = format!("{address}/{length}");
    if canonical == s {
        Ok(address)
    } else {
        Err(format!("must be in canonical form ({canonical:?})").into())
    }
}

/// The first address of the network that an address is in.
fn base(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(a) => {
            Ipv4Addr::from_bits(a.to_bits() & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0))
                .into()
        }
        IpAddr::V6(a) => {
            Ipv6Addr::from_bits(a.to_bits() & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0))
                .into()
        }
    }
}

pub(crate) fn parse_cidr(s: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = s.split_once('/')?;
    let (address, length): (IpAddr, u8) = (address.parse().ok()?, length.parse().ok()?);
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}

/// Whether a network lies within another.
pub(crate) fn within((inner, inner_length): (IpAddr, u8), (outer, length): (IpAddr, u8)) -> bool {
    let bits = |a: IpAddr| match a {
        IpAddr::V4(a) => u128::from(a.to_bits()) << 96,
        IpAddr::V6(a) => a.to_bits(),
    };
    let mask = if length == 0 { 0 } else { u128::MAX << (128 - length) };
    inner.is_ipv4() == outer.is_ipv4() && inner_length >= length && (bits(inner) ^ bits(outer)) & mask == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_one_form() {
        let check = |s: &str, expect: &str| {
            let why = canonical_address(s).map_or_else(|e| e.to_string(), |()| String::new());
            assert_eq!(why, expect, "{s}");
        };
        check("10.0.0.1", "");
        check("2001:db8::1", "");
        check("10.0.0", ADDRESS);
        check("", ADDRESS);
        check("010.0.0.1", "must not have leading 0s");
        check("::ffff:10.0.0.1", "must not be an IPv4-mapped IPv6 address");
        check("2001:DB8:0::1", "must be in canonical form (\"2001:db8::1\")");
    }

    #[test]
    fn networks_have_one_form() {
        let check = |s: &str, expect: &str| {
            let why = canonical_cidr(s).map_or_else(|e| e.to_string(), |_| String::new());
            assert_eq!(why, expect, "{s}");
        };
        check("10.0.0.0/8", "");
        check("0.0.0.0/0", "");
        check("2001:db8::/64", "");
        check("10.0.0.0", CIDR);
        check("10.0.0.0/33", CIDR);
        check("10.0.0.0/08", "must not have leading 0s in IP or prefix length");
        check("10.0.0.1/8", "must not have bits set beyond the prefix length");
        check("::ffff:10.0.0.0/104", "must not have an IPv4-mapped IPv6 address");
        check("2001:DB8::/64", "must be in canonical form (\"2001:db8::/64\")");
    }
}
