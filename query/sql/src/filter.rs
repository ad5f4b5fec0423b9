//! Conditions that an engine can use itself: bounds of time, matchers on labels, texts that a body must hold.
//!
//! Everything here only narrows what is read: DataFusion checks each row again. So a condition may be used loosely,
//! but never so that a row is lost that the condition holds for.

use std::ops::ControlFlow;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{Between, BinaryExpr, Cast, Expr, Like, Operator, TryCast};
use signal::{MatchOp, Matcher, Timestamp, TraceId};

/// What is left to read, in the table's own column names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Nanoseconds, inclusive, of the table's time column.
    pub(crate) start: Option<i64>,
    pub(crate) end: Option<i64>,
    /// On columns of text.
    pub(crate) columns: Vec<Matcher>,
    /// On entries of the `labels` map.
    pub(crate) labels: Vec<Matcher>,
    /// Substrings of `body`.
    pub(crate) needles: Vec<String>,
    pub(crate) trace_id: Option<TraceId>,
    /// Of `duration_ms`, in nanoseconds.
    pub(crate) min_duration: Option<u64>,
    pub(crate) max_duration: Option<u64>,
}

/// A column that is compared.
enum Subject<'a> {
    Column(&'a str),
    Label(&'a str),
}

impl Wanted {
    pub(crate) fn from(filters: &[Expr], time: &str) -> Wanted {
        let mut w = Wanted::default();
        for f in filters {
            w.add(f, time);
        }
        w
    }

    /// The value a column must equal, if the filters say one.
    pub(crate) fn equals(&self, column: &str) -> Option<&str> {
        let m = self.columns.iter().find(|m| m.name == column && m.op == MatchOp::Equal)?;
        Some(&m.value)
    }

    /// Narrows to rows that `e` can hold for. False if nothing in it is of use.
    pub(crate) fn add(&mut self, e: &Expr, time: &str) -> bool {
        match e {
            Expr::Alias(a) => self.add(&a.expr, time),
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                let l = self.add(left, time);
                self.add(right, time) || l
            }
            Expr::BinaryExpr(BinaryExpr { op: Operator::Or, .. }) => self.any_of(e),
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (literal(left), literal(right)) {
                (None, Some(v)) => self.compare(left, *op, v, time),
                (Some(v), None) => op.swap().is_some_and(|op| self.compare(right, op, v, time)),
                _ => false,
            },
            Expr::Between(Between { expr, negated: false, low, high }) => {
                let l = literal(low).is_some_and(|v| self.compare(expr, Operator::GtEq, v, time));
                literal(high).is_some_and(|v| self.compare(expr, Operator::LtEq, v, time)) || l
            }
            Expr::InList(InList { expr, list, negated: false }) => {
                let values: Option<Vec<&str>> = list.iter().map(|e| literal(e).and_then(text)).collect();
                values.is_some_and(|v| self.one_of(expr, &v))
            }
            Expr::Like(Like {
                negated: false,
                expr,
                pattern,
                escape_char: None,
                case_insensitive: false,
            }) => literal(pattern).and_then(text).is_some_and(|p| self.like(expr, p)),
            Expr::ScalarFunction(f) if f.func.name() == "contains" => match f.args.as_slice() {
                [of, what] if column(of) == Some("body") => {
                    literal(what).and_then(text).is_some_and(|n| self.needle(n))
                }
                _ => false,
            },
            _ => false,
        }
    }

    fn needle(&mut self, n: &str) -> bool {
        if !n.is_empty() {
            self.needles.push(n.to_owned());
        }
        !n.is_empty()
    }

    fn compare(&mut self, e: &Expr, op: Operator, v: &ScalarValue, time: &str) -> bool {
        if let Some(slack) = column_or_cast(e, time) {
            return nanos(v).is_some_and(|at| self.time(op, at, slack));
        }
        if column(e) == Some("duration_ms") {
            return self.duration(op, v);
        }
        let Some(value) = text(v) else { return false };
        if column(e) == Some("trace_id") && op == Operator::Eq {
            self.trace_id = value.parse().ok();
            return self.trace_id.is_some();
        }
        if column(e) == Some("body") {
            return op == Operator::Eq && self.needle(value);
        }
        let op = match op {
            Operator::Eq => MatchOp::Equal,
            Operator::NotEq => MatchOp::NotEqual,
            // A search anywhere in the text; ours are anchored.
            Operator::RegexMatch => return self.matcher(e, MatchOp::Regex, &format!(".*(?:{value}).*")),
            _ => return false,
        };
        // An empty text is no label; leave the question to the rows.
        !value.is_empty() && self.matcher(e, op, value)
    }

    fn matcher(&mut self, e: &Expr, op: MatchOp, value: &str) -> bool {
        let Some(subject) = subject(e) else { return false };
        let (Subject::Column(name) | Subject::Label(name)) = subject;
        let Ok(m) = Matcher::new(name, op, value) else { return false };
        match subject {
            Subject::Column("body" | "trace_id" | "span_id") => return false,
            Subject::Column(_) => self.columns.push(m),
            Subject::Label(_) => self.labels.push(m),
        }
        true
    }

    fn one_of(&mut self, e: &Expr, values: &[&str]) -> bool {
        if values.is_empty() || values.iter().any(|v| v.is_empty()) || column(e) == Some("body") {
            return false;
        }
        if let [one] = values {
            return self.matcher(e, MatchOp::Equal, one);
        }
        let all: Vec<String> = values.iter().map(|v| regex::escape(v)).collect();
        self.matcher(e, MatchOp::Regex, &all.join("|"))
    }

    /// `a = 'x' OR a = 'y'`, which is what a short `a IN (…)` becomes.
    fn any_of(&mut self, e: &Expr) -> bool {
        fn collect<'a>(e: &'a Expr, of: &mut Option<&'a Expr>, out: &mut Vec<&'a str>) -> ControlFlow<()> {
            match e {
                Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
                    collect(left, of, out)?;
                    collect(right, of, out)
                }
                Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
                    let (subject, value) = match (literal(left), literal(right)) {
                        (None, Some(v)) => (left, v),
                        (Some(v), None) => (right, v),
                        _ => return ControlFlow::Break(()),
                    };
                    match text(value) {
                        Some(v) if of.is_none_or(|o| *o == **subject) => {
                            *of = Some(subject);
                            out.push(v);
                            ControlFlow::Continue(())
                        }
                        _ => ControlFlow::Break(()),
                    }
                }
                _ => ControlFlow::Break(()),
            }
        }
        let (mut of, mut values) = (None, Vec::new());
        collect(e, &mut of, &mut values).is_continue() && of.is_some_and(|of| self.one_of(of, &values))
    }

    fn like(&mut self, e: &Expr, pattern: &str) -> bool {
        if column(e) == Some("body") {
            // The pieces between wildcards stand in the body as they are.
            if pattern.contains('\\') {
                return false;
            }
            let pieces: Vec<&str> = pattern.split(['%', '_']).filter(|p| !p.is_empty()).collect();
            // Every piece is tried, also after one that helps.
            let used = pieces.iter().filter(|p| self.needle(p)).count();
            return used > 0;
        }
        let mut regex = String::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            match c {
                '%' => regex.push_str(".*"),
                '_' => regex.push('.'),
                '\\' => match chars.next() {
                    Some(c) => regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
                    None => return false,
                },
                c => regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
            }
        }
        self.matcher(e, MatchOp::Regex, &regex)
    }

    fn time(&mut self, op: Operator, at: i64, slack: i64) -> bool {
        // A bound that is not shifted by a cast is met to the nanosecond.
        let at = match op {
            Operator::Gt if slack == 0 => at.saturating_add(1),
            Operator::Lt if slack == 0 => at.saturating_sub(1),
            _ => at,
        };
        let (low, high) = (at.saturating_sub(slack), at.saturating_add(slack));
        let raise = |s: Option<i64>| Some(s.map_or(low, |s| s.max(low)));
        let lower = |e: Option<i64>| Some(e.map_or(high, |e| e.min(high)));
        match op {
            Operator::Gt | Operator::GtEq => self.start = raise(self.start),
            Operator::Lt | Operator::LtEq => self.end = lower(self.end),
            Operator::Eq => {
                self.start = raise(self.start);
                self.end = lower(self.end);
            }
            _ => return false,
        }
        true
    }

    fn duration(&mut self, op: Operator, v: &ScalarValue) -> bool {
        let ms = match v {
            ScalarValue::Float64(Some(v)) => *v,
            ScalarValue::Int64(Some(v)) => *v as f64,
            _ => return false,
        };
        // Milliseconds as a float are a rounding away from the nanoseconds that are stored.
        let (low, high) = ((ms * 1e6 - 1e3).max(0.0) as u64, (ms * 1e6 + 1e3).max(0.0) as u64);
        match op {
            Operator::Gt | Operator::GtEq => {
                self.min_duration = Some(low.max(self.min_duration.unwrap_or(0)))
            }
            Operator::Lt | Operator::LtEq => {
                self.max_duration = Some(high.min(self.max_duration.unwrap_or(u64::MAX)));
            }
            _ => return false,
        }
        true
    }

    /// Bounds for a reader: where nothing says how far back, `default_range` does, and a note tells so.
    pub(crate) fn range(
        &self,
        now: Timestamp,
        default_range: std::time::Duration,
    ) -> (Timestamp, Timestamp, bool) {
        let end = self.end.unwrap_or(i64::MAX);
        match self.start {
            Some(start) => (Timestamp(start), Timestamp(end), false),
            None => (Timestamp(end).min(now).saturating_sub(default_range), Timestamp(end), true),
        }
    }
}

