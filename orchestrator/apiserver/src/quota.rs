//! How much a namespace may hold: ResourceQuota, checked when something is made and shown in its status; and what
//! each thing may ask for: LimitRange (kubernetes: plugin/pkg/admission/{resourcequota,limitranger}).

mod limits;
mod usage;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::quantity::Quantity;
use serde_json::{Value, json};
use tokio::sync::OwnedMutexGuard;

use crate::error::{ApiError, Result};
use crate::kinds::{self, Kind, Served};
use crate::object;
use crate::registry::{Part, WriteContext};
use crate::server::ApiServer;

/// Statuses follow what happens, but not every single event of a burst.
const PAUSE: Duration = Duration::from_millis(500);

type Amounts = BTreeMap<String, Quantity>;

fn quotas() -> Served {
    kinds::by_resource("", "resourcequotas").expect("quotas are a kind")
}

fn amounts(o: &Value, path: &str) -> Amounts {
    let map = object::get(o, path).and_then(Value::as_object);
    map.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.parse().ok()?))).collect()
}

/// `cpu=1,pods=2`
fn print(amounts: &Amounts, keys: &[&String]) -> String {
    let zero = Quantity::default();
    let words = keys.iter().map(|k| format!("{k}={}", amounts.get(*k).unwrap_or(&zero)));
    words.collect::<Vec<_>>().join(",")
}

impl ApiServer {
    /// Refuses what would exceed a quota of its namespace. The guard is held until the object is written, so that
    /// no two fill the same room.
    pub(crate) async fn admit_quota(
        &self,
        served: &Served,
        namespace: &str,
        o: &Value,
    ) -> Result<Option<OwnedMutexGuard<()>>> {
        let index = quotas().index;
        if !self.config.admission.is_on("ResourceQuota")
            || !served.kind.namespaced
            || self.cache.list(index, Some(namespace)).objects.is_empty()
        {
            return Ok(None);
        }
        let guard = self.counting.clone().lock_owned().await;
        self.cache.fresh().await?;
        for quota in self.cache.list(index, Some(namespace)).objects {
            self.check_quota(&quota.value(), served, namespace, o)?;
        }
        Ok(Some(guard))
    }

    fn check_quota(&self, quota: &Value, served: &Served, namespace: &str, o: &Value) -> Result<()> {
        let hard = amounts(quota, "spec.hard");
        if !usage::is_in_scope(quota, served.kind, o) {
            return Ok(());
        }
        let name = object::name(quota);
        let lacking = usage::lacking(served.kind, o, hard.keys());
        if !lacking.is_empty() {
            let why = format!("failed quota: {name}: must specify {}", lacking.join("; "));
            return Err(ApiError::forbidden(served, object::name(o), &why));
        }
        let mut wanted = usage::of(served.kind, o);
        wanted.retain(|k, v| hard.contains_key(k) && *v > Quantity::default());
        if wanted.is_empty() {
            return Ok(());
        }
        let used = self.used(quota, namespace, &hard);
        let zero = Quantity::default();
        let over = |k: &&String| *used.get(*k).unwrap_or(&zero) + wanted[*k] > hard[*k];
        let keys: Vec<&String> = wanted.keys().filter(over).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let why = format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            print(&wanted, &keys),
            print(&used, &keys),
            print(&hard, &keys)
        );
        Err(ApiError::forbidden(served, object::name(o), &why))
    }

    /// What a namespace uses of the amounts a quota names.
    fn used(&self, quota: &Value, namespace: &str, hard: &Amounts) -> Amounts {
        let mut used: Amounts = hard.keys().map(|k| (k.clone(), Quantity::default())).collect();
        let counted = |kind: &Kind| hard.keys().any(|k| usage::counts(kind, k));
        for (index, kind) in self.stored_kinds().into_iter().filter(|(_, k)| k.namespaced && counted(k)) {
            for o in self.cache.list(index, Some(namespace)).objects {
                let o = o.value();
                if !usage::is_in_scope(quota, kind, &o) {
                    continue;
                }
                for (k, v) in usage::of(kind, &o) {
                    if let Some(sum) = used.get_mut(&k) {
                        *sum += v;
                    }
                }
            }
        }
        used
    }

    /// Brings all quotas' statuses in line.
    async fn show_usage(&self) -> Result<()> {
        let served = quotas();
        for quota in self.cache.list(served.index, None).objects {
            let old = quota.value();
            let namespace = object::namespace(&old).to_owned();
            let hard = amounts(&old, "spec.hard");
            let used = self.used(&old, &namespace, &hard);
            let text = |a: &Amounts| -> Value {
                Value::Object(a.iter().map(|(k, v)| (k.clone(), v.to_string().into())).collect())
            };
            let status = json!({"hard": text(&hard), "used": text(&used)});
            if old["status"] == status {
                continue;
            }
            let mut write = WriteContext::default();
            "binnacle".clone_into(&mut write.options.field_manager);
            let mut change = |o: &Value| {
                let mut new = o.clone();
                new["status"] = status.clone();
                Ok(new)
            };
            match self
                .update(&served, &namespace, object::name(&old), &write, Part::Status, &mut change)
                .await
            {
                Err(e) if e.code != 404 => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Follows the cluster as long as there are quotas to show.
pub(crate) async fn run(server: Arc<ApiServer>) {
    let mut published = server.cache.subscribe();
    let mut seen = 0;
    loop {
        tokio::select! {
            () = server.stop.cancelled() => return,
            moved = published.wait_for(|r| *r > seen) => match moved {
                Ok(r) => seen = *r,
                Err(_) => return,
            },
        }
        if server.cache.is_empty(quotas().index) {
            continue;
        }
        if let Err(e) = server.show_usage().await {
            tracing::warn!(error = %e.message, "the statuses of quotas could not be written");
        }
        tokio::select! {
            () = server.stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}
