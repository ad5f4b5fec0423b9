//! Text into tokens.

use super::ast::Scope;
use crate::error::Error;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Word(String),
    /// Numbers and durations, as written.
    Number(String),
    Text(String),
    /// `span.http.status_code`, `.x`, `parent.resource.y`
    Attribute {
        parent: bool,
        scope: Scope,
        name: String,
    },
    Op(&'static str),
    End,
}

#[derive(Clone, Debug)]
pub(super) struct Lexed {
    pub(super) token: Token,
    pub(super) start: usize,
    pub(super) end: usize,
}

const OPS: [&str; 38] = [
    "!>>", "!<<", "&>>", "&<<", "!>", "!<", "&>", "&<", "&~", "!~", "!=", "=~", "&&", "||", ">>", "<<", ">=",
    "<=", "=", ">", "<", "!", "~", "|", "+", "-", "*", "/", "%", "^", "{", "}", "(", ")", ",", "[", "]", ";",
];

const SCOPES: [(&str, Scope); 6] = [
    ("span.", Scope::Span),
    ("resource.", Scope::Resource),
    ("event.", Scope::Event),
    ("link.", Scope::Link),
    ("instrumentation.", Scope::Instrumentation),
    (".", Scope::Any),
];

/// What an attribute's name may hold without quotes.
fn in_name(c: char) -> bool {
    !c.is_whitespace()
        && !matches!(c, '{' | '}' | '(' | ')' | '=' | '~' | '!' | '<' | '>' | '&' | '|' | '^' | ',')
}

pub(super) fn lex(text: &str) -> Result<Vec<Lexed>, Error> {
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(c) = text[at..].chars().next() {
        let start = at;
        let rest = &text[at..];
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        let token =
            if let Some((token, len)) = attribute(rest).map_err(|(i, e)| Error::at(text, at + i, e))? {
                at += len;
                token
            } else if c == '"' || c == '`' {
                let (s, len) = quoted(rest).map_err(|(i, e)| Error::at(text, at + i, e))?;
                at += len;
                Token::Text(s)
            } else if c.is_ascii_digit() {
                let len = rest
                    .find(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == 'µ'))
                    .unwrap_or(rest.len());
                at += len;
                Token::Number(rest[..len].to_owned())
            } else if c.is_alphabetic() || c == '_' {
                let word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
                let len = rest.find(|c: char| !word(c)).unwrap_or(rest.len());
                at += len;
                Token::Word(rest[..len].to_owned())
            } else {
                let op = OPS
                    .iter()
                    .find(|op| rest.starts_with(**op))
                    .ok_or_else(|| Error::at(text, at, format!("syntax error: unexpected {c:?}")))?;
                at += op.len();
                Token::Op(op)
            };
        out.push(Lexed { token, start, end: at });
    }
    out.push(Lexed { token: Token::End, start: text.len(), end: text.len() });
    Ok(out)
}

fn quoted(text: &str) -> Result<(String, usize), (usize, &'static str)> {
    match text.strip_prefix('`') {
        Some(raw) => {
            let end = raw.find('`').ok_or((0, "literal not terminated"))?;
            Ok((raw[..end].to_owned(), end + 2))
        }
        None => crate::lex::quoted(text),
    }
}

/// An attribute at the beginning of the text, and its bytes.
fn attribute(text: &str) -> Result<Option<(Token, usize)>, (usize, &'static str)> {
    let (parent, mut at) = if text.starts_with("parent.") { (true, "parent.".len()) } else { (false, 0) };
    let mut scope = Scope::Any;
    let found = SCOPES.iter().find(|(prefix, _)| text[at..].starts_with(prefix));
    match (found, parent) {
        (Some((prefix, s)), _) => {
            scope = *s;
            at += prefix.len();
        }
        (None, true) => {}
        (None, false) => return Ok(None),
    }
    // A number may begin with a point.
    if scope == Scope::Any && !parent && text[at..].starts_with(|c: char| c.is_ascii_digit()) {
        let len = text[at..].find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len() - at);
        return Ok(Some((Token::Number(text[..at + len].to_owned()), at + len)));
    }
    let mut name = String::new();
    while let Some(c) = text[at..].chars().next() {
        if c == '"' {
            let (s, len) = quoted(&text[at..]).map_err(|(i, e)| (at + i, e))?;
            name.push_str(&s);
            at += len;
        } else if in_name(c) {
            name.push(c);
            at += c.len_utf8();
        } else {
            break;
        }
    }
    if name.is_empty() {
        return Err((at, "syntax error: an attribute's name is missing"));
    }
    Ok(Some((Token::Attribute { parent, scope, name }, at)))
}
