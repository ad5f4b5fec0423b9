//! Where two values differ, as an error shows it: the lines that go, the lines that come, and how much stays
//! (upstream shows go-cmp's view of its own structs; names are as in Go, values as in JSON).

use std::fmt::Write;

use serde_json::{Map, Value};

/// What changes from `old` to `new`, which are of the type of this name.
pub(crate) fn text(kind: &str, old: &Value, new: &Value) -> String {
    let mut out = String::new();
    compare(&mut out, 0, "", kind, old, new);
    out
}

/// Fields that hold maps, whose keys are no fields.
const MAPS: [&str; 8] = [
    "annotations",
    "capacity",
    "labels",
    "limits",
    "matchLabels",
    "nodeSelector",
    "requests",
    "volumeAttributes",
];

/// A field as Go names it, or the key of a map.
fn name(key: &str, of: &str) -> String {
    if MAPS.iter().any(|m| of.strip_suffix(": ").is_some_and(|of| of.eq_ignore_ascii_case(m))) {
        return format!("{key:?}");
    }
    let mut letters = key.chars();
    letters.next().map(|c| c.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}

fn line(out: &mut String, sign: char, depth: usize, text: &str) {
    let _ = writeln!(out, "{sign} {}{text}", "\t".repeat(depth));
}

fn compare(out: &mut String, depth: usize, label: &str, kind: &str, old: &Value, new: &Value) {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let none = Value::Null;
            let fields: Vec<(&String, &Value, &Value)> =
                keys(a, b).map(|k| (k, a.get(k).unwrap_or(&none), b.get(k).unwrap_or(&none))).collect();
            line(out, ' ', depth, &format!("{label}{kind}{{"));
            let part = |key: &String, a: &Value, b: &Value, out: &mut String| {
                compare(out, depth + 1, &format!("{}: ", name(key, label)), "", a, b);
            };
            parts(out, depth, &fields, "fields", part);
            line(out, ' ', depth, if depth == 0 { "}" } else { "}," });
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let items: Vec<((), &Value, &Value)> = a.iter().zip(b).map(|(a, b)| ((), a, b)).collect();
            line(out, ' ', depth, &format!("{label}{kind}{{"));
            let part = |(): (), a: &Value, b: &Value, out: &mut String| {
                compare(out, depth + 1, "", "", a, b);
            };
            parts(out, depth, &items, "elements", part);
            line(out, ' ', depth, "},");
        }
        _ => {
            for (sign, v) in [('-', old), ('+', new)] {
                let shown = if v.is_null() { "nil".to_owned() } else { v.to_string() };
                line(out, sign, depth, &format!("{label}{shown},"));
            }
        }
    }
}

/// The parts that differ, and how many in between do not.
fn parts<K: Copy>(
    out: &mut String,
    depth: usize,
    all: &[(K, &Value, &Value)],
    word: &str,
    part: impl Fn(K, &Value, &Value, &mut String),
) {
    let mut same = 0;
    let skip = |out: &mut String, n: usize| {
        if n > 0 {
            let word = if n == 1 { word.trim_end_matches('s') } else { word };
            line(out, ' ', depth + 1, &format!("... // {n} identical {word}"));
        }
    };
    for (key, a, b) in all {
        if a == b {
            same += 1;
        } else {
            skip(out, std::mem::take(&mut same));
            part(*key, a, b, out);
        }
    }
    skip(out, same);
}

/// The keys of both, the older first.
fn keys<'a>(a: &'a Map<String, Value>, b: &'a Map<String, Value>) -> impl Iterator<Item = &'a String> {
    a.keys().chain(b.keys().filter(|k| !a.contains_key(*k)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shows_what_changes_and_counts_what_stays() {
        let old = json!({"a": 1, "b": {"c": "x", "d": [1, 2]}, "e": true});
        let new = json!({"a": 1, "b": {"c": "x", "d": [1, 3]}, "f": 4});
        assert_eq!(
            text("core.Thing", &old, &new),
            "  core.Thing{\n  \t... // 1 identical field\n  \tB: {\n  \t\t... // 1 identical field\n  \t\tD: {\n  \t\t\t... // 1 identical element\n- \t\t\t2,\n+ \t\t\t3,\n  \t\t},\n  \t},\n- \tE: true,\n+ \tE: nil,\n- \tF: nil,\n+ \tF: 4,\n  }\n"
        );
    }
}
