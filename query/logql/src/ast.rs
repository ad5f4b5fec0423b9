//! What a query is once it is understood.

use regex::Regex;
use signal::Matcher;

use crate::ip::IpRange;
use crate::pipeline::Pipeline;
use crate::shape::LineShape;
use crate::template::Template;

/// `{…}` and what follows it.
#[derive(Clone, Debug)]
pub(crate) struct LogExpr {
    pub(crate) matchers: Vec<Matcher>,
    pub(crate) stages: Vec<Stage>,
}

#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// True if any of the patterns is found (or, negated, none).
    Line {
        negate: bool,
        any: Vec<LinePattern>,
    },
    Json(Vec<(String, JsonPath)>),
    Logfmt(LogfmtOptions, Vec<(String, String)>),
    Regexp(Regex),
    /// `<ip> - <user> [<_>]`
    Pattern(LineShape),
    Unpack,
    Label(Condition),
    LineFormat(Template),
    LabelFormat(Vec<(String, Source)>),
    Drop(Vec<(String, Option<Matcher>)>),
    Keep(Vec<(String, Option<Matcher>)>),
    Unwrap {
        label: String,
        convert: Convert,
    },
    Decolorize,
}

#[derive(Clone, Debug)]
pub(crate) enum LinePattern {
    Contains(String),
    Regex(Regex),
    /// `|> "GET <_> took <_>ms"`
    Shape(LineShape),
    /// Any address in the line that is in the range.
    Ip(IpRange),
}

#[derive(Clone, Debug)]
pub(crate) enum Source {
    Label(String),
    Template(Template),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Convert {
    Number,
    Duration,
    Bytes,
}

#[derive(Clone, Debug)]
pub(crate) enum Condition {
    Match(Matcher),
    Ip { label: String, negate: bool, range: IpRange },
    Compare { label: String, op: &'static str, value: f64, convert: Convert },
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
}

/// `a.b[0]["c"]`
pub(crate) type JsonPath = Vec<JsonStep>;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum JsonStep {
    Field(String),
    Index(usize),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogfmtOptions {
    /// What is malformed is an error, not passed over.
    pub(crate) strict: bool,
    /// Keys without a value are labels with an empty value.
    pub(crate) keep_empty: bool,
}

/// `rate({…}[5m])` and its like.
#[derive(Clone, Debug)]
pub(crate) struct RangeAggregation {
    pub(crate) op: String,
    pub(crate) pipeline: Pipeline,
    /// Nanoseconds.
    pub(crate) range: i64,
    pub(crate) offset: i64,
    pub(crate) param: Option<f64>,
    /// `by` (true) or `without`, and the labels.
    pub(crate) grouping: Option<(bool, Vec<String>)>,
}
