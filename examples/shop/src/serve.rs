//! The three services: one handler, since they differ only in whom they ask next.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpListener;

use crate::state::{Shop, now_nanos};
use crate::trace::{Context, Spans, span};

type Next = Client<HttpConnector, Full<Bytes>>;

pub(crate) async fn run(shop: Arc<Shop>, spans: Spans) -> std::io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", shop.port)).await?;
    let next: Next = Client::builder(TokioExecutor::new()).build_http();
    loop {
        let (stream, _) = listener.accept().await?;
        let (shop, spans, next) = (shop.clone(), spans.clone(), next.clone());
        #[expect(clippy::disallowed_methods, reason = "a program of its own, outside the house")]
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let (shop, spans, next) = (shop.clone(), spans.clone(), next.clone());
                async move { Ok::<_, Infallible>(handle(&shop, &spans, &next, request).await) }
            });
            // A client that goes away in the middle is not our trouble.
            drop(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
        });
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut r = Response::new(Full::new(body.into()));
    *r.status_mut() = status;
    r
}

async fn handle(
    shop: &Shop,
    spans: &Spans,
    next: &Next,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (_, "/healthz") => text(StatusCode::OK, "ok\n"),
        (&Method::GET, "/metrics") => text(StatusCode::OK, shop.metrics()),
        (&Method::PUT, "/switch") => match shop.switch(request.uri().query().unwrap_or("")) {
            Ok(now) => text(StatusCode::OK, now),
            Err(e) => text(StatusCode::BAD_REQUEST, format!("{e}\n")),
        },
        _ => work(shop, spans, next, request).await,
    }
}

async fn work(shop: &Shop, spans: &Spans, next: &Next, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let start = now_nanos();
    let header = request.headers().get("traceparent").and_then(|v| v.to_str().ok());
    let context = Context::continue_from(header);
    let path = request.uri().path().to_owned();
    burn(Duration::from_millis(shop.burn.load(Ordering::Relaxed)));
    let faulty = rand::random_range(0..1000) < shop.fault.load(Ordering::Relaxed);
    let result = if faulty {
        Err("the fault switch is on".to_owned())
    } else {
        ask(shop, next, &path, &context).await
    };
    let end = now_nanos();
    let took = Duration::from_nanos(end.saturating_sub(start));
    let ok = result.is_ok();
    shop.count(ok, took);
    let fields = [
        ("path", json!(path)),
        ("status", json!(if ok { 200 } else { 500 })),
        ("duration_ms", json!(took.as_micros() as f64 / 1000.0)),
        ("trace_id", json!(context.trace)),
        ("span_id", json!(context.span)),
    ];
    let name = format!("{} {path}", request.method());
    let attributes = [("http.route", path.as_str()), ("http.request.method", request.method().as_str())];
    // A full queue drops the span: the shop must not wait for its observers.
    drop(spans.try_send(span(&context, &name, start, end, ok, &attributes)));
    match result {
        Ok(body) => {
            shop.log("info", "request", &fields);
            text(StatusCode::OK, body)
        }
        Err(e) => {
            let mut fields = fields.to_vec();
            fields.push(("error", json!(e)));
            shop.log("error", "request failed", &fields);
            text(StatusCode::INTERNAL_SERVER_ERROR, format!("{}: {e}\n", shop.role))
        }
    }
}

/// Spins the CPU for this long.
fn burn(time: Duration) {
    let start = now_nanos();
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    while now_nanos().saturating_sub(start) < nanos {
        std::hint::spin_loop();
    }
}

async fn ask(shop: &Shop, next: &Next, path: &str, context: &Context) -> Result<String, String> {
    if shop.next.is_empty() {
        return Ok(format!("{}: here you are\n", shop.role));
    }
    let request = Request::get(format!("{}{path}", shop.next))
        .header("traceparent", context.header())
        .body(Full::default())
        .map_err(|e| e.to_string())?;
    let response = tokio::time::timeout(Duration::from_secs(5), next.request(request))
        .await
        .map_err(|_| format!("{} does not answer", shop.next))?
        .map_err(|e| format!("{}: {e}", shop.next))?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
    let body = String::from_utf8_lossy(&body);
    if status.is_success() { Ok(format!("{}: {body}", shop.role)) } else { Err(body.trim().to_owned()) }
}