/// A bound on the time column itself, in its own unit: what [`Wanted::range`] says of it is all there is to say.
pub(crate) fn is_bound(e: &Expr, time: &str) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = e else { return false };
    let ordered = matches!(op, Operator::Gt | Operator::GtEq | Operator::Lt | Operator::LtEq | Operator::Eq);
    let exact = |v: Option<&ScalarValue>| matches!(v, Some(ScalarValue::TimestampNanosecond(Some(_), _)));
    let is_time = |e: &Expr| column_or_cast(e, time) == Some(0);
    ordered && (is_time(left) && exact(literal(right)) || is_time(right) && exact(literal(left)))
}

fn literal(e: &Expr) -> Option<&ScalarValue> {
    match e {
        Expr::Literal(v, _) => Some(v),
        _ => None,
    }
}

fn text(v: &ScalarValue) -> Option<&str> {
    v.try_as_str().flatten()
}

/// A column, also behind a cast from one form of text to another.
fn column(e: &Expr) -> Option<&str> {
    match e {
        Expr::Column(c) => Some(&c.name),
        Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field })
            if field.data_type().is_string()
                || matches!(field.data_type(), arrow::datatypes::DataType::Dictionary(..)) =>
        {
            match expr.as_ref() {
                Expr::Column(c) if c.name != "time" && c.name != "start" && c.name != "end" => Some(&c.name),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The time column itself or a cast of it to another unit: how far the cast can have moved it, in nanoseconds.
fn column_or_cast(e: &Expr, time: &str) -> Option<i64> {
    match e {
        Expr::Column(c) if c.name == time => Some(0),
        Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field }) => match expr.as_ref() {
            // The coarsest unit is a second; a change of zone alone moves nothing.
            Expr::Column(c)
                if c.name == time
                    && matches!(field.data_type(), arrow::datatypes::DataType::Timestamp(..)) =>
            {
                Some(1_000_000_000)
            }
            _ => None,
        },
        _ => None,
    }
}

fn subject(e: &Expr) -> Option<Subject<'_>> {
    if let Some(c) = column(e) {
        return Some(Subject::Column(c));
    }
    let e = match e {
        Expr::Cast(Cast { expr, .. }) | Expr::TryCast(TryCast { expr, .. }) => expr,
        e => e,
    };
    match e {
        Expr::ScalarFunction(f) if f.func.name() == "get_field" => match f.args.as_slice() {
            [map, key] if column(map) == Some("labels") => literal(key).and_then(text).map(Subject::Label),
            _ => None,
        },
        _ => None,
    }
}

pub(crate) fn nanos(v: &ScalarValue) -> Option<i64> {
    match v {
        ScalarValue::TimestampSecond(v, _) => v.map(|v| v.saturating_mul(1_000_000_000)),
        ScalarValue::TimestampMillisecond(v, _) => v.map(|v| v.saturating_mul(1_000_000)),
        ScalarValue::TimestampMicrosecond(v, _) => v.map(|v| v.saturating_mul(1_000)),
        ScalarValue::TimestampNanosecond(v, _) => *v,
        _ => None,
    }
}
