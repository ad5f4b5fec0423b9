//! Binary operators between scalars and vectors.

use std::collections::HashMap;

use signal::{Labels, METRIC_NAME};

use crate::ast::{BinaryOp, Cardinality, Expr, Matching};
use crate::error::Error;
use crate::eval::Evaluator;
use crate::value::{ABSENT, Column, Grid, Out, is_absent, merge_equal, without_name};

fn arithmetic(op: BinaryOp, a: f64, b: f64) -> f64 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Mod => a % b,
        BinaryOp::Pow => a.powf(b),
        _ => a.atan2(b),
    }
}

fn compare(op: BinaryOp, a: f64, b: f64) -> bool {
    match op {
        BinaryOp::Eq => a == b,
        BinaryOp::Ne => a != b,
        BinaryOp::Lt => a < b,
        BinaryOp::Gt => a > b,
        BinaryOp::Le => a <= b,
        _ => a >= b,
    }
}

/// The result for two values; `kept` is what a filtering comparison lets through.
fn apply(op: BinaryOp, a: f64, b: f64, kept: f64, bool_modifier: bool) -> f64 {
    if !op.is_comparison() {
        arithmetic(op, a, b)
    } else if bool_modifier {
        f64::from(u8::from(compare(op, a, b)))
    } else if compare(op, a, b) {
        kept
    } else {
        ABSENT
    }
}

type Groups<'a> = HashMap<Labels, Vec<&'a Column>, ahash::RandomState>;

impl Evaluator<'_> {
    #[expect(clippy::too_many_arguments, reason = "the parts of one node of the tree")]
    pub(crate) fn binary(
        &self,
        op: BinaryOp,
        lhs: &Expr,
        rhs: &Expr,
        bool_modifier: bool,
        matching: Option<&Matching>,
        grid: Grid,
    ) -> Result<Out, Error> {
        if matches!(op, BinaryOp::TrimLower | BinaryOp::TrimUpper) {
            return Err(Error::Execution(format!(
                "{} needs native histograms, which are not supported yet",
                op.as_str()
            )));
        }
        let (l, r) = (self.eval(lhs, grid)?, self.eval(rhs, grid)?);
        match (l, r) {
            (Out::Scalar(a), Out::Scalar(b)) => {
                Ok(Out::Scalar(a.into_iter().zip(b).map(|(a, b)| apply(op, a, b, a, true)).collect()))
            }
            (Out::Vector(columns), Out::Scalar(s)) => {
                Ok(with_scalar(columns, &s, |v, s| apply(op, v, s, v, bool_modifier), op, bool_modifier))
            }
            (Out::Scalar(s), Out::Vector(columns)) => {
                Ok(with_scalar(columns, &s, |v, s| apply(op, s, v, v, bool_modifier), op, bool_modifier))
            }
            (Out::Vector(a), Out::Vector(b)) => {
                let default = Matching {
                    on: false,
                    labels: Vec::new(),
                    cardinality: Cardinality::OneToOne,
                    include: Vec::new(),
                    fill: (None, None),
                };
                let m = matching.unwrap_or(&default);
                if op.is_set() {
                    set(op, a, b, m, grid).map(Out::Vector)
                } else {
                    self.pairs(op, &a, &b, m, bool_modifier, grid).map(Out::Vector)
                }
            }
            _ => Err(Error::Execution("strings have no operators".to_owned())),
        }
    }

    fn pairs(
        &self,
        op: BinaryOp,
        a: &[Column],
        b: &[Column],
        m: &Matching,
        bool_modifier: bool,
        grid: Grid,
    ) -> Result<Vec<Column>, Error> {
        // `many` may hold several series of a group at once, `one` only one at each step.
        let swapped = m.cardinality == Cardinality::OneToMany;
        let (many, one) = if swapped { (b, a) } else { (a, b) };
        // Prometheus: with group_right the two sides change places but their fills do not.
        let (fill_many, fill_one) = m.fill;
        let one_by_group = group(one, m);
        for (labels, columns) in &one_by_group {
            // Two of the "one" side at the same step are an error, whatever stands on the other side.
            if columns.len() > 1
                && let Some((x, y)) = overlap(columns)
            {
                let side = if swapped { "left" } else { "right" };
                return Err(Error::Execution(format!(
                    "found duplicate series for the match group {} on the {side} hand-side of the operation: [{}, {}];many-to-many matching not allowed: matching labels must be unique on one side",
                    braces(labels),
                    braces(&x.labels),
                    braces(&y.labels)
                )));
            }
        }
        let drop = !op.is_comparison() || bool_modifier;
        let value = |x: f64, y: f64| {
            let (l, r) = if swapped { (y, x) } else { (x, y) };
            apply(op, l, r, l, bool_modifier)
        };
        let mut out: Vec<Column> = Vec::new();
        let mut push =
            |many: &Labels, one: Option<&Labels>, drop_name: bool, values: Vec<f64>| -> Result<(), Error> {
                if values.iter().any(|v| !is_absent(*v)) {
                    self.charge(values.len() * 8 + 100)?;
                    out.push(Column { labels: result_labels(many, one, m), drop_name, values });
                }
                Ok(())
            };
        // For one-to-one, two of the left side that both find a partner at one step are an error.
        let mut taken: HashMap<Labels, Vec<bool>, ahash::RandomState> = HashMap::default();
        for x in many {
            let key = signature(&x.labels, m);
            let partners = one_by_group.get(&key).map_or(&[][..], Vec::as_slice);
            let drop_name = drop || x.drop_name;
            if m.cardinality == Cardinality::OneToOne && (!partners.is_empty() || fill_one.is_some()) {
                let seen = taken.entry(key.clone()).or_insert_with(|| vec![false; grid.n]);
                for (i, seen) in seen.iter_mut().enumerate() {
                    let both = !is_absent(x.values[i])
                        && (fill_one.is_some() || partners.iter().any(|p| !is_absent(p.values[i])));
                    if both && std::mem::replace(seen, true) {
                        return Err(Error::Execution(
                            "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)".to_owned(),
                        ));
                    }
                }
            }
            for y in partners {
                let values = x.values.iter().zip(&y.values);
                let values =
                    values.map(|(x, y)| if is_absent(*x) || is_absent(*y) { ABSENT } else { value(*x, *y) });
                push(&x.labels, Some(&y.labels), drop_name, values.collect())?;
            }
            if let Some(fill) = fill_one {
                let alone = |i: usize| partners.iter().all(|p| is_absent(p.values[i]));
                let values = x.values.iter().enumerate();
                let values =
                    values.map(|(i, x)| if is_absent(*x) || !alone(i) { ABSENT } else { value(*x, fill) });
                push(&x.labels, Some(&key), drop_name, values.collect())?;
            }
        }
        if let Some(fill) = fill_many {
            let many_by_group = group(many, m);
            for y in one {
                let key = signature(&y.labels, m);
                let partners = many_by_group.get(&key).map_or(&[][..], Vec::as_slice);
                let alone = |i: usize| partners.iter().all(|p| is_absent(p.values[i]));
                let values = y.values.iter().enumerate();
                let values =
                    values.map(|(i, y)| if is_absent(*y) || !alone(i) { ABSENT } else { value(fill, *y) });
                push(&key, Some(&y.labels), drop || y.drop_name, values.collect())?;
            }
        }
        merge_equal(out).ok_or_else(|| {
            Error::Execution(
                "multiple matches for labels: grouping labels must ensure unique matches".to_owned(),
            )
        })
    }
}

