//! What names, label keys and values may look like, with upstream's messages
//! (apimachinery: pkg/util/validation/validation.go).

use std::fmt;

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

/// What is wrong with a name: one sentence or more, each of which is a finding of its own where objects are validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(Vec<String>);

impl Faults {
    /// The sentences.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl From<String> for Faults {
    fn from(one: String) -> Self {
        Faults(vec![one])
    }
}

impl From<&str> for Faults {
    fn from(one: &str) -> Self {
        Faults(vec![one.to_owned()])
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

/// `Ok`, or those sentences whose fault is there.
fn judge<const N: usize>(found: [(bool, String); N]) -> Result<(), Faults> {
    let all: Vec<String> = found.into_iter().filter(|(bad, _)| *bad).map(|(_, why)| why).collect();
    if all.is_empty() { Ok(()) } else { Err(Faults(all)) }
}

fn characters(max: usize) -> String {
    format!("must be no more than {max} characters")
}

fn bytes(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn is_label(s: &str) -> bool {
    let b = s.as_bytes();
    b.first().is_some_and(|c| lower_alnum(*c))
        && b.last().is_some_and(|c| lower_alnum(*c))
        && b.iter().all(|c| lower_alnum(*c) || *c == b'-')
}

fn is_subdomain(s: &str) -> bool {
    s.split('.').all(is_label)
}

/// A DNS label: namespaces, container names.
pub fn dns_label(s: &str) -> Result<(), Faults> {
    let why = if is_subdomain(s) { "must not contain dots" } else { LABEL };
    judge([(s.len() > 63, characters(63)), (!is_label(s), why.to_owned())])
}

/// A DNS label that starts with a letter: Services.
pub fn dns1035_label(s: &str) -> Result<(), Faults> {
    let good = is_label(s) && s.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
    judge([(s.len() > 63, characters(63)), (!good, LABEL_1035.to_owned())])
}

/// A DNS subdomain: most names.
pub fn dns_subdomain(s: &str) -> Result<(), Faults> {
    judge([(s.len() > 253, characters(253)), (!is_subdomain(s), SUBDOMAIN.to_owned())])
}

/// A DNS subdomain below a star: hosts of an Ingress.
pub fn wildcard_subdomain(s: &str) -> Result<(), Faults> {
    let good = s.strip_prefix("*.").is_some_and(is_subdomain);
    judge([(s.len() > 253, characters(253)), (!good, WILDCARD.to_owned())])
}

/// What a path may hold as one segment: RBAC names.
pub fn path_segment(s: &str) -> Result<(), Faults> {
    if matches!(s, "." | "..") {
        return Err(format!("may not be '{s}'").into());
    }
    judge(["/", "%"].map(|c| (s.contains(c), format!("may not contain '{c}'"))))
}

fn is_mixed(s: &str) -> bool {
    let b = s.as_bytes();
    b.first().is_some_and(u8::is_ascii_alphanumeric)
        && b.last().is_some_and(u8::is_ascii_alphanumeric)
        && b.iter().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c))
}

/// A label or annotation key: `app`, `example.com/app`.
pub fn qualified_name(s: &str) -> Result<(), Faults> {
    let mut all = Vec::new();
    let name = match s.split_once('/') {
        Some((_, name)) if name.contains('/') => {
            let why = QUALIFIED.strip_prefix("name part ").unwrap_or(QUALIFIED);
            return Err(format!("a qualified name {why} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')").into());
        }
        Some(("", name)) => {
            all.push("prefix part must be non-empty".to_owned());
            name
        }
        Some((prefix, name)) => {
            if let Err(Faults(why)) = dns_subdomain(prefix) {
                all.extend(why.into_iter().map(|e| format!("prefix part {e}")));
            }
            name
        }
        None => s,
    };
    if name.is_empty() {
        all.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        all.push("name part must be no more than 63 bytes".to_owned());
    }
    if !is_mixed(name) {
        all.push(QUALIFIED.to_owned());
    }
    if all.is_empty() { Ok(()) } else { Err(Faults(all)) }
}

/// A label's value.
pub fn label_value(s: &str) -> Result<(), Faults> {
    judge([(s.len() > 63, bytes(63)), (!s.is_empty() && !is_mixed(s), VALUE.to_owned())])
}

/// A port's name.
pub fn port_name(s: &str) -> Result<(), Faults> {
    let good = !s.is_empty() && s.bytes().all(|c| lower_alnum(c) || c == b'-');
    judge([
        (s.len() > 15, characters(15)),
        (!good, "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned()),
        (!s.bytes().any(|c| c.is_ascii_lowercase()), "must contain at least one letter (a-z)".to_owned()),
        (s.contains("--"), "must not contain consecutive hyphens".to_owned()),
        (s.starts_with('-') || s.ends_with('-'), "must not begin or end with a hyphen".to_owned()),
    ])
}

/// A key of a ConfigMap or Secret, which becomes a file's name.
pub fn config_key(s: &str) -> Result<(), Faults> {
    let good =
        !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let up = match s {
        "." | ".." => format!("must not be '{s}'"),
        _ => "must not start with '..'".to_owned(),
    };
    judge([
        (s.len() > 253, characters(253)),
        (!good, CONFIG_KEY.to_owned()),
        (s == "." || s.starts_with(".."), up),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert!(dns_label("a-1").is_ok());
        assert!(dns_label("A").is_err());
        assert!(dns_label("a.b").is_err());
        assert!(dns_subdomain("a.b-c").is_ok());
        assert!(dns_subdomain("a..b").is_err());
        assert!(dns1035_label("1a").is_err());
        assert!(qualified_name("example.com/Some_name").is_ok());
        assert!(qualified_name("/x").is_err());
        assert!(label_value("").is_ok());
        assert!(label_value("-x").is_err());
        assert!(path_segment("system:node").is_ok());
        assert!(port_name("http").is_ok());
        assert!(port_name("8080").is_err());
        assert!(wildcard_subdomain("*.a.b").is_ok());
        assert!(wildcard_subdomain("*").is_err());
    }

    #[test]
    fn every_fault_is_said() {
        let check = |found: Result<(), Faults>, expect: &[&str]| {
            assert_eq!(found.expect_err("a fault").iter().collect::<Vec<_>>(), expect);
        };
        check(qualified_name(""), &["name part must be non-empty", QUALIFIED]);
        check(dns_label("a.b"), &["must not contain dots"]);
        check(path_segment("a/b%"), &["may not contain '/'", "may not contain '%'"]);
        check(config_key(".."), &["must not be '..'"]);
        check(dns_label(&"A".repeat(64)), &["must be no more than 63 characters", LABEL]);
    }
}
