//! Names of attributes and their values, for autocompletion: those of the newest spans.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use axum::extract::{Path, State};
use logql::traceql::{self, INTRINSIC_TAGS, Static, Tag};
use serde_json::{Value, json};

use super::{Answer, answer, fail, range};
use crate::App;
use crate::error::Failure;
use crate::params::Params;
use crate::run::run;
use crate::scope::Scope;

/// Names and values come from the newest spans: enough of them to offer, few enough to be quick.
const SPANS: usize = 20_000;
/// Values of a tag at most, unless the request says otherwise.
const VALUES: usize = 1000;

fn bounded(seen: &mut usize) -> ControlFlow<()> {
    *seen += 1;
    if *seen >= SPANS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// The query that narrows down; one that is not finished yet narrows nothing.
fn narrowed(p: &Params) -> Option<traceql::Query> {
    p.get("q").and_then(|q| traceql::parse(q).ok())
}

/// Names by scope.
async fn found(
    app: &App,
    scope: &Scope,
    p: &Params,
) -> Result<BTreeMap<&'static str, BTreeSet<String>>, Failure> {
    let range = range(app, p)?;
    let q = narrowed(p);
    let enforce = scope.enforce();
    let mut all = run(app, move |app, stop| {
        let mut all: BTreeMap<&'static str, BTreeSet<String>> = BTreeMap::new();
        let mut seen = 0;
        let o = traceql::Options { enforce, stop, ..traceql::Options::default() };
        app.traceql.visit(q.as_ref(), range, &o, |_, resource, s| {
            let mut add = |scope: &'static str, names: &mut dyn Iterator<Item = &str>| {
                all.entry(scope).or_default().extend(names.map(str::to_owned));
            };
            add("span", &mut s.attributes.iter().map(|(n, _)| n).filter(|n| !n.starts_with("otel.scope.")));
            add("resource", &mut resource.iter().map(|(n, _)| n));
            add("event", &mut s.events.iter().flat_map(|e| e.attributes.iter().map(|(n, _)| n)));
            add("link", &mut s.links.iter().flat_map(|l| l.attributes.iter().map(|(n, _)| n)));
            add(
                "instrumentation",
                &mut s.attributes.iter().filter_map(|(n, _)| n.strip_prefix("otel.scope.")),
            );
            bounded(&mut seen)
        })?;
        Ok(all)
    })
    .await?;
    all.entry("resource").or_default().insert("service.name".to_owned());
    all.insert("intrinsic", INTRINSIC_TAGS.iter().map(|n| (*n).to_owned()).collect());
    if let Some(only) = p.get("scope").filter(|s| *s != "none") {
        all.retain(|scope, _| *scope == only);
    }
    if let Some(limit) = p.number("maxTagsPerScope")?.or(p.number("limit")?).filter(|n| *n > 0) {
        all.values_mut().for_each(|names| {
            let kept = std::mem::take(names);
            names.extend(kept.into_iter().take(limit));
        });
    }
    Ok(all)
}

pub(super) async fn names(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let mut all = found(&app, &scope, &p).await.map_err(fail)?;
    if p.get("scope") != Some("intrinsic") {
        all.remove("intrinsic");
    }
    let names: BTreeSet<String> = all.into_values().flatten().collect();
    Ok(answer(json!({"tagNames": names, "metrics": {}})))
}

pub(super) async fn names_v2(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let all = found(&app, &scope, &p).await.map_err(fail)?;
    let scopes: Vec<Value> = all
        .into_iter()
        .filter(|(_, tags)| !tags.is_empty())
        .map(|(name, tags)| json!({"name": name, "tags": tags}))
        .collect();
    Ok(answer(json!({"scopes": scopes, "metrics": {}})))
}

/// Values with their types, in order.
async fn tag_values(
    app: &App,
    scope: &Scope,
    tag: &str,
    p: &Params,
) -> Result<BTreeSet<(&'static str, String)>, Failure> {
    let range = range(app, p)?;
    let enforce = scope.enforce();
    let bare = ["resource.", "."].iter().find_map(|s| tag.strip_prefix(s)).unwrap_or(tag);
    let q = narrowed(p);
    let limit = p.number("maxTagValues")?.or(p.number("limit")?).filter(|n| *n > 0).unwrap_or(VALUES);
    if bare == "service.name" && q.is_none() {
        let all = run(app, move |app, _| {
            Ok(app.engines.traces.stream_label_values("service_name", &enforce, range.0, range.1)?)
        })
        .await?;
        return Ok(all.into_iter().take(limit).map(|v| ("string", v)).collect());
    }
    let tag = Tag::parse(tag);
    run(app, move |app, stop| {
        let (mut all, mut seen) = (BTreeSet::new(), 0);
        let o = traceql::Options { enforce, stop, ..traceql::Options::default() };
        app.traceql.visit(q.as_ref(), range, &o, |labels, resource, s| {
            all.extend(tag.values(labels, resource, &s).iter().map(typed));
            if all.len() >= limit { ControlFlow::Break(()) } else { bounded(&mut seen) }
        })?;
        Ok(all)
    })
    .await
}

fn typed(v: &Static) -> (&'static str, String) {
    let kind = match v {
        Static::Int(_) => "int",
        Static::Float(_) => "float",
        Static::Bool(_) => "bool",
        Static::Duration(_) => "duration",
        // Words that stand without quotes in a query.
        Static::Status(_) | Static::Kind(_) => "keyword",
        _ => "string",
    };
    (kind, v.to_string())
}

pub(super) async fn values(
    State(app): State<App>,
    scope: Scope,
    Path(tag): Path<String>,
    p: Params,
) -> Answer {
    let all = tag_values(&app, &scope, &tag, &p).await.map_err(fail)?;
    let values: BTreeSet<String> = all.into_iter().map(|(_, v)| v).collect();
    Ok(answer(json!({"tagValues": values, "metrics": {}})))
}

pub(super) async fn values_v2(
    State(app): State<App>,
    scope: Scope,
    Path(tag): Path<String>,
    p: Params,
) -> Answer {
    let all = tag_values(&app, &scope, &tag, &p).await.map_err(fail)?;
    let typed: Vec<Value> = all.iter().map(|(kind, v)| json!({"type": kind, "value": v})).collect();
    Ok(answer(json!({"tagValues": typed, "metrics": {}})))
}
