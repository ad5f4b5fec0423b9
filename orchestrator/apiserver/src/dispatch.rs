//! The road of a request: who, what, may they, then to its handler. One span and one count per request.

use std::net::IpAddr;
use std::sync::Arc;

use apimachinery::protobuf;
use apimachinery::selector::FieldSelector;
use apimachinery::user::UserInfo;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, Request, header};
use serde_json::{Value, json};
use tower::ServiceExt;
use tracing::Instrument;

use crate::admission::attributes::Trail;
use crate::audit::{Outcome, Stage};
use crate::error::{ApiError, Result};
use crate::kinds::Served;
use crate::metrics::{Inflight, METRICS, RequestLabels, Watching, flow, objects_stored};
use crate::protobuf::{STREAM, Wanted};
use crate::registry::{DeleteOptions, Deleted, Part, WriteContext};
use crate::request::{ListOptions, Query, RequestInfo, Shape, WriteOptions, dry_run};
use crate::server::{Access, ApiServer};
use crate::table::Include;
use crate::{
    audit, body, certificates, discovery, node, object, openapi, patch, proxy, read, review, slow,
    subresource, watch,
};

/// A verified client certificate's user, put on a request by the TLS door.
#[derive(Clone, Debug)]
pub(crate) struct CertificateUser(pub(crate) UserInfo);

/// Where a connection comes from, put on a request by the TLS door.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerAddress(pub(crate) IpAddr);

/// What handlers get.
pub(crate) struct Context {
    pub(crate) info: RequestInfo,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) user: UserInfo,
    pub(crate) warnings: Vec<String>,
    /// What the request leaves behind beside its answer.
    pub(crate) trail: Arc<Trail>,
}

impl Context {
    pub(crate) fn write(&self) -> Result<WriteContext> {
        let options = WriteOptions::parse(&self.query, &self.headers)?;
        let subresource = match self.info.subresource.as_str() {
            "status" | "finalize" | "approval" => String::new(),
            own => own.to_owned(),
        };
        let (user, trail) = (Some(self.user.clone()), self.trail.clone());
        Ok(WriteContext { options, apply: false, user, subresource, trail })
    }

    fn include(&self) -> Include {
        Include::parse(self.query.get("includeObject"))
    }
}

pub(crate) fn router(server: Arc<ApiServer>) -> Router {
    Router::new().fallback(handle).with_state(server)
}

