//! A table for each metric, under the metric's name: `ts`, `value`, and a column for each label its series have.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{MemorySchemaProvider, SchemaProvider, TableProvider};
use datafusion::error::{DataFusionError, Result};
use signal::{METRIC_NAME, Matcher, Select, SeriesSource};

use super::metrics::living;
use super::{Scan, Table, What, World};
use crate::column::{Out, dictionary, double, millis};
use crate::error::ScanError;

/// Metrics that `SHOW TABLES` names.
const NAMED: usize = 10_000;
/// Labels that become columns; more would be a mistake of whoever wrote them.
const LABELS: usize = 128;

/// The columns of one metric's table.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(super) metric: String,
    pub(super) schema: SchemaRef,
    /// The label of each column after `ts` and `value`.
    labels: Vec<String>,
}

impl Shape {
    /// The label that a column shows.
    pub(super) fn label<'a>(&'a self, column: &str) -> Option<&'a str> {
        let at = self.schema.index_of(column).ok()?.checked_sub(2)?;
        self.labels.get(at).map(String::as_str)
    }

    pub(super) fn matcher(&self) -> Matcher {
        Matcher::equal(METRIC_NAME, &self.metric)
    }

    /// The columns, of those that are read, by which rows are in order.
    pub(super) fn order(&self, schema: &Schema) -> Vec<String> {
        let names = schema.fields().iter().map(|f| f.name());
        let mut order: Vec<String> = names.filter(|c| self.label(c).is_some()).cloned().collect();
        // Within one series time goes on; which one it is, only all labels tell.
        if order.len() == self.labels.len() && order.len() < LABELS {
            order.push("ts".to_owned());
        }
        order
    }
}

/// A label under a name that is taken gets `label_` before it.
fn column_name(label: &str) -> String {
    if matches!(label, "ts" | "value") { format!("label_{label}") } else { label.to_owned() }
}

fn shape(world: &World, metric: &str) -> Result<Option<Shape>, signal::SourceError> {
    let mut matchers = world.enforce.clone();
    matchers.push(Matcher::equal(METRIC_NAME, metric));
    let select = Select { matchers, start: i64::MIN, end: i64::MAX };
    let mut labels = world.sources.tsdb.label_names(&select)?;
    if labels.is_empty() {
        return Ok(None);
    }
    labels.retain(|l| l != METRIC_NAME);
    labels.truncate(LABELS);
    let columns = labels.iter().map(|l| dictionary(&column_name(l)));
    let fields: Vec<_> = [millis("ts"), double("value")].into_iter().chain(columns).collect();
    Ok(Some(Shape { metric: metric.to_owned(), schema: Arc::new(Schema::new(fields)), labels }))
}

pub(super) fn select(scan: &Scan, shape: &Shape) -> Select {
    let (start, end) = scan.range();
    let mut matchers = scan.matchers(|column| shape.label(column));
    matchers.push(shape.matcher());
    Select { matchers, start: start.millis(), end: end.millis() }
}

pub(super) fn read(scan: &Scan, shape: &Shape, out: &mut Out) -> std::result::Result<(), ScanError> {
    let select = select(scan, shape);
    let order = shape.order(&scan.schema);
    let by: Vec<&str> = order.iter().filter_map(|c| shape.label(c)).collect();
    let storage = |e: signal::SourceError| ScanError::Storage(e.to_string());
    for series in scan.world.sources.tsdb.scan(&select, &by).map_err(storage)? {
        let s = living(series.map_err(storage)?);
        let (mut times, mut values) = (s.timestamps.as_slice(), s.values.as_slice());
        while !times.is_empty() {
            let n = out.room().min(times.len());
            let ((t, later), (v, further)) = (times.split_at(n), values.split_at(n));
            let full = out.add(n, |i, c| match i {
                0 => c.millis(t),
                1 => c.doubles(v),
                i => {
                    let label = shape.labels.get(i - 2).map_or("", String::as_str);
                    c.repeat(s.labels.get(label), n)
                }
            });
            if out.closed() || full && out.flush().is_break() {
                return Ok(());
            }
            (times, values) = (later, further);
        }
    }
    // Nobody reading any more is no failure.
    let _ = out.flush();
    Ok(())
}

/// The fixed tables, and behind them the metrics by name.
pub(crate) struct Tables {
    pub(crate) fixed: MemorySchemaProvider,
    pub(crate) world: World,
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("tables")
    }
}

#[async_trait]
impl SchemaProvider for Tables {
    fn table_names(&self) -> Vec<String> {
        let mut names = self.fixed.table_names();
        let select = Select { matchers: self.world.enforce.clone(), start: i64::MIN, end: i64::MAX };
        match self.world.sources.tsdb.label_values(METRIC_NAME, &select) {
            Ok(metrics) => {
                names.extend(metrics.into_iter().filter(|m| !self.fixed.table_exist(m)).take(NAMED));
            }
            Err(e) => {
                self.world.notes.lock().insert(format!("metrics are not listed: {e}"));
            }
        }
        names
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if let Some(fixed) = self.fixed.table(name).await? {
            return Ok(Some(fixed));
        }
        let (world, metric) = (self.world.clone(), name.to_owned());
        let found = tokio::task::spawn_blocking(move || shape(&world, &metric))
            .await
            .map_err(|e| DataFusionError::External(Box::new(e)))?
            .map_err(|e| DataFusionError::from(ScanError::Storage(e.to_string())))?;
        Ok(found.map(|shape| {
            Arc::new(Table { what: What::Metric(Arc::new(shape)), world: self.world.clone() })
                as Arc<dyn TableProvider>
        }))
    }

    fn register_table(
        &self,
        name: String,
        table: Arc<dyn TableProvider>,
    ) -> Result<Option<Arc<dyn TableProvider>>> {
        self.fixed.register_table(name, table)
    }

    fn table_exist(&self, name: &str) -> bool {
        let metric = || shape(&self.world, name).is_ok_and(|s| s.is_some());
        self.fixed.table_exist(name) || metric()
    }
}
