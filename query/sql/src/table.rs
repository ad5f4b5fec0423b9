//! A table: what a plan wants of it, and the scan that reads it.

pub(crate) mod audit;
pub(crate) mod decisions;
pub(crate) mod history;
pub(crate) mod logql;
pub(crate) mod logs;
pub(crate) mod metric;
pub(crate) mod metrics;
pub(crate) mod objects;
pub(crate) mod promql;
pub(crate) mod spans;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use parking_lot::Mutex;
use signal::Matcher;

use crate::column::Out;
use crate::config::Config;
use crate::engine::Sources;
use crate::error::ScanError;
use crate::filter::{self, Wanted};
use crate::plan::{self, ScanExec};
use crate::reduce::Reduction;

/// Batches that wait between a scan and its plan.
const QUEUE: usize = 2;
/// Objects of a cluster of middling size: counting them would mean listing them.
const OBJECTS: u64 = 1000;

/// One query's view of the world, shared by its tables.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) sources: Sources,
    pub(crate) config: Config,
    /// On every series and stream.
    pub(crate) enforce: Vec<Matcher>,
    pub(crate) notes: Arc<Mutex<BTreeSet<String>>>,
    /// Scans planned so far.
    pub(crate) scans: Arc<AtomicUsize>,
}

impl World {
    fn note(&self, table: &str) {
        let range = humantime(self.config.default_range);
        let note = format!("{table}: no lower bound on time, so only the last {range} is read");
        self.notes.lock().insert(note);
    }

    /// What a search of the log index could not read.
    fn note_damage(&self, table: &str, search: &log_index::Search) {
        if let Some(warning) = search.progress.warning() {
            self.notes.lock().insert(format!("{table}: {warning}"));
        }
    }
}

fn humantime(d: std::time::Duration) -> String {
    match d.as_secs() {
        3600 => "hour".to_owned(),
        s if s % 3600 == 0 => format!("{} hours", s / 3600),
        s => format!("{s} s"),
    }
}

#[derive(Clone)]
pub(crate) enum What {
    Metrics,
    Metric(Arc<metric::Shape>),
    Logs,
    Spans,
    Decisions,
    Audit,
    Objects(Arc<dyn objects::ObjectSource>),
    History(Arc<dyn objects::ObjectSource>),
    Events(Arc<dyn objects::ObjectSource>),
    ObjectsAt(Arc<dyn objects::ObjectSource>, promql::When),
    Promql(promql::Question),
    Logql {
        question: promql::Question,
        /// It gives lines, not samples.
        lines: bool,
    },
}

impl What {
    fn name(&self) -> &'static str {
        match self {
            What::Metrics => "metrics",
            What::Metric(_) => "metric",
            What::Logs => "logs",
            What::Spans => "spans",
            What::Decisions => "decisions",
            What::Audit => "audit",
            What::Objects(_) => "objects",
            What::History(_) => "object_history",
            What::Events(_) => "events",
            What::ObjectsAt(..) => "objects_at",
            What::Promql(_) => "promql",
            What::Logql { .. } => "logql",
        }
    }

    /// As `EXPLAIN` shows it.
    fn title(&self) -> String {
        match self {
            What::Metric(shape) => format!("metric {}", shape.metric),
            _ => self.name().to_owned(),
        }
    }

    fn schema(&self) -> SchemaRef {
        match self {
            What::Logql { lines: true, .. } => logql::SCHEMA.clone(),
            What::Metrics | What::Promql(_) | What::Logql { .. } => metrics::SCHEMA.clone(),
            What::Metric(shape) => shape.schema.clone(),
            What::Logs => logs::SCHEMA.clone(),
            What::Spans => spans::SCHEMA.clone(),
            What::Decisions => decisions::SCHEMA.clone(),
            What::Audit => audit::SCHEMA.clone(),
            What::Objects(_) | What::ObjectsAt(..) => objects::SCHEMA.clone(),
            What::History(_) => history::SCHEMA.clone(),
            What::Events(_) => history::EVENTS.clone(),
        }
    }

    /// The column that bounds of time are about.
    fn time(&self) -> &'static str {
        match self {
            What::Metric(_) => "ts",
            What::Spans => "start",
            What::Objects(_) | What::ObjectsAt(..) => "created",
            _ => "time",
        }
    }
}

pub(crate) struct Table {
    pub(crate) what: What,
    pub(crate) world: World,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.what.name())
    }
}

