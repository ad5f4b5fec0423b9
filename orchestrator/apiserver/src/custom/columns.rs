//! Tables of custom resources: `additionalPrinterColumns` by their JSONPath
//! (apiextensions-apiserver: pkg/registry/customresource/tableconvertor; client-go: util/jsonpath).

use serde_json::{Value, json};
use signal::Timestamp;

use crate::{object, table};

/// A column as its definition says.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    definition: Value,
    ty: String,
    path: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    /// From, to.
    Slice(Option<i64>, Option<i64>),
    All,
    /// `?(@.path OP value)`
    Filter(Vec<Step>, String, Value),
}

const CREATED: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
const NAMED: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";

/// The columns of a version; without any it is its age.
pub(crate) fn read(columns: &[Value]) -> Vec<Column> {
    if columns.is_empty() {
        let age = json!({"name": "Age", "type": "date", "description": CREATED, "jsonPath": ".metadata.creationTimestamp"});
        return vec![column(&age)];
    }
    columns.iter().map(column).collect()
}

fn column(c: &Value) -> Column {
    let text = |k: &str| c[k].as_str().unwrap_or_default();
    Column {
        definition: json!({"name": text("name"), "type": text("type"), "format": text("format"),
            "description": text("description"), "priority": c["priority"].as_i64().unwrap_or(0)}),
        ty: text("type").to_owned(),
        path: parse(text("jsonPath")),
    }
}

pub(crate) fn definitions(columns: &[Column]) -> Value {
    let name =
        json!({"name": "Name", "type": "string", "format": "name", "description": NAMED, "priority": 0});
    std::iter::once(name).chain(columns.iter().map(|c| c.definition.clone())).collect()
}

pub(crate) fn row(columns: &[Column], o: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![object::name(o).into()];
    for c in columns {
        let found = find(&c.path, o).into_iter().next();
        cells.push(found.map_or(Value::Null, |v| cell(&c.ty, v, now)));
    }
    cells
}

fn cell(ty: &str, v: &Value, now: Timestamp) -> Value {
    match (ty, v) {
        ("integer", Value::Number(n)) => {
            n.as_i64().or_else(|| n.as_f64().map(|f| f as i64)).map_or(Value::Null, Value::from)
        }
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => v.clone(),
        ("date", Value::String(s)) => table::since(Some(s), now).into(),
        ("string", Value::String(_)) => v.clone(),
        ("string", Value::Null) => "<nil>".into(),
        ("string", v) => v.to_string().into(),
        _ => Value::Null,
    }
}

/// A path as kubectl writes them, such as `.status.conditions[?(@.type=="Ready")].status`.
fn parse(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path.trim_start_matches('{').trim_end_matches('}');
    rest = rest.strip_prefix('$').unwrap_or(rest);
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('[') {
            let end = bracket(inside);
            steps.push(subscript(inside[..end].trim()));
            rest = inside.get(end + 1..).unwrap_or_default();
            continue;
        }
        rest = rest.strip_prefix('.').unwrap_or(rest);
        let mut name = String::new();
        let mut chars = rest.char_indices();
        let mut end = rest.len();
        while let Some((i, c)) = chars.next() {
            match c {
                // A dot that belongs to the name.
                '\\' => name.extend(chars.next().map(|(_, c)| c)),
                '.' | '[' => {
                    end = i;
                    break;
                }
                c => name.push(c),
            }
        }
        rest = &rest[end..];
        match name.as_str() {
            "" => {}
            "*" => steps.push(Step::All),
            _ => steps.push(Step::Field(name)),
        }
    }
    steps
}

/// Where the bracket that is open closes.
fn bracket(s: &str) -> usize {
    let (mut depth, mut quote) = (0, None);
    for (i, c) in s.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return i,
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    s.len()
}

