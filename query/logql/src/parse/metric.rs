//! Metric queries: range aggregations are cut out, what is left is PromQL.

use std::fmt::Write;

use super::Parser;
use crate::ast::{RangeAggregation, Stage};
use crate::error::Error;
use crate::lex::{Lexed, Token};
use crate::pipeline::Pipeline;

/// A metric query: PromQL over series named `__logql_0`, `__logql_1`, …, each the result of a range aggregation.
#[derive(Clone, Debug)]
pub struct MetricQuery {
    pub(crate) promql: String,
    pub(crate) ranges: Vec<RangeAggregation>,
    /// Every name that stands in the query for a label: such labels are kept.
    pub(crate) names: Vec<String>,
}

pub(crate) const RANGE_OPS: [&str; 16] = [
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
    "present_over_time",
];

/// Words behind which a list of labels stands.
const LISTS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
const WORDS: [&str; 4] = ["and", "or", "unless", "bool"];

/// PromQL, and which part of it is from where in the query.
#[derive(Default)]
struct Rewritten {
    promql: String,
    /// Where a part begins in the PromQL and in the query, and whether it stands there word for word.
    parts: Vec<(usize, usize, bool)>,
}

impl Rewritten {
    fn copy(&mut self, text: &str, from: usize, to: usize) {
        self.parts.push((self.promql.len(), from, true));
        self.promql.push_str(text.get(from..to).unwrap_or_default());
    }

    fn put(&mut self, what: &str, at: usize) {
        self.parts.push((self.promql.len(), at, false));
        self.promql.push_str(what);
    }

    /// A failure of PromQL's parser, at its place in the query.
    fn error(&self, text: &str, e: &promql::ParseError) -> Error {
        let line: usize = self.promql.split_inclusive('\n').take(e.line - 1).map(str::len).sum();
        let at = line + e.column - 1;
        let part = self.parts.iter().rev().find(|(begin, _, _)| *begin <= at);
        let at = part.map_or(0, |(begin, from, copied)| if *copied { from + at - begin } else { *from });
        Error::at(text, at.min(text.len()), e.message.clone())
    }
}

pub(super) fn parse(text: &str, tokens: Vec<Lexed>) -> Result<MetricQuery, Error> {
    let mut p = Parser { text, tokens, at: 0, nodes: 0 };
    let mut out = Rewritten::default();
    let mut q = MetricQuery { promql: String::new(), ranges: Vec::new(), names: Vec::new() };
    let mut copied = 0;
    while p.peek() != &Token::End {
        let start = p.start();
        let called = p.peek_at(1) == &Token::Op("(");
        match p.peek().clone() {
            Token::Ident(word) if called && RANGE_OPS.contains(&word.as_str()) => {
                out.copy(text, copied, start);
                p.at += 2;
                let range = p.range_aggregation(word, &mut q.names)?;
                out.put(&format!("__logql_{}", q.ranges.len()), start);
                q.ranges.push(range);
                copied = p.previous_end();
            }
            // Exact here: what may be near the truth may also be the truth.
            Token::Ident(word) if called && word == "approx_topk" => {
                out.copy(text, copied, start);
                out.put("topk", start);
                p.at += 1;
                copied = p.previous_end();
            }
            Token::Ident(word) if LISTS.contains(&word.as_str()) => {
                p.at += 1;
                if called {
                    q.names.extend(p.names()?);
                }
            }
            Token::Ident(word) if WORDS.contains(&word.as_str()) => p.at += 1,
            Token::Ident(word) if called || is_grouped(&word, p.peek_at(1)) => {
                if !is_function(&word) {
                    return Err(p.unexpected(""));
                }
                p.at += 1;
            }
            Token::Str(name) => {
                // label_replace names its labels in strings.
                q.names.push(name);
                p.at += 1;
            }
            Token::Op("{") => return Err(p.unexpected("a log selector belongs inside a range aggregation")),
            Token::Ident(_) | Token::Op("[" | "]" | "}" | "|" | "|=" | "|~" | "!~" | "|>" | "!>") => {
                return Err(p.unexpected(""));
            }
            _ => p.at += 1,
        }
    }
    out.copy(text, copied, text.len());
    let parsed = promql::parse(&out.promql).map_err(|e| out.error(text, &e))?;
    push_down(&parsed, &mut q.ranges);
    q.promql = out.promql;
    Ok(q)
}

fn is_function(word: &str) -> bool {
    promql::FUNCTIONS.contains(&word) || promql::OPERATORS.contains(&word)
}

/// `sum by (…) (…)`
fn is_grouped(word: &str, next: &Token) -> bool {
    promql::OPERATORS.contains(&word) && matches!(next, Token::Ident(w) if w == "by" || w == "without")
}

