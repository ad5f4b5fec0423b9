//! What a query is once it is understood.

use signal::Matcher;

/// Where in the text an expression stands, in bytes.
pub(crate) type Span = (usize, usize);

#[derive(Clone, Debug)]
pub struct Expr {
    pub kind: Kind,
    pub(crate) span: Span,
}

#[derive(Clone, Debug)]
pub enum Kind {
    Number(f64),
    String(String),
    /// A string that is not UTF-8, as it is written: no label can have it as its name or value.
    Bytes(String),
    Selector(Selector),
    /// `selector[range]`
    Matrix {
        selector: Selector,
        range: Length,
    },
    /// `expr[range:step]`
    Subquery {
        expr: Box<Expr>,
        range: Length,
        step: Option<Length>,
        offset: Option<Length>,
        at: Option<At>,
    },
    Unary {
        negate: bool,
        expr: Box<Expr>,
    },
    Binary {
        op: BinaryOp,
        lhs: Box<Expr>,
        rhs: Box<Expr>,
        bool_modifier: bool,
        matching: Option<Matching>,
    },
    Paren(Box<Expr>),
    Call {
        name: String,
        args: Vec<Expr>,
    },
    Aggregate(Aggregation),
}

/// What a range selector does at its edges (experimental in Prometheus 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edges {
    Plain,
    Anchored,
    Smoothed,
}

#[derive(Clone, Debug)]
pub struct Selector {
    /// Includes the metric's name.
    pub matchers: Vec<Matcher>,
    /// The name, if it was written before the braces.
    pub name: Option<String>,
    pub offset: Option<Length>,
    pub at: Option<At>,
    pub edges: Edges,
}

/// A length of time: in milliseconds, or an expression over step and range of the query.
#[derive(Clone, Debug, PartialEq)]
pub enum Length {
    Millis(i64),
    Step,
    Range,
    Negate(Box<Length>),
    Op(BinaryOp, Box<Length>, Box<Length>),
    Min(Box<Length>, Box<Length>),
    Max(Box<Length>, Box<Length>),
    Paren(Box<Length>),
}

/// `@ …`
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum At {
    /// Milliseconds.
    Time(i64),
    Start,
    End,
}

/// All operators and aggregations.
pub const OPERATORS: &[&str] = &[
    "!=",
    "!~",
    "%",
    "*",
    "+",
    "-",
    "/",
    "<",
    "</",
    "<=",
    "==",
    "=~",
    ">",
    ">/",
    ">=",
    "@",
    "^",
    "and",
    "atan2",
    "avg",
    "bottomk",
    "count",
    "count_values",
    "group",
    "limit_ratio",
    "limitk",
    "max",
    "min",
    "or",
    "quantile",
    "stddev",
    "stdvar",
    "sum",
    "topk",
    "unless",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Eq,
    Ne,
    Lt,
    Gt,
    Le,
    Ge,
    And,
    Or,
    Unless,
    TrimUpper,
    TrimLower,
}

