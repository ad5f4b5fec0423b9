//! A series as both text formats write it: `name{label="value"}`, or `{"any name", label="value"}`.

use std::borrow::Cow;

use memchr::memchr2;
use signal::METRIC_NAME;

/// Reads a series into pairs, `__name__` among them. `strict` allows no blanks.
pub(crate) fn read(text: &str, strict: bool, out: &mut Vec<(String, String)>) -> Result<(), &'static str> {
    let open = text.find('{').unwrap_or(text.len());
    let (name, set) = text.split_at(open);
    let name = if strict { name } else { name.trim_end_matches([' ', '\t']) };
    if !name.is_empty() {
        if !is_metric_name(name) {
            return Err("not a metric name");
        }
        out.push((METRIC_NAME.to_owned(), name.to_owned()));
    }
    if !set.is_empty() {
        read_pairs(set, strict, out)?;
    }
    if out.iter().filter(|(n, _)| n == METRIC_NAME).count() != 1 {
        return Err("a sample needs one name");
    }
    if out.iter().any(|(n, v)| n == METRIC_NAME && v.is_empty()) {
        return Err("a sample has an empty name");
    }
    Ok(())
}

/// Reads `{…}`, all of it.
pub(crate) fn read_pairs(
    text: &str,
    strict: bool,
    out: &mut Vec<(String, String)>,
) -> Result<(), &'static str> {
    let skip = |s| if strict { s } else { str::trim_start_matches(s, [' ', '\t']) };
    let mut rest = skip(text.strip_prefix('{').ok_or("a label set has no opening brace")?);
    let mut first = true;
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return if after.is_empty() { Ok(()) } else { Err("text after a label set") };
        }
        if !first {
            rest = skip(rest.strip_prefix(',').ok_or("a comma or brace is missing after a label")?);
            if rest == "}" {
                return Ok(());
            }
        }
        let is_quoted = rest.starts_with('"');
        let name;
        if is_quoted {
            (name, rest) = quoted(&rest[1..])?;
        } else {
            let end = rest.find(['=', ' ', '\t', ',', '}', '"']).ok_or("a label set does not end")?;
            let (bare, after) = rest.split_at(end);
            if !is_label_name(bare) {
                return Err("not a label name");
            }
            (name, rest) = (Cow::Borrowed(bare), after);
        }
        rest = skip(rest);
        match rest.strip_prefix('=') {
            // A quoted name alone is the metric's, and stands first.
            None if is_quoted && first => out.push((METRIC_NAME.to_owned(), name.into_owned())),
            None => return Err("a label has no value"),
            Some(after) => {
                let inside = skip(after).strip_prefix('"').ok_or("a label value has no quote")?;
                let (value, after) = quoted(inside)?;
                if name.is_empty() {
                    return Err("a label has no name");
                }
                if out.iter().any(|(n, _)| *n == name) {
                    return Err("a label stands twice");
                }
                out.push((name.into_owned(), value.into_owned()));
                rest = after;
            }
        }
        rest = skip(rest);
        first = false;
    }
}

/// Reads up to the closing quote; understands `\"`, `\\` and `\n`, and leaves other escapes as they are.
pub(crate) fn quoted(text: &str) -> Result<(Cow<'_, str>, &str), &'static str> {
    let bytes = text.as_bytes();
    let mut end = 0;
    let mut escaped = false;
    loop {
        end += memchr2(b'"', b'\\', bytes.get(end..).unwrap_or(&[])).ok_or("a quote does not end")?;
        if bytes[end] == b'"' {
            break;
        }
        escaped = true;
        end += 2;
    }
    let (inside, after) = (&text[..end], &text[end + 1..]);
    Ok((if escaped { Cow::Owned(unescape(inside)) } else { Cow::Borrowed(inside) }, after))
}

/// `\n`, `\\` and `\"`; any other escape stays.
pub(crate) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let mut chars = after.chars();
        match chars.next() {
            Some('n') => out.push('\n'),
            Some(c @ ('\\' | '"')) => out.push(c),
            Some(c) => out.extend(['\\', c]),
            None => out.push('\\'),
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    out
}

pub(crate) fn is_metric_name(s: &str) -> bool {
    let mut bytes = s.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_' || b == b':')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

pub(crate) fn is_label_name(s: &str) -> bool {
    let mut bytes = s.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
