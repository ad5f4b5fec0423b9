//! `object_history`: a row for each revision of each object. `events`: a row for each time a Kubernetes event was seen.
//! `objects_at(time)`: the objects there were.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::logical_expr::Expr;
use futures::StreamExt;
use serde_json::Value;
use signal::{Labels, Matcher, Timestamp};

use super::objects::{HistoryRow, ObjectRow, ObjectSelect, ObjectSource, write};
use super::promql::When;
use super::{Scan, Table, What, World, without_objects};
use crate::column::{Out, integer, nanos, text};
use crate::error::ScanError;

/// Bytes of objects that `objects_at` may hold.
const HELD: usize = 256 << 20;

pub(crate) static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        nanos("time"),
        text("op"),
        text("api_version"),
        text("kind"),
        text("namespace"),
        text("name"),
        text("uid"),
        integer("revision"),
        text("object"),
    ]))
});

pub(crate) static EVENTS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        nanos("time"),
        text("namespace"),
        text("type"),
        text("reason"),
        text("object_kind"),
        text("object_name"),
        text("object_uid"),
        text("message"),
        text("source"),
        integer("count"),
        text("name"),
    ]))
});

fn range(scan: &Scan) -> (Timestamp, Timestamp) {
    (Timestamp(scan.wanted.start.unwrap_or(i64::MIN)), Timestamp(scan.wanted.end.unwrap_or(i64::MAX)))
}

pub(super) async fn read(scan: &Scan, source: &dyn ObjectSource, out: &mut Out) -> Result<(), ScanError> {
    let (start, end) = range(scan);
    let mut rows = source.history(ObjectSelect::new(&scan.wanted.columns), start, end);
    while let Some(row) = rows.next().await {
        let r = row.map_err(ScanError::Storage)?;
        let full = out.add(1, |i, c| match i {
            0 => c.nanos(Some(r.time.nanos())),
            1 => c.text(&r.op),
            2 => c.text(&r.api_version),
            3 => c.text(&r.kind),
            4 => c.text(&r.namespace),
            5 => c.text(&r.name),
            6 => c.text(&r.uid),
            7 => c.integer(r.revision),
            _ => c.text(&r.object),
        });
        if full && out.flush_async().await.is_break() {
            return Ok(());
        }
    }
    // Nobody reading any more is no failure.
    let _ = out.flush_async().await;
    Ok(())
}

pub(super) async fn read_events(
    scan: &Scan,
    source: &dyn ObjectSource,
    out: &mut Out,
) -> Result<(), ScanError> {
    let (start, end) = range(scan);
    let own = scan.wanted.columns.iter().filter(|m| m.name == "namespace").cloned().collect::<Vec<_>>();
    let select = ObjectSelect::new(&own).and(Matcher::equal("kind", "Event"));
    let mut rows = source.history(select, start, end);
    while let Some(row) = rows.next().await {
        let r = row.map_err(ScanError::Storage)?;
        if !matches!(r.op.as_str(), "ADDED" | "MODIFIED") {
            continue;
        }
        let Ok(o) = serde_json::from_str::<Value>(&r.object) else { continue };
        let words = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let about = &o["involvedObject"];
        let component = [&o["source"]["component"], &o["reportingComponent"]];
        let component = component.into_iter().map(words).find(|c| !c.is_empty()).unwrap_or_default();
        let count = o["series"]["count"].as_i64().or(o["count"].as_i64()).unwrap_or(1);
        let full = out.add(1, |i, c| match i {
            0 => c.nanos(Some(r.time.nanos())),
            1 => c.text(&r.namespace),
            2 => c.text(&words(&o["type"])),
            3 => c.text(&words(&o["reason"])),
            4 => c.text(&words(&about["kind"])),
            5 => c.text(&words(&about["name"])),
            6 => c.text(&words(&about["uid"])),
            7 => c.text(&words(&o["message"])),
            8 => c.text(&component),
            9 => c.integer(count),
            _ => c.text(&r.name),
        });
        if full && out.flush_async().await.is_break() {
            return Ok(());
        }
    }
    let _ = out.flush_async().await;
    Ok(())
}

/// What there was at a time: of each object the newest revision until then, unless it is a deletion.
pub(super) async fn read_at(
    scan: &Scan,
    source: &dyn ObjectSource,
    at: When,
    out: &mut Out,
) -> Result<(), ScanError> {
    let now = scan.world.sources.clock.now();
    let end = Timestamp::from_millis(at.millis(now.millis()));
    // The time a row is of is when the object was made: conditions on it say nothing of when it was seen.
    let mut rows = source.history(ObjectSelect::new(&scan.wanted.columns), Timestamp(i64::MIN), end);
    let mut newest: BTreeMap<(String, String, String), HistoryRow> = BTreeMap::new();
    let mut held = 0;
    while let Some(row) = rows.next().await {
        let r = row.map_err(ScanError::Storage)?;
        let key = (r.kind.clone(), r.namespace.clone(), r.name.clone());
        let size = |r: &HistoryRow| r.object.len() + 256;
        match newest.get_mut(&key) {
            Some(known) if known.revision >= r.revision => {}
            Some(known) => {
                held = held + size(&r) - size(known);
                *known = r;
            }
            None => {
                held += size(&r);
                newest.insert(key, r);
            }
        }
        if held > HELD {
            return Err(ScanError::Query(format!(
                "objects_at: more than {HELD} bytes of objects; ask for fewer with a condition on kind, namespace or name"
            )));
        }
    }
    for r in newest.into_values().filter(|r| r.op != "DELETED") {
        let o: Value = serde_json::from_str(&r.object).unwrap_or_default();
        let created =
            o["metadata"]["creationTimestamp"].as_str().and_then(|t| t.parse::<jiff::Timestamp>().ok());
        let labels = o["metadata"]["labels"].as_object().into_iter().flatten();
        let row = ObjectRow {
            created: created.and_then(|t| i64::try_from(t.as_nanosecond()).ok()).map(Timestamp::from_nanos),
            labels: Labels::from_pairs(labels.filter_map(|(k, v)| Some((k, v.as_str()?)))),
            api_version: r.api_version,
            kind: r.kind,
            namespace: r.namespace,
            name: r.name,
            uid: r.uid,
            resource_version: r.revision.to_string(),
            object: r.object,
        };
        if write(&row, out) && out.flush_async().await.is_break() {
            return Ok(());
        }
    }
    let _ = out.flush_async().await;
    Ok(())
}

/// `objects_at('2026-01-01T00:00:00Z')`, `objects_at('1h')` for an hour ago, `objects_at(now() - interval '1 hour')`.
pub(crate) struct ObjectsAt(pub(crate) World, pub(crate) Option<Arc<dyn ObjectSource>>);

impl std::fmt::Debug for ObjectsAt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("objects_at")
    }
}

impl TableFunctionImpl for ObjectsAt {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> PlanResult<Arc<dyn TableProvider>> {
        let at = match args.exprs() {
            [Expr::Literal(v, _)] => When::of(v),
            _ => None,
        };
        let usage = "write objects_at('2026-01-01T00:00:00Z'), objects_at('1h') or objects_at(now() - interval '1 hour')";
        let at = at.ok_or_else(|| DataFusionError::Plan(usage.to_owned()))?;
        Ok(match &self.1 {
            Some(source) => {
                Arc::new(Table { what: What::ObjectsAt(source.clone(), at), world: self.0.clone() })
            }
            None => Arc::new(without_objects(&super::objects::SCHEMA)?),
        })
    }
}
