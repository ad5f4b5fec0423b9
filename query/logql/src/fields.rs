//! Reading fields out of lines, and numbers out of text.

use serde_json::Value;

use crate::ast::{JsonPath, JsonStep};

/// Flattens a JSON object: `{"a": {"b": 1}}` gives `a_b=1`. Arrays are left out, as Loki does.
pub(crate) fn json(line: &str, mut each: impl FnMut(String, String)) -> bool {
    match serde_json::from_str::<Value>(line) {
        Ok(Value::Object(o)) => {
            for (k, v) in &o {
                flatten(&name(k), v, &mut each);
            }
            true
        }
        _ => false,
    }
}

fn flatten(prefix: &str, v: &Value, each: &mut impl FnMut(String, String)) {
    match v {
        Value::Object(o) => o.iter().for_each(|(k, v)| flatten(&format!("{prefix}_{}", name(k)), v, each)),
        Value::Array(_) | Value::Null => {}
        v => each(prefix.to_owned(), text(v)),
    }
}

fn text(v: &Value) -> String {
    match v {
        Value::String(s) => s.clone(),
        Value::Null => String::new(),
        v => v.to_string(),
    }
}

/// The fields of a line and which parser reads them: `json`, `logfmt`, or none.
pub fn detect(line: &str, mut each: impl FnMut(&str, &str)) -> Option<&'static str> {
    if line.starts_with('{') && json(line, |k, v| each(&k, &v)) {
        return Some("json");
    }
    let mut found = false;
    let _ = logfmt(line, |k, v| {
        // A URL's parameters in prose are no fields, nor are bare words.
        if !v.is_empty() && k.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')) {
            found = true;
            each(k, &v);
        }
    });
    found.then_some("logfmt")
}

/// `a.b`, `a["b c"]`, `[0].a`
pub(crate) fn path(text: &str) -> Result<JsonPath, String> {
    let wrong = |what: &str| format!("cannot parse expression [{text}]: {what}");
    let mut out = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix("[\"") {
            let (name, after) =
                inner.split_once("\"]").ok_or_else(|| wrong("a name in brackets is not closed"))?;
            out.push(JsonStep::Field(name.to_owned()));
            rest = after;
        } else if let Some(inner) = rest.strip_prefix('[') {
            let (index, after) = inner.split_once(']').ok_or_else(|| wrong("an index is not closed"))?;
            out.push(JsonStep::Index(index.parse().map_err(|_| wrong("an index is a number"))?));
            rest = after;
        } else {
            let name = match (rest.strip_prefix('.'), out.is_empty()) {
                (Some(r), false) => r,
                (None, true) => rest,
                _ => return Err(wrong("names are joined with dots")),
            };
            let end = name.find(['.', '[']).unwrap_or(name.len());
            let good = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '@' | '$' | '/');
            if end == 0 || !name[..end].chars().all(good) {
                return Err(wrong("a name is letters, digits, _ and -; other names stand in [\"…\"]"));
            }
            out.push(JsonStep::Field(name[..end].to_owned()));
            rest = &name[end..];
        }
    }
    if out.is_empty() { Err(wrong("it is empty")) } else { Ok(out) }
}

/// What stands at each path; empty where nothing does. `None` if the line is not JSON.
pub(crate) fn json_at(line: &str, paths: &[(String, JsonPath)]) -> Option<Vec<String>> {
    let root: Value = serde_json::from_str(line).ok()?;
    let at = |path: &JsonPath| {
        let mut v = &root;
        for step in path {
            v = match (step, v) {
                (JsonStep::Field(n), Value::Object(o)) => o.get(n)?,
                (JsonStep::Index(i), Value::Array(a)) => a.get(*i)?,
                _ => return None,
            };
        }
        Some(text(v))
    };
    Some(paths.iter().map(|(_, p)| at(p).unwrap_or_default()).collect())
}

/// A label name: what is not a letter, digit or underscore becomes an underscore.
pub(crate) fn name(s: &str) -> String {
    let mut out: String =
        s.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, '_');
    }
    out
}