fn with_scalar(
    columns: Vec<Column>,
    s: &[f64],
    f: impl Fn(f64, f64) -> f64,
    op: BinaryOp,
    bool_modifier: bool,
) -> Out {
    let mut columns = columns;
    for c in &mut columns {
        c.drop_name |= !op.is_comparison() || bool_modifier;
        for (v, s) in c.values.iter_mut().zip(s).filter(|(v, _)| !is_absent(**v)) {
            *v = f(*v, *s);
        }
    }
    Out::Vector(columns)
}

/// The labels by which series of two sides find each other.
fn signature(labels: &Labels, m: &Matching) -> Labels {
    if m.on {
        return Labels::from_pairs(labels.iter().filter(|(n, _)| m.labels.iter().any(|l| l == n)));
    }
    if m.labels.is_empty() {
        return without_name(labels);
    }
    Labels::from_pairs(labels.iter().filter(|(n, _)| *n != METRIC_NAME && !m.labels.iter().any(|l| l == n)))
}

fn group<'a>(columns: &'a [Column], m: &Matching) -> Groups<'a> {
    let mut groups: Groups<'a> = HashMap::default();
    for c in columns {
        groups.entry(signature(&c.labels, m)).or_default().push(c);
    }
    groups
}

/// Two columns with a value at the same step.
fn overlap<'a>(columns: &[&'a Column]) -> Option<(&'a Column, &'a Column)> {
    let steps = columns.first()?.values.len();
    (0..steps).find_map(|i| {
        let mut here = columns.iter().filter(|c| !is_absent(c.values[i]));
        Some((*here.next()?, *here.next()?))
    })
}

fn braces(l: &Labels) -> String {
    let pairs: Vec<String> = l.iter().map(|(n, v)| format!("{n}={v:?}")).collect();
    format!("{{{}}}", pairs.join(", "))
}

fn result_labels(many: &Labels, one: Option<&Labels>, m: &Matching) -> Labels {
    let mut b = match m.cardinality {
        Cardinality::OneToOne if m.on => {
            Labels::from_pairs(many.iter().filter(|(n, _)| m.labels.iter().any(|l| l == n))).builder()
        }
        Cardinality::OneToOne => {
            Labels::from_pairs(many.iter().filter(|(n, _)| !m.labels.iter().any(|l| l == n))).builder()
        }
        _ => many.builder(),
    };
    for name in &m.include {
        b.set(name, one.and_then(|o| o.get(name)).unwrap_or(""));
    }
    b.build()
}

fn set(op: BinaryOp, a: Vec<Column>, b: Vec<Column>, m: &Matching, grid: Grid) -> Result<Vec<Column>, Error> {
    let presence = |columns: &[Column]| {
        let mut p: HashMap<Labels, Vec<bool>, ahash::RandomState> = HashMap::default();
        for c in columns {
            let here = p.entry(signature(&c.labels, m)).or_insert_with(|| vec![false; grid.n]);
            here.iter_mut().zip(&c.values).for_each(|(p, v)| *p |= !is_absent(*v));
        }
        p
    };
    let masked =
        |mut columns: Vec<Column>, p: &HashMap<Labels, Vec<bool>, ahash::RandomState>, keep: bool| {
            for c in &mut columns {
                let there = p.get(&signature(&c.labels, m));
                for (i, v) in c.values.iter_mut().enumerate() {
                    if there.is_some_and(|t| t[i]) != keep {
                        *v = ABSENT;
                    }
                }
            }
            columns.retain(|c| c.values.iter().any(|v| !is_absent(*v)));
            columns
        };
    match op {
        BinaryOp::And => Ok(masked(a, &presence(&b), true)),
        BinaryOp::Unless => Ok(masked(a, &presence(&b), false)),
        _ => {
            let right = masked(b, &presence(&a), false);
            let mut both = a;
            both.extend(right);
            merge_equal(both).ok_or_else(|| {
                Error::Execution("vector cannot contain metrics with the same labelset".to_owned())
            })
        }
    }
}
