//! A table's part of a plan: DataFusion's streaming scan, and what the planner should know of it before it runs.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::Statistics;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::streaming::StreamingTableExec;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions, SendableRecordBatchStream,
};

use crate::reduce::Reduction;
use crate::table::Scan;

/// Rows come in order of these columns, ascending, the missing before all others. `None` if there are none.
pub(crate) fn ordering(schema: &SchemaRef, columns: &[String]) -> Option<LexOrdering> {
    let options = SortOptions { descending: false, nulls_first: true };
    let keys = columns.iter().map_while(|c| {
        let at = schema.index_of(c).ok()?;
        Some(PhysicalSortExpr::new(Arc::new(Column::new(c, at)), options))
    });
    LexOrdering::new(keys)
}

/// A streaming scan of which the number of rows is known, about: so that a join holds the smaller side.
#[derive(Debug)]
pub(crate) struct ScanExec {
    table: String,
    inner: Arc<StreamingTableExec>,
    statistics: Arc<Statistics>,
    /// The scan itself, if it can give groups instead of rows.
    scan: Option<Scan>,
}

impl ScanExec {
    pub(crate) fn new(table: String, inner: StreamingTableExec, rows: u64) -> Self {
        let mut statistics = Statistics::new_unknown(&inner.schema());
        let width: usize = inner.schema().fields().iter().map(|f| width(f.data_type())).sum();
        let rows = usize::try_from(rows).unwrap_or(usize::MAX);
        statistics.num_rows = Precision::Inexact(rows);
        statistics.total_byte_size = Precision::Inexact(rows.saturating_mul(width));
        ScanExec { table, inner: Arc::new(inner), statistics: Arc::new(statistics), scan: None }
    }

    /// `scan` is what it runs, and may give groups.
    pub(crate) fn reducible(self, scan: Scan) -> Self {
        ScanExec { scan: Some(scan), ..self }
    }

    /// The same with groups in the place of rows. `None` if it cannot.
    pub(crate) fn reduced(&self, reduction: Arc<Reduction>) -> Result<Option<ScanExec>> {
        let Some(scan) = &self.scan else { return Ok(None) };
        let schema = reduction.schema().clone();
        let scan = scan.clone().in_groups(reduction);
        let inner =
            StreamingTableExec::try_new(schema.clone(), vec![Arc::new(scan)], None, None, false, None)?;
        let statistics = Statistics::new_unknown(&schema);
        let table = format!("{}, in groups", self.table);
        Ok(Some(ScanExec { table, inner: Arc::new(inner), statistics: Arc::new(statistics), scan: None }))
    }
}

/// Lets scans do the first step of an aggregation where that is one of few groups a block.
#[derive(Debug)]
pub(crate) struct ReduceScans;

impl PhysicalOptimizerRule for ReduceScans {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let reduced = |plan: Arc<dyn ExecutionPlan>| {
            let Some(aggregate) = plan.downcast_ref::<AggregateExec>() else {
                return Ok(Transformed::no(plan));
            };
            let Some((reduction, input)) = Reduction::of(aggregate) else { return Ok(Transformed::no(plan)) };
            let reduced = match input.downcast_ref::<ScanExec>() {
                Some(scan) => scan.reduced(Arc::new(reduction))?,
                None => None,
            };
            Ok(match reduced {
                Some(scan) => Transformed::yes(Arc::new(scan) as Arc<dyn ExecutionPlan>),
                None => Transformed::no(plan),
            })
        };
        plan.transform_up(reduced).data()
    }

    fn name(&self) -> &str {
        "reduce_scans"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Bytes of a value, about.
fn width(kind: &DataType) -> usize {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => 64,
        DataType::Map(..) | DataType::List(_) | DataType::Struct(_) => 256,
        DataType::Dictionary(..) => 4,
        _ => 8,
    }
}

impl DisplayAs for ScanExec {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: rows={}, ", self.table, self.statistics.num_rows)?;
        self.inner.fmt_as(t, f)
    }
}

impl ExecutionPlan for ScanExec {
    fn name(&self) -> &str {
        "ScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.inner.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.is_empty() {
            true => Ok(self),
            false => Err(DataFusionError::Internal("a scan has no children".to_owned())),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.inner.execute(partition, context)
    }

    fn fetch(&self) -> Option<usize> {
        self.inner.fetch()
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(self.statistics.clone())
    }
}
