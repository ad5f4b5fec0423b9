//! What is typed, as terms that are joined. Nothing is an error: what fits nowhere is text.

/// Parentheses within each other at most; deeper ones are text.
const DEPTH: usize = 20;
/// Terms at most; the rest is left away.
const TERMS: usize = 100;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Term(Term),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Term {
    Text { text: String, wildcards: bool },
    Field { field: String, value: Value },
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Is {
        text: String,
        wildcards: bool,
    },
    OneOf(Vec<String>),
    /// Comparisons with numbers, durations or sizes.
    Bounds(Vec<(&'static str, String)>),
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Open,
    Close,
    Or,
    Not,
    Term(Term),
}

pub(super) fn read(text: &str) -> Node {
    let tokens = tokens(text);
    let mut at = 0;
    let mut all = Vec::new();
    while at < tokens.len() {
        match either(&tokens, &mut at, 0) {
            Some(Node::And(more)) => all.extend(more),
            Some(n) => all.push(n),
            None => {}
        }
        // A parenthesis that closes nothing.
        if tokens.get(at) == Some(&Token::Close) {
            if tokens.len() == 1 {
                all.push(text_node(")"));
            }
            at += 1;
        }
    }
    Node::And(all)
}

fn text_node(text: &str) -> Node {
    Node::Term(Term::Text { text: text.to_owned(), wildcards: false })
}

/// Runs of terms with `OR` between them.
fn either(tokens: &[Token], at: &mut usize, depth: usize) -> Option<Node> {
    let mut sides = Vec::new();
    loop {
        let mut run = Vec::new();
        while let Some(n) = one(tokens, at, depth) {
            run.push(n);
        }
        match run.len() {
            0 => {}
            1 => sides.extend(run.pop()),
            _ => sides.push(Node::And(run)),
        }
        if tokens.get(*at) != Some(&Token::Or) {
            break;
        }
        *at += 1;
    }
    // `OR` alone is a word.
    match (sides.len(), tokens) {
        (0, [Token::Or]) => Some(text_node("OR")),
        (0, _) => None,
        (1, _) => sides.pop(),
        _ => Some(Node::Or(sides)),
    }
}

fn one(tokens: &[Token], at: &mut usize, depth: usize) -> Option<Node> {
    match tokens.get(*at)? {
        Token::Term(t) => {
            *at += 1;
            Some(Node::Term(t.clone()))
        }
        Token::Not => {
            *at += 1;
            match one(tokens, at, depth) {
                Some(Node::Not(inner)) => Some(*inner),
                Some(n) => Some(Node::Not(Box::new(n))),
                None => Some(text_node("NOT")),
            }
        }
        Token::Open => {
            *at += 1;
            if depth >= DEPTH {
                return one(tokens, at, depth);
            }
            let inner = either(tokens, at, depth + 1);
            if tokens.get(*at) == Some(&Token::Close) {
                *at += 1;
            }
            // An empty parenthesis says nothing; alone it is text.
            inner.or_else(|| if tokens.len() == 1 { Some(text_node("(")) } else { one(tokens, at, depth) })
        }
        Token::Or | Token::Close => None,
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() && out.len() < TERMS {
        let (token, after) = token(rest);
        out.extend(token);
        rest = after.trim_start();
    }
    // A run of parentheses only is text, or they would mean nothing.
    if out.len() > 1 && out.iter().all(|t| matches!(t, Token::Open | Token::Close)) {
        let word = Term::Text { text: text.trim().to_owned(), wildcards: false };
        return vec![Token::Term(word)];
    }
    out
}

/// The next token, and what follows it.
fn token(text: &str) -> (Option<Token>, &str) {
    if let Some(rest) = text.strip_prefix('(') {
        return (Some(Token::Open), rest);
    }
    if let Some(rest) = text.strip_prefix(')') {
        return (Some(Token::Close), rest);
    }
    if let Some(rest) = text.strip_prefix(['-', '!'])
        && rest.starts_with(|c: char| !c.is_whitespace() && c != '-')
    {
        return (Some(Token::Not), rest);
    }
    if text.starts_with('"') {
        let (phrase, rest) = phrase(text);
        let token = Token::Term(Term::Text { text: phrase.clone(), wildcards: false });
        return ((!phrase.is_empty()).then_some(token), rest);
    }
    if let Some((term, rest)) = field(text) {
        return (Some(Token::Term(term)), rest);
    }
    let end = text.find(|c: char| c.is_whitespace() || c == ')').unwrap_or(text.len()).max(1);
    let (word, rest) = text.split_at(end);
    let token = match word {
        "OR" | "|" | "||" => Token::Or,
        "AND" | "&&" => return (None, rest),
        "NOT" => Token::Not,
        w => {
            let wildcards = w.contains('*') && w.chars().any(|c| c != '*' && c != '?');
            Token::Term(Term::Text { text: w.to_owned(), wildcards })
        }
    };
    (Some(token), rest)
}

/// A text in quotes, which may lack the last one.
fn phrase(text: &str) -> (String, &str) {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return (out, &text[i + 1..]),
            '\\' => match chars.next() {
                Some((_, c @ ('"' | '\\'))) => out.push(c),
                Some((_, c)) => out.extend(['\\', c]),
                None => out.push('\\'),
            },
            c => out.push(c),
        }
    }
    (out, "")
}

/// `field:value`, if it is that.
fn field(text: &str) -> Option<(Term, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '@')))?;
    let (name, rest) = text.split_at(end);
    let rest = rest.strip_prefix(':')?;
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '@'));
    if !begins || rest.is_empty() || rest.starts_with(char::is_whitespace) || rest.starts_with("//") {
        return None;
    }
    let (value, rest) = value(rest)?;
    Some((Term::Field { field: name.to_owned(), value }, rest))
}