#[async_trait]
impl TableProvider for Table {
    fn schema(&self) -> SchemaRef {
        self.what.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let of_use = |f: &&Expr| Wanted::default().add(f, self.what.time());
        // Of log records none is read that lies outside of the bounds, so nobody need look again.
        let exact = |f: &&Expr| matches!(self.what, What::Logs) && filter::is_bound(f, self.what.time());
        Ok(filters
            .iter()
            .map(|f| match of_use(f) {
                true if exact(f) => TableProviderFilterPushDown::Exact,
                true => TableProviderFilterPushDown::Inexact,
                false => TableProviderFilterPushDown::Unsupported,
            })
            .collect())
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        // Every scan takes a thread while it runs, and a plan may need all of them at once.
        if self.world.scans.fetch_add(1, Ordering::Relaxed) >= self.world.config.scans {
            return Err(DataFusionError::Plan(format!(
                "the query reads tables more than {} times",
                self.world.config.scans
            )));
        }
        let full = self.schema();
        let indexes: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..full.fields().len()).collect());
        let scan = Scan {
            what: self.what.clone(),
            world: self.world.clone(),
            wanted: Wanted::from(filters, self.what.time()),
            schema: Arc::new(full.project(&indexes)?),
            indexes,
            reduction: None,
        };
        let schema = scan.schema.clone();
        let order = match &self.what {
            What::Metric(shape) => plan::ordering(&schema, &shape.order(&schema)),
            _ => None,
        };
        // Without an estimate there is still a plan; the scan itself will say what is wrong.
        let rows = scan.estimate();
        let part: Arc<dyn PartitionStream> = Arc::new(scan.clone());
        let exec = StreamingTableExec::try_new(schema, vec![part], None, order, false, limit)?;
        // Bounds on how many rows are read do not mix with reading them as groups.
        let reducible = matches!(self.what, What::Logs) && limit.is_none();
        Ok(match rows {
            Some(rows) => {
                let exec = ScanExec::new(self.what.title(), exec, rows);
                Arc::new(if reducible { exec.reducible(scan) } else { exec })
            }
            None => Arc::new(exec),
        })
    }
}

/// One reading of a table. The plan may run it more than once.
#[derive(Clone)]
pub(crate) struct Scan {
    what: What,
    pub(crate) world: World,
    pub(crate) wanted: Wanted,
    pub(crate) schema: SchemaRef,
    /// Of the table's columns, those that are wanted.
    pub(crate) indexes: Vec<usize>,
    /// What leaves is not rows but groups of them.
    pub(crate) reduction: Option<Arc<Reduction>>,
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.what.name(), self.wanted)
    }
}

impl Scan {
    /// The same, giving groups instead of rows.
    pub(crate) fn in_groups(mut self, reduction: Arc<Reduction>) -> Scan {
        self.reduction = Some(reduction);
        self
    }

    /// Bounds of time, with a note where they are ours.
    pub(crate) fn range(&self) -> (signal::Timestamp, signal::Timestamp) {
        let now = self.world.sources.clock.now();
        let (start, end, ours) = self.wanted.range(now, self.world.config.default_range);
        if ours {
            self.world.note(self.what.name());
        }
        (start, end)
    }

    /// Matchers on labels: the caller's bounds, and those columns that are labels under the name `label` gives.
    pub(crate) fn matchers<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> Vec<Matcher> {
        let mut out = self.world.enforce.clone();
        out.extend(self.wanted.columns.iter().filter_map(|m| {
            // The expression was compiled a moment ago under another name.
            label(&m.name).and_then(|name| Matcher::new(name, m.op, m.value.clone()).ok())
        }));
        out.extend(self.wanted.labels.iter().cloned());
        out
    }

    /// Rows that will be read, about. `None` if nothing is known.
    fn estimate(&self) -> Option<u64> {
        let tsdb = &self.world.sources.tsdb;
        match &self.what {
            What::Metrics => tsdb.estimate(&metrics::select(self)).ok(),
            What::Metric(shape) => tsdb.estimate(&metric::select(self, shape)).ok(),
            What::Logs => logs::estimate(self).ok(),
            What::Objects(_) | What::ObjectsAt(..) => Some(OBJECTS),
            _ => None,
        }
    }

    fn read(&self, out: &mut Out) -> Result<(), ScanError> {
        match &self.what {
            What::Metrics => metrics::read(self, out),
            What::Metric(shape) => metric::read(self, shape, out),
            What::Logs => logs::read(self, out),
            What::Spans => spans::read(self, out),
            What::Promql(q) => promql::read(self, q, out),
            What::Logql { question, .. } => logql::read(self, question, out),
            What::Decisions => decisions::read(self, out),
            What::Audit => audit::read(self, out),
            What::Objects(_) | What::History(_) | What::Events(_) | What::ObjectsAt(..) => Ok(()),
        }
    }

    /// What is listed by somebody else, who must not be waited for on a thread.
    async fn read_listed(&self, out: &mut Out) -> Result<(), ScanError> {
        match &self.what {
            What::Objects(source) => objects::read(self, source.as_ref(), out).await,
            What::History(source) => history::read(self, source.as_ref(), out).await,
            What::Events(source) => history::read_events(self, source.as_ref(), out).await,
            What::ObjectsAt(source, at) => history::read_at(self, source.as_ref(), *at, out).await,
            _ => Ok(()),
        }
    }
}

impl PartitionStream for Scan {
    fn schema(&self) -> &SchemaRef {
        self.reduction.as_ref().map_or(&self.schema, |r| r.schema())
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut stream = RecordBatchReceiverStreamBuilder::new(PartitionStream::schema(self).clone(), QUEUE);
        let mut out = Out::new(self.what.name(), self.schema.clone(), &self.indexes, stream.tx());
        let scan = self.clone();
        match &self.what {
            What::Objects(_) | What::History(_) | What::Events(_) | What::ObjectsAt(..) => {
                stream.spawn(async move { Ok(scan.read_listed(&mut out).await?) });
            }
            _ => stream.spawn_blocking(move || Ok(scan.read(&mut out)?)),
        }
        stream.build()
    }
}

/// A plain table over an empty stream keeps the name resolvable where there are no objects to list.
pub(crate) fn without_objects(schema: &SchemaRef) -> Result<StreamingTable> {
    StreamingTable::try_new(schema.clone(), Vec::new())
}
