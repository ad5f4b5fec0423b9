//! Binary operators between scalars and vectors.

mod trim;

use std::collections::HashMap;

use signal::{FloatHistogram, Labels, METRIC_NAME};

use crate::annotations::{Doing, bounds_reconciled, reset_conflict};
use crate::ast::{BinaryOp, Cardinality, Expr, Kind, Matching};
use crate::error::Error;
use crate::eval::Evaluator;
use crate::value::{ABSENT, Cell, Column, Grid, Out, is_absent, merge_equal, without_name};
use trim::Keep;

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

/// What is said of an operation at one step.
#[derive(Clone, Debug)]
enum Note {
    Info(String),
    Warning(String),
}

fn kind(c: &Cell) -> &'static str {
    match c {
        Cell::Float(_) => "float",
        Cell::Histogram(_) => "histogram",
    }
}

fn incompatible(op: BinaryOp, l: &Cell, r: &Cell) -> Note {
    let (op, l, r) = (op.as_str(), kind(l), kind(r));
    Note::Info(format!("incompatible sample types encountered for binary operator {op:?}: {l} {op} {r}"))
}

/// The result for two values of which one at least is a histogram, or which no operator of floats is for: the
/// value, whether a comparison keeps it, and what must be said. An error is a value that is dropped.
fn combine(op: BinaryOp, l: &Cell, r: &Cell) -> Result<(Cell, bool, Option<Note>), Note> {
    let with = |h: &FloatHistogram, f: &dyn Fn(&mut FloatHistogram)| {
        let mut h = h.clone();
        f(&mut h);
        Ok((Cell::from(h), true, None))
    };
    match (op, l, r) {
        (BinaryOp::Mul, Cell::Histogram(h), Cell::Float(v))
        | (BinaryOp::Mul, Cell::Float(v), Cell::Histogram(h)) => with(h, &|h| h.scale(*v)),
        (BinaryOp::Div, Cell::Histogram(h), Cell::Float(v)) => with(h, &|h| h.divide(*v)),
        (BinaryOp::TrimUpper, Cell::Histogram(h), Cell::Float(v)) => {
            Ok((Cell::from(trim::trim(h, *v, Keep::Below)), true, None))
        }
        (BinaryOp::TrimLower, Cell::Histogram(h), Cell::Float(v)) => {
            Ok((Cell::from(trim::trim(h, *v, Keep::Above)), true, None))
        }
        (BinaryOp::Add | BinaryOp::Sub, Cell::Histogram(a), Cell::Histogram(b)) => {
            let mut out = (**a).clone();
            let adds = op == BinaryOp::Add;
            let done = if adds { out.add(b) } else { out.sub(b) };
            let doing = if adds { Doing::Addition } else { Doing::Subtraction };
            let Ok(done) = done else {
                return Err(Note::Warning(format!(
                    "incompatible bucket layout encountered for binary operator {}",
                    op.as_str()
                )));
            };
            if done.reset_conflict {
                return Err(Note::Warning(reset_conflict(doing)));
            }
            if !adds {
                out.hint = signal::histogram::ResetHint::Gauge;
            }
            Ok((Cell::from(out), true, done.bounds_reconciled.then(|| Note::Info(bounds_reconciled(doing)))))
        }
        (BinaryOp::Eq, Cell::Histogram(a), Cell::Histogram(b)) => Ok((l.clone(), a == b, None)),
        (BinaryOp::Ne, Cell::Histogram(a), Cell::Histogram(b)) => Ok((l.clone(), a != b, None)),
        _ => Err(incompatible(op, l, r)),
    }
}

fn is_trim(op: BinaryOp) -> bool {
    matches!(op, BinaryOp::TrimLower | BinaryOp::TrimUpper)
}

/// One operation, and what was said last at each of its steps: Prometheus keeps no more.
struct Operation<'a> {
    ev: &'a Evaluator<'a>,
    e: &'a Expr,
    op: BinaryOp,
    bool_modifier: bool,
    notes: std::cell::RefCell<HashMap<usize, Note>>,
}

