//! Lengths of time inside brackets and behind `offset`: literals, or arithmetic over `step()` and `range()`.

use super::Parser;
use crate::ast::{BinaryOp, Length};
use crate::error::ParseError;
use crate::lex::Token;

impl Parser<'_> {
    /// Inside brackets: a whole expression.
    pub(super) fn length(&mut self) -> Result<Length, ParseError> {
        self.length_at(0)
    }

    /// Behind `offset`: one term, which may be in parentheses; what follows belongs to the outer expression.
    pub(super) fn offset_length(&mut self) -> Result<Length, ParseError> {
        let negate = self.take_op("-");
        let _ = !negate && self.take_op("+");
        Ok(match self.length_term()? {
            Length::Millis(ms) if negate => Length::Millis(-ms),
            l if negate => Length::Negate(Box::new(l)),
            l => l,
        })
    }

    fn length_at(&mut self, floor: u8) -> Result<Length, ParseError> {
        let mut lhs = self.length_term()?;
        while let Some(op) = self.binary_op().filter(|op| {
            matches!(
                op,
                BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Pow
            )
        }) {
            if op.precedence() < floor {
                break;
            }
            self.at += 1;
            let next = if op == BinaryOp::Pow { op.precedence() } else { op.precedence() + 1 };
            let rhs = self.length_at(next)?;
            lhs = fold(Length::Op(op, Box::new(lhs), Box::new(rhs)), self)?;
        }
        Ok(lhs)
    }

    fn length_term(&mut self) -> Result<Length, ParseError> {
        match self.peek().clone() {
            Token::Duration(ms) => {
                self.at += 1;
                Ok(Length::Millis(ms))
            }
            Token::Number(v) => {
                self.at += 1;
                if !v.is_finite() || v.abs() > 9e15 {
                    return Err(self.error("duration out of range"));
                }
                Ok(Length::Millis((v * 1000.0).round() as i64))
            }
            Token::Op("-") => {
                self.at += 1;
                match self.length_at(BinaryOp::Pow.precedence())? {
                    Length::Millis(ms) => Ok(Length::Millis(-ms)),
                    l => Ok(Length::Negate(Box::new(l))),
                }
            }
            Token::Op("+") => {
                self.at += 1;
                self.length_at(BinaryOp::Pow.precedence())
            }
            Token::Op("(") => {
                self.at += 1;
                let inner = self.length()?;
                self.expect_op(")", "duration expression")?;
                Ok(match inner {
                    l @ Length::Millis(_) => l,
                    l => Length::Paren(Box::new(l)),
                })
            }
            Token::Ident(w) if self.peek_at(1) == &Token::Op("(") => {
                let w = w.to_ascii_lowercase();
                self.at += 2;
                let l = match w.as_str() {
                    "step" => Length::Step,
                    "range" => Length::Range,
                    "min" | "max" | "min_of" | "max_of" => {
                        let a = Box::new(self.length()?);
                        self.expect_op(",", "duration expression")?;
                        let b = Box::new(self.length()?);
                        if w.starts_with("min") { Length::Min(a, b) } else { Length::Max(a, b) }
                    }
                    _ => {
                        self.at -= 2;
                        return Err(self.unexpected("duration expression"));
                    }
                };
                self.expect_op(")", "duration expression")?;
                Ok(l)
            }
            _ => Err(self
                .unexpected_expected("subquery or range selector", "number, duration, step(), or range()")),
        }
    }
}

/// Does at once what needs no query to be known.
fn fold(l: Length, p: &Parser<'_>) -> Result<Length, ParseError> {
    if let Length::Op(op, a, b) = &l
        && let (Length::Millis(a), Length::Millis(b)) = (&**a, &**b)
    {
        if *b == 0 && matches!(op, BinaryOp::Div | BinaryOp::Mod) {
            let what = if *op == BinaryOp::Div { "division" } else { "modulo" };
            return Err(p.error(format!("{what} by zero")));
        }
        return Ok(Length::Millis(arithmetic(*op, *a, *b)));
    }
    Ok(l)
}

/// Lengths are numbers of seconds in these expressions.
pub(crate) fn arithmetic(op: BinaryOp, a: i64, b: i64) -> i64 {
    let (x, y) = (a as f64 / 1000.0, b as f64 / 1000.0);
    let v = match op {
        BinaryOp::Add => x + y,
        BinaryOp::Sub => x - y,
        BinaryOp::Mul => x * y,
        BinaryOp::Div => x / y,
        BinaryOp::Mod => x % y,
        _ => x.powf(y),
    };
    (v * 1000.0).round() as i64
}

impl Length {
    /// In milliseconds, given the step and the range of the query. `None` on a division by zero.
    pub(crate) fn resolve(&self, step: i64, range: i64) -> Option<i64> {
        Some(match self {
            Length::Millis(ms) => *ms,
            Length::Step => step,
            Length::Range => range,
            Length::Negate(l) => -l.resolve(step, range)?,
            Length::Paren(l) => l.resolve(step, range)?,
            Length::Min(a, b) => a.resolve(step, range)?.min(b.resolve(step, range)?),
            Length::Max(a, b) => a.resolve(step, range)?.max(b.resolve(step, range)?),
            Length::Op(op, a, b) => {
                let (a, b) = (a.resolve(step, range)?, b.resolve(step, range)?);
                if b == 0 && matches!(op, BinaryOp::Div | BinaryOp::Mod) {
                    return None;
                }
                arithmetic(*op, a, b)
            }
        })
    }
}
