//! The search box's language as LogQL.

use std::collections::BTreeSet;

use axum::extract::State;
use logql::words::{Translated, translate as translated};
use serde_json::json;

use super::explore::newest;
use super::{Answer, answer, fail};
use crate::App;
use crate::params::Params;
use crate::scope::Scope;

/// Lines that are looked at to learn how fields are read out of them.
const LINES: usize = 200;

/// `search` behind the selector `query`. What reads the fields that the search is about is put between: nothing if
/// they are labels already, else the parser that finds them in the newest lines.
pub(super) async fn translate(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let selector = p.get("query").unwrap_or(r#"{namespace=~".+"}"#).to_owned();
    let t = translated(p.get("search").unwrap_or(""));
    let parser = if t.fields.is_empty() { "" } else { parser(&app, &scope, &p, &selector, &t).await };
    let query = t.query(&selector, parser);
    // The selector is the caller's own words.
    logql::parse(&query).map_err(|e| fail(e.into()))?;
    Ok(answer(json!({"status": "success", "data": {"query": query, "fields": t.fields}})))
}

async fn parser(app: &App, scope: &Scope, p: &Params, selector: &str, t: &Translated) -> &'static str {
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut by_parser: BTreeSet<&'static str> = BTreeSet::new();
    let p = p.with("query", selector);
    // A guess that fails is no reason not to search.
    for s in newest(app, scope, &p, LINES).await.unwrap_or_default() {
        known.extend(s.labels.iter().map(|(n, _)| n.to_owned()));
        for e in &s.entries {
            let mut has = false;
            let kind = logql::detect(&e.line, |name, _| has |= t.fields.iter().any(|f| f == name));
            by_parser.extend(kind.filter(|_| has));
        }
    }
    let missing = t.fields.iter().any(|f| !known.contains(f));
    match (missing, by_parser.contains("json"), by_parser.contains("logfmt")) {
        (false, ..) | (_, false, false) => "",
        (_, true, false) => "| json",
        (_, false, true) => "| logfmt",
        // What is not JSON is no error here.
        (_, true, true) => "| json | drop __error__, __error_details__ | logfmt",
    }
}