async fn handle(State(server): State<Arc<ApiServer>>, mut req: Request<Body>) -> Response {
    let started = server.config.clock.monotonic();
    let query = Query::parse(req.uri().query().unwrap_or_default());
    let info = RequestInfo::parse(req.method(), req.uri().path(), &query);
    let trail = Arc::<Trail>::default();
    let mutating = !matches!(*req.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let _inflight = Inflight::new(mutating);
    let labels = labels(&server, &info);
    let asked = info.clone();
    let upgrade = matches!(info.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy");
    let watch = info.verb == "watch";
    let streamed = watch || info.subresource == "log" || upgrade;
    let protobuf = Wanted::of(req.headers()).filter(|_| !upgrade && info.is_resource);
    if protobuf.is_some() {
        // What is compressed cannot be written anew.
        req.headers_mut().remove(header::ACCEPT_ENCODING);
    }
    let answer = if mutating && !upgrade && info.is_resource {
        let name = format!("{} {}", req.method(), labels.resource);
        let span = tracing::info_span!(
            target: "apiserver",
            "request",
            otel.name = name,
            verb = info.verb,
            resource = info.resource,
            namespace = info.namespace,
            name = info.name,
            audit_id = trail.id,
            user = tracing::field::Empty,
            code = tracing::field::Empty,
        );
        if let Some(t) = req.headers().get("traceparent").and_then(|t| t.to_str().ok()) {
            telemetry::propagation::set_parent_from(&span, t);
        }
        let answer =
            Box::pin(serve(server.clone(), req, info, query, trail.clone())).instrument(span.clone()).await;
        span.record("code", code(&answer));
        answer
    } else {
        Box::pin(serve(server.clone(), req, info, query, trail.clone())).await
    };
    let code = code(&answer);
    let ended = server.config.clock.monotonic();
    let took = ended.saturating_duration_since(started);
    if !streamed {
        slow::report(&asked, &trail.id, &trail.stations, started, ended, code);
    }
    METRICS.observe(RequestLabels { code, ..labels }, took, streamed);
    let answer = audited(&server, &trail, answer, streamed).await;
    let mut answer = answer.unwrap_or_else(IntoResponse::into_response);
    if let Some(wanted) = protobuf
        && !(watch && code == 200)
    {
        answer = wanted.answer(answer).await;
    }
    if let Some(mark) = trail.decided.get() {
        mark.on(&mut answer);
    }
    body::warn(&mut answer, &trail.warnings());
    if let Ok(v) = HeaderValue::from_str(&trail.id) {
        answer.headers_mut().insert("audit-id", v);
    }
    answer
        .headers_mut()
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-cache, private"));
    answer
}

/// Tells the audit log of an answer; streams are told of when they begin.
async fn audited(
    server: &ApiServer,
    trail: &Trail,
    answer: Result<Response>,
    streamed: bool,
) -> Result<Response> {
    let (Some(audit), Some(watched)) = (&server.config.audit, trail.watched()) else { return answer };
    let now = server.now();
    let (answer, outcome) = match answer {
        Err(e) => {
            audit.record(&watched, Stage::ResponseComplete, Some(&Outcome::Refused(&e)), trail, now);
            return Err(e);
        }
        Ok(r) if streamed || watched.level < audit::Level::RequestResponse => {
            let code = r.status().as_u16();
            (r, Outcome::Answered { code, body: None })
        }
        Ok(r) => {
            let (parts, body) = r.into_parts();
            // What is answered whole lies in memory already.
            let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
            let code = parts.status.as_u16();
            let told = serde_json::from_slice(&bytes).ok();
            (Response::from_parts(parts, Body::from(bytes)), Outcome::Answered { code, body: told })
        }
    };
    let stage = if streamed { Stage::ResponseStarted } else { Stage::ResponseComplete };
    audit.record(&watched, stage, Some(&outcome), trail, now);
    Ok(answer)
}

fn code(answer: &Result<Response>) -> u16 {
    match answer {
        Ok(r) => r.status().as_u16(),
        Err(e) => e.code,
    }
}

/// Only words of our own, so that no client can make series.
fn labels(server: &ApiServer, info: &RequestInfo) -> RequestLabels {
    const VERBS: [(&str, &str); 8] = [
        ("create", "POST"),
        ("update", "PUT"),
        ("patch", "PATCH"),
        ("delete", "DELETE"),
        ("deletecollection", "DELETE"),
        ("get", "GET"),
        ("list", "LIST"),
        ("watch", "WATCH"),
    ];
    const SUBS: [&str; 13] = [
        "approval",
        "status",
        "scale",
        "binding",
        "eviction",
        "token",
        "log",
        "exec",
        "attach",
        "portforward",
        "finalize",
        "resize",
        "proxy",
    ];
    let served = server.find_kind(&info.group, &info.version, &info.resource);
    RequestLabels {
        verb: VERBS.iter().find(|(v, _)| *v == info.verb).map_or("other", |(_, l)| l),
        group: served.as_ref().map_or("", |s| s.group),
        version: served.as_ref().map_or("", |s| s.version),
        resource: served.as_ref().map_or("", |s| s.kind.resource),
        subresource: SUBS.iter().find(|s| **s == info.subresource).map_or("", |s| s),
        code: 0,
    }
}

async fn serve(
    server: Arc<ApiServer>,
    req: Request<Body>,
    info: RequestInfo,
    query: Query,
    trail: Arc<Trail>,
) -> Result<Response> {
    if let Some(open) = health(&server, &info.path, &query) {
        // Everybody may ask; who shows credentials must have good ones, as everywhere.
        if req.headers().contains_key(header::AUTHORIZATION) {
            server.authenticate(req.headers(), None).await?;
        }
        return Ok(open);
    }
    let user = match req.extensions().get::<UserInfo>() {
        // Only an in-process router puts a user here: no header can.
        Some(user) => user.clone(),
        None => {
            let certificate = req.extensions().get::<CertificateUser>().map(|c| c.0.clone());
            match server.authenticate(req.headers(), certificate).await {
                Ok(user) => user,
                Err(e) => {
                    begin_audit(&server, &trail, &UserInfo::default(), &info, &req);
                    return Err(e);
                }
            }
        }
    };
    begin_audit(&server, &trail, &user, &info, &req);
    let original = user.name.clone();
    let user = match server.impersonate(user.clone(), req.headers()) {
        // A role that was just given counts at once.
        Err(e) if e.code == 403 => {
            server.cache.fresh().await?;
            server.impersonate(user, req.headers())?
        }
        judged => judged?,
    };
    if user.name != original {
        trail.tell(|w| w.impersonated = Some(user.clone()));
    }
    tracing::Span::current().record("user", user.name.as_str());
    let left = |part| trail.stations.left(part, server.config.clock.monotonic());
    left("authentication");
    let ticket = match server.fairness.enter(&user, &info).await {
        Ok(ticket) => ticket,
        Err(refusal) => return Ok(refusal),
    };
    left("queue");
    // Nobody else sets it.
    let _first = trail.decided.set(ticket.mark());
    let answer = Box::pin(answer(server, req, info, query, trail, user)).await;
    drop(ticket);
    answer
}

/// What a user who may be served now gets.
async fn answer(
    server: Arc<ApiServer>,
    req: Request<Body>,
    info: RequestInfo,
    query: Query,
    trail: Arc<Trail>,
    user: UserInfo,
) -> Result<Response> {
    authorize(&server, &user, &info, &query, &trail).await?;
    trail.stations.left("authorization", server.config.clock.monotonic());
    let req = told(&trail, &info, req).await?;
    let mut req = req;
    if let Some(local) = server
        .config
        .local_apis
        .iter()
        .find(|l| l.group == info.group && l.version == info.version && info.is_resource)
    {
        req.extensions_mut().insert(user);
        let answer = local.router.clone().oneshot(req).await;
        return Ok(answer.unwrap_or_else(|never| match never {}));
    }
    let ctx = Context { headers: req.headers().clone(), user, info, query, warnings: Vec::new(), trail };
    if ctx.info.is_resource { resource(server, ctx, req).await } else { other(&server, &ctx).await }
}

fn begin_audit(server: &ApiServer, trail: &Trail, user: &UserInfo, info: &RequestInfo, req: &Request<Body>) {
    let Some(audit) = &server.config.audit else { return };
    let uri = req.uri().path_and_query().map_or("/", |p| p.as_str());
    let from = req.extensions().get::<PeerAddress>().map(|p| p.0.to_string());
    let watched = audit.begin(user, info, uri, req.headers(), from, server.now());
    if let Some(w) = &watched {
        audit.record(w, Stage::RequestReceived, None, trail, server.now());
    }
    trail.watch(watched);
}

/// Keeps what a request brings, where the audit log wants it.
async fn told(trail: &Trail, info: &RequestInfo, req: Request<Body>) -> Result<Request<Body>> {
    let wanted = trail.level().is_some_and(|level| level >= audit::Level::Request);
    let stream = matches!(info.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy");
    if !wanted || stream || matches!(*req.method(), Method::GET | Method::HEAD) {
        return Ok(req);
    }
    let (parts, body) = req.into_parts();
    let bytes = body::read(body).await?;
    let o = body::decode(&bytes, body::media_type(&parts.headers)).ok();
    // A patch is no object, and is told as it is.
    let o = o.or_else(|| serde_json::from_slice(&bytes).ok());
    trail.tell(|w| w.request = o);
    Ok(Request::from_parts(parts, Body::from(bytes)))
}

async fn authorize(
    server: &ApiServer,
    user: &UserInfo,
    info: &RequestInfo,
    query: &Query,
    trail: &Trail,
) -> Result<()> {
    let decided = |allowed: bool, reason: String| {
        trail.annotate("authorization.k8s.io/decision", if allowed { "allow" } else { "forbid" });
        trail.annotate("authorization.k8s.io/reason", reason);
    };
    let watched = trail.level().is_some();
    if !info.is_resource {
        let mut allowed = server.rbac.allows_url(user, &info.verb, &info.path);
        if !allowed {
            server.cache.fresh().await?;
            allowed = server.rbac.allows_url(user, &info.verb, &info.path);
        }
        if watched {
            decided(allowed, String::new());
        }
        if allowed {
            return Ok(());
        }
        let message =
            format!("forbidden: User \"{}\" cannot {} path \"{}\"", user.name, info.verb, info.path);
        let mut e = ApiError::new(403, "Forbidden", message);
        e.details = Some(json!({}));
        return Err(e);
    }
    let access = Access {
        verb: info.verb.clone(),
        group: info.group.clone(),
        resource: info.resource.clone(),
        subresource: info.subresource.clone(),
        namespace: info.namespace.clone(),
        name: info.name.clone(),
    };
    // Only nodes are judged by what they select.
    let fields = query
        .get("fieldSelector")
        .filter(|_| user.in_group(node::GROUP) && matches!(info.verb.as_str(), "list" | "watch"))
        .and_then(|f| FieldSelector::parse(f).ok());
    let mut verdict = server.decide(user, &access, fields.as_ref());
    if !verdict.allowed {
        // What was just allowed counts at once: a refusal is never older than what was acknowledged.
        server.cache.fresh().await?;
        verdict = server.decide(user, &access, fields.as_ref());
    }
    if watched {
        let reason = if verdict.allowed { server.allowed_by(user, &access) } else { verdict.reason.clone() };
        decided(verdict.allowed, reason);
    }
    if verdict.allowed {
        return Ok(());
    }
    let what = if info.group.is_empty() {
        info.resource.clone()
    } else {
        format!("{}.{}", info.resource, info.group)
    };
    let full = if info.subresource.is_empty() {
        info.resource.clone()
    } else {
        format!("{}/{}", info.resource, info.subresource)
    };
    let place = if info.namespace.is_empty() || info.resource == "namespaces" {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", info.namespace)
    };
    let place = if info.resource == "namespaces" && !info.namespace.is_empty() {
        format!("in the namespace \"{}\"", info.namespace)
    } else {
        place
    };
    let name = if info.name.is_empty() { String::new() } else { format!(" \"{}\"", info.name) };
    let message = format!(
        "{what}{name} is forbidden: User \"{}\" cannot {} resource \"{full}\" in API group \"{}\" {place}",
        user.name, info.verb, info.group
    );
    let message = if verdict.reason.is_empty() { message } else { format!("{message}: {}", verdict.reason) };
    let mut e = ApiError::new(403, "Forbidden", message);
    let mut details = json!({"kind": info.resource});
    for (k, v) in [("name", &info.name), ("group", &info.group)] {
        if !v.is_empty() {
            details[k] = v.as_str().into();
        }
    }
    e.details = Some(details);
    Err(e)
}

/// What everyone may ask.
fn health(server: &ApiServer, path: &str, query: &Query) -> Option<Response> {
    if matches!(path, "/version" | "/version/") {
        return Some(body::json(200, version().to_string()));
    }
    let (endpoint, check) = match path.trim_start_matches('/').split_once('/') {
        Some((endpoint, check)) => (endpoint, Some(check)),
        None => (path.trim_start_matches('/'), None),
    };
    let checks = match endpoint {
        "readyz" | "healthz" => server.checks(),
        // A process that answers is alive.
        "livez" => vec![("ping".to_owned(), Ok(()))],
        _ => return None,
    };
    let remarks = if endpoint == "livez" { Vec::new() } else { server.remarks() };
    let Some(wanted) = check else { return Some(report(endpoint, &checks, &remarks, query)) };
    match checks.iter().find(|(name, _)| name == wanted)? {
        (_, Ok(())) => Some(body::text(200, "ok")),
        (_, Err(why)) => Some(body::text(500, format!("internal server error: {why}"))),
    }
}

type Checked = (String, std::result::Result<(), String>);

/// All checks as upstream lists them, unless all is well and nobody asked; remarks follow what is well.
fn report(endpoint: &str, checks: &[Checked], remarks: &[String], query: &Query) -> Response {
    let excluded: Vec<&str> = query.all("exclude").collect();
    let (mut lines, mut failed) = (String::new(), false);
    for (name, result) in checks {
        match result {
            _ if excluded.contains(&name.as_str()) => {
                lines.push_str(&format!("[+]{name} excluded: ok\n"));
            }
            Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
            Err(why) => {
                failed = true;
                lines.push_str(&format!("[-]{name} failed: {why}\n"));
            }
        }
    }
    let said: String = remarks.iter().map(|r| format!("\n[!]{r}")).collect();
    match (failed, query.has("verbose")) {
        (true, _) => body::text(500, format!("{lines}{endpoint} check failed\n")),
        (false, true) => body::text(200, format!("{lines}{endpoint} check passed{said}\n")),
        (false, false) => body::text(200, format!("ok{said}")),
    }
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": "35",
        "gitVersion": concat!("v1.35.0+binnacle-", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "",
        "goVersion": "",
        "compiler": "rustc",
        "platform": concat!("linux/", "amd64"),
    })
}

/// What others need to check our service accounts' tokens by themselves (OpenID Connect Discovery 1.0).
fn issuer(server: &ApiServer, path: &str) -> Option<Response> {
    let (media, body) = match path {
        "/openid/v1/jwks" => ("application/jwk-set+json", server.tokens.jwks.to_string()),
        "/.well-known/openid-configuration" => {
            let issuer = &server.tokens.issuer;
            let o = json!({
                "issuer": issuer,
                "jwks_uri": format!("{issuer}/openid/v1/jwks"),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            });
            ("application/json", o.to_string())
        }
        _ => return None,
    };
    let mut r = body::json(200, body);
    r.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    r.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    Some(r)
}

async fn other(server: &Arc<ApiServer>, ctx: &Context) -> Result<Response> {
    let path = ctx.info.path.as_str();
    if path == "/" {
        return Ok(body::json(200, discovery::paths(server).to_string()));
    }
    if path == "/metrics" {
        server.cache.count_all(objects_stored);
        for (level, executing, waiting) in server.fairness.loads() {
            flow::load(&level, executing, waiting);
        }
        let mut r = body::text(200, telemetry::metrics::encode());
        r.headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(telemetry::metrics::CONTENT_TYPE));
        return Ok(r);
    }
    if let Some(r) = issuer(server, path) {
        return Ok(r);
    }
    if path == "/openapi/v2" {
        return openapi::v2::respond(server, &ctx.headers).await;
    }
    if path.starts_with("/openapi/") {
        return openapi::respond(server, path, &ctx.headers);
    }
    discovery::respond(server, path, &ctx.headers).ok_or_else(ApiError::no_such_path)
}

async fn resource(server: Arc<ApiServer>, mut ctx: Context, req: Request<Body>) -> Result<Response> {
    let info = &ctx.info;
    if let Some(answer) = review::respond(&server, &ctx, req.method()) {
        let bytes = body::read(req.into_body()).await?;
        return answer(&server, &ctx, &bytes).await;
    }
    let Some(served) = server.find_kind(&info.group, &info.version, &info.resource) else {
        return Err(ApiError::no_such_path());
    };
    if let Some(warning) = served.custom.as_ref().and_then(|held| held.warning.clone()) {
        ctx.warnings.push(warning);
    }
    let info = &ctx.info;
    if served.kind.namespaced && info.namespace.is_empty() && !matches!(info.verb.as_str(), "list" | "watch")
    {
        return Err(ApiError::no_such_path());
    }
    if let Some(wanted) = Wanted::of(&ctx.headers) {
        wanted.check(&served)?;
    }
    if matches!(info.subresource.as_str(), "log" | "exec" | "attach" | "portforward")
        && served.kind.builtin() == "pods"
    {
        server.admit_connect(&ctx, &served).await?;
        return proxy::respond(&server, &ctx, req).await;
    }
    let method = req.method().clone();
    match (method, info.subresource.as_str()) {
        (_, "proxy") if matches!(served.kind.builtin(), "pods" | "services") => {
            server.admit_connect(&ctx, &served).await?;
            proxy::workload::respond(&server, &ctx, served, req).await
        }
        (Method::GET | Method::HEAD, "") => get(server, &ctx, served).await,
        (Method::POST, "") if info.name.is_empty() => {
            let bytes = body::read(req.into_body()).await?;
            create(&server, &mut ctx, served, &bytes).await
        }
        (Method::PUT | Method::PATCH, "" | "status" | "finalize" | "approval" | "ephemeralcontainers")
            if !info.name.is_empty() =>
        {
            let patching = req.method() == Method::PATCH;
            let bytes = body::read(req.into_body()).await?;
            update(&server, &mut ctx, served, &bytes, patching).await
        }
        (Method::GET, "status" | "approval") => get_one(&server, &ctx, served).await,
        (Method::GET, "ephemeralcontainers") if served.kind.builtin() == "pods" => {
            get_one(&server, &ctx, served).await
        }
        (Method::DELETE, "") => {
            let bytes = body::read(req.into_body()).await?;
            delete(&server, &ctx, served, &bytes).await
        }
        (_, "") => Err(ApiError::method_not_allowed()),
        _ => {
            let method = req.method().clone();
            let bytes = body::read(req.into_body()).await?;
            subresource::respond(&server, &mut ctx, served, &method, &bytes).await
        }
    }
}

async fn get(server: Arc<ApiServer>, ctx: &Context, served: Served) -> Result<Response> {
    let info = &ctx.info;
    if info.verb == "get" {
        return get_one(&server, ctx, served).await;
    }
    let namespace = if served.kind.namespaced { info.namespace.as_str() } else { "" };
    let shape = Shape::negotiate(&ctx.headers)?;
    let options = ListOptions::parse(&ctx.query, info)?;
    if info.verb == "watch" {
        let knows = || protobuf::knows(&served.api_version(), served.kind.kind);
        let frames = Wanted::of(&ctx.headers).is_some()
            && (shape == Shape::Metadata || shape == Shape::Object && knows());
        let lines = watch::stream(server, served, namespace, options, shape, ctx.include(), frames).await?;
        let held = Watching::new();
        let lines = futures::StreamExt::inspect(lines, move |_| {
            let _ = &held;
        });
        let mut r = body::json(200, "");
        if frames {
            r.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(STREAM));
        }
        *r.body_mut() = Body::from_stream(lines);
        body::warn(&mut r, &ctx.warnings);
        return Ok(r);
    }
    let bytes = server.list(&served, namespace, &options, shape, ctx.include()).await?;
    let mut r = body::json_for(&ctx.headers, 200, bytes);
    body::warn(&mut r, &ctx.warnings);
    Ok(r)
}