impl BinaryOp {
    pub fn as_str(self) -> &'static str {
        match self {
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::Mod => "%",
            BinaryOp::Pow => "^",
            BinaryOp::Atan2 => "atan2",
            BinaryOp::Eq => "==",
            BinaryOp::Ne => "!=",
            BinaryOp::Lt => "<",
            BinaryOp::Gt => ">",
            BinaryOp::Le => "<=",
            BinaryOp::Ge => ">=",
            BinaryOp::And => "and",
            BinaryOp::Or => "or",
            BinaryOp::Unless => "unless",
            BinaryOp::TrimUpper => "</",
            BinaryOp::TrimLower => ">/",
        }
    }

    pub fn is_comparison(self) -> bool {
        matches!(
            self,
            BinaryOp::Eq | BinaryOp::Ne | BinaryOp::Lt | BinaryOp::Gt | BinaryOp::Le | BinaryOp::Ge
        )
    }

    pub fn is_set(self) -> bool {
        matches!(self, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
    }

    /// Higher binds tighter.
    pub(crate) fn precedence(self) -> u8 {
        match self {
            BinaryOp::Or => 1,
            BinaryOp::And | BinaryOp::Unless => 2,
            op if op.is_comparison() => 3,
            BinaryOp::TrimUpper | BinaryOp::TrimLower => 3,
            BinaryOp::Add | BinaryOp::Sub => 4,
            BinaryOp::Pow => 6,
            _ => 5,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cardinality {
    OneToOne,
    /// `group_left`
    ManyToOne,
    /// `group_right`
    OneToMany,
}

/// How series of two sides find each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Matching {
    /// `on` (true) or `ignoring`.
    pub on: bool,
    pub labels: Vec<String>,
    pub cardinality: Cardinality,
    /// Labels taken over from the "one" side.
    pub include: Vec<String>,
    /// `fill…(v)`: stands in for a missing left side, right side.
    pub fill: (Option<f64>, Option<f64>),
}

#[derive(Clone, Debug)]
pub struct Aggregation {
    /// In lower case, such as `sum`.
    pub op: String,
    pub param: Option<Box<Expr>>,
    pub expr: Box<Expr>,
    pub grouping: Vec<String>,
    pub without: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    Scalar,
    String,
    Vector,
    Matrix,
}

impl ValueType {
    /// As error texts say it.
    pub fn describe(self) -> &'static str {
        match self {
            ValueType::Scalar => "scalar",
            ValueType::String => "string",
            ValueType::Vector => "instant vector",
            ValueType::Matrix => "range vector",
        }
    }
}

impl Expr {
    pub fn value_type(&self) -> ValueType {
        match &self.kind {
            Kind::Number(_) => ValueType::Scalar,
            Kind::String(_) | Kind::Bytes(_) => ValueType::String,
            Kind::Selector(_) | Kind::Aggregate(_) => ValueType::Vector,
            Kind::Matrix { .. } | Kind::Subquery { .. } => ValueType::Matrix,
            Kind::Unary { expr, .. } | Kind::Paren(expr) => expr.value_type(),
            Kind::Binary { lhs, rhs, .. } => {
                if lhs.value_type() == ValueType::Scalar && rhs.value_type() == ValueType::Scalar {
                    ValueType::Scalar
                } else {
                    ValueType::Vector
                }
            }
            Kind::Call { name, .. } => {
                crate::functions::signature(name).map_or(ValueType::Vector, |f| f.returns)
            }
        }
    }

    /// All selectors of the expression, from left to right.
    pub fn selectors(&self) -> impl Iterator<Item = &Selector> {
        let mut out = Vec::new();
        self.collect_selectors(&mut out);
        out.into_iter()
    }

    fn collect_selectors<'a>(&'a self, out: &mut Vec<&'a Selector>) {
        match &self.kind {
            Kind::Number(_) | Kind::String(_) | Kind::Bytes(_) => {}
            Kind::Selector(s) | Kind::Matrix { selector: s, .. } => out.push(s),
            Kind::Subquery { expr, .. } | Kind::Unary { expr, .. } | Kind::Paren(expr) => {
                expr.collect_selectors(out);
            }
            Kind::Binary { lhs, rhs, .. } => {
                lhs.collect_selectors(out);
                rhs.collect_selectors(out);
            }
            Kind::Call { args, .. } => args.iter().for_each(|a| a.collect_selectors(out)),
            Kind::Aggregate(a) => {
                a.param.iter().for_each(|p| p.collect_selectors(out));
                a.expr.collect_selectors(out);
            }
        }
    }

    /// The expression inside any parentheses.
    pub fn unwrap_parens(&self) -> &Expr {
        match &self.kind {
            Kind::Paren(e) => e.unwrap_parens(),
            _ => self,
        }
    }
}
