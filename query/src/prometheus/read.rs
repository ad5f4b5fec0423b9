//! Remote read: raw samples for other Prometheus servers, all in one answer (Prometheus: prompb/remote.proto,
//! response type SAMPLES; who asks for chunks first takes this too).

use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header;
use signal::{MatchOp, Matcher, Select, SeriesColumns, SeriesSource};

use super::write::wire::{Histogram, Label, Sample};
use super::{fail, unpack};
use crate::App;
use crate::error::Failure;
use crate::params::body;
use crate::run::run;
use crate::scope::Scope;

#[derive(Clone, PartialEq, prost::Message)]
struct ReadRequest {
    #[prost(message, repeated, tag = "1")]
    queries: Vec<Query>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Query {
    #[prost(int64, tag = "1")]
    start: i64,
    #[prost(int64, tag = "2")]
    end: i64,
    #[prost(message, repeated, tag = "3")]
    matchers: Vec<LabelMatcher>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LabelMatcher {
    #[prost(int32, tag = "1")]
    op: i32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReadResponse {
    #[prost(message, repeated, tag = "1")]
    results: Vec<QueryResult>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct QueryResult {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    histograms: Vec<Histogram>,
}

impl LabelMatcher {
    fn matcher(self) -> Result<Matcher, Failure> {
        let op = match self.op {
            0 => MatchOp::Equal,
            1 => MatchOp::NotEqual,
            2 => MatchOp::Regex,
            3 => MatchOp::NotRegex,
            n => return Err(Failure::Bad(format!("invalid matcher type {n}"))),
        };
        Matcher::new(self.name, op, self.value).map_err(|e| Failure::Bad(e.to_string()))
    }
}

fn select(q: Query, scope: &Scope) -> Result<Select, Failure> {
    let own = q.matchers.into_iter().map(LabelMatcher::matcher);
    let matchers = own.chain(scope.enforce().into_iter().map(Ok)).collect::<Result<_, _>>()?;
    Ok(Select { matchers, start: q.start, end: q.end })
}

fn series(s: SeriesColumns) -> TimeSeries {
    let pair = |(name, value): (&str, &str)| Label { name: name.to_owned(), value: value.to_owned() };
    let sample = |(t, v): (&i64, &f64)| Sample { timestamp: *t, value: *v, start_timestamp: 0 };
    TimeSeries {
        labels: s.labels.iter().map(pair).collect(),
        samples: s.timestamps.iter().zip(&s.values).map(sample).collect(),
        histograms: s.histograms.iter().map(Histogram::of).collect(),
    }
}

fn answer(app: &App, selects: &[Select], stop: &AtomicBool) -> Result<Vec<u8>, Failure> {
    let limit = app.promql.limits().bytes;
    let mut held = 0;
    let mut results = Vec::new();
    for s in selects {
        let mut timeseries = Vec::new();
        for found in app.engines.tsdb.select(s)? {
            if stop.load(Ordering::Relaxed) {
                return Err(Failure::Canceled("the client has gone".to_owned()));
            }
            let found = found?;
            held += found.labels.encoded().len()
                + size_of::<Sample>() * found.values.len()
                + found.histograms.iter().map(|h| h.histogram.size()).sum::<usize>();
            if held > limit {
                return Err(Failure::Bad(format!(
                    "more than {limit} bytes of samples: ask for less at once"
                )));
            }
            timeseries.push(series(found));
        }
        results.push(QueryResult { timeseries });
    }
    let raw = prost::Message::encode_to_vec(&ReadResponse { results });
    snap::raw::Encoder::new().compress_vec(&raw).map_err(|e| Failure::Internal(e.to_string()))
}

pub(super) async fn read(State(app): State<App>, scope: Scope, req: Request) -> Result<Response, Response> {
    let packed = body(req, app.config.body_bytes).await.map_err(fail)?;
    let raw = unpack(&packed, app.config.unpacked_bytes).map_err(fail)?;
    let request: ReadRequest = prost::Message::decode(raw.as_slice())
        .map_err(|e| fail(Failure::Bad(format!("not a remote read request: {e}"))))?;
    let selects: Vec<Select> =
        request.queries.into_iter().map(|q| select(q, &scope)).collect::<Result<_, _>>().map_err(fail)?;
    let body = run(&app, move |app, stop| answer(app, &selects, &stop)).await.map_err(fail)?;
    Ok(([(header::CONTENT_TYPE, "application/x-protobuf"), (header::CONTENT_ENCODING, "snappy")], body)
        .into_response())
}