async fn get_one(server: &ApiServer, ctx: &Context, served: Served) -> Result<Response> {
    let shape = Shape::negotiate(&ctx.headers)?;
    match server.get(&served, &ctx.info.namespace, &ctx.info.name).await {
        Ok(o) => {
            let o = server.all_served(&served, vec![o]).await?.pop().expect("as many come back as went");
            let bytes = server.shape_one(&served, &o, shape, ctx.include());
            let mut r = body::json_for(&ctx.headers, 200, bytes);
            body::warn(&mut r, &ctx.warnings);
            Ok(r)
        }
        Err(e) if e.code == 404 && served.kind.builtin() == "pods" => {
            let gone = proxy::archive::gone_pod(server, ctx).await.ok_or(e)?;
            Ok(body::json(200, gone.to_string()))
        }
        Err(e) => Err(e),
    }
}

/// A written object, as the client wants to see it.
async fn written(
    server: &ApiServer,
    ctx: &Context,
    served: &Served,
    status: u16,
    o: Value,
) -> Result<Response> {
    let o = server.to_served(served, o).await?;
    let shape = Shape::negotiate(&ctx.headers)?;
    let v = server.shape_value(served, read::render_value(served, o), shape, ctx.include());
    let mut r = body::json(status, v.to_string());
    body::warn(&mut r, &ctx.warnings);
    Ok(r)
}

