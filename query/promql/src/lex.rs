//! Text into tokens.

use crate::error::ParseError;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    /// Names, keywords and functions; the parser tells them apart.
    Ident(String),
    Number(f64),
    /// In milliseconds.
    Duration(i64),
    Str(String),
    /// A string that is not UTF-8, as it is written.
    Bytes(String),
    /// Punctuation and operators.
    Op(&'static str),
    End,
}

#[derive(Clone, Debug)]
pub(crate) struct Lexed {
    pub(crate) token: Token,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Longest first, so that `<=` is not taken for `<`.
const OPS: [&str; 31] = [
    "==", "!=", "=~", "!~", "<=", ">=", "</", ">/", "<", ">", "=", "+", "-", "*", "/", "%", "^", "(", ")",
    "{", "}", "[", "]", ",", ":", "@", ";", "!", "~", "&", "|",
];

pub(crate) fn lex(text: &str) -> Result<Vec<Lexed>, ParseError> {
    let bytes = text.as_bytes();
    let mut out: Vec<Lexed> = Vec::new();
    let mut at = 0;
    let (mut braces, mut brackets) = (0usize, 0usize);
    while let Some(&b) = bytes.get(at) {
        let start = at;
        let rest = &text[at..];
        let token = match b {
            b' ' | b'\t' | b'\n' | b'\r' => {
                at += 1;
                continue;
            }
            b'#' => {
                at += rest.find('\n').unwrap_or(rest.len());
                continue;
            }
            b'"' | b'\'' | b'`' => {
                let (token, len) = string(text, at)?;
                at += len;
                token
            }
            b'0'..=b'9' | b'.' if b != b'.' || bytes.get(at + 1).is_some_and(u8::is_ascii_digit) => {
                let (t, len) = number_or_duration(text, at)?;
                at += len;
                t
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                let len = ident_len(rest, brackets == 0 && braces == 0);
                at += len;
                word(&rest[..len])
            }
            b':' if brackets == 0 && braces == 0 => {
                let len = ident_len(rest, true);
                at += len;
                Token::Ident(rest[..len].to_owned())
            }
            _ => {
                let Some(op) = OPS.iter().find(|op| rest.starts_with(**op)) else {
                    let c = rest.chars().next().unwrap_or(' ');
                    return Err(ParseError::at(text, at, format!("unexpected character: {c:?}")));
                };
                // `</` and `>/` only where a division cannot follow anyway.
                match *op {
                    "{" => braces += 1,
                    "}" if braces == 0 => {
                        return Err(ParseError::at(text, at, "unexpected right brace '}'"));
                    }
                    "}" => braces -= 1,
                    "[" => brackets += 1,
                    "]" if brackets == 0 => {
                        return Err(ParseError::at(text, at, "unexpected right bracket ']'"));
                    }
                    "]" => brackets -= 1,
                    ";" | "!" | "~" | "&" | "|" => {
                        let c = rest.chars().next().unwrap_or(' ');
                        return Err(ParseError::at(text, at, format!("unexpected character: {c:?}")));
                    }
                    _ => {}
                }
                at += op.len();
                Token::Op(op)
            }
        };
        out.push(Lexed { token, start, end: at });
    }
    if braces > 0 {
        return Err(ParseError::at(text, text.len(), "unexpected end of input inside braces"));
    }
    out.push(Lexed { token: Token::End, start: text.len(), end: text.len() });
    Ok(out)
}

fn word(w: &str) -> Token {
    match w.to_ascii_lowercase().as_str() {
        "inf" => Token::Number(f64::INFINITY),
        "nan" => Token::Number(f64::NAN),
        _ => Token::Ident(w.to_owned()),
    }
}

fn ident_len(s: &str, colons: bool) -> usize {
    s.bytes()
        .position(|b| !(b.is_ascii_alphanumeric() || b == b'_' || colons && b == b':'))
        .unwrap_or(s.len())
}

fn string(text: &str, at: usize) -> Result<(Token, usize), ParseError> {
    let rest = &text[at..];
    let quote = rest.chars().next().unwrap_or('"');
    let mut out: Vec<u8> = Vec::new();
    let mut chars = rest.char_indices().skip(1);
    let unterminated = || ParseError::at(text, at, "unterminated quoted string");
    while let Some((i, c)) = chars.next() {
        if c == quote {
            let token = match String::from_utf8(out) {
                Ok(s) => Token::Str(s),
                Err(_) => Token::Bytes(format!("\"{}\"", &rest[1..i])),
            };
            return Ok((token, i + 1));
        }
        if c == '\n' && quote != '`' {
            return Err(unterminated());
        }
        if c != '\\' || quote == '`' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let (_, e) = chars.next().ok_or_else(unterminated)?;
        let mut digits = |n: usize, radix: u32, first: Option<char>| -> Result<u32, ParseError> {
            let mut v = first.and_then(|c| c.to_digit(radix)).unwrap_or(0);
            for _ in 0..n {
                let (_, c) = chars.next().ok_or_else(unterminated)?;
                let d = c.to_digit(radix);
                v = v * radix + d.ok_or_else(|| ParseError::at(text, at, "illegal escape sequence"))?;
            }
            Ok(v)
        };
        match e {
            'a' => out.push(7),
            'b' => out.push(8),
            'f' => out.push(12),
            'n' => out.push(b'\n'),
            'r' => out.push(b'\r'),
            't' => out.push(b'\t'),
            'v' => out.push(11),
            '\\' => out.push(b'\\'),
            c if c == quote => out.push(c as u8),
            'x' => out.push(digits(2, 16, None)? as u8),
            '0'..='7' => out.push(digits(2, 8, Some(e))? as u8),
            'u' | 'U' => {
                let v = digits(if e == 'u' { 4 } else { 8 }, 16, None)?;
                let c = char::from_u32(v).ok_or_else(|| {
                    ParseError::at(text, at, "escape sequence is an invalid Unicode code point")
                })?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            c => {
                return Err(ParseError::at(
                    text,
                    at,
                    format!("unknown escape sequence U+{:04X} {c:?}", c as u32),
                ));
            }
        }
    }
    Err(unterminated())
}

const UNITS: [(&str, i64); 7] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 7 * 86_400_000),
    ("y", 365 * 86_400_000),
];

