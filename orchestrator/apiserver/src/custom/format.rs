//! The formats of strings that a schema may name (kube-openapi: pkg/validation/strfmt). Others are not looked at.

use std::sync::LazyLock;

use apimachinery::quantity::Quantity;
use base64::Engine as _;
use regex::Regex;

fn regex(s: &str) -> Regex {
    Regex::new(s).expect("a constant of ours: a test compiles it")
}

static UUID: LazyLock<Regex> =
    LazyLock::new(|| regex("(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$"));
static UUID_V: LazyLock<[Regex; 3]> = LazyLock::new(|| {
    ["3", "4", "5"].map(|v| {
        let variant = if v == "3" { "[0-9a-f]" } else { "[89ab]" };
        regex(&format!(
            "(?i)^[0-9a-f]{{8}}-?[0-9a-f]{{4}}-?{v}[0-9a-f]{{3}}-?{variant}[0-9a-f]{{3}}-?[0-9a-f]{{12}}$"
        ))
    })
});
static HOSTNAME: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z\p{L}]){2,63})$",
    )
});
static EMAIL: LazyLock<Regex> = LazyLock::new(|| regex(r"^[^@\s<>]+@[^@\s<>]+$"));
static MAC: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        "^(([0-9A-Fa-f]{2}[:-]){5}|([0-9A-Fa-f]{2}[:-]){7}|([0-9A-Fa-f]{2}[:-]){19})[0-9A-Fa-f]{2}$|^([0-9A-Fa-f]{4}\\.){2,9}[0-9A-Fa-f]{4}$",
    )
});
static SSN: LazyLock<Regex> = LazyLock::new(|| regex(r"^\d{3}[- ]?\d{2}[- ]?\d{4}$"));
static HEX_COLOR: LazyLock<Regex> = LazyLock::new(|| regex("^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"));
static RGB_COLOR: LazyLock<Regex> = LazyLock::new(|| {
    let n = r"(?:0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])";
    regex(&format!(r"^rgb\(\s*{n}\s*,\s*{n}\s*,\s*{n}\s*\)$"))
});
static DURATION: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"^[-+]?([0-9]*(\.[0-9]*)?\s*(ns|us|µs|μs|ms|s|m|h|d|w|sec|secs|second|seconds|min|mins|minute|minutes|hour|hours|day|days|week|weeks|milli|millis|micro|micros|nano|nanos)\s*)+$|^0$",
    )
});
static DATE_TIME: LazyLock<Regex> =
    LazyLock::new(|| regex(r"^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})?$"));

/// Whether a string has a format; true for formats nobody knows.
pub(crate) fn matches(format: &str, s: &str) -> bool {
    match format {
        "date-time" | "datetime" => DATE_TIME.is_match(s) && date(&s[..10]),
        "date" => date(s),
        "duration" => DURATION.is_match(s),
        "uuid" => UUID.is_match(s),
        "uuid3" => UUID_V[0].is_match(s),
        "uuid4" => UUID_V[1].is_match(s),
        "uuid5" => UUID_V[2].is_match(s),
        "hostname" => HOSTNAME.is_match(s) && s.len() <= 253,
        "email" => EMAIL.is_match(s),
        "mac" => MAC.is_match(s),
        "ipv4" => s.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => s.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => cidr(s),
        "uri" => uri(s),
        "byte" => base64::engine::general_purpose::STANDARD.decode(s).is_ok(),
        "isbn" => isbn10(s) || isbn13(s),
        "isbn10" => isbn10(s),
        "isbn13" => isbn13(s),
        "creditcard" => luhn(s),
        "ssn" => SSN.is_match(s),
        "hexcolor" => HEX_COLOR.is_match(s),
        "rgbcolor" => RGB_COLOR.is_match(s),
        "bsonobjectid" => s.len() == 24 && s.bytes().all(|b| b.is_ascii_hexdigit()),
        "k8s-short-name" => apimachinery::name::dns_label(s).is_ok(),
        "k8s-long-name" => apimachinery::name::dns_subdomain(s).is_ok(),
        "quantity" => s.parse::<Quantity>().is_ok(),
        _ => true,
    }
}

