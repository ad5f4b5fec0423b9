//! What names, label keys and values may look like, with upstream's messages
//! (apimachinery: pkg/util/validation/validation.go).

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const PATH_SEGMENT: &str = "may not be '.' or '..' and may not contain '/' or '%'";

fn lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn is_label(s: &str) -> bool {
    let b = s.as_bytes();
    b.first().is_some_and(|c| lower_alnum(*c))
        && b.last().is_some_and(|c| lower_alnum(*c))
        && b.iter().all(|c| lower_alnum(*c) || *c == b'-')
}

fn too_long(s: &str, max: usize) -> Result<(), String> {
    if s.len() > max { Err(format!("must be no more than {max} bytes")) } else { Ok(()) }
}

/// A DNS label: namespaces, container names.
pub fn dns_label(s: &str) -> Result<(), String> {
    too_long(s, 63).map_err(|_| "must be no more than 63 characters".to_owned())?;
    if is_label(s) { Ok(()) } else { Err(LABEL.to_owned()) }
}

/// A DNS label that starts with a letter: Services.
pub fn dns1035_label(s: &str) -> Result<(), String> {
    too_long(s, 63).map_err(|_| "must be no more than 63 characters".to_owned())?;
    if is_label(s) && s.as_bytes().first().is_some_and(u8::is_ascii_lowercase) {
        Ok(())
    } else {
        Err(LABEL_1035.to_owned())
    }
}

/// A DNS subdomain: most names.
pub fn dns_subdomain(s: &str) -> Result<(), String> {
    too_long(s, 253).map_err(|_| "must be no more than 253 characters".to_owned())?;
    if s.split('.').all(is_label) { Ok(()) } else { Err(SUBDOMAIN.to_owned()) }
}

/// What a path may hold as one segment: RBAC names.
pub fn path_segment(s: &str) -> Result<(), String> {
    if s.is_empty() || s == "." || s == ".." || s.contains(['/', '%']) {
        Err(PATH_SEGMENT.to_owned())
    } else {
        Ok(())
    }
}

fn is_mixed(s: &str) -> bool {
    let b = s.as_bytes();
    b.first().is_some_and(u8::is_ascii_alphanumeric)
        && b.last().is_some_and(u8::is_ascii_alphanumeric)
        && b.iter().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c))
}

/// A label or annotation key: `app`, `example.com/app`.
pub fn qualified_name(s: &str) -> Result<(), String> {
    let name = match s.split_once('/') {
        Some((prefix, name)) => {
            if prefix.is_empty() {
                return Err("prefix part must be non-empty".to_owned());
            }
            dns_subdomain(prefix).map_err(|e| format!("prefix part {e}"))?;
            name
        }
        None => s,
    };
    if name.is_empty() {
        return Err("name part must be non-empty".to_owned());
    }
    if name.len() > 63 {
        return Err("name part must be no more than 63 bytes".to_owned());
    }
    if is_mixed(name) { Ok(()) } else { Err(QUALIFIED.to_owned()) }
}

/// A label's value.
pub fn label_value(s: &str) -> Result<(), String> {
    too_long(s, 63)?;
    if s.is_empty() || is_mixed(s) { Ok(()) } else { Err(VALUE.to_owned()) }
}

/// A port's name.
pub fn port_name(s: &str) -> Result<(), String> {
    if s.len() > 15 {
        return Err("must be no more than 15 characters".to_owned());
    }
    if !s.bytes().all(|c| lower_alnum(c) || c == b'-') {
        return Err("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !s.bytes().any(|c| c.is_ascii_lowercase()) {
        return Err("must contain at least one letter (a-z)".to_owned());
    }
    if s.contains("--") {
        return Err("must not contain consecutive hyphens".to_owned());
    }
    if s.starts_with('-') || s.ends_with('-') {
        return Err("must not begin or end with a hyphen".to_owned());
    }
    Ok(())
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
    }
}
