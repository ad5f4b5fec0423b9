//! Tokens into a query. Operators bind as in Tempo: `&&` and `||` alike and to the left, then comparisons and
//! structure, then `+ -`, then `* / %`, then `^` to the right (Tempo: pkg/traceql/expr.y).

mod pipeline;

use regex::Regex;
use signal::SpanKind;

use super::ast::{Attribute, Field, INTRINSICS, Op, Query, Scope};
use super::check;
use super::lex::{Lexed, Token, lex};
use super::value::{Static, Status};
use crate::error::Error;

/// Parses and checks a query.
pub fn parse(text: &str) -> Result<Query, Error> {
    let mut p = Parser { text, tokens: lex(text)?, at: 0, nodes: 0 };
    if p.peek() == &Token::End {
        return Err(p.unexpected(""));
    }
    let q = p.query()?;
    match p.peek() {
        Token::End => Ok(q),
        _ => Err(p.unexpected("")),
    }
}

/// Parses an expression over one span.
pub(super) fn parse_field(text: &str) -> Result<Field, Error> {
    let mut p = Parser { text, tokens: lex(text)?, at: 0, nodes: 0 };
    let f = p.field(0)?;
    if p.peek() == &Token::End { Ok(f) } else { Err(p.unexpected("")) }
}

pub(super) struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Lexed>,
    at: usize,
    nodes: usize,
}