fn date(s: &str) -> bool {
    s.len() == 10 && s.parse::<jiff::civil::Date>().is_ok()
}

fn cidr(s: &str) -> bool {
    let Some((ip, prefix)) = s.split_once('/') else { return false };
    let (Ok(ip), Ok(prefix)) = (ip.parse::<std::net::IpAddr>(), prefix.parse::<u8>()) else { return false };
    prefix <= if ip.is_ipv4() { 32 } else { 128 }
}

/// As Go's url.ParseRequestURI, roughly: absolute, or a path from the root.
fn uri(s: &str) -> bool {
    if s.chars().any(|c| c.is_control() || c == ' ') || s.is_empty() {
        return false;
    }
    if s.starts_with('/') {
        return true;
    }
    s.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    })
}

fn digits(s: &str) -> String {
    s.chars().filter(|c| !"- ".contains(*c)).collect()
}

fn isbn10(s: &str) -> bool {
    let d = digits(s);
    let b = d.as_bytes();
    let value = |i: usize, c: u8| match c {
        b'0'..=b'9' => Some(u32::from(c - b'0')),
        b'X' if i == 9 => Some(10),
        _ => None,
    };
    let sum = b.iter().enumerate().map(|(i, c)| Some((i as u32 + 1) * value(i, *c)?)).sum::<Option<u32>>();
    b.len() == 10 && sum.is_some_and(|s| s % 11 == 0)
}

fn isbn13(s: &str) -> bool {
    let d = digits(s);
    let sum: u32 = d.bytes().enumerate().map(|(i, c)| u32::from(c.wrapping_sub(b'0')) * [1, 3][i % 2]).sum();
    d.len() == 13 && d.bytes().all(|c| c.is_ascii_digit()) && sum.is_multiple_of(10)
}

fn luhn(s: &str) -> bool {
    let d = digits(s);
    let sum: u32 = d
        .bytes()
        .rev()
        .enumerate()
        .map(|(i, c)| {
            let n = u32::from(c.wrapping_sub(b'0'));
            if i % 2 == 1 { n * 2 / 10 + n * 2 % 10 } else { n }
        })
        .sum();
    (13..=19).contains(&d.len()) && d.bytes().all(|c| c.is_ascii_digit()) && sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let check = |format: &str, good: &[&str], bad: &[&str]| {
            good.iter().for_each(|s| assert!(matches(format, s), "{format} {s}"));
            bad.iter().for_each(|s| assert!(!matches(format, s), "{format} {s}"));
        };
        check(
            "date-time",
            &["2014-12-15T19:30:20.000Z", "2020-01-01T00:00:00+01:00"],
            &["yesterday", "2014-13-15T19:30:20Z"],
        );
        check("date", &["2014-12-15"], &["2014-12-32", "x"]);
        check("duration", &["1h", "1h30m", "5 s"], &["x", "1y"]);
        check("ipv4", &["1.2.3.4"], &["1.2.3", "::1"]);
        check("ipv6", &["::1"], &["1.2.3.4"]);
        check("cidr", &["10.0.0.0/8", "::/0"], &["10.0.0.0", "10.0.0.0/33"]);
        check("uri", &["http://a.b/c?d=e", "/a"], &["a b", "a"]);
        check("uuid", &["123e4567-e89b-12d3-a456-426614174000"], &["123"]);
        check("uuid4", &["123e4567-e89b-42d3-a456-426614174000"], &["123e4567-e89b-12d3-a456-426614174000"]);
        check("hostname", &["a.example.com", "localhost"], &["-a", "a_b."]);
        check("email", &["a@b.c"], &["a"]);
        check("mac", &["01:02:03:04:05:06"], &["01:02"]);
        check("byte", &["aGk="], &["a"]);
        check("isbn10", &["0-306-40615-2"], &["0-306-40615-3"]);
        check("isbn13", &["978-0-306-40615-7"], &["978-0-306-40615-8"]);
        check("creditcard", &["4111 1111 1111 1111"], &["4111111111111112"]);
        check("hexcolor", &["#fff"], &["#ffff"]);
        check("rgbcolor", &["rgb(0,1,255)"], &["rgb(0,1,256)"]);
        check("what", &["anything"], &[]);
    }
}