impl Operation<'_> {
    /// The result at a step for cells of any kind; `kept` is what a filtering comparison lets through.
    fn cell(&self, i: usize, l: &Cell, r: &Cell, kept: &Cell) -> Option<Cell> {
        if let (Cell::Float(a), Cell::Float(b), false) = (l, r, is_trim(self.op)) {
            let kept = if let Cell::Float(v) = kept { *v } else { *a };
            let v = apply(self.op, *a, *b, kept, self.bool_modifier);
            return (!is_absent(v)).then_some(Cell::Float(v));
        }
        match combine(self.op, l, r) {
            Err(note) => {
                self.notes.borrow_mut().insert(i, note);
                None
            }
            Ok((cell, keep, note)) => {
                if let Some(note) = note {
                    self.notes.borrow_mut().insert(i, note);
                }
                if self.bool_modifier {
                    return Some(Cell::Float(f64::from(u8::from(keep))));
                }
                keep.then_some(cell)
            }
        }
    }

    /// True if two columns can be combined as plain columns of floats.
    fn plain(&self, a: &Column, b: Option<&Column>) -> bool {
        a.histograms.is_none() && b.is_none_or(|b| b.histograms.is_none()) && !is_trim(self.op)
    }

    /// Does the name go, because the result means something else?
    fn renames(&self) -> bool {
        !(self.op.is_comparison() || is_trim(self.op)) || self.bool_modifier
    }

    fn finish(self) {
        for note in self.notes.into_inner().into_values() {
            match note {
                Note::Info(m) => self.ev.inform(self.e, m),
                Note::Warning(m) => self.ev.warn(self.e, m),
            }
        }
    }

    fn with_scalar(&self, columns: Vec<Column>, s: &[f64], scalar_first: bool) -> Out {
        let mut columns = columns;
        for c in &mut columns {
            c.drop_name |= self.renames();
            if self.plain(c, None) {
                for (v, s) in c.values.iter_mut().zip(s).filter(|(v, _)| !is_absent(**v)) {
                    let (l, r) = if scalar_first { (*s, *v) } else { (*v, *s) };
                    *v = apply(self.op, l, r, *v, self.bool_modifier);
                }
                continue;
            }
            for (i, s) in s.iter().enumerate() {
                let Some(cell) = c.cell(i) else { continue };
                let s = Cell::Float(*s);
                let (l, r) = if scalar_first { (&s, &cell) } else { (&cell, &s) };
                let result = self.cell(i, l, r, &cell);
                c.blank(i);
                if let Some(result) = result {
                    c.put(i, result);
                }
            }
        }
        Out::Vector(columns)
    }
}

type Groups<'a> = HashMap<Labels, Vec<&'a Column>, ahash::RandomState>;

