//! The road of a request: who, what, may they, then to its handler. One span and one count per request.

use std::net::IpAddr;
use std::sync::Arc;

use apimachinery::protobuf;
use apimachinery::selector::FieldSelector;
use apimachinery::user::UserInfo;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, Request, header};
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;
use tower::ServiceExt;
use tracing::Instrument;

use crate::admission::attributes::Trail;
use crate::aggregator;
use crate::audit::{Outcome, Stage};
use crate::body::output::Output;
use crate::error::{ApiError, Result};
use crate::kinds::Served;
use crate::metrics::{METRICS, Watching, auth};
use crate::observe::{self, Observation};
use crate::options::{ListOptions, WriteOptions, delete_options};
use crate::protobuf::{STREAM, Wanted};
use crate::registry::{Deleted, Part, WriteContext};
use crate::request::{Query, RequestInfo, Shape, parse_revision};
use crate::server::{Access, ApiServer};
use crate::table::Include;
use crate::{
    audit, body, certificates, componentstatus, node, nonresource, object, patch, proxy, read, review,
    subresource, watch,
};

/// A verified client certificate's user, put on a request by the TLS door.
#[derive(Clone, Debug)]
pub(crate) struct CertificateUser {
    pub(crate) user: UserInfo,
    /// Seconds since the epoch.
    pub(crate) ends: f64,
}

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
        let options = WriteOptions::parse(&self.query, &self.headers, &self.info.verb)?;
        let subresource = match self.info.subresource.as_str() {
            "status" | "finalize" | "approval" | "resize" => String::new(),
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

/// Serves a request as a task, as a connection does: one that holds a lock goes on although its caller, who waits for
/// another, does not poll it. Who drops the answer's future ends the task.
pub(crate) async fn on_its_own(req: Request<Body>, next: Next) -> Response {
    let served = telemetry::task::spawn("apiserver-request", next.run(req).in_current_span());
    match AbortOnDropHandle::new(served).await {
        Ok(answer) => answer,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(stopped) => ApiError::internal(stopped).into_response(),
        },
    }
}

