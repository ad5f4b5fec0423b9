//! Types: which kind of value may stand where.

use crate::ast::{Aggregation, Expr, Kind, ValueType};
use crate::error::ParseError;
use crate::functions::signature;

pub(crate) fn check(text: &str, e: &Expr) -> Result<(), ParseError> {
    let fail = |at: &Expr, message: String| Err(ParseError::at(text, at.span.0, message));
    match &e.kind {
        Kind::Number(_) | Kind::String(_) | Kind::Bytes(_) | Kind::Selector(_) | Kind::Matrix { .. } => {
            Ok(())
        }
        Kind::Paren(inner) | Kind::Subquery { expr: inner, .. } | Kind::Unary { expr: inner, .. } => {
            check(text, inner)
        }
        Kind::Aggregate(Aggregation { op, param, expr, .. }) => {
            if let Some(p) = param {
                let wanted = if op == "count_values" { ValueType::String } else { ValueType::Scalar };
                if p.value_type() != wanted {
                    return fail(
                        p,
                        format!(
                            "expected type {} in aggregation parameter, got {}",
                            wanted.describe(),
                            p.value_type().describe()
                        ),
                    );
                }
                check(text, p)?;
            }
            if expr.value_type() != ValueType::Vector {
                return fail(
                    expr,
                    format!(
                        "expected type instant vector in aggregation expression, got {}",
                        expr.value_type().describe()
                    ),
                );
            }
            check(text, expr)
        }
        Kind::Binary { op, lhs, rhs, bool_modifier, matching } => {
            let (l, r) = (lhs.value_type(), rhs.value_type());
            for (side, t) in [(lhs, l), (rhs, r)] {
                if t != ValueType::Scalar && t != ValueType::Vector {
                    return fail(
                        side,
                        "binary expression must contain only scalar and instant vector types".to_owned(),
                    );
                }
            }
            let scalars = l == ValueType::Scalar && r == ValueType::Scalar;
            if op.is_comparison() && !bool_modifier && scalars {
                return fail(e, "comparisons between scalars must use BOOL modifier".to_owned());
            }
            if op.is_set() && (l == ValueType::Scalar || r == ValueType::Scalar) {
                return fail(
                    e,
                    format!("set operator {:?} not allowed in binary scalar expression", op.as_str()),
                );
            }
            if let Some(m) = matching
                && (l != ValueType::Vector || r != ValueType::Vector)
            {
                if !m.labels.is_empty() {
                    return fail(e, "vector matching only allowed between instant vectors".to_owned());
                }
                if m.fill != (None, None) {
                    return fail(
                        e,
                        "filling in missing series only allowed between instant vectors".to_owned(),
                    );
                }
            }
            if let Some(m) = matching
                && m.on
                && let Some(l) = m.labels.iter().find(|l| m.include.contains(l))
            {
                return fail(e, format!("label {l:?} must not occur in ON and GROUP clause at once"));
            }
            check(text, lhs)?;
            check(text, rhs)
        }
        Kind::Call { name, args } => {
            let Some(f) = signature(name) else {
                return fail(e, format!("unknown function with name {name:?}"));
            };
            let wanted = f.args.len();
            let least = wanted - usize::from(f.optional.min(wanted as u8));
            if f.variadic {
                if args.len() + 1 < wanted {
                    return fail(
                        e,
                        format!(
                            "expected at least {} argument(s) in call to {name:?}, got {}",
                            wanted - 1,
                            args.len()
                        ),
                    );
                }
            } else if args.len() < least {
                let at_least = if f.optional > 0 { "at least " } else { "" };
                return fail(
                    e,
                    format!("expected {at_least}{least} argument(s) in call to {name:?}, got {}", args.len()),
                );
            } else if args.len() > wanted {
                let at_most = if f.optional > 0 { "at most " } else { "" };
                return fail(
                    e,
                    format!("expected {at_most}{wanted} argument(s) in call to {name:?}, got {}", args.len()),
                );
            }
            if name == "info"
                && let Some(data) = args.get(1)
                && !matches!(data.kind, Kind::Selector(_))
            {
                return fail(data, "expected label selectors only".to_owned());
            }
            for (i, a) in args.iter().enumerate() {
                let expected = f.args.get(i).or(f.args.last()).copied().unwrap_or(ValueType::Scalar);
                if a.value_type() != expected {
                    return fail(
                        a,
                        format!(
                            "expected type {} in call to function {name:?}, got {}",
                            expected.describe(),
                            a.value_type().describe()
                        ),
                    );
                }
                check(text, a)?;
            }
            Ok(())
        }
    }
}
