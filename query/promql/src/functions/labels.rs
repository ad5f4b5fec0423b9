//! Functions that change or sort by labels.

use signal::METRIC_NAME;

use crate::ast::{Expr, Kind};
use crate::error::Error;
use crate::eval::Evaluator;
use crate::value::{Column, Grid, Out, merge_equal};

fn text(args: &[Expr], i: usize) -> &str {
    match args.get(i).map(|a| &a.unwrap_parens().kind) {
        Some(Kind::String(s)) => s,
        _ => "",
    }
}

fn set_label(c: &mut Column, name: &str, value: &str) {
    if c.labels.get(name).unwrap_or("") == value && !(name == METRIC_NAME && c.drop_name) {
        return;
    }
    let mut b = c.labels.builder();
    b.set(name, value);
    c.labels = b.build();
    if name == METRIC_NAME {
        // A name that was set on purpose stays.
        c.drop_name = false;
    }
}

pub(super) fn unique(columns: Vec<Column>) -> Result<Out, Error> {
    merge_equal(columns)
        .map(Out::Vector)
        .ok_or_else(|| Error::Execution("vector cannot contain metrics with the same labelset".to_owned()))
}

impl Evaluator<'_> {
    pub(super) fn label_replace(&self, args: &[Expr], grid: Grid) -> Result<Out, Error> {
        let (to, template, from, pattern) = (text(args, 1), text(args, 2), text(args, 3), text(args, 4));
        let regex = regex::Regex::new(&format!("^(?s:{pattern})$")).map_err(|_| {
            Error::Execution(format!("invalid regular expression in label_replace(): {pattern}"))
        })?;
        if to.is_empty() {
            return Err(Error::Execution(format!("invalid destination label name in label_replace(): {to}")));
        }
        let template = go_template(template);
        let mut columns = self.vector(&args[0], grid)?;
        for c in &mut columns {
            let value = c.labels.get(from).unwrap_or("").to_owned();
            if let Some(found) = regex.captures(&value) {
                let mut out = String::new();
                found.expand(&template, &mut out);
                set_label(c, to, &out);
            }
        }
        unique(columns)
    }

    pub(super) fn label_join(&self, args: &[Expr], grid: Grid) -> Result<Out, Error> {
        let (to, separator) = (text(args, 1), text(args, 2));
        if to.is_empty() {
            return Err(Error::Execution(format!("invalid destination label name in label_join(): {to}")));
        }
        let from: Vec<&str> = (3..args.len()).map(|i| text(args, i)).collect();
        if let Some(bad) = from.iter().find(|l| l.is_empty()) {
            return Err(Error::Execution(format!("invalid source label name in label_join(): {bad}")));
        }
        let mut columns = self.vector(&args[0], grid)?;
        for c in &mut columns {
            let joined =
                from.iter().map(|l| c.labels.get(l).unwrap_or("")).collect::<Vec<_>>().join(separator);
            set_label(c, to, &joined);
        }
        unique(columns)
    }

    pub(super) fn sort_by_label(&self, name: &str, args: &[Expr], grid: Grid) -> Result<Out, Error> {
        let mut columns = self.vector(&args[0], grid)?;
        let by: Vec<&str> = (1..args.len()).map(|i| text(args, i)).collect();
        columns.sort_by(|a, b| {
            let order = by
                .iter()
                .map(|l| natural(a.labels.get(l).unwrap_or(""), b.labels.get(l).unwrap_or("")))
                .find(|o| o.is_ne())
                .unwrap_or_else(|| a.labels.cmp(&b.labels));
            if name == "sort_by_label" { order } else { order.reverse() }
        });
        Ok(Out::Vector(columns))
    }
}

/// Go's `$1x` means the group named `1x`; so does the regex crate's, but only braces make `${1}x` clear in both.
fn go_template(t: &str) -> String {
    t.to_owned()
}

/// Runs of digits compare as numbers: `a2` before `a10`.
fn natural(a: &str, b: &str) -> std::cmp::Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
        let (da, db) = (digits(a), digits(b));
        if da > 0 && db > 0 {
            let (x, y) = (a[..da].trim_start_matches('0'), b[..db].trim_start_matches('0'));
            let o = x.len().cmp(&y.len()).then_with(|| x.cmp(y));
            if o.is_ne() {
                return o;
            }
            (a, b) = (&a[da..], &b[db..]);
            continue;
        }
        match (a.chars().next(), b.chars().next()) {
            (None, None) => return std::cmp::Ordering::Equal,
            (x, y) if x == y => {
                let n = x.map_or(0, char::len_utf8);
                (a, b) = (&a[n..], &b[n..]);
            }
            (x, y) => return x.cmp(&y),
        }
    }
}
