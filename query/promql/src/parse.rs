//! Tokens into an expression: recursive descent, with operator precedence for binary expressions.

mod atoms;
mod duration;

use crate::ast::{BinaryOp, Cardinality, Expr, Kind, Matching, Selector, ValueType};
use crate::check::check;
use crate::error::ParseError;
use crate::lex::{Lexed, Token, lex};

/// Nesting beyond this is refused, so that no query can exhaust the stack.
const DEPTH: usize = 128;
/// Operators in one query: a long chain of them is a deep tree too.
const OPERATORS: usize = 500;

/// Parses and checks a query.
pub fn parse(text: &str) -> Result<Expr, ParseError> {
    let mut p = Parser { text, tokens: lex(text)?, at: 0, depth: 0, open_selectors: false, operators: 0 };
    if p.peek() == &Token::End {
        return Err(ParseError::at(text, 0, "no expression found in input"));
    }
    let expr = p.expr(0)?;
    if p.peek() != &Token::End {
        return Err(p.unexpected(""));
    }
    check(text, &expr)?;
    Ok(expr)
}

/// Parses a bare series selector, as `match[]` parameters hold.
pub fn parse_selector(text: &str) -> Result<Selector, ParseError> {
    match parse(text)?.kind {
        Kind::Selector(s) if s.offset.is_none() && s.at.is_none() => Ok(s),
        _ => Err(ParseError::at(text, 0, "expected a series selector")),
    }
}

pub(crate) const AGGREGATORS: [&str; 14] = [
    "sum",
    "avg",
    "count",
    "min",
    "max",
    "group",
    "stddev",
    "stdvar",
    "topk",
    "bottomk",
    "count_values",
    "quantile",
    "limitk",
    "limit_ratio",
];

