//! Reading fields out of lines, and numbers out of text.

use serde_json::Value;

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
    logfmt(line, |k, v| {
        // A URL's parameters in prose are no fields.
        if k.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')) {
            found = true;
            each(k, &v);
        }
    });
    found.then_some("logfmt")
}

/// One field by its path: `a.b`, `a["b"]`, `a[0]`.
pub(crate) fn json_path(line: &str, path: &str) -> Option<String> {
    let mut v: Value = serde_json::from_str(line).ok()?;
    let path = path.replace("[\"", ".").replace("\"]", "").replace('[', ".").replace(']', "");
    for part in path.split('.').filter(|p| !p.is_empty()) {
        v = match v {
            Value::Object(mut o) => o.remove(part)?,
            Value::Array(mut a) => {
                let i: usize = part.parse().ok()?;
                if i < a.len() { a.swap_remove(i) } else { return None }
            }
            _ => return None,
        };
    }
    Some(text(&v))
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

/// `key=value key2="a value"`.
pub(crate) fn logfmt(line: &str, mut each: impl FnMut(&str, String)) {
    let mut rest = line;
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return;
        }
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        let Some(value) = after.strip_prefix('=') else {
            // A word without a value says nothing.
            rest = after;
            continue;
        };
        if let Some(quoted) = value.strip_prefix('"') {
            let mut out = String::new();
            let mut chars = quoted.char_indices();
            let mut end = quoted.len();
            while let Some((i, c)) = chars.next() {
                match c {
                    '"' => {
                        end = i + 1;
                        break;
                    }
                    '\\' => match chars.next() {
                        Some((_, 'n')) => out.push('\n'),
                        Some((_, 't')) => out.push('\t'),
                        Some((_, c)) => out.push(c),
                        None => break,
                    },
                    c => out.push(c),
                }
            }
            if !key.is_empty() {
                each(key, out);
            }
            rest = &quoted[end..];
        } else {
            let end = value.find(char::is_whitespace).unwrap_or(value.len());
            if !key.is_empty() {
                each(key, value[..end].to_owned());
            }
            rest = &value[end..];
        }
    }
}

/// Go's durations, in seconds: `1h30m`, `250ms`, `1.5s`; a plain number is seconds.
pub(crate) fn duration(s: &str) -> Option<f64> {
    if let Ok(v) = s.parse::<f64>() {
        return Some(v);
    }
    let (mut rest, mut total) = (s.trim_start_matches('-'), 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let n: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let len = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += n * match &rest[..len] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
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
    Some(if s.starts_with('-') { -total } else { total })
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
        logfmt(r#"level=info msg="a \"b\" c" alone n=3"#, |k, v| got.push((k.to_owned(), v)));
        assert_eq!(got.len(), 3);
        assert_eq!(got[1].1, "a \"b\" c");
        assert_eq!(json_path(r#"{"a":[{"b":"c"}]}"#, "a[0].b"), Some("c".to_owned()));
        assert_eq!(duration("1m30s"), Some(90.0));
        assert_eq!(bytes("5KiB"), Some(5120.0));
    }
}