async fn create(server: &ApiServer, ctx: &mut Context, served: Served, bytes: &[u8]) -> Result<Response> {
    let write = ctx.write()?;
    let o = body::decode(bytes, body::media_type(&ctx.headers))?;
    let o = patch::conform(&served, o, write.options.field_validation, &mut ctx.warnings)?;
    let o = server.create(&served, &ctx.info.namespace, o, &write).await?;
    ctx.trail.tell(|w| w.name = Some(object::name(&o).to_owned()));
    written(server, ctx, &served, 201, o).await
}

async fn update(
    server: &ApiServer,
    ctx: &mut Context,
    served: Served,
    bytes: &[u8],
    patching: bool,
) -> Result<Response> {
    let write = ctx.write()?;
    let part = match ctx.info.subresource.as_str() {
        "status" if served.kind.status => Part::Status,
        "finalize" if served.kind.builtin() == "namespaces" => Part::Finalize,
        "approval" if certificates::is_request(served.kind) => Part::Approval,
        "ephemeralcontainers" if served.kind.builtin() == "pods" => Part::EphemeralContainers,
        "" => Part::Main,
        _ => return Err(ApiError::no_such_path()),
    };
    if patching {
        let (status, o) = patch::respond(server, ctx, served.clone(), part, write, bytes).await?;
        return written(server, ctx, &served, status, o).await;
    }
    let o = body::decode(bytes, body::media_type(&ctx.headers))?;
    let o = patch::conform(&served, o, write.options.field_validation, &mut ctx.warnings)?;
    let (ns, name) = (ctx.info.namespace.clone(), ctx.info.name.clone());
    let o = server.update(&served, &ns, &name, &write, part, &mut |_| Ok(o.clone())).await?;
    written(server, ctx, &served, 200, o).await
}

