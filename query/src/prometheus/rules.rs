//! `/rules`, `/alerts` and `/alertmanagers` (Prometheus: web/api/v1/api.go).
//!
//! Who may not see all namespaces sees alerts of its own ones, and the rules that have such alerts or name such a
//! namespace among their labels; what others' data could stand in, such as errors, is left out.

use std::collections::HashSet;

use axum::extract::State;
use promql::format_value;
use rules::{Alert, AlertState, AlertingView, GroupView, RuleView};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use signal::{Labels, Matcher};

use super::{Answer, data, fail};
use crate::App;
use crate::error::Failure;
use crate::params::Params;
use crate::scope::Scope;

/// What Go calls no time.
const NEVER: &str = "0001-01-01T00:00:00Z";

fn time(millis: Option<i64>) -> String {
    let t = millis.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    t.map_or(NEVER.to_owned(), |t| t.to_string())
}

fn invalid(name: &str, why: impl std::fmt::Display) -> Failure {
    Failure::Bad(format!("invalid parameter {name:?}: {why}"))
}

fn may_see(scope: &Scope, labels: &Labels) -> bool {
    match scope {
        Scope::All => true,
        Scope::Namespaces(allowed) => labels.get("namespace").is_some_and(|n| allowed.contains(n)),
    }
}

fn alert_json(a: &Alert) -> Value {
    let mut out = json!({
        "labels": a.labels, "annotations": a.annotations, "state": a.state.as_str(),
        "activeAt": time(Some(a.active_at)),
    });
    if let Some(since) = a.keep_firing_since {
        out["keepFiringSince"] = time(Some(since)).into();
    }
    if let Some(at) = a.resolved_at {
        out["resolvedAt"] = time(Some(at)).into();
    }
    out["value"] = exponent(a.value).into();
    out
}

/// `1e+00`: Go's shortest form with an exponent.
fn exponent(v: f64) -> String {
    if !v.is_finite() {
        return format_value(v);
    }
    let text = format!("{v:e}");
    let (mantissa, exp) = text.split_once('e').unwrap_or((&text, "0"));
    let exp: i32 = exp.parse().unwrap_or(0);
    format!("{mantissa}e{}{:02}", if exp < 0 { '-' } else { '+' }, exp.abs())
}

/// Alerts that pend or fire, as far as the caller may see them.
fn active<'a>(view: &'a AlertingView, scope: &'a Scope) -> impl Iterator<Item = &'a Alert> {
    view.alerts.iter().filter(|a| a.state != AlertState::Inactive && may_see(scope, &a.labels))
}

/// Active alerts, those of firing rules first. With `resolved=true` also those that have ended lately.
pub(super) async fn alerts(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let resolved = flag(&p, "resolved").map_err(fail)?;
    let groups = app.engines.rules.groups();
    let mut rules: Vec<(&RuleView, &AlertingView)> =
        groups.iter().flat_map(|g| &g.rules).filter_map(|r| Some((r, r.alerting.as_ref()?))).collect();
    rules.sort_by(|(a, x), (b, y)| y.state.cmp(&x.state).then_with(|| a.name.cmp(&b.name)));
    let mut all: Vec<Value> =
        rules.iter().flat_map(|(_, view)| active(view, &scope)).map(alert_json).collect();
    if resolved {
        let ended = rules.iter().flat_map(|(_, view)| &view.alerts);
        let ended = ended.filter(|a| a.state == AlertState::Inactive && may_see(&scope, &a.labels));
        all.extend(ended.map(alert_json));
    }
    Ok(data(json!({"alerts": all})))
}

pub(super) async fn alertmanagers(State(app): State<App>, _: Scope) -> Answer {
    let urls = app.engines.rules.alertmanagers();
    let active: Vec<Value> = urls.iter().map(|u| json!({"url": u})).collect();
    Ok(data(json!({"activeAlertmanagers": active, "droppedAlertmanagers": []})))
}

/// As Go reads truth.
fn flag(p: &Params, name: &str) -> Result<bool, Failure> {
    match p.get(name) {
        None => Ok(false),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(v) => Err(invalid(
            name,
            format!("error converting {name}: strconv.ParseBool: parsing {v:?}: invalid syntax"),
        )),
    }
}

/// What a caller asks for.
struct Wanted {
    names: HashSet<String>,
    groups: HashSet<String>,
    files: HashSet<String>,
    /// One of them must hold for the labels of a rule, unless there are none.
    matchers: Vec<Vec<Matcher>>,
    alerting: bool,
    recording: bool,
    without_alerts: bool,
}

impl Wanted {
    fn read(p: &Params) -> Result<Wanted, Failure> {
        let set = |name| p.all(name).map(str::to_owned).collect();
        let kind = p.get("type").unwrap_or("").to_lowercase();
        if !matches!(kind.as_str(), "" | "alert" | "record") {
            return Err(invalid("type", format!("not supported value {kind:?}")));
        }
        let mut matchers = Vec::new();
        for text in p.all("match[]") {
            let s = promql::parse_selector(text).map_err(|e| Failure::Bad(e.to_string()))?;
            matchers.push(s.matchers);
        }
        Ok(Wanted {
            names: set("rule_name[]"),
            groups: set("rule_group[]"),
            files: set("file[]"),
            matchers,
            alerting: kind != "record",
            recording: kind != "alert",
            without_alerts: flag(p, "exclude_alerts")?,
        })
    }

    fn takes_group(&self, g: &GroupView) -> bool {
        (self.groups.is_empty() || self.groups.contains(&g.name))
            && (self.files.is_empty() || self.files.contains(&g.file))
    }