fn subscript(s: &str) -> Step {
    if s == "*" {
        return Step::All;
    }
    if let Some(filter) = s.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
        for op in ["==", "!=", ">=", "<=", ">", "<"] {
            if let Some((left, right)) = filter.split_once(op) {
                let right = right.trim();
                let quoted = right.strip_prefix(['"', '\'']).and_then(|r| r.strip_suffix(['"', '\'']));
                let value = match quoted {
                    Some(q) => Value::from(q),
                    None => serde_json::from_str(right).unwrap_or(Value::Null),
                };
                let left = left.trim();
                return Step::Filter(parse(left.strip_prefix('@').unwrap_or(left)), op.to_owned(), value);
            }
        }
        let filter = filter.trim();
        return Step::Filter(parse(filter.strip_prefix('@').unwrap_or(filter)), String::new(), Value::Null);
    }
    if let Some(name) = s.strip_prefix(['"', '\'']).and_then(|r| r.strip_suffix(['"', '\''])) {
        return Step::Field(name.to_owned());
    }
    if let Some((from, to)) = s.split_once(':') {
        return Step::Slice(from.parse().ok(), to.parse().ok());
    }
    s.parse().map_or_else(|_| Step::Field(s.to_owned()), Step::Index)
}

fn find<'a>(path: &[Step], o: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![o];
    for step in path {
        found = found.into_iter().flat_map(|v| advance(step, v)).collect();
    }
    found
}

fn advance<'a>(step: &Step, v: &'a Value) -> Vec<&'a Value> {
    let at = |i: i64, len: usize| if i < 0 { i + len as i64 } else { i };
    match (step, v) {
        (Step::Field(name), v) => v.get(name).into_iter().collect(),
        (Step::Index(i), Value::Array(l)) => {
            usize::try_from(at(*i, l.len())).ok().and_then(|i| l.get(i)).into_iter().collect()
        }
        (Step::Slice(from, to), Value::Array(l)) => {
            let from = usize::try_from(at(from.unwrap_or(0), l.len())).unwrap_or(0);
            let to = usize::try_from(at(to.unwrap_or(l.len() as i64), l.len())).unwrap_or(0).min(l.len());
            l.get(from..to).unwrap_or_default().iter().collect()
        }
        (Step::All, Value::Array(l)) => l.iter().collect(),
        (Step::All, Value::Object(m)) => m.values().collect(),
        (Step::Filter(path, op, value), Value::Array(l)) => l
            .iter()
            .filter(|e| find(path, e).first().is_some_and(|found| compare(found, op, value)))
            .collect(),
        _ => Vec::new(),
    }
}

fn compare(found: &Value, op: &str, value: &Value) -> bool {
    let order = match (found, value) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (a, b) if a == b => Some(std::cmp::Ordering::Equal),
        _ => None,
    };
    match op {
        "" => true,
        "==" => order.is_some_and(std::cmp::Ordering::is_eq),
        "!=" => !order.is_some_and(std::cmp::Ordering::is_eq),
        ">=" => order.is_some_and(std::cmp::Ordering::is_ge),
        "<=" => order.is_some_and(std::cmp::Ordering::is_le),
        ">" => order.is_some_and(std::cmp::Ordering::is_gt),
        _ => order.is_some_and(std::cmp::Ordering::is_lt),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells() {
        let o = json!({"metadata": {"name": "n", "annotations": {"a.b/c": "x"}}, "spec": {"n": 3, "f": true, "list": ["a", "b"], "o": {"k": 1}},
            "status": {"conditions": [{"type": "A", "status": "False"}, {"type": "Ready", "status": "True"}]}});
        let check = |ty: &str, path: &str, expect: Value| {
            let c = read(&[json!({"name": "C", "type": ty, "jsonPath": path})]);
            assert_eq!(row(&c, &o, Timestamp::from_nanos(0))[1], expect, "{path}");
        };
        check("integer", ".spec.n", json!(3));
        check("string", ".spec.n", json!("3"));
        check("boolean", ".spec.f", json!(true));
        check("string", ".spec.absent", json!(null));
        check("string", ".status.conditions[?(@.type==\"Ready\")].status", json!("True"));
        check("string", ".status.conditions[?(@.type=='Ready')].status", json!("True"));
        check("string", ".status.conditions[-1].status", json!("True"));
        check("string", ".spec.list[0]", json!("a"));
        check("string", ".spec.list[*]", json!("a"));
        check("string", ".spec.list", json!("[\"a\",\"b\"]"));
        check("string", ".metadata.annotations.a\\.b/c", json!("x"));
        check("string", ".metadata.annotations['a.b/c']", json!("x"));
        check("string", ".spec.o", json!("{\"k\":1}"));
        check("date", ".metadata.name", json!("<unknown>"));
    }
}