/// DeleteOptions from the body and the query; the body wins.
pub(crate) fn delete_options(ctx: &Context, bytes: &[u8]) -> Result<DeleteOptions> {
    let body =
        if bytes.is_empty() { json!({}) } else { body::decode(bytes, body::media_type(&ctx.headers))? };
    delete_options_from(ctx, &body)
}

pub(crate) fn delete_options_from(ctx: &Context, body: &Value) -> Result<DeleteOptions> {
    let q = &ctx.query;
    let mut o = DeleteOptions {
        grace_s: q.get("gracePeriodSeconds").and_then(|v| v.parse().ok()),
        propagation: q.get("propagationPolicy").map(str::to_owned),
        dry_run: dry_run(q.all("dryRun"))?,
        ..DeleteOptions::default()
    };
    if let Some(g) = object::int(body, "gracePeriodSeconds") {
        o.grace_s = Some(g);
    }
    if let Some(p) = object::text(body, "propagationPolicy") {
        o.propagation = Some(p.to_owned());
    }
    if object::flag(body, "orphanDependents") {
        o.propagation = Some("Orphan".to_owned());
    }
    o.dry_run |= dry_run(object::list(body, "dryRun").iter().filter_map(Value::as_str))?;
    o.uid = object::text(body, "preconditions.uid").map(str::to_owned);
    o.resource_version = object::text(body, "preconditions.resourceVersion").map(str::to_owned);
    if let Some(p) = &o.propagation
        && !matches!(p.as_str(), "Foreground" | "Background" | "Orphan")
    {
        return Err(ApiError::new(
            422,
            "Invalid",
            format!(
                "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: {p:?}: supported values: \"Foreground\", \"Background\", \"Orphan\""
            ),
        ));
    }
    Ok(o)
}