impl Parser<'_> {
    fn lexed(&self) -> &Lexed {
        self.tokens.get(self.at).or(self.tokens.last()).expect("the lexer ends every list with End")
    }

    fn peek(&self) -> &Token {
        &self.lexed().token
    }

    fn peek_at(&self, n: usize) -> &Token {
        self.tokens.get(self.at + n).map_or(&Token::End, |l| &l.token)
    }

    fn start(&self) -> usize {
        self.lexed().start
    }

    fn error(&self, at: usize, message: impl Into<String>) -> Error {
        Error::at(self.text, at, message)
    }

    fn unexpected(&self, hint: &str) -> Error {
        let l = self.lexed();
        let what = match &l.token {
            Token::End => "$end".to_owned(),
            Token::Word(_) => "IDENTIFIER".to_owned(),
            Token::Text(_) => "STRING".to_owned(),
            _ => self.text[l.start..l.end].to_owned(),
        };
        let hint = if hint.is_empty() { String::new() } else { format!(", expecting {hint}") };
        self.error(l.start, format!("syntax error: unexpected {what}{hint}"))
    }

    /// Bounds the depth, so that no query can exhaust the stack.
    fn count_node(&mut self) -> Result<(), Error> {
        self.nodes += 1;
        if self.nodes > 500 { Err(self.error(self.start(), "the query has too many parts")) } else { Ok(()) }
    }

    fn take(&mut self, op: &str) -> bool {
        let yes = matches!(self.peek(), Token::Op(o) if *o == op);
        self.at += usize::from(yes);
        yes
    }

    fn expect(&mut self, op: &str) -> Result<(), Error> {
        if self.take(op) { Ok(()) } else { Err(self.unexpected(op)) }
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Word(w) if w == word)
    }

    fn take_word(&mut self, word: &str) -> bool {
        let yes = self.is_word(word);
        self.at += usize::from(yes);
        yes
    }

    /// An expression over one span.
    fn field(&mut self, least: u8) -> Result<Field, Error> {
        self.count_node()?;
        let mut left = self.unary()?;
        while let Some((op, level)) = binary(self.peek()).filter(|(_, level)| *level >= least) {
            let at = self.start();
            self.at += 1;
            if matches!(op, Op::Match | Op::NotMatch) {
                left = self.regex(op, left, at)?;
                continue;
            }
            // Powers go to the right, all else to the left.
            let right = self.field(if op == Op::Pow { level } else { level + 1 })?;
            let f = Field::Binary { op, left: Box::new(left), right: Box::new(right) };
            check::field(&f).map_err(|m| self.error(at, m))?;
            left = f;
        }
        Ok(left)
    }

    fn regex(&mut self, op: Op, left: Field, at: usize) -> Result<Field, Error> {
        let place = self.start();
        let Token::Text(pattern) = self.peek().clone() else { return Err(self.unexpected("STRING")) };
        self.at += 1;
        let regex = Regex::new(&format!("^(?s:{pattern})$"))
            .map_err(|e| self.error(place, format!("invalid regular expression: {e}")))?;
        let f = Field::Regex { negate: op == Op::NotMatch, left: Box::new(left), regex };
        check::field(&f).map_err(|m| self.error(at, m))?;
        Ok(f)
    }

    fn unary(&mut self) -> Result<Field, Error> {
        let at = self.start();
        let f = if self.take("!") {
            Field::Not(Box::new(self.field(NOT)?))
        } else if self.take("-") {
            match self.unary()? {
                Field::Static(Static::Int(v)) => Field::Static(Static::Int(v.wrapping_neg())),
                Field::Static(Static::Float(v)) => Field::Static(Static::Float(-v)),
                Field::Static(Static::Duration(v)) => Field::Static(Static::Duration(v.wrapping_neg())),
                f => Field::Negate(Box::new(f)),
            }
        } else {
            return self.primary();
        };
        check::field(&f).map_err(|m| self.error(at, m))?;
        Ok(f)
    }

    fn primary(&mut self) -> Result<Field, Error> {
        self.count_node()?;
        if self.take("(") {
            let f = self.field(0)?;
            self.expect(")")?;
            return Ok(f);
        }
        if let Token::Attribute { parent, scope, name } = self.peek().clone() {
            self.at += 1;
            // Tempo has the trace's and the parent's intrinsics under `parent.`, too; of a scope only attributes.
            return Ok(match INTRINSICS.iter().find(|(n, _)| parent && scope == Scope::Any && *n == name) {
                Some(_) => return Err(self.error(self.start(), "intrinsics of the parent are not supported")),
                None => Field::Attribute(Attribute { parent, scope, name }),
            });
        }
        if let Token::Word(w) = self.peek()
            && let Some((_, i)) = INTRINSICS.iter().find(|(n, _)| n == w)
        {
            let f = Field::Intrinsic(*i);
            self.at += 1;
            return Ok(f);
        }
        self.constant().map(Field::Static)
    }

    fn constant(&mut self) -> Result<Static, Error> {
        let v = match self.peek().clone() {
            Token::Text(s) => Static::Text(s),
            Token::Number(n) => match (n.parse::<i64>(), n.parse::<f64>(), crate::fields::duration(&n)) {
                (Ok(v), ..) => Static::Int(v),
                (_, Ok(v), _) => Static::Float(v),
                (.., Some(seconds)) => Static::Duration((seconds * 1e9).round() as i64),
                _ => return Err(self.unexpected("a number or a duration")),
            },
            Token::Word(w) => match w.as_str() {
                "nil" => Static::Nil,
                "true" => Static::Bool(true),
                "false" => Static::Bool(false),
                "error" => Static::Status(Status::Error),
                "ok" => Static::Status(Status::Ok),
                "unset" => Static::Status(Status::Unset),
                "unspecified" => Static::Kind(SpanKind::Unspecified),
                "internal" => Static::Kind(SpanKind::Internal),
                "server" => Static::Kind(SpanKind::Server),
                "client" => Static::Kind(SpanKind::Client),
                "producer" => Static::Kind(SpanKind::Producer),
                "consumer" => Static::Kind(SpanKind::Consumer),
                _ => return Err(self.unexpected("")),
            },
            _ => return Err(self.unexpected("")),
        };
        self.at += 1;
        Ok(v)
    }

    /// A constant that may have a minus before it.
    fn signed(&mut self) -> Result<Static, Error> {
        match self.unary()? {
            Field::Static(v) => Ok(v),
            _ => Err(self.unexpected("a constant")),
        }
    }
}

const NOT: u8 = 4;

/// An operator and how close it binds.
fn binary(t: &Token) -> Option<(Op, u8)> {
    let Token::Op(o) = t else { return None };
    Some(match *o {
        "&&" => (Op::And, 1),
        "||" => (Op::Or, 1),
        "=" => (Op::Eq, 2),
        "!=" => (Op::Ne, 2),
        "<" => (Op::Lt, 2),
        "<=" => (Op::Le, 2),
        ">" => (Op::Gt, 2),
        ">=" => (Op::Ge, 2),
        "=~" => (Op::Match, 2),
        "!~" => (Op::NotMatch, 2),
        "+" => (Op::Add, 3),
        "-" => (Op::Sub, 3),
        "*" => (Op::Mul, 5),
        "/" => (Op::Div, 5),
        "%" => (Op::Mod, 5),
        "^" => (Op::Pow, 6),
        _ => return None,
    })
}