pub(crate) struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Lexed>,
    at: usize,
    depth: usize,
    /// True inside the arguments of `info()`.
    open_selectors: bool,
    operators: usize,
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

    /// Where the token before this one ended.
    fn previous_end(&self) -> usize {
        self.at.checked_sub(1).and_then(|i| self.tokens.get(i)).map_or(0, |l| l.end)
    }

    fn next(&mut self) -> Token {
        let t = self.peek().clone();
        self.at += 1;
        t
    }

    fn is_op(&self, op: &str) -> bool {
        matches!(self.peek(), Token::Op(o) if *o == op)
    }

    fn take_op(&mut self, op: &str) -> bool {
        let yes = self.is_op(op);
        self.at += usize::from(yes);
        yes
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Ident(w) if w.eq_ignore_ascii_case(word))
    }

    fn take_word(&mut self, word: &str) -> bool {
        let yes = self.is_word(word);
        self.at += usize::from(yes);
        yes
    }

    fn expect_op(&mut self, op: &str, context: &str) -> Result<(), ParseError> {
        if self.take_op(op) { Ok(()) } else { Err(self.unexpected_expected(context, &format!("{op:?}"))) }
    }

    fn error(&self, message: impl Into<String>) -> ParseError {
        ParseError::at(self.text, self.start(), message)
    }

    fn describe(&self) -> String {
        match self.peek() {
            Token::End => "end of input".to_owned(),
            Token::Ident(w) => format!("identifier {w:?}"),
            Token::Number(_) => format!("number {:?}", &self.text[self.lexed().start..self.lexed().end]),
            Token::Duration(_) => format!("duration {:?}", &self.text[self.lexed().start..self.lexed().end]),
            Token::Str(_) | Token::Bytes(_) => {
                format!("string {}", &self.text[self.lexed().start..self.lexed().end])
            }
            Token::Op(o) => match *o {
                "(" => "left parenthesis".to_owned() + " '('",
                ")" => "right parenthesis".to_owned() + " ')'",
                o if o.len() == 1 && "{}[],:=".contains(o) => format!("{o:?}"),
                o => format!("<op:{o}>"),
            },
        }
    }

    fn unexpected(&self, context: &str) -> ParseError {
        let place = if context.is_empty() { String::new() } else { format!(" in {context}") };
        self.error(format!("unexpected {}{place}", self.describe()))
    }

    fn unexpected_expected(&self, context: &str, expected: &str) -> ParseError {
        let place = if context.is_empty() { String::new() } else { format!(" in {context}") };
        self.error(format!("unexpected {}{place}, expected {expected}", self.describe()))
    }

    fn binary_op(&self) -> Option<BinaryOp> {
        Some(match self.peek() {
            Token::Op(o) => match *o {
                "+" => BinaryOp::Add,
                "-" => BinaryOp::Sub,
                "*" => BinaryOp::Mul,
                "/" => BinaryOp::Div,
                "%" => BinaryOp::Mod,
                "^" => BinaryOp::Pow,
                "==" => BinaryOp::Eq,
                "!=" => BinaryOp::Ne,
                "<" => BinaryOp::Lt,
                ">" => BinaryOp::Gt,
                "<=" => BinaryOp::Le,
                ">=" => BinaryOp::Ge,
                "</" => BinaryOp::TrimUpper,
                ">/" => BinaryOp::TrimLower,
                _ => return None,
            },
            Token::Ident(w) => match w.to_ascii_lowercase().as_str() {
                "and" => BinaryOp::And,
                "or" => BinaryOp::Or,
                "unless" => BinaryOp::Unless,
                "atan2" => BinaryOp::Atan2,
                _ => return None,
            },
            _ => return None,
        })
    }

    /// An expression of operators that bind at least as tightly as `floor`.
    pub(crate) fn expr(&mut self, floor: u8) -> Result<Expr, ParseError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.error("expression is nested too deeply"));
        }
        let mut lhs = self.unary()?;
        while let Some(op) = self.binary_op() {
            let precedence = op.precedence();
            if precedence < floor {
                break;
            }
            self.at += 1;
            self.operators += 1;
            if self.operators > OPERATORS {
                return Err(self.error("expression has too many operators"));
            }
            let bool_at = self.start();
            let bool_modifier = self.take_word("bool");
            if bool_modifier && !op.is_comparison() {
                return Err(ParseError::at(
                    self.text,
                    bool_at,
                    "bool modifier can only be used on comparison operators",
                ));
            }
            let matching = self.matching(op)?;
            // The power operator is the only one that associates to the right.
            let rhs = self.expr(if op == BinaryOp::Pow { precedence } else { precedence + 1 })?;
            let span = (lhs.span.0, rhs.span.1);
            let kind = Kind::Binary { op, lhs: Box::new(lhs), rhs: Box::new(rhs), bool_modifier, matching };
            lhs = Expr { kind, span };
        }
        self.depth -= 1;
        Ok(lhs)
    }

    fn unary(&mut self) -> Result<Expr, ParseError> {
        let start = self.start();
        for (op, negate) in [("+", false), ("-", true)] {
            if self.take_op(op) {
                // Binds looser than `^` and tighter than everything else: -1^2 is -(1^2).
                let expr = self.expr(BinaryOp::Pow.precedence())?;
                let span = (start, expr.span.1);
                if let Kind::Number(v) = &expr.kind {
                    return Ok(Expr { kind: Kind::Number(if negate { -v } else { *v }), span });
                }
                let t = expr.value_type();
                if t != ValueType::Scalar && t != ValueType::Vector {
                    return Err(ParseError::at(
                        self.text,
                        start,
                        format!(
                            "unary expression only allowed on expressions of type scalar or instant vector, got {:?}",
                            t.describe()
                        ),
                    ));
                }
                return Ok(Expr { kind: Kind::Unary { negate, expr: Box::new(expr) }, span });
            }
        }
        let atom = self.atom()?;
        self.postfix(atom)
    }

    fn matching(&mut self, op: BinaryOp) -> Result<Option<Matching>, ParseError> {
        let on = self.is_word("on");
        let mut m = Matching {
            on,
            labels: Vec::new(),
            cardinality: Cardinality::OneToOne,
            include: Vec::new(),
            fill: (None, None),
        };
        let mut any = false;
        if on || self.is_word("ignoring") {
            self.at += 1;
            m.labels = self.label_list()?;
            any = true;
            for (word, cardinality) in
                [("group_left", Cardinality::ManyToOne), ("group_right", Cardinality::OneToMany)]
            {
                if self.take_word(word) {
                    if op.is_set() {
                        return Err(ParseError::at(
                            self.text,
                            self.previous_end(),
                            format!("no grouping allowed for {:?} operation", op.as_str()),
                        ));
                    }
                    m.cardinality = cardinality;
                    if self.is_op("(") {
                        m.include = self.label_list()?;
                    }
                }
            }
        }
        while let Token::Ident(w) = self.peek() {
            let w = w.to_ascii_lowercase();
            if !matches!(w.as_str(), "fill" | "fill_left" | "fill_right")
                || self.peek_at(1) != &Token::Op("(")
            {
                break;
            }
            let at = self.start();
            self.at += 2;
            let negate = self.take_op("-");
            let _ = !negate && self.take_op("+");
            let Token::Number(v) = self.peek().clone() else {
                return Err(self.unexpected_expected("fill", "number"));
            };
            self.at += 1;
            self.expect_op(")", "fill")?;
            if op.is_set() {
                return Err(ParseError::at(
                    self.text,
                    at,
                    "filling in missing series not allowed for set operators",
                ));
            }
            let v = if negate { -v } else { v };
            if w != "fill_right" {
                m.fill.0 = Some(v);
            }
            if w != "fill_left" {
                m.fill.1 = Some(v);
            }
            any = true;
        }
        Ok(any.then_some(m))
    }

    /// `(a, b, …)`, a comma allowed at the end.
    fn label_list(&mut self) -> Result<Vec<String>, ParseError> {
        self.expect_op("(", "grouping opts")?;
        let mut labels = Vec::new();
        loop {
            if self.take_op(")") {
                return Ok(labels);
            }
            match self.next() {
                Token::Ident(w) if !w.contains(':') => labels.push(w),
                Token::Str(s) if !s.is_empty() => labels.push(s),
                Token::Number(_)
                    if self.text[self.tokens[self.at - 1].start..]
                        .starts_with(|c: char| c.is_alphabetic()) =>
                {
                    let l = &self.tokens[self.at - 1];
                    labels.push(self.text[l.start..l.end].to_owned());
                }
                _ => {
                    self.at -= 1;
                    return Err(self.unexpected_expected("grouping opts", "label"));
                }
            }
            if !self.take_op(",") && !self.is_op(")") {
                return Err(self.unexpected_expected("grouping opts", "\",\" or \")\""));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_worded_as_prometheus_words_them() {
        let check = |q: &str, e: &str| assert_eq!(parse(q).expect_err(q).to_string(), e, "{q}");
        check("", "1:1: parse error: no expression found in input");
        check("sum(", "1:5: parse error: unexpected end of input");
        check(
            "rate(up)",
            "1:6: parse error: expected type range vector in call to function \"rate\", got instant vector",
        );
        check(
            "foo{}[5m",
            "1:9: parse error: unexpected end of input in subquery or range selector, expected \"]\"",
        );
        check("{}", "1:1: parse error: vector selector must contain at least one non-empty matcher");
        check("nosuch(1)", "1:1: parse error: unknown function with name \"nosuch\"");
        check("1 and 2", "1:1: parse error: set operator \"and\" not allowed in binary scalar expression");
        check("1 == 2", "1:1: parse error: comparisons between scalars must use BOOL modifier");
    }

    #[test]
    fn endless_nesting_is_refused() {
        for q in ["(".repeat(100_000), "-".repeat(100_000), "1".to_owned() + &"+1".repeat(100_000)] {
            assert!(parse(&q).is_err());
        }
    }

    #[test]
    fn what_is_printed_parses_to_the_same() {
        for q in [
            "sum by (pod) (rate(http_requests_total{code=~\"5..\"}[5m] offset 1m))",
            "a / on (x) group_left (y) b",
            "-1 ^ 2",
            "max_over_time((a - b)[1h:5m] @ end())",
            "topk(3, up) > bool 1",
            "histogram_quantile(0.9, sum by (le) (rate(x_bucket[5m])))",
            "{\"my.metric\", \"a b\"=\"c\"}",
        ] {
            let once = parse(q).expect(q).to_string();
            assert_eq!(parse(&once).expect(&once).to_string(), once);
        }
        assert_eq!(parse("sum(up)by(pod)").expect("parses").to_string(), "sum by (pod) (up)");
    }
}
