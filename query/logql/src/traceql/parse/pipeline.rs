//! Pipelines: spansets, what is asked of them, and the series made of them.

use super::super::ast::{
    Aggregate, Field, Measure, Metrics, Op, Query, Relation, Scalar, Spanset, Stage, Then,
};
use super::super::check;
use super::super::lex::Token;
use super::super::value::Static;
use super::{Parser, binary};
use crate::error::Error;

/// Attributes' values that `compare` gives unless it is told how many.
const TOP: usize = 10;

enum Structure {
    And,
    Or,
    Related { relation: Relation, negate: bool, union: bool },
}

/// What stands between two spansets, and how close it binds.
fn structure(t: &Token) -> Option<(Structure, u8)> {
    let Token::Op(o) = t else { return None };
    let bare = o.trim_start_matches(['!', '&']);
    let relation = match (*o, bare) {
        ("&&", _) => return Some((Structure::And, 1)),
        ("||", _) => return Some((Structure::Or, 1)),
        (_, ">") => Relation::Child,
        (_, "<") => Relation::Parent,
        (_, ">>") => Relation::Descendant,
        (_, "<<") => Relation::Ancestor,
        (_, "~") => Relation::Sibling,
        _ => return None,
    };
    let (negate, union) = (o.starts_with('!'), o.starts_with('&'));
    Some((Structure::Related { relation, negate, union }, 2))
}

