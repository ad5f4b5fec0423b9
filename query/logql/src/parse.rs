//! Tokens into a query. Range aggregations are cut out of a metric query; what is left is PromQL.

mod stages;

use signal::{MatchOp, Matcher};

use crate::ast::{LogExpr, RangeAggregation};
use crate::error::Error;
use crate::lex::{Lexed, Token, lex};

/// A parsed query.
#[derive(Clone, Debug)]
pub enum Query {
    Log(crate::pipeline::Pipeline),
    Metric(MetricQuery),
}

/// A metric query: PromQL over series named `__logql_0`, `__logql_1`, …, each the result of a range aggregation.
#[derive(Clone, Debug)]
pub struct MetricQuery {
    pub(crate) promql: String,
    pub(crate) ranges: Vec<RangeAggregation>,
    /// Every name that stands in the query: such labels are kept.
    pub(crate) names: Vec<String>,
}

pub(crate) const RANGE_OPS: [&str; 17] = [
    "rate",
    "rate_counter",
    "count_over_time",
    "bytes_rate",
    "bytes_over_time",
    "sum_over_time",
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "quantile_over_time",
    "first_over_time",
    "last_over_time",
    "absent_over_time",
    "increase",
    "present_over_time",
];

/// Parses any query.
pub fn parse(text: &str) -> Result<Query, Error> {
    let tokens = lex(text)?;
    match tokens.first().map(|t| &t.token) {
        None | Some(Token::End) => Err(Error::at(text, 0, "syntax error: unexpected $end")),
        Some(Token::Op("{")) => {
            let mut p = Parser { text, tokens, at: 0, nodes: 0 };
            let log = p.log_expr()?;
            p.expect_end()?;
            Ok(Query::Log(crate::pipeline::Pipeline::new(log)))
        }
        _ => metric(text, tokens).map(Query::Metric),
    }
}

/// Parses a query that must be a log query, as tails and series selectors are.
pub fn parse_log_query(text: &str) -> Result<crate::pipeline::Pipeline, Error> {
    match parse(text)? {
        Query::Log(p) => Ok(p),
        Query::Metric(_) => Err(Error::at(text, 0, "only log queries are allowed here")),
    }
}

fn metric(text: &str, tokens: Vec<Lexed>) -> Result<MetricQuery, Error> {
    let mut q = MetricQuery { promql: String::new(), ranges: Vec::new(), names: Vec::new() };
    for t in &tokens {
        if let Token::Ident(n) = &t.token {
            q.names.push(n.clone());
        }
    }
    let mut p = Parser { text, tokens, at: 0, nodes: 0 };
    let mut copied = 0;
    while p.peek() != &Token::End {
        let start = p.start();
        if let Token::Ident(word) = p.peek().clone()
            && RANGE_OPS.contains(&word.as_str())
            && p.peek_at(1) == &Token::Op("(")
        {
            q.promql.push_str(&text[copied..start]);
            p.at += 2;
            let range = p.range_aggregation(word)?;
            q.promql.push_str(&format!("__logql_{}", q.ranges.len()));
            q.ranges.push(range);
            copied = p.previous_end();
        } else if p.peek() == &Token::Ident("approx_topk".to_owned()) {
            // Exact here: what may be near the truth may also be the truth.
            q.promql.push_str(&text[copied..start]);
            q.promql.push_str("topk");
            p.at += 1;
            copied = p.previous_end();
        } else if p.peek() == &Token::Op("{") {
            return Err(p.unexpected("a log selector belongs inside a range aggregation"));
        } else {
            p.at += 1;
        }
    }
    q.promql.push_str(&text[copied..]);
    promql::parse(&q.promql).map_err(promql::Error::from)?;
    Ok(q)
}

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
            Token::Ident(_) => "IDENTIFIER".to_owned(),
            Token::Str(_) => "STRING".to_owned(),
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
            let e = self.log_expr()?;
            self.expect_op(")")?;
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

    fn range_aggregation(&mut self, op: String) -> Result<RangeAggregation, Error> {
        let mut param = None;
        if let Token::Number(n) = self.peek().clone() {
            self.at += 1;
            param = Some(n.parse().map_err(|_| self.unexpected("expecting a number"))?);
            self.expect_op(",")?;
        }
        let mut log = self.log_expr()?;
        self.expect_op("[")?;
        let range = self.duration()?;
        self.expect_op("]")?;
        // Filters may also stand behind the range.
        log.stages.extend(self.stages()?);
        let mut offset = 0;
        if self.take_word("offset") {
            let negate = self.take_op("-");
            offset = self.duration()? * if negate { -1 } else { 1 };
        }
        self.expect_op(")")?;
        let mut grouping = None;
        for (word, by) in [("by", true), ("without", false)] {
            if self.take_word(word) {
                self.expect_op("(")?;
                let mut labels = Vec::new();
                while !self.take_op(")") {
                    labels.push(self.ident()?);
                    let _ = self.take_op(",");
                }
                grouping = Some((by, labels));
            }
        }
        let unwraps = log.stages.iter().any(|s| matches!(s, crate::ast::Stage::Unwrap { .. }));
        let needs = !matches!(
            op.as_str(),
            "count_over_time"
                | "rate"
                | "bytes_rate"
                | "bytes_over_time"
                | "absent_over_time"
                | "present_over_time"
                | "increase"
        );
        if needs && !unwraps {
            return Err(self.unexpected(&format!("invalid aggregation {op} without unwrap")));
        }
        if range <= 0 {
            return Err(self.unexpected("the range must be positive"));
        }
        Ok(RangeAggregation { op, log, range, offset, param, grouping })
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