fn value(text: &str) -> Option<(Value, &str)> {
    if text.starts_with('"') {
        let (text, rest) = phrase(text);
        return Some((Value::Is { text, wildcards: false }, rest));
    }
    if let Some(inner) = text.strip_prefix('(') {
        let (inner, rest) = inner.split_once(')')?;
        let all: Vec<String> = inner
            .split_whitespace()
            .filter(|w| *w != "OR" && *w != "|")
            .map(|w| w.trim_matches('"').to_owned())
            .filter(|w| !w.is_empty())
            .collect();
        return (!all.is_empty()).then_some((Value::OneOf(all), rest));
    }
    if text.starts_with(['[', '{']) {
        return bounds(text);
    }
    let end = text.find(|c: char| c.is_whitespace() || c == ')').unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    for op in [">=", "<=", ">", "<"] {
        if let Some(n) = word.strip_prefix(op).filter(|n| is_number(n)) {
            return Some((Value::Bounds(vec![(op, n.to_owned())]), rest));
        }
    }
    let word_ = word.to_owned();
    let wildcards = word.contains(['*', '?']);
    (!word.is_empty()).then_some((Value::Is { text: word_, wildcards }, rest))
}

/// `[1 TO 5]`, `{1 TO 5}`, `[1 TO *]`
fn bounds(text: &str) -> Option<(Value, &str)> {
    let end = text.find([']', '}'])?;
    let (low, high) = text.get(1..end)?.split_once(" TO ")?;
    let (low, high) = (low.trim(), high.trim());
    let mut all = Vec::new();
    if low != "*" {
        all.push((if text.starts_with('[') { ">=" } else { ">" }, low.to_owned()));
    }
    if high != "*" {
        all.push((if text[end..].starts_with(']') { "<=" } else { "<" }, high.to_owned()));
    }
    let good = !all.is_empty() && all.iter().all(|(_, n)| is_number(n));
    good.then(|| (Value::Bounds(all), &text[end + 1..]))
}

/// What LogQL reads as a number, a duration or a size.
fn is_number(text: &str) -> bool {
    let bare = text.strip_prefix('-').unwrap_or(text);
    bare.starts_with(|c: char| c.is_ascii_digit())
        && bare.chars().all(|c| c.is_ascii_alphanumeric() || c == '.')
        && (bare.parse::<f64>().is_ok()
            || crate::fields::duration(bare).is_some()
            || crate::fields::bytes(bare).is_some())
}
