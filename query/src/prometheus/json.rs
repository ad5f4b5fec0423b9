//! Results in Prometheus' JSON, written straight into a string: a result can have millions of points.

use std::fmt::Write;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header;
use promql::{QueryResult, Value, format_value};
use signal::{FloatHistogram, Labels};

pub(crate) fn raw(body: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Warnings, and infos, in one answer.
const MOST_NOTES: usize = 10;

/// What `stats` asks for: how long the query took, and what it read.
pub(crate) fn stats(r: &QueryResult, took: Duration) -> String {
    let seconds = took.as_secs_f64();
    format!(
        ",\"stats\":{{\"timings\":{{\"evalTotalTime\":{seconds},\"resultSortTime\":0,\"queryPreparationTime\":0,\
         \"innerEvalTime\":{seconds},\"execQueueTime\":0,\"execTotalTime\":{seconds}}},\
         \"samples\":{{\"totalQueryableSamples\":{read},\"peakSamples\":{peak},\"samplesRead\":{read},\"peakBytes\":{bytes}}}}}",
        read = r.samples_read,
        peak = r.peak_bytes / 16,
        bytes = r.peak_bytes,
    )
}

/// The whole answer. `limit` 0 means all series; `stats` is what [`stats`] gave, or nothing.
pub(crate) fn result(r: &QueryResult, limit: usize, stats: &str) -> String {
    let mut out = String::from("{\"status\":\"success\",\"data\":");
    let cut = value(&mut out, &r.value, limit);
    if !stats.is_empty() {
        // The statistics stand beside the result.
        out.pop();
        out.push_str(stats);
        out.push('}');
    }
    let mut warnings = at_most(&r.warnings, "warning");
    if cut {
        warnings.push("results truncated due to limit".to_owned());
    }
    for (name, list) in [("warnings", warnings), ("infos", at_most(&r.infos, "info"))] {
        if !list.is_empty() {
            let list = serde_json::to_string(&list).expect("strings are JSON");
            write!(out, ",\"{name}\":{list}").expect("writing to a string cannot fail");
        }
    }
    out.push('}');
    out
}

fn at_most(notes: &[String], what: &str) -> Vec<String> {
    let mut out: Vec<String> = notes.iter().take(MOST_NOTES).cloned().collect();
    if notes.len() > MOST_NOTES {
        out.push(format!("{} more {what} annotations omitted", notes.len() - MOST_NOTES));
    }
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
                match &s.histogram {
                    None => {
                        out.push_str(",\"value\":");
                        point(out, s.timestamp, s.value);
                    }
                    Some(h) => {
                        out.push_str(",\"histogram\":");
                        histogram(out, s.timestamp, h);
                    }
                }
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
                if !s.samples.is_empty() || s.histograms.is_empty() {
                    out.push_str(",\"values\":[");
                    for (j, p) in s.samples.iter().enumerate() {
                        if j > 0 {
                            out.push(',');
                        }
                        point(out, p.timestamp, p.value);
                    }
                    out.push(']');
                }
                if !s.histograms.is_empty() {
                    out.push_str(",\"histograms\":[");
                    for (j, p) in s.histograms.iter().enumerate() {
                        if j > 0 {
                            out.push(',');
                        }
                        histogram(out, p.timestamp, &p.histogram);
                    }
                    out.push(']');
                }
                out.push('}');
            }
            out.push_str("]}");
            all.len() > limit
        }
    }
}

fn labels(out: &mut String, l: &Labels) {
    out.push_str(&serde_json::to_string(l).expect("labels are JSON"));
}

/// `[time, {"count": …, "sum": …, "buckets": [[rule, "lower", "upper", "count"], …]}]`. The rule says which bounds
/// belong to the bucket: 0 the upper, 1 the lower, 3 both.
fn histogram(out: &mut String, ms: i64, h: &FloatHistogram) {
    let fail = "writing to a string cannot fail";
    out.push('[');
    time(out, ms);
    write!(out, ",{{\"count\":\"{}\",\"sum\":\"{}\"", format_value(h.count), format_value(h.sum))
        .expect(fail);
    for (i, b) in h.all().enumerate() {
        let zero = !h.is_custom() && b.lower == -h.zero_threshold && b.upper == h.zero_threshold;
        let rule = if zero || h.is_custom() && b.lower == f64::NEG_INFINITY {
            3
        } else {
            u8::from(b.lower < 0.0 && !h.is_custom())
        };
        let (lower, upper, count) = (format_value(b.lower), format_value(b.upper), format_value(b.count));
        let open = if i > 0 { "," } else { ",\"buckets\":[" };
        write!(out, "{open}[{rule},\"{lower}\",\"{upper}\",\"{count}\"]").expect(fail);
    }
    out.push_str(if h.all().next().is_some() { "]}]" } else { "}]" });
}

fn point(out: &mut String, ms: i64, v: f64) {
    out.push('[');
    time(out, ms);
    write!(out, ",\"{}\"]", format_value(v)).expect("writing to a string cannot fail");
}

/// Seconds, with milliseconds if there are any.
pub(crate) fn time(out: &mut String, ms: i64) {
    let (s, frac) = (ms.div_euclid(1000), ms.rem_euclid(1000));
    // Written as a whole number and a fraction, because a float would lose milliseconds.
    let time = if ms < 0 {
        (ms as f64 / 1000.0).to_string()
    } else if frac == 0 {
        s.to_string()
    } else {
        format!("{s}.{frac:03}")
    };
    out.push_str(&time);
}