/// `key=value key2="a value" bare`. A bare word is a key without a value. Gives what is malformed first, if anything
/// is; what can be read is read all the same.
pub(crate) fn logfmt(line: &str, mut each: impl FnMut(&str, String)) -> Result<(), String> {
    let mut wrong = Ok(());
    let mut rest = line;
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return wrong;
        }
        let at = line.len() - rest.len() + 1;
        let mut fail = |what: &str| {
            if wrong.is_ok() {
                wrong = Err(format!("logfmt syntax error at pos {at} : {what}"));
            }
        };
        let end = rest.find(|c: char| c == '=' || c == '"' || c.is_whitespace()).unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        if let Some(after) = after.strip_prefix('"') {
            fail("unexpected '\"'");
            rest = after;
            continue;
        }
        let Some(value) = after.strip_prefix('=') else {
            each(key, String::new());
            rest = after;
            continue;
        };
        if key.is_empty() {
            fail("unexpected '='");
        }
        if let Some(quoted) = value.strip_prefix('"') {
            let mut out = String::new();
            let mut chars = quoted.char_indices();
            let mut end = None;
            while let Some((i, c)) = chars.next() {
                match c {
                    '"' => {
                        end = Some(i + 1);
                        break;
                    }
                    '\\' => match chars.next() {
                        Some((_, 'n')) => out.push('\n'),
                        Some((_, 't')) => out.push('\t'),
                        Some((_, 'r')) => out.push('\r'),
                        Some((_, c)) => out.push(c),
                        None => break,
                    },
                    c => out.push(c),
                }
            }
            if end.is_none() {
                fail("unterminated quoted value");
            }
            if !key.is_empty() {
                each(key, out);
            }
            rest = &quoted[end.unwrap_or(quoted.len())..];
        } else {
            let end = value.find(char::is_whitespace).unwrap_or(value.len());
            if value[..end].contains(['=', '"']) {
                fail("unexpected '=' or '\"' in a value");
            }
            if !key.is_empty() {
                each(key, value[..end].to_owned());
            }
            rest = &value[end..];
        }
    }
}

/// Go's durations, in seconds: `1h30m`, `250ms`, `1.5s`; days, weeks and years too. Only zero needs no unit.
pub(crate) fn duration(s: &str) -> Option<f64> {
    let (negative, unsigned) = match s.strip_prefix('-') {
        Some(r) => (true, r),
        None => (false, s.strip_prefix('+').unwrap_or(s)),
    };
    if unsigned == "0" {
        return Some(0.0);
    }
    if unsigned.is_empty() {
        return None;
    }
    let (mut rest, mut total) = (unsigned, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let n: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let len = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += n * match &rest[..len] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            "w" => 604_800.0,
            "y" => 31_536_000.0,
            _ => return None,
        };
        rest = &rest[len..];
    }
    Some(if negative { -total } else { total })
}

/// Sizes: `5KB` is 5000, `5KiB` is 5120; a plain number is bytes.
pub(crate) fn bytes(s: &str) -> Option<f64> {
    let digits = s.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(s.len());
    let n: f64 = s[..digits].parse().ok()?;
    Some(
        n * match s[digits..].trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1.0,
            "kb" | "k" => 1e3,
            "mb" | "m" => 1e6,
            "gb" | "g" => 1e9,
            "tb" | "t" => 1e12,
            "kib" | "ki" => 1024.0,
            "mib" | "mi" => 1_048_576.0,
            "gib" | "gi" => 1_073_741_824.0,
            "tib" | "ti" => 1_099_511_627_776.0,
            "pb" | "p" => 1e15,
            "pib" | "pi" => 1_125_899_906_842_624.0,
            _ => return None,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_lines() {
        let mut got = Vec::new();
        assert!(json(r#"{"a":{"b-c":1},"d":"x","e":[1]}"#, |k, v| got.push((k, v))));
        assert_eq!(got, [("a_b_c".to_owned(), "1".to_owned()), ("d".to_owned(), "x".to_owned())]);
        assert!(!json("no json", |_, _| ()));
        let mut got = Vec::new();
        let read = logfmt(r#"level=info msg="a \"b\" c" alone n=3"#, |k, v| got.push((k.to_owned(), v)));
        assert_eq!((read, got.len()), (Ok(()), 4));
        assert_eq!(got[1].1, "a \"b\" c");
        for bad in ["a=\"b", "=b", "a=b=c", "a\"b"] {
            assert!(logfmt(bad, |_, _| ()).is_err(), "{bad}");
        }
        let at = |p: &str| json_at(r#"{"a":[{"b c":"d"}]}"#, &[(String::new(), path(p).expect(p))]);
        assert_eq!(at(r#"a[0]["b c"]"#), Some(vec!["d".to_owned()]));
        assert_eq!(at("a[1]"), Some(vec![String::new()]));
        for bad in ["", "a..b", "[x]", "a[0", ".a", "a b"] {
            assert!(path(bad).is_err(), "{bad}");
        }
        for (text, expect) in [
            ("1m30s", Some(90.0)),
            ("-1.5h", Some(-5400.0)),
            ("0", Some(0.0)),
            ("1d", Some(86_400.0)),
            ("10", None),
            ("", None),
            ("-", None),
            ("5x", None),
        ] {
            assert_eq!(duration(text), expect, "{text}");
        }
        assert_eq!(bytes("5KiB"), Some(5120.0));
        assert_eq!(bytes("1.5 MB"), Some(1.5e6));
        assert_eq!(bytes("x"), None);
    }
}