impl Parser<'_> {
    pub(super) fn query(&mut self) -> Result<Query, Error> {
        let mut q = Query { stages: Vec::new(), metrics: None, then: Vec::new(), hints: Vec::new() };
        // Without a spanset before it, an aggregate is over every span.
        if !self.begins_spanset() && !self.begins_scalar_pipeline() {
            q.stages.push(Stage::Spanset(Spanset::Filter(None)));
            if !self.begins_stage() {
                return Err(self.unexpected("{"));
            }
        } else {
            q.stages.push(self.first_stage()?);
            if !self.take("|") {
                return self.hints(q);
            }
        }
        loop {
            match self.metrics()? {
                Some(m) => {
                    q.metrics = Some(m);
                    break;
                }
                None => q.stages.push(self.stage()?),
            }
            if !self.take("|") {
                break;
            }
        }
        while q.metrics.is_some() {
            let piped = self.take("|");
            match self.then(piped)? {
                Some(t) => q.then.push(t),
                None => break,
            }
        }
        self.hints(q)
    }

    fn begins_spanset(&self) -> bool {
        let mut n = 0;
        while self.peek_at(n) == &Token::Op("(") {
            n += 1;
        }
        self.peek_at(n) == &Token::Op("{")
    }

    fn begins_stage(&self) -> bool {
        const WORDS: [&str; 6] = ["count", "avg", "min", "max", "sum", "select"];
        matches!(self.peek(), Token::Word(w) if WORDS.contains(&w.as_str()))
            || matches!(self.peek(), Token::Number(_))
    }

    /// `({ … } | count()) > 2`: a parenthesis with a pipeline, and a comparison with a number behind it.
    fn begins_scalar_pipeline(&self) -> bool {
        let mut depth = 0i32;
        if self.peek() != &Token::Op("(") {
            return false;
        }
        let mut aggregates = false;
        for n in 0.. {
            match self.peek_at(n) {
                Token::Op("(") => depth += 1,
                Token::Op(")") => {
                    depth -= 1;
                    if depth == 0 {
                        let scalar = match self.peek_at(n - 1) {
                            Token::Op(")") => aggregates,
                            _ => false,
                        };
                        return scalar
                            && matches!(
                                self.peek_at(n + 1),
                                Token::Op(
                                    "=" | "!=" | ">" | "<" | ">=" | "<=" | "+" | "-" | "*" | "/" | "%" | "^"
                                )
                            )
                            && self.peek_at(n + 2) != &Token::Op("{");
                    }
                }
                Token::Op("|") if depth == 1 => {
                    let word = matches!(self.peek_at(n + 1), Token::Word(w) if aggregate(w).is_some() || w == "count");
                    // Only an aggregate that is not compared is a number.
                    aggregates = word;
                }
                Token::Op("=" | "!=" | ">" | "<" | ">=" | "<=") if depth == 1 => aggregates = false,
                Token::End => return false,
                _ => {}
            }
        }
        false
    }

    fn first_stage(&mut self) -> Result<Stage, Error> {
        if self.begins_scalar_pipeline() { self.comparison() } else { self.spanset(0).map(Stage::Spanset) }
    }

    fn spanset(&mut self, least: u8) -> Result<Spanset, Error> {
        self.count_node()?;
        let mut left = self.spanset_primary()?;
        while let Some((s, level)) = structure(self.peek()) {
            if level < least {
                break;
            }
            self.at += 1;
            let right = self.spanset(level + 1)?;
            let (l, r) = (Box::new(left), Box::new(right));
            left = match s {
                Structure::And => Spanset::And(l, r),
                Structure::Or => Spanset::Or(l, r),
                Structure::Related { relation, negate, union } => {
                    Spanset::Related { relation, negate, union, left: l, right: r }
                }
            };
        }
        Ok(left)
    }

    fn spanset_primary(&mut self) -> Result<Spanset, Error> {
        self.count_node()?;
        if self.take("(") {
            let inner = self.spanset(0)?;
            let mut stages = vec![Stage::Spanset(inner)];
            while self.take("|") {
                stages.push(self.stage()?);
            }
            self.expect(")")?;
            return Ok(match stages.pop() {
                Some(Stage::Spanset(s)) if stages.is_empty() => s,
                last => {
                    stages.extend(last);
                    Spanset::Pipeline(stages)
                }
            });
        }
        self.expect("{")?;
        if self.take("}") {
            return Ok(Spanset::Filter(None));
        }
        let at = self.start();
        let f = self.field(0)?;
        check::is_boolean(&f).map_err(|m| self.error(at, m))?;
        self.expect("}")?;
        Ok(Spanset::Filter(Some(f)))
    }

    fn stage(&mut self) -> Result<Stage, Error> {
        if self.peek() == &Token::Op("{") || self.begins_spanset() && !self.begins_scalar_pipeline() {
            return self.spanset(0).map(Stage::Spanset);
        }
        if self.take_word("by") {
            self.expect("(")?;
            let f = self.field(0)?;
            self.expect(")")?;
            return Ok(Stage::By(f));
        }
        if self.take_word("coalesce") {
            self.expect("(")?;
            self.expect(")")?;
            return Ok(Stage::Coalesce);
        }
        if self.take_word("select") {
            return self.fields().map(Stage::Select);
        }
        self.comparison()
    }

    /// `(a, b)`
    fn fields(&mut self) -> Result<Vec<Field>, Error> {
        self.expect("(")?;
        let mut out = vec![self.field(0)?];
        while self.take(",") {
            out.push(self.field(0)?);
        }
        self.expect(")")?;
        Ok(out)
    }

    fn comparison(&mut self) -> Result<Stage, Error> {
        let left = self.scalar(3)?;
        let op = match binary(self.peek()) {
            Some((op, 2)) if !matches!(op, Op::Match | Op::NotMatch) => op,
            _ => return Err(self.unexpected("a comparison")),
        };
        self.at += 1;
        let right = self.scalar(3)?;
        Ok(Stage::Compare { left, op, right })
    }

    fn scalar(&mut self, least: u8) -> Result<Scalar, Error> {
        self.count_node()?;
        let mut left = self.scalar_primary()?;
        while let Some((op, level)) =
            binary(self.peek()).filter(|(op, level)| op.calculates() && *level >= least)
        {
            self.at += 1;
            let right = self.scalar(if op == Op::Pow { level } else { level + 1 })?;
            left = Scalar::Binary { op, left: Box::new(left), right: Box::new(right) };
        }
        Ok(left)
    }

    fn scalar_primary(&mut self) -> Result<Scalar, Error> {
        self.count_node()?;
        if self.peek() == &Token::Op("(") {
            if !self.begins_spanset() {
                self.at += 1;
                let s = self.scalar(0)?;
                self.expect(")")?;
                return Ok(s);
            }
            self.at += 1;
            let mut stages = vec![Stage::Spanset(self.spanset(0)?)];
            loop {
                self.expect("|")?;
                let is_number =
                    matches!(self.peek(), Token::Word(w) if w == "count" || aggregate(w).is_some());
                if !is_number {
                    stages.push(self.stage()?);
                    continue;
                }
                let s = self.scalar(3)?;
                if self.take(")") {
                    return Ok(Scalar::Pipeline(stages, Box::new(s)));
                }
                let op = match binary(self.peek()) {
                    Some((op, 2)) => op,
                    _ => return Err(self.unexpected(")")),
                };
                self.at += 1;
                stages.push(Stage::Compare { left: s, op, right: self.scalar(3)? });
            }
        }
        let Token::Word(w) = self.peek().clone() else { return self.signed().map(Scalar::Static) };
        if w == "count" {
            self.at += 1;
            self.expect("(")?;
            self.expect(")")?;
            return Ok(Scalar::Count);
        }
        match aggregate(&w) {
            Some(op) => {
                self.at += 1;
                Ok(Scalar::Aggregate { op, field: self.number_field()? })
            }
            None => self.signed().map(Scalar::Static),
        }
    }

    /// `(x)`, where x is a number.
    fn number_field(&mut self) -> Result<Field, Error> {
        self.expect("(")?;
        let at = self.start();
        let field = self.field(0)?;
        check::is_number(&field).map_err(|m| self.error(at, m))?;
        self.expect(")")?;
        Ok(field)
    }

    fn metrics(&mut self) -> Result<Option<Metrics>, Error> {
        let Token::Word(w) = self.peek().clone() else { return Ok(None) };
        let over = w.strip_suffix("_over_time");
        let what = match (w.as_str(), over.and_then(aggregate)) {
            ("rate" | "count_over_time", _) => {
                self.at += 1;
                self.expect("(")?;
                self.expect(")")?;
                if w == "rate" { Measure::Rate } else { Measure::Count }
            }
            (_, Some(op)) => {
                self.at += 1;
                Measure::Over(op, self.number_field()?)
            }
            ("histogram_over_time", _) => {
                self.at += 1;
                Measure::Histogram(self.number_field()?)
            }
            ("quantile_over_time", _) => {
                self.at += 1;
                self.quantiles()?
            }
            ("compare", _) => {
                self.at += 1;
                self.compare()?
            }
            _ => return Ok(None),
        };
        let by = if self.take_word("by") { self.fields()? } else { Vec::new() };
        Ok(Some(Metrics { what, by }))
    }

    fn quantiles(&mut self) -> Result<Measure, Error> {
        self.expect("(")?;
        let at = self.start();
        let field = self.field(0)?;
        check::is_number(&field).map_err(|m| self.error(at, m))?;
        let mut all = Vec::new();
        while self.take(",") {
            let at = self.start();
            match self.signed()?.number() {
                Some(q) if (0.0..=1.0).contains(&q) => all.push(q),
                _ => return Err(self.error(at, "a quantile is a number from 0 to 1")),
            }
        }
        if all.is_empty() {
            return Err(self.unexpected(","));
        }
        self.expect(")")?;
        Ok(Measure::Quantiles(field, all))
    }

    fn compare(&mut self) -> Result<Measure, Error> {
        self.expect("(")?;
        let at = self.start();
        let Spanset::Filter(selection) = self.spanset_primary()? else {
            return Err(self.error(at, "compare takes one { … }"));
        };
        let selection = selection.unwrap_or(Field::Static(Static::Bool(true)));
        let mut numbers = Vec::new();
        while self.take(",") {
            let at = self.start();
            match self.signed()? {
                Static::Int(n) => numbers.push(n),
                _ => {
                    return Err(self.error(at, "compare takes whole numbers: how many values, start and end"));
                }
            }
        }
        let end = self.start();
        self.expect(")")?;
        let top = numbers
            .first()
            .map_or(Some(TOP), |n| usize::try_from(*n).ok().filter(|n| (1..=1000).contains(n)));
        let (top, within) = match (top, numbers.as_slice()) {
            (Some(top), [] | [_]) => (top, None),
            (Some(top), [_, start, end]) if start <= end => (top, Some((*start, *end))),
            _ => return Err(self.error(end, "compare takes how many values (1 to 1000), and start and end")),
        };
        Ok(Measure::Compare { selection, top, within })
    }

    fn then(&mut self, piped: bool) -> Result<Option<Then>, Error> {
        let wanted =
            |p: &Self| if piped { Err(p.unexpected("topk, bottomk or a comparison")) } else { Ok(None) };
        let word = match self.peek().clone() {
            Token::Word(w) if piped && (w == "topk" || w == "bottomk") => w,
            _ => {
                // A comparison needs no pipe before it.
                return match binary(self.peek()) {
                    Some((op, 2)) if !matches!(op, Op::Match | Op::NotMatch) => {
                        self.at += 1;
                        let at = self.start();
                        match self.signed()?.measure() {
                            Some(v) => Ok(Some(Then::Filter(op, v))),
                            None => Err(self.error(at, "series are compared with a number")),
                        }
                    }
                    _ => wanted(self),
                };
            }
        };
        self.at += 1;
        self.expect("(")?;
        let at = self.start();
        let n = match self.signed()? {
            Static::Int(n) if n > 0 => usize::try_from(n).unwrap_or(usize::MAX),
            _ => return Err(self.error(at, format!("{word} takes a whole number above zero"))),
        };
        self.expect(")")?;
        Ok(Some(if word == "topk" { Then::Top(n) } else { Then::Bottom(n) }))
    }

    /// `with (a=b, c=d)`
    fn hints(&mut self, mut q: Query) -> Result<Query, Error> {
        if self.take_word("with") {
            self.expect("(")?;
            loop {
                let Token::Word(name) = self.peek().clone() else {
                    return Err(self.unexpected("IDENTIFIER"));
                };
                self.at += 1;
                self.expect("=")?;
                let v = self.signed()?;
                q.hints.push((name, v));
                if !self.take(",") {
                    break;
                }
            }
            self.expect(")")?;
        }
        Ok(q)
    }
}

fn aggregate(word: &str) -> Option<Aggregate> {
    Some(match word {
        "avg" => Aggregate::Avg,
        "max" => Aggregate::Max,
        "min" => Aggregate::Min,
        "sum" => Aggregate::Sum,
        _ => return None,
    })
}
