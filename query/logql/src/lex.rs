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
                let (s, len) = quoted(rest).ok_or_else(|| Error::at(text, at, "literal not terminated"))?;
                at += len;
                Token::Str(s)
            }
            b'0'..=b'9' => {
                let len = rest
                    .bytes()
                    .position(|b| !(b.is_ascii_alphanumeric() || b == b'.'))
                    .unwrap_or(rest.len());
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
                    Error::at(
                        text,
                        at,
                        format!("syntax error: unexpected {:?}", rest.chars().next().unwrap_or(' ')),
                    )
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

pub(crate) fn quoted(s: &str) -> Option<(String, usize)> {
    let mut out = String::new();
    let mut chars = s.char_indices().skip(1);
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Some((out, i + 1)),
            '\\' => match chars.next()?.1 {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                'u' => {
                    let hex: String = (0..4).map_while(|_| chars.next().map(|(_, c)| c)).collect();
                    out.push(char::from_u32(u32::from_str_radix(&hex, 16).ok()?)?);
                }
                c => out.push(c),
            },
            c => out.push(c),
        }
    }
    None
}
