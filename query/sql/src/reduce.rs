//! The first step of an aggregation, done where rows are read: what leaves a scan for each block is a row for each of
//! its groups. A block is of one stream and in order of time, so labels and minutes change seldom or never in it: what
//! is the same in a run of rows is looked up once for all of them.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{filter_record_batch, partition, take_arrays};
use arrow::datatypes::SchemaRef;
use datafusion::common::cast::as_boolean_array;
use datafusion::error::Result;
use datafusion::logical_expr::EmitTo;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::group_values::new_group_values;
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use datafusion::physical_plan::aggregates::{
    AggregateExec, AggregateMode, PhysicalGroupBy, evaluate_group_by,
};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::repartition::RepartitionExec;

/// Columns with one value in a block, or few.
const FEW: [&str; 5] = ["namespace", "pod", "container", "service_name", "severity"];
/// What makes few values of many times.
const COARSE: [&str; 2] = ["date_trunc", "date_bin"];

/// Groups and aggregates of an [`AggregateExec`] in its first step, and the filter before it.
#[derive(Debug)]
pub(crate) struct Reduction {
    filter: Option<Filter>,
    groups: PhysicalGroupBy,
    /// Of the groups' values alone.
    keys: SchemaRef,
    aggregates: Vec<Arc<AggregateFunctionExpr>>,
    filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    schema: SchemaRef,
}

/// What rows must hold, and which of their columns are left then: all of them, or these.
#[derive(Debug)]
struct Filter {
    predicate: Arc<dyn PhysicalExpr>,
    columns: Option<Vec<usize>>,
}

impl Filter {
    fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let holds = self.predicate.evaluate(batch)?.into_array(batch.num_rows())?;
        // Columns that the predicate alone needs are not copied.
        let left = match &self.columns {
            Some(columns) => &batch.project(columns)?,
            None => batch,
        };
        Ok(filter_record_batch(left, as_boolean_array(&holds)?)?)
    }
}

impl Reduction {
    /// What an aggregate does, and the plan that its rows come from. `None` if it is no first step, may have as many
    /// groups as rows, or asks for more than groups.
    pub(crate) fn of(a: &AggregateExec) -> Option<(Reduction, &Arc<dyn ExecutionPlan>)> {
        let groups = a.group_expr();
        let plain = |e: &Arc<AggregateFunctionExpr>| {
            e.groups_accumulator_supported() && e.order_bys().is_empty() && !e.is_distinct()
        };
        let fits = *a.mode() == AggregateMode::Partial
            && a.limit_options().is_none()
            && groups.is_single()
            && groups.expr().iter().all(|(e, _)| has_few(e))
            && a.aggr_expr().iter().all(plain);
        let keys = groups.group_schema(&a.input_schema()).ok().filter(|_| fits)?;
        let mut input = undealt(a.input());
        let mut filter = None;
        if let Some(f) = input.downcast_ref::<FilterExec>().filter(|f| f.fetch().is_none()) {
            let columns = f.projection().as_ref().map(|p| p.to_vec());
            filter = Some(Filter { predicate: f.predicate().clone(), columns });
            input = undealt(f.input());
        }
        let reduction = Reduction {
            filter,
            groups: groups.clone(),
            keys,
            aggregates: a.aggr_expr().to_vec(),
            filters: a.filter_expr().to_vec(),
            schema: a.schema(),
        };
        Some((reduction, input))
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The batch's groups, each with the state of its aggregates.
    pub(crate) fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let filtered = self.filter.as_ref().map(|f| f.apply(batch)).transpose()?;
        let batch = filtered.as_ref().unwrap_or(batch);
        let rows = batch.num_rows();
        let keys = evaluate_group_by(&self.groups, batch)?.pop().unwrap_or_default();
        let (mut columns, of_row, total) = self.group(&keys, rows)?;
        for (aggregate, filter) in self.aggregates.iter().zip(&self.filters) {
            let args = aggregate.expressions();
            let args: Vec<ArrayRef> =
                args.iter().map(|e| e.evaluate(batch)?.into_array(rows)).collect::<Result<_>>()?;
            let filter: Option<BooleanArray> = match filter {
                Some(f) => Some(as_boolean_array(&f.evaluate(batch)?.into_array(rows)?)?.clone()),
                None => None,
            };
            let mut state = aggregate.create_groups_accumulator()?;
            state.update_batch(&args, &of_row, filter.as_ref(), total)?;
            columns.extend(state.state(EmitTo::All)?);
        }
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }

    /// The groups' values, each row's group, and how many groups there are.
    fn group(&self, keys: &[ArrayRef], rows: usize) -> Result<(Vec<ArrayRef>, Vec<usize>, usize)> {
        if keys.is_empty() {
            return Ok((Vec::new(), vec![0; rows], 1));
        }
        let runs = partition(keys)?.ranges();
        let firsts: UInt32Array = runs.iter().map(|r| r.start as u32).collect();
        let (mut groups, mut of_run) =
            (new_group_values(self.keys.clone(), &GroupOrdering::None)?, Vec::new());
        groups.intern(&take_arrays(keys, &firsts, None)?, &mut of_run)?;
        let mut of_row = Vec::with_capacity(rows);
        for (run, group) in runs.iter().zip(of_run) {
            of_row.resize(run.end, group);
        }
        let total = groups.len();
        Ok((groups.emit(EmitTo::All)?, of_row, total))
    }
}

/// The plan before its rows are dealt out to several threads: a scan has threads of its own.
fn undealt(mut plan: &Arc<dyn ExecutionPlan>) -> &Arc<dyn ExecutionPlan> {
    while let Some(dealt) = plan.downcast_ref::<RepartitionExec>() {
        plan = dealt.input();
    }
    plan
}

/// Whether an expression has few values in a block.
fn has_few(e: &Arc<dyn PhysicalExpr>) -> bool {
    if let Some(c) = e.downcast_ref::<Column>() {
        return FEW.contains(&c.name());
    }
    if e.downcast_ref::<Literal>().is_some() {
        return true;
    }
    if let Some(f) = e.downcast_ref::<ScalarFunctionExpr>()
        && COARSE.contains(&f.name())
    {
        return collect_columns(e).iter().all(|c| c.name() == "time" || FEW.contains(&c.name()));
    }
    !e.children().is_empty() && e.children().into_iter().all(has_few)
}