async fn handle(State(server): State<Arc<ApiServer>>, mut req: Request<Body>) -> Response {
    let query = Query::parse(req.uri().query().unwrap_or_default());
    let info = RequestInfo::parse(req.method(), req.uri().path(), &query);
    let trail = Arc::<Trail>::default();
    let observation = Observation::begin(&server, &req, &info, &query, &trail.id);
    let streamed = observation.streamed;
    let watch = info.verb == "watch";
    let protobuf = Wanted::of(req.headers())
        .filter(|_| !is_upgrade(&info) && info.is_resource && server.aggregator.answers(&info).is_none());
    // What others answer is theirs to write.
    let own = match info.is_resource {
        true => !is_upgrade(&info) && server.aggregator.answers(&info).is_none(),
        false => !info.path.starts_with("/openapi/"),
    };
    let output = Output::of(req.headers(), &query).filter(|_| own && protobuf.is_none());
    if protobuf.is_some() || output.is_some() {
        // What is compressed cannot be written anew.
        req.headers_mut().remove(header::ACCEPT_ENCODING);
    }
    let span = observation.span.clone();
    let answer = Box::pin(serve(server.clone(), req, info, query, trail.clone())).instrument(span).await;
    let code = code(&answer);
    observation.end(&server, &trail, &answer, code);
    let answer = audited(&server, &trail, answer, streamed).await;
    let mut answer = answer.unwrap_or_else(IntoResponse::into_response);
    if let Some(wanted) = protobuf
        && !(watch && code == 200)
    {
        answer = wanted.answer(answer).await;
    }
    if let Some(output) = output
        && !(streamed && code == 200)
    {
        answer = output.answer(answer).await;
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

/// Requests whose connection becomes somebody else's.
pub(crate) fn is_upgrade(info: &RequestInfo) -> bool {
    matches!(info.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy")
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

async fn serve(
    server: Arc<ApiServer>,
    req: Request<Body>,
    info: RequestInfo,
    query: Query,
    trail: Arc<Trail>,
) -> Result<Response> {
    if let Some(open) = nonresource::open(&server, &info.path, &query).await {
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
            let shown = req.extensions().get::<CertificateUser>();
            if let Some(shown) = shown {
                auth::certificate(shown.ends - server.now().nanos() as f64 / 1e9);
            }
            let began = server.config.clock.monotonic();
            let judged = server.authenticate(req.headers(), shown.map(|c| c.user.clone())).await;
            let took = server.config.clock.monotonic().saturating_duration_since(began);
            auth::authenticated(judged.as_ref().ok().map(|u| u.name.as_str()), took);
            match judged {
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
    server.left(&trail, "authentication");
    let ticket = match server.fairness.enter(&*server.config.clock, &user, &info).await {
        Ok(ticket) => ticket,
        Err(refusal) => {
            server.left(&trail, "queue");
            return Ok(refusal);
        }
    };
    server.left(&trail, "queue");
    if trail.level().is_some() {
        let (schema, level) = ticket.names();
        trail.annotate("binnacle.io/flow-schema", schema);
        trail.annotate("binnacle.io/priority-level", level);
    }
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
    let began = server.config.clock.monotonic();
    let judged = authorize(&server, &user, &info, &query, &trail).await;
    auth::authorized(judged.is_ok(), server.config.clock.monotonic().saturating_duration_since(began));
    judged?;
    server.left(&trail, "authorization");
    let req = told(&trail, &info, req).await?;
    let mut req = req;
    if let Some(remote) = server.aggregator.answers(&info) {
        return aggregator::proxy::respond(&server, &remote, &user, req).await;
    }
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
    if ctx.info.is_resource {
        resource(server, ctx, req).await
    } else {
        nonresource::respond(&server, &ctx).await
    }
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

async fn resource(server: Arc<ApiServer>, mut ctx: Context, req: Request<Body>) -> Result<Response> {
    let info = &ctx.info;
    if let Some(answer) = review::respond(&server, &ctx, req.method()) {
        let bytes = body::read(req.into_body()).await?;
        return answer(&server, &ctx, &bytes).await;
    }
    if let Some(answer) = componentstatus::respond(&server, &ctx, req.method()).await {
        return answer;
    }
    let Some(served) = server.find_kind(&info.group, &info.version, &info.resource) else {
        return Err(ApiError::no_such_path());
    };
    if let Some(warning) = served.custom.as_ref().and_then(|held| held.warning.clone()) {
        ctx.warnings.push(warning);
    }
    if !served.kind.deprecated.is_empty() {
        METRICS.deprecated(&observe::labels(&server, info, &ctx.query));
        ctx.warnings.push(served.kind.deprecated.to_owned());
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
        (_, "proxy") if matches!(served.kind.builtin(), "pods" | "services" | "nodes") => {
            server.admit_connect(&ctx, &served).await?;
            proxy::workload::respond(&server, &ctx, served, req).await
        }
        (Method::GET | Method::HEAD, "") => get(server, &ctx, served).await,
        (Method::POST, "") if info.name.is_empty() => {
            let bytes = body::read(req.into_body()).await?;
            create(&server, &mut ctx, served, &bytes).await
        }
        (
            Method::PUT | Method::PATCH,
            "" | "status" | "finalize" | "approval" | "ephemeralcontainers" | "resize",
        ) if !info.name.is_empty() => {
            let patching = req.method() == Method::PATCH;
            let bytes = body::read(req.into_body()).await?;
            update(&server, &mut ctx, served, &bytes, patching).await
        }
        (Method::GET, "status" | "approval") => get_one(&server, &ctx, served).await,
        (Method::GET, "ephemeralcontainers" | "resize") if served.kind.builtin() == "pods" => {
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
        if Output::of(&ctx.headers, &ctx.query) == Some(Output::Yaml) {
            let message = "only the following media types are accepted: application/json, application/json;stream=watch, application/vnd.kubernetes.protobuf, application/vnd.kubernetes.protobuf;stream=watch";
            return Err(ApiError::not_acceptable(message));
        }
        let knows = || protobuf::knows(&served.api_version(), served.kind.kind);
        let frames = Wanted::of(&ctx.headers).is_some()
            && (shape == Shape::Metadata || shape == Shape::Object && knows());
        let lines =
            watch::stream(server.clone(), served, namespace, options, shape, ctx.include(), frames).await?;
        let held = Watching::new(&observe::labels(&server, info, &ctx.query));
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
    let listed = server.list(&served, namespace, &options, shape, ctx.include()).await?;
    let mut r = if listed.is_long() && !body::takes_gzip(&ctx.headers) {
        let mut r = body::json(200, "");
        *r.body_mut() = Body::from_stream(listed.pieces());
        r
    } else {
        body::json_for(&ctx.headers, 200, listed.whole())
    };
    body::warn(&mut r, &ctx.warnings);
    Ok(r)
}

async fn get_one(server: &ApiServer, ctx: &Context, served: Served) -> Result<Response> {
    let shape = Shape::negotiate(&ctx.headers)?;
    // At least as new as the client knows it.
    let known = ctx.query.get("resourceVersion").map_or(Ok(0), parse_revision)?;
    if known > 0 {
        server.cache.reach(known).await?;
    }
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
    let mut r = body::json(status, object::to_bytes(&v));
    body::warn(&mut r, &ctx.warnings);
    Ok(r)
}

async fn create(server: &ApiServer, ctx: &mut Context, served: Served, bytes: &[u8]) -> Result<Response> {
    let write = ctx.write()?;
    let o = body::decode_noting(bytes, body::media_type(&ctx.headers))?;
    let o = patch::conform_noting(&served, o, write.options.field_validation, &mut ctx.warnings)?;
    server.left(&ctx.trail, "body");
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
    server.left(&ctx.trail, "body");
    let part = match ctx.info.subresource.as_str() {
        "status" if served.kind.status => Part::Status,
        "finalize" if served.kind.builtin() == "namespaces" => Part::Finalize,
        "approval" if certificates::is_request(served.kind) => Part::Approval,
        "ephemeralcontainers" if served.kind.builtin() == "pods" => Part::EphemeralContainers,
        "resize" if served.kind.builtin() == "pods" => Part::Resize,
        "" => Part::Main,
        _ => return Err(ApiError::no_such_path()),
    };
    if patching {
        let (status, o) = patch::respond(server, ctx, served.clone(), part, write, bytes).await?;
        return written(server, ctx, &served, status, o).await;
    }
    let o = body::decode_noting(bytes, body::media_type(&ctx.headers))?;
    let o = patch::conform_noting(&served, o, write.options.field_validation, &mut ctx.warnings)?;
    let (ns, name) = (ctx.info.namespace.clone(), ctx.info.name.clone());
    let o = server.update(&served, &ns, &name, &write, part, &mut |_| Ok(o.clone())).await?;
    written(server, ctx, &served, 200, o).await
}

async fn delete(server: &ApiServer, ctx: &Context, served: Served, bytes: &[u8]) -> Result<Response> {
    let options = delete_options(&ctx.query, &ctx.headers, bytes)?;
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
