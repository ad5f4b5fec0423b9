//! `objects`: a row for each object of the cluster that the caller may list.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{Schema, SchemaRef};
use futures::StreamExt;
use futures::stream::BoxStream;
use signal::{Labels, MatchOp, Matcher, Timestamp};

use super::Scan;
use crate::column::{Out, map, nanos, text};
use crate::error::ScanError;

pub(crate) static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        text("api_version"),
        text("kind"),
        text("namespace"),
        text("name"),
        text("uid"),
        text("resource_version"),
        nanos("created"),
        map("labels"),
        text("object"),
    ]))
});

/// Lists objects as the caller, so that the API's own rules decide what is seen.
pub trait ObjectSource: Send + Sync {
    /// Objects that match, a page at a time; what the caller may not list is left out. A source may give more than
    /// was asked for: rows are checked again. An error ends the stream.
    fn objects(&self, select: ObjectSelect) -> BoxStream<'static, Result<ObjectRow, String>>;

    /// What became of objects that match, in order of time or not, between two times, both included; what the caller may not
    /// list is left out. As with [`ObjectSource::objects`], a source may give more.
    fn history(
        &self,
        select: ObjectSelect,
        start: Timestamp,
        end: Timestamp,
    ) -> BoxStream<'static, Result<HistoryRow, String>>;
}

/// Which objects are of interest; without a condition all are.
#[derive(Clone, Debug, Default)]
pub struct ObjectSelect {
    matchers: Vec<Matcher>,
}

impl ObjectSelect {
    /// Of conditions on any columns.
    pub(super) fn new(matchers: &[Matcher]) -> Self {
        ObjectSelect { matchers: matchers.to_vec() }
    }

    fn fits(&self, column: &str, value: &str) -> bool {
        self.matchers.iter().filter(|m| m.name == column).all(|m| m.matches(value))
    }

    pub fn kind(&self, kind: &str) -> bool {
        self.fits("kind", kind)
    }

    /// As `v1` or `apps/v1`.
    pub fn api_version(&self, api_version: &str) -> bool {
        self.fits("api_version", api_version)
    }

    /// Empty for what has no namespace.
    pub fn namespace(&self, namespace: &str) -> bool {
        self.fits("namespace", namespace)
    }

    /// The conditions on one column.
    pub fn on(&self, column: &str) -> impl Iterator<Item = &Matcher> {
        self.matchers.iter().filter(move |m| m.name == column)
    }

    /// With one more condition.
    pub(super) fn and(mut self, m: Matcher) -> Self {
        self.matchers.push(m);
        self
    }

    /// The one namespace that can hold what is asked for, if only one can.
    pub fn only_namespace(&self) -> Option<&str> {
        self.only("namespace")
    }

    /// The same of names.
    pub fn only_name(&self) -> Option<&str> {
        self.only("name")
    }

    fn only(&self, column: &str) -> Option<&str> {
        let m = self.matchers.iter().find(|m| m.name == column && m.op == MatchOp::Equal)?;
        Some(&m.value)
    }
}

/// An object, with its metadata taken out.
#[derive(Clone, Debug, Default)]
pub struct ObjectRow {
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    pub created: Option<Timestamp>,
    pub labels: Labels,
    /// The object as JSON.
    pub object: String,
}

/// An object at one of its revisions.
#[derive(Clone, Debug, Default)]
pub struct HistoryRow {
    /// When it was seen.
    pub time: Timestamp,
    /// `ADDED`, `MODIFIED`, `DELETED`; or `PRESENT`, when all objects were written down.
    pub op: String,
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub revision: i64,
    /// The object as JSON; empty once it is deleted.
    pub object: String,
}

pub(super) async fn read(scan: &Scan, source: &dyn ObjectSource, out: &mut Out) -> Result<(), ScanError> {
    let mut rows = source.objects(ObjectSelect::new(&scan.wanted.columns));
    while let Some(row) = rows.next().await {
        let r = row.map_err(ScanError::Storage)?;
        if write(&r, out) && out.flush_async().await.is_break() {
            return Ok(());
        }
    }
    // Nobody reading any more is no failure.
    let _ = out.flush_async().await;
    Ok(())
}

/// True if the batch is full.
pub(super) fn write(r: &ObjectRow, out: &mut Out) -> bool {
    out.add(1, |i, c| match i {
        0 => c.text(&r.api_version),
        1 => c.text(&r.kind),
        2 => c.text(&r.namespace),
        3 => c.text(&r.name),
        4 => c.text(&r.uid),
        5 => c.text(&r.resource_version),
        6 => c.nanos(r.created.map(Timestamp::nanos)),
        7 => c.maps(r.labels.iter(), 1),
        _ => c.text(&r.object),
    })
}