async fn delete(server: &ApiServer, ctx: &Context, served: Served, bytes: &[u8]) -> Result<Response> {
    let options = delete_options(ctx, bytes)?;
    let write = ctx.write()?;
    let info = &ctx.info;
    if info.name.is_empty() {
        let list = ListOptions::parse(&ctx.query, info)?;
        let chosen = server.select(&served, &info.namespace, &list).await?;
        let mut items = Vec::new();
        for o in chosen {
            match server.delete(&served, o.namespace().unwrap_or_default(), o.name(), &options, &write).await
            {
                Ok(Deleted::Gone(v) | Deleted::Pending(v)) => {
                    items.push(read::render_value(&served, server.to_served(&served, v).await?));
                }
                // Gone meanwhile: what was wanted.
                Err(e) if e.code == 404 => {}
                Err(e) => return Err(e),
            }
        }
        let list = json!({
            "kind": served.list_kind(),
            "apiVersion": served.api_version(),
            "metadata": {"resourceVersion": server.cache.revision().to_string()},
            "items": items,
        });
        return Ok(body::json(200, list.to_string()));
    }
    match server.delete(&served, &info.namespace, &info.name, &options, &write).await? {
        Deleted::Pending(o) => written(server, ctx, &served, 200, o).await,
        Deleted::Gone(o) => {
            let mut details =
                json!({"name": info.name, "kind": served.kind.resource, "uid": o["metadata"]["uid"]});
            if !served.group.is_empty() {
                details["group"] = served.group.into();
            }
            // Pods come back as objects, everything else as a word.
            if served.kind.builtin() == "pods" {
                return written(server, ctx, &served, 200, o).await;
            }
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
            Ok(body::json(200, status.to_string()))
        }
    }
}
