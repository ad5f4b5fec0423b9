//! Rows of kinds that were made by objects. A row lives as long as the process, as those of the built-in kinds do,
//! and is made once however often its definition is written; how many there may be is bounded.

use std::collections::HashMap;
use std::sync::LazyLock;

use parking_lot::Mutex;

use crate::kinds::{BASE, Kind};

/// Rows of a process: some thousands of definitions in some versions, a kilobyte each at most.
const MAX_ROWS: usize = 16_384;

/// What tells a row from others.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) kind: String,
    pub(crate) short: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    pub(crate) status: bool,
    pub(crate) scale: bool,
    /// Dotted paths that field selectors may name.
    pub(crate) fields: Vec<String>,
}

static ROWS: LazyLock<Mutex<HashMap<Row, &'static Kind>>> = LazyLock::new(Mutex::default);

/// The row with these names; `None` if there are too many.
pub(crate) fn row(row: Row) -> Option<&'static Kind> {
    let mut rows = ROWS.lock();
    if let Some(kind) = rows.get(&row) {
        return Some(kind);
    }
    if rows.len() >= MAX_ROWS {
        return None;
    }
    let text = |s: &str| -> &'static str { s.to_owned().leak() };
    let list =
        |l: &[String]| -> &'static [&'static str] { l.iter().map(|s| text(s)).collect::<Vec<_>>().leak() };
    let kind: &'static Kind = Box::leak(Box::new(Kind {
        custom: true,
        group: text(&row.group),
        version: text(&row.version),
        resource: text(&row.plural),
        singular: text(&row.singular),
        kind: text(&row.kind),
        short: list(&row.short),
        categories: list(&row.categories),
        namespaced: row.namespaced,
        generation: true,
        status: row.status,
        scale: row.scale,
        fields: list(&row.fields),
        ..BASE
    }));
    rows.insert(row, kind);
    Some(kind)
}
