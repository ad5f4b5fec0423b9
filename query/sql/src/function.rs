//! Functions of our own, and those of DataFusion that are taken away.

use std::sync::Arc;

use arrow::array::builder::StringViewBuilder;
use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use serde_json::Value;

/// A single call of these can make any amount of memory out of a few bytes, outside of the pool's sight.
pub(crate) const TAKEN_AWAY: &[&str] = &[
    "range",
    "generate_series",
    "gen_series",
    "repeat",
    "array_repeat",
    "list_repeat",
    "array_resize",
    "list_resize",
    "lpad",
    "rpad",
];

/// `json_get(text, 'spec.containers[0].image')`: what stands at the path, strings without quotes, anything else as
/// JSON; NULL if there is nothing. A name with dots in it stands in brackets: `metadata.labels['app.kubernetes.io/name']`.
pub(crate) fn json_get() -> ScalarUDF {
    ScalarUDF::new_from_impl(JsonGet { signature: Signature::string(2, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonGet {
    signature: Signature,
}

impl ScalarUDFImpl for JsonGet {
    fn name(&self) -> &str {
        "json_get"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let texts = strings(&args.args, 0, rows)?;
        let paths = strings(&args.args, 1, rows)?;
        let (texts, paths) = (texts.as_string_view(), paths.as_string_view());
        let mut out = StringViewBuilder::with_capacity(rows);
        // The path is nearly always the same for all rows.
        let mut last: Option<(String, Vec<Step>)> = None;
        for i in 0..rows {
            if texts.is_null(i) || paths.is_null(i) {
                out.append_null();
                continue;
            }
            let path = paths.value(i);
            if last.as_ref().is_none_or(|(p, _)| p != path) {
                let steps = steps(path).ok_or_else(|| {
                    DataFusionError::Execution(format!(
                        "json_get: not a path: {path:?} (write a.b[0]['c.d'])"
                    ))
                })?;
                last = Some((path.to_owned(), steps));
            }
            let steps = last.as_ref().map_or(&[][..], |(_, s)| s);
            match serde_json::from_str::<Value>(texts.value(i)).ok().as_ref().and_then(|v| walk(v, steps)) {
                None | Some(Value::Null) => out.append_null(),
                Some(Value::String(s)) => out.append_value(s),
                Some(other) => out.append_value(other.to_string()),
            }
        }
        Ok(ColumnarValue::Array(Arc::new(out.finish())))
    }
}

fn strings(args: &[ColumnarValue], i: usize, rows: usize) -> Result<ArrayRef> {
    let arg = args.get(i).ok_or_else(|| DataFusionError::Execution("json_get takes two texts".to_owned()))?;
    Ok(arrow::compute::cast(&arg.to_array(rows)?, &DataType::Utf8View)?)
}

#[derive(Debug, PartialEq)]
enum Step {
    Name(String),
    Index(usize),
}

fn steps(path: &str) -> Option<Vec<Step>> {
    let mut out = Vec::new();
    let mut rest = path.strip_prefix('$').unwrap_or(path);
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            if let Some(quoted) = inner.strip_prefix('\'') {
                let (name, after) = quoted.split_once("']")?;
                out.push(Step::Name(name.to_owned()));
                rest = after;
            } else {
                let (index, after) = inner.split_once(']')?;
                out.push(Step::Index(index.parse().ok()?));
                rest = after;
            }
        } else {
            let name = rest.strip_prefix('.').unwrap_or(rest);
            let end = name.find(['.', '[']).unwrap_or(name.len());
            let (name, after) = name.split_at(end);
            if name.is_empty() {
                return None;
            }
            out.push(Step::Name(name.to_owned()));
            rest = after;
        }
    }
    Some(out)
}

fn walk<'a>(v: &'a Value, steps: &[Step]) -> Option<&'a Value> {
    steps.iter().try_fold(v, |v, s| match s {
        Step::Name(n) => v.get(n),
        Step::Index(i) => v.get(i),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_walked() {
        let v = serde_json::json!({"a": {"b.c": [1, {"d": "x"}]}, "e": null});
        let check = |path: &str, expect: Option<Value>| {
            let found = steps(path).map(|s| walk(&v, &s).cloned());
            assert_eq!(found, Some(expect), "{path}");
        };
        check("a['b.c'][1].d", Some(Value::from("x")));
        check("$.a['b.c'][0]", Some(Value::from(1)));
        check("a.x", None);
        check("a['b.c'][7]", None);
        check("e", Some(Value::Null));
        for bad in ["a..b", "a[", "a[x]", "a['b"] {
            assert_eq!(steps(bad), None, "{bad}");
        }
    }
}
