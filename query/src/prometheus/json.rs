//! Results in Prometheus' JSON, written straight into a string: a result can have millions of points.

use std::convert::Infallible;
use std::fmt::Write;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header;
use promql::{QueryResult, Series, Value, format_value};
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

/// Answers with more points are sent while they are written.
const LARGE: usize = 50_000;
/// Bytes of a piece of such an answer.
const PIECE: usize = 256 << 10;
/// Pieces that wait for the client.
const PIECES: usize = 4;

/// The whole answer. A large one is written piece by piece at the client's pace, and what is sent leaves memory.
pub(crate) fn answer(mut r: QueryResult, limit: usize, stats: String, release: Option<fn()>) -> Response {
    let points = match &r.value {
        Value::Matrix(all) => all.iter().map(|s| s.samples.len() + 8 * s.histograms.len()).sum(),
        _ => 0,
    };
    if points < LARGE {
        let text = result(&r, limit, &stats);
        drop(r);
        if let Some(release) = release {
            tokio::task::spawn_blocking(release);
        }
        return raw(text);
    }
    let all = match std::mem::replace(&mut r.value, Value::Matrix(Vec::new())) {
        Value::Matrix(all) => all,
        _ => Vec::new(),
    };
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Result<Bytes, Infallible>>(PIECES);
    tokio::task::spawn_blocking(move || {
        let most = if limit == 0 { usize::MAX } else { limit };
        if all.len() > most {
            r.warnings.push("results truncated due to limit".to_owned());
        }
        // What stands around the series, from an answer without any.
        let frame = result(&r, 0, &stats);
        let (head, tail) = frame.split_at(frame.find("\"result\":[").map_or(0, |at| at + 10));
        let mut out = head.to_owned();
        for (i, s) in all.into_iter().take(most).enumerate() {
            series(&mut out, &s, i > 0);
            if out.len() >= PIECE && sender.blocking_send(Ok(std::mem::take(&mut out).into())).is_err() {
                // Nobody reads any more.
                return;
            }
        }
        out.push_str(tail);
        // The same holds for the end.
        let _ = sender.blocking_send(Ok(out.into()));
        if let Some(release) = release {
            release();
        }
    });
    let body = Body::from_stream(futures::stream::poll_fn(move |cx| receiver.poll_recv(cx)));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// The whole answer as one text. `limit` 0 means all series; `stats` is what [`stats`] gave, or nothing.
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
                series(out, s, i > 0);
            }
            out.push_str("]}");
            all.len() > limit
        }
    }
}

fn series(out: &mut String, s: &Series, more: bool) {
    out.push_str(if more { ",{\"metric\":" } else { "{\"metric\":" });
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
    let written =
        if v.is_finite() { write!(out, ",\"{v}\"]") } else { write!(out, ",\"{}\"]", format_value(v)) };
    written.expect("writing to a string cannot fail");
}

/// Seconds, with milliseconds if there are any.
pub(crate) fn time(out: &mut String, ms: i64) {
    let (s, frac) = (ms.div_euclid(1000), ms.rem_euclid(1000));
    // Written as a whole number and a fraction, because a float would lose milliseconds.
    let written = if ms < 0 {
        write!(out, "{}", ms as f64 / 1000.0)
    } else if frac == 0 {
        write!(out, "{s}")
    } else {
        write!(out, "{s}.{frac:03}")
    };
    written.expect("writing to a string cannot fail");
}