    fn takes(&self, r: &RuleView) -> bool {
        let fits = |all: &Vec<Matcher>| all.iter().all(|m| m.matches(r.labels.get(&m.name).unwrap_or("")));
        (self.names.is_empty() || self.names.contains(&r.name))
            && (self.matchers.is_empty() || self.matchers.iter().any(fits))
            && if r.alerting.is_some() { self.alerting } else { self.recording }
    }

    fn rule(&self, r: &RuleView, scope: &Scope) -> Option<Value> {
        if !self.takes(r) {
            return None;
        }
        let own = r.alerting.iter().any(|v| active(v, scope).next().is_some());
        if !may_see(scope, &r.labels) && !own {
            return None;
        }
        let mut out = Map::new();
        if let Some(v) = &r.alerting {
            // Of others' alerts not even the state is told.
            let state = match scope {
                Scope::All => v.state,
                _ => active(v, scope).map(|a| a.state).max().unwrap_or(AlertState::Inactive),
            };
            let state = if r.evaluated_at.is_none() { "unknown" } else { state.as_str() };
            out.insert("state".to_owned(), state.into());
        }
        out.insert("name".to_owned(), r.name.as_str().into());
        out.insert("query".to_owned(), r.query.as_str().into());
        if let Some(v) = &r.alerting {
            out.insert("duration".to_owned(), seconds(v.hold.as_secs_f64()));
            out.insert("keepFiringFor".to_owned(), seconds(v.keep_firing_for.as_secs_f64()));
        }
        out.insert("labels".to_owned(), json!(r.labels));
        if let Some(v) = &r.alerting {
            out.insert("annotations".to_owned(), json!(v.annotations));
            let alerts: Vec<Value> = active(v, scope).map(alert_json).collect();
            out.insert("alerts".to_owned(), if self.without_alerts { Value::Null } else { alerts.into() });
        }
        out.insert("health".to_owned(), r.health.as_str().into());
        if let (Scope::All, Some(e)) = (scope, &r.last_error) {
            out.insert("lastError".to_owned(), e.as_str().into());
        }
        out.insert("evaluationTime".to_owned(), seconds(r.took.as_secs_f64()));
        out.insert("lastEvaluation".to_owned(), time(r.evaluated_at).into());
        out.insert("type".to_owned(), if r.alerting.is_some() { "alerting" } else { "recording" }.into());
        Some(out.into())
    }
}

/// Go writes whole numbers without a fraction.
fn seconds(v: f64) -> Value {
    if v.fract() == 0.0 && v.abs() < 9e15 { json!(v as i64) } else { json!(v) }
}

/// Names a group in `group_next_token`.
fn token(g: &GroupView) -> String {
    let digest = Sha256::digest(format!("{};{}", g.file, g.name).as_bytes());
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

/// Groups of one answer at most, and where they begin.
fn page(p: &Params) -> Result<(Option<usize>, Option<&str>), Failure> {
    let next = p.get("group_next_token");
    let Some(limit) = p.get("group_limit") else {
        if next.is_some() {
            return Err(invalid(
                "group_next_token",
                "group_limit needs to be present in order to paginate over the groups",
            ));
        }
        return Ok((None, None));
    };
    let limit: i32 = limit.parse().map_err(|_| {
        let why = format!("strconv.ParseInt: parsing {limit:?}: invalid syntax");
        invalid("group_limit", format!("group_limit needs to be a valid number: {why}"))
    })?;
    match usize::try_from(limit) {
        Ok(limit) if limit > 0 => Ok((Some(limit), next)),
        _ => Err(invalid("group_limit", "group_limit needs to be greater than 0")),
    }
}

pub(super) async fn rules(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let wanted = Wanted::read(&p).map_err(fail)?;
    let (limit, next) = page(&p).map_err(fail)?;
    let groups = app.engines.rules.groups();
    let from = match next {
        None => 0,
        Some(t) => groups.iter().position(|g| token(g) == t).ok_or_else(|| {
            let why = format!("invalid group_next_token '{t}'. were rule groups changed?");
            fail(invalid("group_next_token", why))
        })?,
    };
    let mut out = Vec::new();
    let mut after = None;
    for g in groups[from..].iter().filter(|g| wanted.takes_group(g)) {
        let rules: Vec<Value> = g.rules.iter().filter_map(|r| wanted.rule(r, &scope)).collect();
        if rules.is_empty() {
            continue;
        }
        if limit.is_some_and(|l| out.len() == l) {
            after = Some(token(g));
            break;
        }
        out.push(json!({
            "name": g.name, "file": g.file, "rules": rules, "interval": seconds(g.interval.as_secs_f64()),
            "limit": g.limit, "evaluationTime": seconds(g.took.as_secs_f64()),
            "lastEvaluation": time(g.evaluated_at),
        }));
    }
    let mut body = json!({"groups": out});
    if let Some(t) = after {
        body["groupNextToken"] = t.into();
    }
    // Prometheus says nothing of files that it cannot read; who looks at the rules should know.
    if scope == Scope::All {
        let problems = app.engines.rules.problems();
        if !problems.is_empty() {
            let body = json!({"status": "success", "data": body, "warnings": problems});
            return Ok(super::raw(body.to_string()));
        }
    }
    Ok(data(body))
}

/// Reads rule files again.
pub(super) async fn reload(State(app): State<App>, scope: Scope) -> Answer {
    if !scope.may_write() {
        return Err(fail(Failure::Forbidden(
            "rules are for all namespaces: who sees all may reload them".to_owned(),
        )));
    }
    match app.engines.rules.clone().reload().await {
        Ok(()) => Ok(axum::response::IntoResponse::into_response(http::StatusCode::OK)),
        Err(problems) => {
            let text = format!("failed to reload config: {}\n", problems.join("; "));
            Err(axum::response::IntoResponse::into_response((http::StatusCode::INTERNAL_SERVER_ERROR, text)))
        }
    }
}
