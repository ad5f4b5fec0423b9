//! `/parse_query`: an expression as a tree in JSON (Prometheus: web/api/v1/translate_ast.go).

use promql::{Aggregation, At, BinaryOp, Cardinality, Expr, Kind, Length, Selector, ValueType};
use serde_json::{Value, json};
use signal::Matcher;

/// The word the tree has for a type.
fn kind(t: ValueType) -> &'static str {
    match t {
        ValueType::Scalar => "scalar",
        ValueType::String => "string",
        ValueType::Vector => "vector",
        ValueType::Matrix => "matrix",
    }
}

fn millis(l: Option<&Length>) -> Value {
    match l {
        None => json!(0),
        Some(Length::Millis(ms)) => json!(ms),
        // What hangs from the query's step and range has no number yet.
        Some(l) => json!(l.to_string()),
    }
}

fn at(a: Option<At>) -> (Value, Value) {
    match a {
        None => (Value::Null, Value::Null),
        Some(At::Time(ms)) => (json!(ms), Value::Null),
        Some(At::Start) => (Value::Null, json!("start")),
        Some(At::End) => (Value::Null, json!("end")),
    }
}

fn matchers(all: &[Matcher]) -> Vec<Value> {
    all.iter().map(|m| json!({"name": m.name, "type": m.op.as_str(), "value": m.value})).collect()
}

fn selector(s: &Selector, node: &str) -> Value {
    let (timestamp, start_or_end) = at(s.at);
    json!({
        "type": node, "name": s.name.clone().unwrap_or_default(), "matchers": matchers(&s.matchers),
        "offset": millis(s.offset.as_ref()), "timestamp": timestamp, "startOrEnd": start_or_end,
    })
}

pub(super) fn tree(e: &Expr) -> Value {
    match &e.kind {
        Kind::Number(v) => json!({"type": "numberLiteral", "val": promql::format_value(*v)}),
        Kind::String(s) | Kind::Bytes(s) => json!({"type": "stringLiteral", "val": s}),
        Kind::Selector(s) => selector(s, "vectorSelector"),
        Kind::Matrix { selector: s, range } => {
            let mut v = selector(s, "matrixSelector");
            v["range"] = millis(Some(range));
            v
        }
        Kind::Subquery { expr, range, step, offset, at: a } => {
            let (timestamp, start_or_end) = at(*a);
            json!({
                "type": "subquery", "expr": tree(expr), "range": millis(Some(range)), "step": millis(step.as_ref()),
                "offset": millis(offset.as_ref()), "timestamp": timestamp, "startOrEnd": start_or_end,
            })
        }
        Kind::Unary { negate, expr } => {
            json!({"type": "unaryExpr", "op": if *negate { "-" } else { "+" }, "expr": tree(expr)})
        }
        Kind::Paren(inner) => json!({"type": "parenExpr", "expr": tree(inner)}),
        Kind::Call { name, args } => json!({
            "type": "call",
            "func": {"name": name, "returnType": kind(e.value_type())},
            "args": args.iter().map(tree).collect::<Vec<_>>(),
        }),
        Kind::Aggregate(Aggregation { op, param, expr, grouping, without }) => json!({
            "type": "aggregation", "op": op, "expr": tree(expr), "param": param.as_deref().map(tree),
            "grouping": grouping, "without": without,
        }),
        Kind::Binary { op, lhs, rhs, bool_modifier, matching } => {
            let vectors = lhs.value_type() == ValueType::Vector && rhs.value_type() == ValueType::Vector;
            let card = matching.as_ref().map_or(Cardinality::OneToOne, |m| m.cardinality);
            let card = match card {
                _ if matches!(op, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless) => "many-to-many",
                Cardinality::OneToOne => "one-to-one",
                Cardinality::ManyToOne => "many-to-one",
                Cardinality::OneToMany => "one-to-many",
            };
            let matching = vectors.then(|| match matching {
                None => json!({"card": card, "labels": [], "on": false, "include": []}),
                Some(m) => json!({
                    "card": card, "labels": m.labels, "on": m.on, "include": m.include,
                    "fillValues": {"lhs": m.fill.0, "rhs": m.fill.1},
                }),
            });
            json!({
                "type": "binaryExpr", "op": op.as_str(), "lhs": tree(lhs), "rhs": tree(rhs),
                "bool": bool_modifier, "matching": matching,
            })
        }
    }
}