fn number_or_duration(text: &str, at: usize) -> Result<(Token, usize), ParseError> {
    let rest = &text[at..];
    let word = rest
        .bytes()
        .position(|b| !(b.is_ascii_alphanumeric() || b == b'.' || b == b'_'))
        .unwrap_or(rest.len());
    let bad = || ParseError::at(text, at, format!("bad number or duration syntax: {:?}", &rest[..word]));
    let lower = rest[..word].to_ascii_lowercase();
    if let Some(hex) = lower.strip_prefix("0x") {
        let v = u64::from_str_radix(&hex.replace('_', ""), 16).map_err(|_| bad())?;
        return Ok((Token::Number(v as f64), word));
    }
    if let Some(d) = duration(&rest[..word]) {
        return match d {
            Ok(ms) => Ok((Token::Duration(ms), word)),
            Err(message) => Err(ParseError::at(text, at, message)),
        };
    }
    // A sign may follow the exponent's letter; only then does the word go on behind it.
    let mut len = word;
    if lower.ends_with('e') && matches!(rest.as_bytes().get(word), Some(b'+' | b'-')) {
        let digits = rest[word + 1..].bytes().position(|b| !b.is_ascii_digit());
        len = word + 1 + digits.unwrap_or(rest.len() - word - 1);
    }
    let digits = rest[..len].replace('_', "");
    let v: f64 = if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit())
    {
        // Go reads a leading zero as octal.
        i64::from_str_radix(&digits, 8).map(|v| v as f64).or_else(|_| digits.parse()).map_err(|_| bad())?
    } else {
        digits.parse().map_err(|_| bad())?
    };
    Ok((Token::Number(v), len))
}

/// `None` if the word is no duration at all.
fn duration(word: &str) -> Option<Result<i64, String>> {
    let (mut rest, mut total, mut last) = (word, 0i64, UNITS.len());
    while !rest.is_empty() {
        let digits = rest.bytes().position(|b| !b.is_ascii_digit())?;
        let n: i64 = rest[..digits].parse().ok()?;
        let (unit, &(name, ms)) = UNITS.iter().enumerate().find(|(_, (u, _))| {
            let after = &rest[digits..];
            after.starts_with(u) && after[u.len()..].bytes().next().is_none_or(|b| b.is_ascii_digit())
        })?;
        if unit >= last {
            return Some(Err(format!("not a valid duration string: {word:?}")));
        }
        last = unit;
        total = total.saturating_add(n.saturating_mul(ms));
        rest = &rest[digits + name.len()..];
    }
    Some(Ok(total))
}

/// A duration as PromQL writes it, such as `1h30m`.
pub fn parse_duration(word: &str) -> Option<i64> {
    if word == "0" {
        return Some(0);
    }
    duration(word)?.ok()
}

/// Milliseconds as PromQL prints them.
pub fn print_duration(ms: i64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    let (mut rest, mut out) = (ms.unsigned_abs(), String::new());
    if ms < 0 {
        out.push('-');
    }
    for (unit, size, exact_only) in [
        ("y", 365 * 86_400_000u64, true),
        ("w", 7 * 86_400_000, true),
        ("d", 86_400_000, false),
        ("h", 3_600_000, false),
        ("m", 60_000, false),
        ("s", 1000, false),
        ("ms", 1, false),
    ] {
        if exact_only && rest % size != 0 {
            continue;
        }
        if rest / size > 0 {
            out.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_numbers() {
        let check = |s: &str, t: Token| assert_eq!(lex(s).expect(s)[0].token, t, "{s}");
        check("5m", Token::Duration(300_000));
        check("1h30m", Token::Duration(5_400_000));
        check("1e3", Token::Number(1000.0));
        check("1e-3", Token::Number(0.001));
        check("0x1F", Token::Number(31.0));
        check("010", Token::Number(8.0));
        check(".5", Token::Number(0.5));
        assert!(lex("5m1h").is_err());
        assert_eq!(print_duration(5_400_000), "1h30m");
        assert_eq!(print_duration(300_000), "5m");
    }
}
