//! Literals, selectors, calls, aggregations, and what may stand behind them.

use signal::{METRIC_NAME, MatchOp, Matcher};

use super::{AGGREGATORS, Parser};
use crate::ast::{Aggregation, At, Edges, Expr, Kind, Length, Selector};
use crate::error::ParseError;
use crate::lex::Token;

const KEYWORDS: [&str; 13] = [
    "and",
    "or",
    "unless",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "offset",
    "bool",
    "atan2",
    "fill",
];

impl Parser<'_> {
    pub(super) fn atom(&mut self) -> Result<Expr, ParseError> {
        let start = self.start();
        let kind = match self.peek().clone() {
            Token::Number(v) => {
                self.at += 1;
                Kind::Number(v)
            }
            Token::Duration(ms) => {
                self.at += 1;
                Kind::Number(ms as f64 / 1000.0)
            }
            Token::Str(s) => {
                self.at += 1;
                Kind::String(s)
            }
            Token::Bytes(s) => {
                self.at += 1;
                Kind::Bytes(s)
            }
            Token::Op("(") => {
                self.at += 1;
                let e = self.expr(0)?;
                self.expect_op(")", "paren expression")?;
                Kind::Paren(Box::new(e))
            }
            Token::Op("{") => Kind::Selector(self.braces(None, start)?),
            Token::Ident(word) => {
                let lower = word.to_ascii_lowercase();
                let before_group = matches!(self.peek_at(1), Token::Ident(w)
                    if w.eq_ignore_ascii_case("by") || w.eq_ignore_ascii_case("without"));
                let before_paren = self.peek_at(1) == &Token::Op("(");
                if AGGREGATORS.contains(&lower.as_str()) && (before_paren || before_group) {
                    self.at += 1;
                    self.aggregation(lower, start)?
                } else if before_paren && !KEYWORDS.contains(&lower.as_str()) {
                    self.at += 1;
                    self.call(word, start)?
                } else if KEYWORDS[..9].contains(&lower.as_str()) {
                    return Err(self.unexpected(""));
                } else {
                    self.at += 1;
                    Kind::Selector(self.braces(Some(word), start)?)
                }
            }
            _ => return Err(self.unexpected("")),
        };
        Ok(Expr { kind, span: (start, self.previous_end()) })
    }

    fn call(&mut self, name: String, start: usize) -> Result<Kind, ParseError> {
        if crate::functions::signature(&name).is_none() {
            return Err(ParseError::at(self.text, start, format!("unknown function with name {name:?}")));
        }
        // The second argument of info() picks labels, not series, and may match everything.
        self.open_selectors = name == "info";
        let args = self.args();
        self.open_selectors = false;
        Ok(Kind::Call { name, args: args? })
    }

    fn args(&mut self) -> Result<Vec<Expr>, ParseError> {
        self.expect_op("(", "function call")?;
        let mut args = Vec::new();
        if self.take_op(")") {
            return Ok(args);
        }
        loop {
            args.push(self.expr(0)?);
            if self.take_op(",") {
                if self.is_op(")") {
                    return Err(self.error("trailing commas not allowed in function call args"));
                }
            } else {
                self.expect_op(")", "function call")?;
                return Ok(args);
            }
        }
    }

    fn aggregation(&mut self, op: String, start: usize) -> Result<Kind, ParseError> {
        let mut grouping = None;
        let modifier = |p: &mut Self, grouping: &mut Option<(bool, Vec<String>)>| {
            if grouping.is_none() && (p.is_word("by") || p.is_word("without")) {
                let without = p.is_word("without");
                p.at += 1;
                *grouping = Some((without, p.label_list()?));
            }
            Ok::<(), ParseError>(())
        };
        modifier(self, &mut grouping)?;
        let mut args = self.args()?;
        modifier(self, &mut grouping)?;
        let wanted = if matches!(
            op.as_str(),
            "topk" | "bottomk" | "count_values" | "quantile" | "limitk" | "limit_ratio"
        ) {
            2
        } else {
            1
        };
        if args.is_empty() {
            return Err(ParseError::at(self.text, start, "no arguments for aggregate expression provided"));
        }
        if args.len() != wanted {
            return Err(ParseError::at(
                self.text,
                start,
                format!(
                    "wrong number of arguments for aggregate expression provided, expected {wanted}, got {}",
                    args.len()
                ),
            ));
        }
        let expr = Box::new(args.pop().expect("counted above"));
        let param = args.pop().map(Box::new);
        let (without, grouping) = grouping.unwrap_or_default();
        Ok(Kind::Aggregate(Aggregation { op, param, expr, grouping, without }))
    }

    fn braces(&mut self, name: Option<String>, start: usize) -> Result<Selector, ParseError> {
        let mut s = Selector {
            matchers: Vec::new(),
            name: name.clone(),
            offset: None,
            at: None,
            edges: Edges::Plain,
        };
        if let Some(n) = &name {
            s.matchers.push(Matcher::equal(METRIC_NAME, n.clone()));
        }
        if self.take_op("{") {
            while !self.take_op("}") {
                let at = self.start();
                let label = match self.next() {
                    Token::Ident(w) if !w.contains(':') => w,
                    Token::Number(_) if self.text[at..].starts_with(|c: char| c.is_alphabetic()) => {
                        self.text[at..self.previous_end()].to_owned()
                    }
                    Token::Str(label) => {
                        if self.is_op(",") || self.is_op("}") {
                            if name.is_some() || s.name.is_some() {
                                let first = s.name.clone().unwrap_or_default();
                                return Err(ParseError::at(
                                    self.text,
                                    start,
                                    format!("metric name must not be set twice: {first:?} or {label:?}"),
                                ));
                            }
                            s.name = Some(label.clone());
                            s.matchers.push(Matcher::equal(METRIC_NAME, label));
                            let _ = self.take_op(",");
                            continue;
                        }
                        label
                    }
                    _ => {
                        self.at -= 1;
                        return Err(self.unexpected_expected("label matching", "identifier or \"}\""));
                    }
                };
                let op = match self.peek() {
                    Token::Op("=") => MatchOp::Equal,
                    Token::Op("!=") => MatchOp::NotEqual,
                    Token::Op("=~") => MatchOp::Regex,
                    Token::Op("!~") => MatchOp::NotRegex,
                    _ => return Err(self.unexpected_expected("label matching", "label matching operator")),
                };
                self.at += 1;
                let Token::Str(value) = self.peek().clone() else {
                    return Err(self.unexpected_expected("label matching", "string"));
                };
                self.at += 1;
                if name.is_some() && label == METRIC_NAME {
                    return Err(ParseError::at(
                        self.text,
                        start,
                        format!(
                            "metric name must not be set twice: {:?} or {value:?}",
                            name.as_deref().unwrap_or("")
                        ),
                    ));
                }
                let m = Matcher::new(label, op, value)
                    .map_err(|e| ParseError::at(self.text, at, format!("error parsing regexp: {e}")))?;
                s.matchers.push(m);
                if !self.take_op(",") && !self.is_op("}") {
                    return Err(self.unexpected_expected("label matching", "\",\" or \"}\""));
                }
            }
        }
        if s.matchers.iter().all(Matcher::matches_empty) && !(self.open_selectors && name.is_none()) {
            return Err(ParseError::at(
                self.text,
                start,
                "vector selector must contain at least one non-empty matcher",
            ));
        }
        Ok(s)
    }

    /// Ranges, subqueries, `offset` and `@` behind an expression.
    pub(super) fn postfix(&mut self, mut expr: Expr) -> Result<Expr, ParseError> {
        loop {
            let start = expr.span.0;
            if self.take_op("[") {
                let (range, step) = self.brackets()?;
                let kind = match (step, expr.kind) {
                    (None, Kind::Selector(selector)) => {
                        if selector.offset.is_some() || selector.at.is_some() {
                            return Err(ParseError::at(
                                self.text,
                                start,
                                "no offset modifiers allowed before range",
                            ));
                        }
                        Kind::Matrix { selector, range }
                    }
                    (None, _) => {
                        return Err(ParseError::at(
                            self.text,
                            start,
                            "ranges only allowed for vector selectors",
                        ));
                    }
                    (Some(step), kind) => {
                        let inner = Expr { kind, span: expr.span };
                        let t = inner.value_type();
                        if t != crate::ast::ValueType::Vector {
                            return Err(ParseError::at(
                                self.text,
                                start,
                                format!(
                                    "subquery is only allowed on instant vector, got {} instead",
                                    word(t)
                                ),
                            ));
                        }
                        Kind::Subquery { expr: Box::new(inner), range, step, offset: None, at: None }
                    }
                };
                expr = Expr { kind, span: (start, self.previous_end()) };
            } else if self.take_word("offset") {
                let length = self.offset_length()?;
                let slot = match &mut expr.kind {
                    Kind::Selector(s) | Kind::Matrix { selector: s, .. } => &mut s.offset,
                    Kind::Subquery { offset, .. } => offset,
                    _ => {
                        return Err(ParseError::at(
                            self.text,
                            start,
                            "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
                        ));
                    }
                };
                if slot.replace(length).is_some() {
                    return Err(ParseError::at(self.text, start, "offset may not be set multiple times"));
                }
                expr.span.1 = self.previous_end();
            } else if self.take_op("@") {
                let time = self.at_time()?;
                let slot = match &mut expr.kind {
                    Kind::Selector(s) | Kind::Matrix { selector: s, .. } => &mut s.at,
                    Kind::Subquery { at, .. } => at,
                    _ => {
                        return Err(ParseError::at(
                            self.text,
                            start,
                            "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery",
                        ));
                    }
                };
                if slot.replace(time).is_some() {
                    return Err(ParseError::at(
                        self.text,
                        start,
                        "@ <timestamp> may not be set multiple times",
                    ));
                }
                expr.span.1 = self.previous_end();
            } else if self.is_word("anchored") || self.is_word("smoothed") {
                let edges = if self.is_word("anchored") { Edges::Anchored } else { Edges::Smoothed };
                self.at += 1;
                match &mut expr.kind {
                    Kind::Selector(s) | Kind::Matrix { selector: s, .. } => s.edges = edges,
                    _ => {
                        return Err(ParseError::at(
                            self.text,
                            start,
                            "anchored and smoothed belong behind a selector",
                        ));
                    }
                }
                expr.span.1 = self.previous_end();
            } else {
                return Ok(expr);
            }
        }
    }

    fn brackets(&mut self) -> Result<(Length, Option<Option<Length>>), ParseError> {
        let context = "subquery or range selector";
        let range = self.length()?;
        let mut step = None;
        if self.take_op(":") {
            step = Some(if self.is_op("]") { None } else { Some(self.length()?) });
        }
        self.expect_op("]", context)?;
        if let Length::Millis(ms) = range
            && ms <= 0
        {
            return Err(ParseError::at(self.text, self.previous_end(), "duration must be greater than 0"));
        }
        Ok((range, step))
    }

    fn at_time(&mut self) -> Result<At, ParseError> {
        for (word, at) in [("start", At::Start), ("end", At::End)] {
            if self.take_word(word) {
                self.expect_op("(", "@")?;
                self.expect_op(")", "@")?;
                return Ok(at);
            }
        }
        let negate = self.take_op("-");
        let _ = !negate && self.take_op("+");
        let v = match self.peek().clone() {
            Token::Number(v) => v,
            Token::Duration(ms) => ms as f64 / 1000.0,
            _ => return Err(self.unexpected_expected("@", "timestamp")),
        };
        let v = if negate { -v } else { v };
        if !v.is_finite() || v.abs() >= i64::MAX as f64 / 1000.0 {
            return Err(self.error(format!("timestamp out of bounds for @ modifier: {v:.6}")));
        }
        self.at += 1;
        Ok(At::Time((v * 1000.0).round() as i64))
    }
}

fn word(t: crate::ast::ValueType) -> &'static str {
    match t {
        crate::ast::ValueType::Matrix => "matrix",
        crate::ast::ValueType::Scalar => "scalar",
        crate::ast::ValueType::String => "string",
        crate::ast::ValueType::Vector => "vector",
    }
}