/// A sum of sums needs only the labels that it keeps; where it keeps none, what a parser would read is not needed.
fn push_down(e: &promql::Expr, ranges: &mut [RangeAggregation]) {
    use promql::Kind;
    match &e.kind {
        Kind::Aggregate(a) => {
            push_down(&a.expr, ranges);
            let mut inner = &*a.expr;
            while let Kind::Paren(e) = &inner.kind {
                inner = e;
            }
            let Kind::Selector(s) = &inner.kind else { return };
            let number = s.name.as_deref().and_then(|n| n.strip_prefix("__logql_")?.parse::<usize>().ok());
            let Some(r) = number.and_then(|n| ranges.get_mut(n)) else { return };
            let adds = matches!(
                r.op.as_str(),
                "count_over_time" | "rate" | "bytes_over_time" | "bytes_rate" | "sum_over_time"
            );
            if a.op != "sum" || !adds || r.grouping.is_some() {
                return;
            }
            r.grouping = Some((!a.without, a.grouping.clone()));
            if !a.without && a.grouping.is_empty() {
                without_idle_parsers(&mut r.pipeline.log.stages);
            }
        }
        Kind::Binary { lhs, rhs, .. } => {
            push_down(lhs, ranges);
            push_down(rhs, ranges);
        }
        Kind::Paren(e) | Kind::Unary { expr: e, .. } => push_down(e, ranges),
        Kind::Call { args, .. } => args.iter().for_each(|e| push_down(e, ranges)),
        _ => {}
    }
}

/// Drops parsers if nothing reads the labels they make.
fn without_idle_parsers(stages: &mut Vec<Stage>) {
    let idle =
        |s: &Stage| matches!(s, Stage::Json(_) | Stage::Logfmt(..) | Stage::Regexp(_) | Stage::Pattern(_));
    if stages.iter().all(|s| idle(s) || matches!(s, Stage::Line { .. })) {
        stages.retain(|s| !idle(s));
    }
}

impl Parser<'_> {
    /// `(a, b)`
    fn names(&mut self) -> Result<Vec<String>, Error> {
        self.expect_op("(")?;
        let mut all = Vec::new();
        while !self.take_op(")") {
            all.push(self.ident()?);
            if !self.take_op(",") && self.peek() != &Token::Op(")") {
                return Err(self.unexpected("expecting ) or ,"));
            }
        }
        Ok(all)
    }

    /// What stands behind `rate(` and its like, up to and with the grouping.
    fn range_aggregation(&mut self, op: String, names: &mut Vec<String>) -> Result<RangeAggregation, Error> {
        let begin = self.at;
        let param = self.parameter(&op)?;
        let mut log = self.log_expr()?;
        self.expect_op("[")?;
        let range = self.duration()?;
        if range <= 0 {
            return Err(self.unexpected("the range must be positive"));
        }
        self.expect_op("]")?;
        // Offset and filters may also stand behind the range.
        let mut offset = self.offset()?;
        log.stages.extend(self.stages()?);
        if offset == 0 {
            offset = self.offset()?;
        }
        self.expect_op(")")?;
        let named = self.tokens[begin..self.at].iter().filter_map(|t| match &t.token {
            Token::Ident(n) => Some(n.clone()),
            _ => None,
        });
        // Of a pipeline without labels no name is one; a selector's own are the stream's anyway.
        let pipeline = Pipeline::new(log);
        if !pipeline.filters_only() {
            names.extend(named);
        }
        let mut grouping = None;
        for (word, by) in [("by", true), ("without", false)] {
            if grouping.is_none() && self.take_word(word) {
                let list = self.names()?;
                names.extend(list.iter().cloned());
                grouping = Some((by, list));
            }
        }
        let r = RangeAggregation { op, pipeline, range, offset, param, grouping };
        match invalid(&r) {
            Some(message) => {
                let at = self.tokens.get(begin.saturating_sub(2)).map_or(0, |t| t.start);
                Err(Error::at(self.text, at, message))
            }
            None => Ok(r),
        }
    }

    fn parameter(&mut self, op: &str) -> Result<Option<f64>, Error> {
        let negative = matches!(self.peek(), Token::Op("-")) && matches!(self.peek_at(1), Token::Number(_));
        let at = self.start();
        self.at += usize::from(negative);
        let param = match self.peek().clone() {
            Token::Number(n) => {
                let v: f64 = n.parse().map_err(|_| self.unexpected("expecting NUMBER"))?;
                self.at += 1;
                self.expect_op(",")?;
                Some(if negative { -v } else { v })
            }
            _ => None,
        };
        match (op, param) {
            ("quantile_over_time", None) => {
                Err(Error::at(self.text, at, format!("parameter required for operation {op}")))
            }
            (op, Some(v)) if op != "quantile_over_time" => {
                Err(Error::at(self.text, at, format!("parameter {v} not supported for operation {op}")))
            }
            (_, param) => Ok(param),
        }
    }

    fn offset(&mut self) -> Result<i64, Error> {
        if !self.take_word("offset") {
            return Ok(0);
        }
        let negate = self.take_op("-");
        Ok(self.duration()? * if negate { -1 } else { 1 })
    }
}

/// What Loki refuses.
fn invalid(r: &RangeAggregation) -> Option<String> {
    let op = r.op.as_str();
    let may_group = matches!(
        op,
        "avg_over_time"
            | "stddev_over_time"
            | "stdvar_over_time"
            | "quantile_over_time"
            | "max_over_time"
            | "min_over_time"
            | "first_over_time"
            | "last_over_time"
    );
    let counts = matches!(op, "bytes_over_time" | "bytes_rate" | "count_over_time" | "present_over_time");
    let mut message = String::new();
    let said = match (r.pipeline.unwraps(), counts) {
        (true, true) => write!(message, "invalid aggregation {op} with unwrap"),
        (false, false) if !matches!(op, "rate" | "absent_over_time") => {
            write!(message, "invalid aggregation {op} without unwrap")
        }
        _ if r.grouping.is_some() && !may_group => {
            write!(message, "grouping not allowed for {op} aggregation")
        }
        _ => Ok(()),
    };
    said.ok().filter(|()| !message.is_empty()).map(|()| message)
}
