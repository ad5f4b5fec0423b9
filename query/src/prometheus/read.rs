//! Remote read for other Prometheus servers: all samples in one answer, or a stream of chunks, whichever the client asks for
//! first (Prometheus: prompb/remote.proto, storage/remote/read_handler.go).

use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use exchange::remote::{LabelMatcher, Query, QueryResult, ReadRequest, ReadResponse, frames, series};
use http::header;
use signal::{MatchOp, Matcher, Select, SeriesColumns, SeriesSource};
use tokio::sync::mpsc;

use super::{fail, unpack};
use crate::App;
use crate::error::Failure;
use crate::params::body;
use crate::run::run;
use crate::scope::Scope;

/// As Prometheus: `storage.remote.read-max-bytes-in-frame`.
const FRAME: usize = 1 << 20;
/// Frames that wait for a slow client.
const FRAMES: usize = 4;
/// Of `accepted_response_types`.
const SAMPLES: i32 = 0;
const STREAMED_XOR_CHUNKS: i32 = 1;

/// One query, with what it is for.
struct Wanted {
    select: Select,
    /// Samples are not looked at.
    only_labels: bool,
}

fn matcher(m: LabelMatcher) -> Result<Matcher, Failure> {
    let op = match m.op {
        0 => MatchOp::Equal,
        1 => MatchOp::NotEqual,
        2 => MatchOp::Regex,
        3 => MatchOp::NotRegex,
        n => return Err(Failure::Bad(format!("invalid matcher type {n}"))),
    };
    Matcher::new(m.name, op, m.value).map_err(|e| Failure::Bad(e.to_string()))
}

fn wanted(q: Query, scope: &Scope) -> Result<Wanted, Failure> {
    let own = q.matchers.into_iter().map(matcher);
    let matchers = own.chain(scope.enforce().into_iter().map(Ok)).collect::<Result<_, _>>()?;
    let only_labels = q.hints.is_some_and(|h| h.func == "series");
    Ok(Wanted { select: Select { matchers, start: q.start, end: q.end }, only_labels })
}

/// Series one after the other, without samples where none are wanted; the flag ends it.
fn each(
    app: &App,
    w: &Wanted,
    stop: &AtomicBool,
    mut one: impl FnMut(SeriesColumns) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    if w.only_labels {
        for labels in app.engines.tsdb.series(&w.select)? {
            if !one(SeriesColumns { labels, ..SeriesColumns::default() })? {
                return Ok(());
            }
        }
        return Ok(());
    }
    for found in app.engines.tsdb.select(&w.select)? {
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::Canceled("the client has gone".to_owned()));
        }
        if !one(found?)? {
            return Ok(());
        }
    }
    Ok(())
}

fn samples(app: &App, all: &[Wanted], stop: &AtomicBool) -> Result<Vec<u8>, Failure> {
    let limit = app.promql.limits().bytes;
    let mut held = 0;
    let mut results = Vec::new();
    for w in all {
        let mut timeseries = Vec::new();
        each(app, w, stop, |found| {
            held += found.labels.encoded().len()
                + 16 * found.values.len()
                + found.histograms.iter().map(|h| h.histogram.size()).sum::<usize>();
            if held > limit {
                return Err(Failure::Bad(format!(
                    "more than {limit} bytes of samples: ask for less at once, or for streamed chunks"
                )));
            }
            timeseries.push(series(&found));
            Ok(true)
        })?;
        results.push(QueryResult { timeseries });
    }
    let raw = prost::Message::encode_to_vec(&ReadResponse { results });
    snap::raw::Encoder::new().compress_vec(&raw).map_err(|e| Failure::Internal(e.to_string()))
}

/// Frame after frame, as fast as they are taken.
fn stream(app: App, all: Vec<Wanted>) -> Response {
    let (to, mut from) = mpsc::channel::<Result<Vec<u8>, Failure>>(FRAMES);
    let failed = to.clone();
    telemetry::task::spawn("remote-read", async move {
        let done = run(&app, move |app, stop| {
            for (i, w) in all.iter().enumerate() {
                each(app, w, &stop, |s| {
                    // Without the receiver there is no client.
                    Ok(frames(&s, i, FRAME, |frame| to.blocking_send(Ok(frame)).is_ok()))
                })?;
            }
            Ok(())
        });
        if let Err(e) = done.await {
            // The body ends without its end, which is how a client sees it. Nobody may be left to be told.
            drop(failed.send(Err(e)).await);
        }
    });
    let frames = futures::stream::poll_fn(move |cx| from.poll_recv(cx));
    let frames = futures::StreamExt::map(frames, |f| f.map_err(|e| std::io::Error::other(format!("{e:?}"))));
    let kind = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";
    ([(header::CONTENT_TYPE, kind)], Body::from_stream(frames)).into_response()
}

pub(super) async fn read(State(app): State<App>, scope: Scope, req: Request) -> Result<Response, Response> {
    let packed = body(req, app.config.body_bytes).await.map_err(fail)?;
    let raw = unpack(&packed, app.config.unpacked_bytes).map_err(fail)?;
    let request: ReadRequest = prost::Message::decode(raw.as_slice())
        .map_err(|e| fail(Failure::Bad(format!("not a remote read request: {e}"))))?;
    let all: Vec<Wanted> =
        request.queries.into_iter().map(|q| wanted(q, &scope)).collect::<Result<_, _>>().map_err(fail)?;
    let known = |t: &&i32| matches!(**t, SAMPLES | STREAMED_XOR_CHUNKS);
    match request.accepted_response_types.iter().find(known) {
        Some(&STREAMED_XOR_CHUNKS) => return Ok(stream(app, all)),
        None if !request.accepted_response_types.is_empty() => {
            let asked = &request.accepted_response_types;
            return Err(fail(Failure::Bad(format!(
                "server does not support any of the requested response types: {asked:?}; supported: SAMPLES, STREAMED_XOR_CHUNKS"
            ))));
        }
        _ => {}
    }
    let body = run(&app, move |app, stop| samples(app, &all, &stop)).await.map_err(fail)?;
    Ok(([(header::CONTENT_TYPE, "application/x-protobuf"), (header::CONTENT_ENCODING, "snappy")], body)
        .into_response())
}
