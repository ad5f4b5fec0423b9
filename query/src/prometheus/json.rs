//! Results in Prometheus' JSON, written straight into a string: a result can have millions of points.

use std::fmt::Write;

use axum::response::{IntoResponse, Response};
use http::header;
use promql::{QueryResult, Value, format_value};
use signal::Labels;

pub(crate) fn raw(body: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// The whole answer. `limit` 0 means all series.
pub(crate) fn result(r: &QueryResult, limit: usize) -> String {
    let mut out = String::from("{\"status\":\"success\",\"data\":");
    let cut = value(&mut out, &r.value, limit);
    let mut warnings = r.warnings.clone();
    if cut {
        warnings.push("results truncated due to limit".to_owned());
    }
    for (name, list) in [("warnings", &warnings), ("infos", &r.infos)] {
        if !list.is_empty() {
            let list = serde_json::to_string(list).expect("strings are JSON");
            write!(out, ",\"{name}\":{list}").expect("writing to a string cannot fail");
        }
    }
    out.push('}');
    out
}

/// `{"resultType": …, "result": …}`; true if series were left out.
pub(crate) fn value(out: &mut String, v: &Value, limit: usize) -> bool {
    let limit = if limit == 0 { usize::MAX } else { limit };
    match v {
        Value::Scalar(s) => {
            out.push_str("{\"resultType\":\"scalar\",\"result\":");
            point(out, s.timestamp, s.value);
            out.push('}');
            false
        }
        Value::String(s) => {
            let s = serde_json::to_string(s).expect("strings are JSON");
            write!(out, "{{\"resultType\":\"string\",\"result\":[0,{s}]}}")
                .expect("writing to a string cannot fail");
            false
        }
        Value::Vector(all) => {
            out.push_str("{\"resultType\":\"vector\",\"result\":[");
            for (i, (l, s)) in all.iter().take(limit).enumerate() {
                out.push_str(if i > 0 { ",{\"metric\":" } else { "{\"metric\":" });
                labels(out, l);
                out.push_str(",\"value\":");
                point(out, s.timestamp, s.value);
                out.push('}');
            }
            out.push_str("]}");
            all.len() > limit
        }
        Value::Matrix(all) => {
            out.push_str("{\"resultType\":\"matrix\",\"result\":[");
            for (i, s) in all.iter().take(limit).enumerate() {
                out.push_str(if i > 0 { ",{\"metric\":" } else { "{\"metric\":" });
                labels(out, &s.labels);
                out.push_str(",\"values\":[");
                for (j, p) in s.samples.iter().enumerate() {
                    if j > 0 {
                        out.push(',');
                    }
                    point(out, p.timestamp, p.value);
                }
                out.push_str("]}");
            }
            out.push_str("]}");
            all.len() > limit
        }
    }
}

fn labels(out: &mut String, l: &Labels) {
    out.push_str(&serde_json::to_string(l).expect("labels are JSON"));
}

fn point(out: &mut String, ms: i64, v: f64) {
    let (s, frac) = (ms.div_euclid(1000), ms.rem_euclid(1000));
    // Written as a whole number and a fraction, because a float would lose milliseconds.
    let time = if ms < 0 {
        (ms as f64 / 1000.0).to_string()
    } else if frac == 0 {
        s.to_string()
    } else {
        format!("{s}.{frac:03}")
    };
    write!(out, "[{time},\"{}\"]", format_value(v)).expect("writing to a string cannot fail");
}
