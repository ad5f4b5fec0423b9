//! Tokens into a query. Range aggregations are cut out of a metric query; what is left is PromQL.

mod metric;
mod stages;

use signal::{MatchOp, Matcher};

use crate::ast::LogExpr;
use crate::error::Error;
use crate::lex::{Lexed, Token, lex};
use crate::pipeline::Pipeline;

/// A parsed query.
#[derive(Clone, Debug)]
pub enum Query {
    Log(Pipeline),
    Metric(MetricQuery),
}

pub(crate) use metric::MetricQuery;

/// Parses any query.
pub fn parse(text: &str) -> Result<Query, Error> {
    let tokens = lex(text)?;
    match tokens.iter().map(|t| &t.token).find(|t| **t != Token::Op("(")) {
        None | Some(Token::End) => {
            let at = tokens.last().map_or(0, |t| t.start);
            Err(Error::at(text, at, "syntax error: unexpected $end"))
        }
        Some(Token::Op("{")) => {
            let mut p = Parser { text, tokens, at: 0, nodes: 0 };
            let log = p.log_expr()?;
            p.expect_end()?;
            if log.stages.iter().any(|s| matches!(s, crate::ast::Stage::Unwrap { .. })) {
                let at = p.tokens.iter().find(|t| t.token == Token::Ident("unwrap".to_owned()));
                let at = at.map_or(0, |t| t.start);
                return Err(Error::at(
                    text,
                    at,
                    "syntax error: unexpected unwrap: it belongs into a range aggregation",
                ));
            }
            Ok(Query::Log(Pipeline::new(log)))
        }
        _ => metric::parse(text, tokens).map(Query::Metric),
    }
}

/// Parses a query that must be a log query, as tails and series selectors are.
pub fn parse_log_query(text: &str) -> Result<Pipeline, Error> {
    match parse(text)? {
        Query::Log(p) => Ok(p),
        Query::Metric(_) => Err(Error::at(text, 0, "only log queries are allowed here")),
    }
}

/// Words that Loki's grammar knows by themselves: errors name them.
const KEYWORDS: [&str; 28] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "bool",
    "and",
    "or",
    "unless",
    "offset",
    "sum",
    "avg",
    "max",
    "min",
    "count",
    "topk",
    "bottomk",
    "stddev",
    "stdvar",
    "rate",
    "json",
    "logfmt",
    "regexp",
    "pattern",
    "unpack",
    "unwrap",
    "line_format",
];

