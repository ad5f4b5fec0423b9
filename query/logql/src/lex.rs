//! Text into tokens.

use crate::error::Error;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Ident(String),
    /// Numbers, durations and sizes, as written.
    Number(String),
    Str(String),
    Op(&'static str),
    End,
}

#[derive(Clone, Debug)]
pub(crate) struct Lexed {
    pub(crate) token: Token,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

const OPS: [&str; 28] = [
    "|=", "|~", "|>", "!=", "!~", "!>", "=~", "==", ">=", "<=", "|", "=", ">", "<", "{", "}", "(", ")", "[",
    "]", ",", "+", "-", "*", "/", "%", "^", ".",
];

pub(crate) fn lex(text: &str) -> Result<Vec<Lexed>, Error> {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
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
            b'`' => {
                let len = rest[1..].find('`').ok_or_else(|| Error::at(text, at, "literal not terminated"))?;
                at += len + 2;
                Token::Str(rest[1..=len].to_owned())
            }
            b'"' => {
                let (s, len) = quoted(rest).map_err(|(i, e)| Error::at(text, at + i, e))?;
                at += len;
                Token::Str(s)
            }
            b'0'..=b'9' => {
                let len = number(rest);
                at += len;
                Token::Number(rest[..len].to_owned())
            }
            b'.' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                let len = number(rest);
                at += len;
                Token::Number(rest[..len].to_owned())
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                let len = rest
                    .bytes()
                    .position(|b| !(b.is_ascii_alphanumeric() || b == b'_'))
                    .unwrap_or(rest.len());
                at += len;
                Token::Ident(rest[..len].to_owned())
            }
            _ => {
                let op = OPS.iter().find(|op| rest.starts_with(**op)).ok_or_else(|| {
                    let c = rest.chars().next().unwrap_or(' ');
                    Error::at(text, at, format!("syntax error: unexpected {c:?}"))
                })?;
                at += op.len();
                Token::Op(op)
            }
        };
        out.push(Lexed { token, start, end: at });
    }
    out.push(Lexed { token: Token::End, start: text.len(), end: text.len() });
    Ok(out)
}

/// Bytes of the number, duration or size that `text` begins with: `1.5`, `2e-3`, `1h30m`, `5KiB`, `10µs`.
fn number(text: &str) -> usize {
    let mut before = ' ';
    for (i, c) in text.char_indices() {
        let exponent = matches!(before, 'e' | 'E')
            && matches!(c, '+' | '-')
            && text[..i - 1].bytes().all(|b| b.is_ascii_digit() || b == b'.')
            && text[i + 1..].starts_with(|c: char| c.is_ascii_digit());
        if !(c.is_ascii_alphanumeric() || c == '.' || c == 'µ' || exponent) {
            return i;
        }
        before = c;
    }
    text.len()
}

/// A string in double quotes with Go's escapes, and how many bytes it takes; or where it goes wrong, and why.
pub(crate) fn quoted(s: &str) -> Result<(String, usize), (usize, &'static str)> {
    const ENDLESS: &str = "literal not terminated";
    const ESCAPE: &str = "invalid char escape";
    let mut out: Vec<u8> = Vec::new();
    let mut chars = s.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        let c = match c {
            '"' => return Ok((String::from_utf8_lossy(&out).into_owned(), at + 1)),
            '\n' => return Err((0, ENDLESS)),
            '\\' => {
                let (_, kind) = chars.next().ok_or((0, ENDLESS))?;
                let digits = match kind {
                    'x' => (16, 2),
                    'u' => (16, 4),
                    'U' => (16, 8),
                    '0'..='7' => (8, 2),
                    _ => (0, 0),
                };
                if digits.1 > 0 {
                    let mut v = kind.to_digit(8).filter(|_| digits.0 == 8).unwrap_or(0);
                    for _ in 0..digits.1 {
                        let d = chars.next().and_then(|(_, c)| c.to_digit(digits.0)).ok_or((at, ESCAPE))?;
                        v = v.wrapping_mul(digits.0).wrapping_add(d);
                    }
                    if matches!(kind, 'u' | 'U') {
                        char::from_u32(v).ok_or((at, ESCAPE))?
                    } else {
                        // One byte; several may make up one character.
                        out.push(u8::try_from(v).map_err(|_| (at, ESCAPE))?);
                        continue;
                    }
                } else {
                    match kind {
                        'a' => '\u{7}',
                        'b' => '\u{8}',
                        'f' => '\u{c}',
                        'n' => '\n',
                        'r' => '\r',
                        't' => '\t',
                        'v' => '\u{b}',
                        '\\' => '\\',
                        '"' => '"',
                        _ => return Err((at, ESCAPE)),
                    }
                }
            }
            c => c,
        };
        out.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Err((0, ENDLESS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_as_go_reads_them() {
        for (text, expect) in [
            (r#""a\tb\n\"\\" rest"#, "a\tb\n\"\\"),
            (r#""\x41\102\u00e9\U0001F600""#, "ABé😀"),
            (r#""\xc3\xa9""#, "é"),
        ] {
            assert_eq!(quoted(text).map(|(s, _)| s), Ok(expect.to_owned()), "{text}");
        }
        for (text, expect) in [
            (r#""\d""#, (1, "invalid char escape")),
            (r#""\'""#, (1, "invalid char escape")),
            (r#""\ud800""#, (1, "invalid char escape")),
            (r#""abc"#, (0, "literal not terminated")),
            ("\"abc\n\"", (0, "literal not terminated")),
        ] {
            assert_eq!(quoted(text), Err(expect), "{text}");
        }
    }

    #[test]
    fn numbers() {
        for (text, len) in [("1e-3+2", 4), ("1h30m]", 5), ("5KiB,", 4), ("2e5s", 4), ("10µs ", 5), ("1-2", 1)]
        {
            assert_eq!(number(text), len, "{text}");
        }
    }
}
