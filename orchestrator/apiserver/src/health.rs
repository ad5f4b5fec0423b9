//! `/livez`, `/readyz` and `/healthz`: checks under upstream's names, one by one or all together
//! (apiserver: pkg/server/healthz/healthz.go). What fails says why.

use std::sync::LazyLock;
use std::time::Duration;

use axum::response::Response;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::body;
use crate::request::Query;
use crate::server::ApiServer;

/// The store has this long to answer: upstream's --etcd-healthcheck-timeout.
const STORE_WITHIN: Duration = Duration::from_secs(2);
/// A cache this many revisions behind its store is not ready.
const MAX_BEHIND: u64 = 10_000;

/// A check by name, and why it fails if it does.
pub(crate) type Checked = (String, Result<(), String>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CheckLabels {
    name: String,
    r#type: &'static str,
}

static CHECKS: LazyLock<Family<CheckLabels, Gauge>> = LazyLock::new(|| {
    let checks = Family::default();
    telemetry::metrics::register(|r| {
        r.register("kubernetes_healthcheck", "1 for a check that passed last time", Family::clone(&checks));
    });
    checks
});

/// Checks have names of our own.
fn checked(name: &str, well: bool) {
    CHECKS.get_or_create(&CheckLabels { name: name.to_owned(), r#type: "readyz" }).set(i64::from(well));
}

impl ApiServer {
    /// Whether the store answers.
    pub(crate) async fn check_store(&self) -> Result<(), String> {
        match tokio::time::timeout(STORE_WITHIN, self.store.check()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(e.to_string()),
            Err(_) => Err(format!("the store did not answer within {} s", STORE_WITHIN.as_secs())),
        }
    }

    fn check_cache(&self) -> Result<(), String> {
        let (written, seen) = (self.store.revision(), self.cache.revision());
        if written.saturating_sub(seen) > MAX_BEHIND {
            return Err(format!("the cache is at revision {seen}, the store at {written}"));
        }
        Ok(())
    }

    fn check_shutdown(&self) -> Result<(), String> {
        if self.stop.is_cancelled() { Err("the server is stopping".to_owned()) } else { Ok(()) }
    }

    /// Every check behind `/readyz`; for other doors of the same house too.
    pub async fn checks(&self) -> Vec<Checked> {
        let store = self.check_store().await;
        let own = [
            ("ping", Ok(())),
            ("etcd", store.clone()),
            ("etcd-readiness", store),
            ("informer-sync", self.check_cache()),
        ];
        let own = own.into_iter().map(|(name, found)| (name.to_owned(), found));
        let parts = self.config.readiness.iter().map(|(name, check)| (name.clone(), check()));
        let all: Vec<Checked> =
            own.chain(parts).chain([("shutdown".to_owned(), self.check_shutdown())]).collect();
        for (name, found) in &all {
            checked(name, found.is_ok());
        }
        all
    }
}

/// The answer to a path of checks; `None` for any other.
pub(crate) async fn respond(server: &ApiServer, path: &str, query: &Query) -> Option<Response> {
    let (endpoint, check) = match path.trim_start_matches('/').split_once('/') {
        Some((endpoint, check)) => (endpoint, Some(check)),
        None => (path.trim_start_matches('/'), None),
    };
    if !matches!(endpoint, "livez" | "readyz" | "healthz") {
        return None;
    }
    let mut checks = server.checks().await;
    if endpoint != "readyz" {
        // What is about to be ready lives.
        let own = ["ping", "etcd"];
        let of_parts = |name: &str| server.config.readiness.iter().any(|(n, _)| n == name);
        checks.retain(|(name, _)| own.contains(&name.as_str()) || endpoint == "healthz" && of_parts(name));
    }
    let remarks = if endpoint == "livez" { Vec::new() } else { server.remarks() };
    let Some(wanted) = check else { return Some(report(endpoint, &checks, &remarks, query)) };
    let found = checks.into_iter().find(|(name, _)| name == wanted)?;
    // With `verbose` one check is told as many are.
    if query.has("verbose") {
        return Some(report(wanted, &[found], &[], query));
    }
    match found.1 {
        Ok(()) => Some(body::text(200, "ok")),
        Err(why) => Some(body::text(500, format!("internal server error: {why}\n"))),
    }
}

/// All checks as upstream lists them, unless all is well and nobody asked; remarks follow what is well.
fn report(endpoint: &str, checks: &[Checked], remarks: &[String], query: &Query) -> Response {
    let mut excluded: Vec<&str> = query.all("exclude").filter(|e| !e.is_empty()).collect();
    excluded.sort_unstable();
    excluded.dedup();
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
    excluded.retain(|e| checks.iter().all(|(name, _)| name != e));
    if !excluded.is_empty() {
        let list: Vec<String> = excluded.iter().map(|e| format!("{e:?}")).collect();
        lines.push_str(&format!(
            "warn: some health checks cannot be excluded: no matches for {}\n",
            list.join(", ")
        ));
    }
    let said: String = remarks.iter().map(|r| format!("\n[!]{r}")).collect();
    match (failed, query.has("verbose")) {
        (true, _) => body::text(500, format!("{lines}{endpoint} check failed\n")),
        (false, true) => body::text(200, format!("{lines}{endpoint} check passed{said}\n")),
        (false, false) => body::text(200, format!("ok{said}")),
    }
}
