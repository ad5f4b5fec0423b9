//! Numbers for people (Prometheus: common/helpers/templates).

use template::{Value, general};

/// A number, or text that is one.
pub(super) fn float(v: &Value) -> Result<f64, String> {
    match v {
        Value::Float(f) => Ok(*f),
        Value::Int(i) => Ok(*i as f64),
        Value::Duration(n) => Ok(*n as f64 / 1e9),
        Value::Text(t) => {
            promql_float(t).ok_or_else(|| format!("strconv.ParseFloat: parsing {t:?}: invalid syntax"))
        }
        v => Err(format!("can't convert {} to float", v.type_name())),
    }
}

fn promql_float(t: &str) -> Option<f64> {
    let plain = t.replace('_', "");
    plain.parse().ok().filter(|_| !t.is_empty())
}

/// Four digits.
fn four(v: f64) -> String {
    general(v, Some(4))
}

const SMALL: [&str; 8] = ["m", "u", "n", "p", "f", "a", "z", "y"];

/// The value among its thousandths, and their prefix.
fn small(mut v: f64) -> (f64, &'static str) {
    let mut prefix = "";
    for p in SMALL {
        if v.abs() >= 1.0 {
            break;
        }
        prefix = p;
        v *= 1000.0;
    }
    (v, prefix)
}

fn large(mut v: f64, base: f64, prefixes: [&'static str; 8]) -> (f64, &'static str) {
    let mut prefix = "";
    for p in prefixes {
        if v.abs() < base {
            break;
        }
        prefix = p;
        v /= base;
    }
    (v, prefix)
}

pub(super) fn humanize(v: f64) -> String {
    if v == 0.0 || !v.is_finite() {
        return four(v);
    }
    let (v, prefix) =
        if v.abs() >= 1.0 { large(v, 1000.0, ["k", "M", "G", "T", "P", "E", "Z", "Y"]) } else { small(v) };
    four(v) + prefix
}

pub(super) fn humanize1024(v: f64) -> String {
    if v.abs() <= 1.0 || !v.is_finite() {
        return four(v);
    }
    let (v, prefix) = large(v, 1024.0, ["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"]);
    four(v) + prefix
}

pub(super) fn percentage(v: f64) -> String {
    four(v * 100.0) + "%"
}

pub(super) fn duration(v: f64) -> String {
    if !v.is_finite() {
        return four(v);
    }
    if v == 0.0 {
        return four(v) + "s";
    }
    if v.abs() < 1.0 {
        let (v, prefix) = small(v);
        return format!("{}{prefix}s", four(v));
    }
    let sign = if v < 0.0 { "-" } else { "" };
    let whole = v.abs() as i64;
    let (seconds, minutes, hours, days) = (whole % 60, whole / 60 % 60, whole / 3600 % 24, whole / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{sign}{}s", four(v.abs())),
        (0, 0, m) => format!("{sign}{m}m {seconds}s"),
        (0, h, m) => format!("{sign}{h}h {m}m {seconds}s"),
        (d, h, m) => format!("{sign}{d}d {h}h {m}m {seconds}s"),
    }
}

/// Nanoseconds of seconds since 1970.
pub(super) fn time(v: f64) -> Result<i64, String> {
    if !v.is_finite() {
        return Err("value is NaN or Inf".to_owned());
    }
    let nanos = v * 1e9;
    if nanos.abs() > i64::MAX as f64 {
        let v = general(v, None);
        return Err(format!("{v} cannot be represented as a nanoseconds timestamp since it overflows int64"));
    }
    Ok(nanos as i64)
}

pub(super) fn timestamp(v: f64) -> Result<String, String> {
    if !v.is_finite() {
        return Ok(four(v));
    }
    time(v).map(|n| Value::Time(n).to_string())
}