pub(crate) struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Lexed>,
    at: usize,
    /// Parentheses and conditions so far.
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

    fn previous_end(&self) -> usize {
        self.at.checked_sub(1).and_then(|i| self.tokens.get(i)).map_or(0, |l| l.end)
    }

    fn take_op(&mut self, op: &str) -> bool {
        let yes = matches!(self.peek(), Token::Op(o) if *o == op);
        self.at += usize::from(yes);
        yes
    }

    fn take_word(&mut self, word: &str) -> bool {
        let yes = matches!(self.peek(), Token::Ident(w) if w == word);
        self.at += usize::from(yes);
        yes
    }

    fn expect_op(&mut self, op: &str) -> Result<(), Error> {
        if self.take_op(op) { Ok(()) } else { Err(self.unexpected(&format!("expecting {op:?}"))) }
    }

    /// Bounds the depth of what is parsed, so that no query can exhaust the stack.
    fn count_node(&mut self) -> Result<(), Error> {
        self.nodes += 1;
        if self.nodes > 500 { Err(self.unexpected("the query has too many parts")) } else { Ok(()) }
    }

    fn expect_end(&self) -> Result<(), Error> {
        if self.peek() == &Token::End { Ok(()) } else { Err(self.unexpected("")) }
    }

    fn unexpected(&self, hint: &str) -> Error {
        let l = self.lexed();
        let what = match &l.token {
            Token::End => "$end".to_owned(),
            Token::Ident(w) if KEYWORDS.contains(&w.as_str()) => w.clone(),
            Token::Ident(_) => "IDENTIFIER".to_owned(),
            Token::Str(_) => "STRING".to_owned(),
            Token::Number(n) if n.parse::<f64>().is_ok() => "NUMBER".to_owned(),
            Token::Number(n) if crate::fields::duration(n).is_some() => "DURATION".to_owned(),
            Token::Number(_) => "BYTES".to_owned(),
            _ => self.text[l.start..l.end].to_owned(),
        };
        let hint = if hint.is_empty() { String::new() } else { format!(", {hint}") };
        Error::at(self.text, l.start, format!("syntax error: unexpected {what}{hint}"))
    }

    fn ident(&mut self) -> Result<String, Error> {
        match self.peek().clone() {
            Token::Ident(w) => {
                self.at += 1;
                Ok(w)
            }
            _ => Err(self.unexpected("expecting IDENTIFIER")),
        }
    }

    fn string(&mut self) -> Result<String, Error> {
        match self.peek().clone() {
            Token::Str(s) => {
                self.at += 1;
                Ok(s)
            }
            _ => Err(self.unexpected("expecting STRING")),
        }
    }

    fn match_op(&mut self) -> Option<MatchOp> {
        let op = match self.peek() {
            Token::Op("=") => MatchOp::Equal,
            Token::Op("!=") => MatchOp::NotEqual,
            Token::Op("=~") => MatchOp::Regex,
            Token::Op("!~") => MatchOp::NotRegex,
            _ => return None,
        };
        self.at += 1;
        Some(op)
    }

    fn matcher(&mut self, name: String, op: MatchOp) -> Result<Matcher, Error> {
        let at = self.start();
        let value = self.string()?;
        Matcher::new(name, op, value).map_err(|e| Error::at(self.text, at, e.to_string()))
    }

    fn log_expr(&mut self) -> Result<LogExpr, Error> {
        self.count_node()?;
        if self.take_op("(") {
            let mut e = self.log_expr()?;
            self.expect_op(")")?;
            e.stages.extend(self.stages()?);
            return Ok(e);
        }
        let start = self.start();
        self.expect_op("{")?;
        let mut matchers = Vec::new();
        while !self.take_op("}") {
            let name = self.ident()?;
            let Some(op) = self.match_op() else { return Err(self.unexpected("expecting a matcher")) };
            matchers.push(self.matcher(name, op)?);
            if !self.take_op(",") && self.peek() != &Token::Op("}") {
                return Err(self.unexpected("expecting } or ,"));
            }
        }
        if matchers.iter().all(Matcher::matches_empty) {
            return Err(Error::at(
                self.text,
                start,
                "queries require at least one regexp or equality matcher that does not have an empty-compatible value. For instance, app=~\".*\" does not meet this requirement, but app=~\".+\" will",
            ));
        }
        let stages = self.stages()?;
        Ok(LogExpr { matchers, stages })
    }

    /// In nanoseconds.
    fn duration(&mut self) -> Result<i64, Error> {
        let Token::Number(n) = self.peek().clone() else {
            return Err(self.unexpected("expecting a duration"));
        };
        let seconds = crate::fields::duration(&n).ok_or_else(|| self.unexpected("expecting a duration"))?;
        self.at += 1;
        Ok((seconds * 1e9) as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_accepted_and_what_is_not() {
        for q in [
            r#"{app="a"}"#,
            r#"{app=~"a|b", x!="y"} |= "error" or "warn" !~ `time\d+` | json | level="error" and (status >= 500 or dur > 10s) | line_format "{{.msg}}""#,
            r#"{app="a"} | logfmt a="b.c", d | label_format x=a, y="{{.z}}" | drop a, b="c" | keep x"#,
            r#"sum by (pod) (rate({app="a"} |= "x" [5m])) / sum(rate({app="a"}[5m])) > 0.1"#,
            r#"quantile_over_time(0.99, {app="a"} | json | unwrap duration(dur) | __error__="" [1m]) by (pod)"#,
            "vector(1)+vector(1)",
            r#"approx_topk(3, sum by (a) (count_over_time({app="a"}[1h])))"#,
            r#"{app="a"} |> "<_> done" or "<_> begun" |= ip("::1") | pattern "<a> <_> <b>" | unpack | decolorize"#,
            r#"{app="a"} | line_format `{{ if .x }}{{ .x | trunc 5 }}{{ else }}none{{ end }}`"#,
            r#"topk(3, sum by (a) (count_over_time({app="a"}[1h] offset 5m)))"#,
        ] {
            parse(q).expect(q);
        }
        for q in [
            "",
            "{",
            "{}",
            r#"{app=~".*"}"#,
            r#"{app="a"} |="#,
            r#"{app="a"} | nosuch"#,
            r#"rate({app="a"})"#,
            r#"sum_over_time({app="a"}[1m])"#,
            r#"{a="b"} + 1"#,
            r#"{a="b"} | pattern "<_>""#,
            r#"{a="b"} |= ip("x")"#,
            r#"{a="b"} | line_format "{{ nosuch .a }}""#,
        ] {
            assert!(parse(q).is_err(), "{q}");
        }
        assert!(parse(&format!("{{a=\"b\"}} | {}", "(".repeat(100_000))).is_err());
    }
}