impl Evaluator<'_> {
    pub(crate) fn binary(&self, e: &Expr, grid: Grid) -> Result<Out, Error> {
        let Kind::Binary { op, lhs, rhs, bool_modifier, matching } = &e.kind else {
            return Err(Error::Execution("expected a binary expression".to_owned()));
        };
        let (op, bool_modifier) = (*op, *bool_modifier);
        let (l, r) = (self.eval(lhs, grid)?, self.eval(rhs, grid)?);
        let operation = Operation { ev: self, e, op, bool_modifier, notes: Default::default() };
        let out = match (l, r) {
            (Out::Scalar(_), Out::Scalar(_)) if is_trim(op) => {
                return Err(Error::Execution(format!(
                    "operator {:?} not allowed for Scalar operations",
                    op.as_str()
                )));
            }
            (Out::Scalar(a), Out::Scalar(b)) => {
                Out::Scalar(a.into_iter().zip(b).map(|(a, b)| apply(op, a, b, a, true)).collect())
            }
            (Out::Vector(columns), Out::Scalar(s)) => operation.with_scalar(columns, &s, false),
            (Out::Scalar(s), Out::Vector(columns)) => operation.with_scalar(columns, &s, true),
            (Out::Vector(a), Out::Vector(b)) => {
                let default = Matching {
                    on: false,
                    labels: Vec::new(),
                    cardinality: Cardinality::OneToOne,
                    include: Vec::new(),
                    fill: (None, None),
                };
                let m = matching.as_ref().unwrap_or(&default);
                if op.is_set() {
                    Out::Vector(set(op, a, b, m, grid)?)
                } else {
                    Out::Vector(self.pairs(&operation, &a, &b, m, grid)?)
                }
            }
            _ => return Err(Error::Execution("strings have no operators".to_owned())),
        };
        operation.finish();
        Ok(out)
    }

    fn pairs(
        &self,
        operation: &Operation<'_>,
        a: &[Column],
        b: &[Column],
        m: &Matching,
        grid: Grid,
    ) -> Result<Vec<Column>, Error> {
        // `many` may hold several series of a group at once, `one` only one at each step.
        let swapped = m.cardinality == Cardinality::OneToMany;
        let (many, one) = if swapped { (b, a) } else { (a, b) };
        // Prometheus: with group_right the two sides change places but their fills do not.
        let (fill_many, fill_one) = m.fill;
        let one_by_group = group(one, m);
        refuse_many_to_many(many, &one_by_group, m, swapped, grid)?;
        let drop = operation.renames();
        let value = |i: usize, x: &Cell, y: &Cell| {
            let (l, r) = if swapped { (y, x) } else { (x, y) };
            operation.cell(i, l, r, l)
        };
        let float = |x: f64, y: f64| {
            let (l, r) = if swapped { (y, x) } else { (x, y) };
            apply(operation.op, l, r, l, operation.bool_modifier)
        };
        let mut out: Vec<Column> = Vec::new();
        let mut push = |mut c: Column| -> Result<(), Error> {
            if !c.is_empty() {
                self.hold(&mut c)?;
                out.push(c);
            }
            Ok(())
        };
        let column = |many: &Labels, one: &Labels, drop_name: bool| {
            Column::floats(result_labels(many, Some(one), m), drop_name, vec![ABSENT; grid.n])
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
                    let both = x.has(i) && (fill_one.is_some() || partners.iter().any(|p| p.has(i)));
                    if both && std::mem::replace(seen, true) {
                        return Err(Error::Execution(
                            "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)".to_owned(),
                        ));
                    }
                }
            }
            for y in partners {
                let mut c = column(&x.labels, &y.labels, drop_name);
                if operation.plain(x, Some(y)) {
                    for (out, (x, y)) in c.values.iter_mut().zip(x.values.iter().zip(&y.values)) {
                        if !is_absent(*x) && !is_absent(*y) {
                            *out = float(*x, *y);
                        }
                    }
                } else {
                    for i in 0..grid.n {
                        if let (Some(x), Some(y)) = (x.cell(i), y.cell(i))
                            && let Some(cell) = value(i, &x, &y)
                        {
                            c.put(i, cell);
                        }
                    }
                }
                push(c)?;
            }
            if let Some(fill) = fill_one {
                let mut c = column(&x.labels, &key, drop_name);
                for i in (0..grid.n).filter(|i| partners.iter().all(|p| !p.has(*i))) {
                    if let Some(x) = x.cell(i)
                        && let Some(cell) = value(i, &x, &Cell::Float(fill))
                    {
                        c.put(i, cell);
                    }
                }
                push(c)?;
            }
        }
        if let Some(fill) = fill_many {
            let many_by_group = group(many, m);
            for y in one {
                let key = signature(&y.labels, m);
                let partners = many_by_group.get(&key).map_or(&[][..], Vec::as_slice);
                let mut c = column(&key, &y.labels, drop || y.drop_name);
                for i in (0..grid.n).filter(|i| partners.iter().all(|p| !p.has(*i))) {
                    if let Some(y) = y.cell(i)
                        && let Some(cell) = value(i, &Cell::Float(fill), &y)
                    {
                        c.put(i, cell);
                    }
                }
                push(c)?;
            }
        }
        merge_equal(out).ok_or_else(|| {
            Error::Execution(
                "multiple matches for labels: grouping labels must ensure unique matches".to_owned(),
            )
        })
    }
}

/// Two of the "one" side in one group at the same step are an error, unless there is nothing to match them with.
fn refuse_many_to_many(
    many: &[Column],
    one: &Groups<'_>,
    m: &Matching,
    swapped: bool,
    grid: Grid,
) -> Result<(), Error> {
    let fills = m.fill != (None, None);
    for (labels, columns) in one.iter().filter(|(_, c)| c.len() > 1) {
        let both = (0..grid.n).find_map(|i| {
            let mut here = columns.iter().filter(|c| c.has(i));
            let pair = (here.next()?, here.next()?);
            (fills || many.iter().any(|c| c.has(i))).then_some(pair)
        });
        if let Some((x, y)) = both {
            let side = if swapped { "left" } else { "right" };
            let (mut x, mut y) = (braces(&x.labels), braces(&y.labels));
            if x > y {
                std::mem::swap(&mut x, &mut y);
            }
            return Err(Error::Execution(format!(
                "found duplicate series for the match group {} on the {side} hand-side of the operation: [{x}, {y}];many-to-many matching not allowed: matching labels must be unique on one side",
                braces(labels),
            )));
        }
    }
    Ok(())
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
            here.iter_mut().enumerate().for_each(|(i, p)| *p |= c.has(i));
        }
        p
    };
    let masked =
        |mut columns: Vec<Column>, p: &HashMap<Labels, Vec<bool>, ahash::RandomState>, keep: bool| {
            for c in &mut columns {
                let there = p.get(&signature(&c.labels, m));
                for i in 0..grid.n {
                    if there.is_some_and(|t| t[i]) != keep {
                        c.blank(i);
                    }
                }
            }
            columns.retain(|c| !c.is_empty());
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
