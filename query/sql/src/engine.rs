//! The door: a statement and a caller in, an answer out, within bounds.
//!
//! Planning and running happen on two threads of our own, made at the first query. Their stacks are deep because
//! planners go down one level for each operator of a chain; only what is used of them takes memory.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arrow::error::ArrowError;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList,
    MemorySchemaProvider,
};
use datafusion::error::DataFusionError;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::{SQLOptions, SessionContext};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::prelude::SessionConfig;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use log_index::LogIndex;
use parking_lot::Mutex;
use signal::Matcher;
use signal::time::{SharedClock, monotonic};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tsdb::Tsdb;

use crate::answer::{Answer, Column, Writer, type_name};
use crate::config::Config;
use crate::error::Error;
use crate::export::{Encoder, Format};
use crate::function;
use crate::metrics::{METRICS, ResultLabel};
use crate::plan::ReduceScans;
use crate::statement;
use crate::table::history::ObjectsAt;
use crate::table::logql::LogqlFunction;
use crate::table::metric::Tables;
use crate::table::objects::ObjectSource;
use crate::table::promql::PromqlFunction;
use crate::table::{Table, What, World, history, objects as listed, without_objects};

/// Bytes of stack for a chain of as many operators as a statement may have; a test runs one.
pub(crate) const STACK: usize = 64 << 20;
/// Threads that end once they have had nothing to do for so long.
const IDLE_THREAD: std::time::Duration = std::time::Duration::from_secs(5);

/// Pieces of an answer that wait for a slow client.
const PIECES: usize = 4;

const CATALOG: &str = "binnacle";
const SCHEMA: &str = "public";

/// What is read.
#[derive(Clone)]
pub struct Sources {
    pub tsdb: Arc<Tsdb>,
    pub logs: Arc<LogIndex>,
    pub traces: Arc<LogIndex>,
    pub clock: SharedClock,
}

/// Who asks.
#[derive(Clone, Default)]
pub struct Caller {
    /// Matchers that every series, stream and span must meet.
    pub enforce: Vec<Matcher>,
    /// Lists the cluster's objects as this caller; without one `objects` is empty.
    pub objects: Option<Arc<dyn ObjectSource>>,
}

pub struct Engine {
    sources: Sources,
    config: Config,
    places: Arc<Semaphore>,
    core: OnceCell<Core>,
}

/// What the first query makes and all share.
struct Core {
    /// Taken out when the engine goes.
    runtime: Option<Runtime>,
    state: SessionState,
    pool: Arc<dyn MemoryPool>,
}

impl Drop for Core {
    fn drop(&mut self) {
        // Waiting here could block a thread that others need; queries end with their channels.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Ends the query when nobody waits for it any more, which is what a client that hangs up does.
struct EndOnDrop(JoinHandle<Result<Answer, Error>>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Engine {
    pub fn new(sources: Sources, config: Config) -> Self {
        let places = Arc::new(Semaphore::new(config.concurrency));
        Engine { sources, config, places, core: OnceCell::new() }
    }

    /// Runs one statement. Dropping the future stops it.
    pub async fn query(&self, text: &str, caller: Caller) -> Result<Answer, Error> {
        let started = monotonic();
        let result = match tokio::time::timeout(self.config.timeout, self.run(text, caller)).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout(self.config.timeout)),
        };
        let elapsed = monotonic().saturating_duration_since(started);
        let word = result.as_ref().map_or_else(Error::reason, |_| "ok");
        METRICS.queries.get_or_create(&ResultLabel { result: word }).inc();
        METRICS.seconds.observe(elapsed.as_secs_f64());
        result.map(|a| Answer { elapsed, ..a })
    }

    /// Runs one statement and gives its rows as they come, written in `format`: first what stands before all rows. Nothing
    /// comes before the plan is made, so that most mistakes are told at once; an error that comes later is the last item.
    /// Dropping the stream stops the query.
    pub async fn export(
        &self,
        text: &str,
        caller: Caller,
        format: Format,
    ) -> Result<BoxStream<'static, Result<Vec<u8>, Error>>, Error> {
        let (pieces, mut told) = mpsc::channel(PIECES);
        let (core, query, place) = self.prepare(text, caller).await?;
        let (started, timeout) = (monotonic(), self.config.timeout);
        let run = async move {
            let result = tokio::select! {
                () = pieces.closed() => Err(Error::Canceled("the client has gone".to_owned())),
                r = tokio::time::timeout(timeout, query.export(place, format, &pieces)) => {
                    r.unwrap_or(Err(Error::Timeout(timeout)))
                }
            };
            let word = result.as_ref().map_or_else(Error::reason, |()| "ok");
            METRICS.queries.get_or_create(&ResultLabel { result: word }).inc();
            METRICS.seconds.observe(monotonic().saturating_duration_since(started).as_secs_f64());
            if let Err(e) = result {
                // Nobody may be left to be told.
                drop(pieces.send(Err(e)).await);
            }
        };
        {
            let runtime = core.runtime.as_ref().expect("there until the engine is dropped");
            let _inside = runtime.enter();
            telemetry::task::spawn("sql", run);
        }
        match told.recv().await {
            Some(Ok(head)) => {
                let rest = stream::poll_fn(move |cx| told.poll_recv(cx));
                Ok(stream::iter([Ok(head)]).chain(rest).boxed())
            }
            Some(Err(e)) => Err(e),
            None => Err(Error::Internal("a part of the query panicked".to_owned())),
        }
    }

    async fn prepare(
        &self,
        text: &str,
        caller: Caller,
    ) -> Result<(&Core, Query, OwnedSemaphorePermit), Error> {
        let text = text.to_owned();
        let place = self.places.clone().acquire_owned().await.map_err(|e| Error::Canceled(e.to_string()))?;
        let core = self.core.get_or_try_init(|| async { Core::new(&self.config) }).await?;
        let world = World {
            sources: self.sources.clone(),
            config: self.config.clone(),
            enforce: caller.enforce,
            notes: Arc::new(Mutex::new(BTreeSet::new())),
            scans: Arc::new(AtomicUsize::new(0)),
        };
        let query = Query {
            text,
            world,
            objects: caller.objects,
            state: core.state.clone(),
            pool: core.pool.clone(),
        };
        Ok((core, query, place))
    }

    async fn run(&self, text: &str, caller: Caller) -> Result<Answer, Error> {
        let (core, query, place) = self.prepare(text, caller).await?;
        let mut task = {
            let runtime = core.runtime.as_ref().expect("there until the engine is dropped");
            let _inside = runtime.enter();
            EndOnDrop(telemetry::task::spawn("sql", query.run(place)))
        };
        (&mut task.0).await.map_err(|e| match e.is_panic() {
            true => Error::Internal("a part of the query panicked".to_owned()),
            false => Error::Canceled("shutting down".to_owned()),
        })?
    }
}

impl Core {
    fn new(config: &Config) -> Result<Core, Error> {
        let internal = |e: DataFusionError| Error::from_datafusion(e, config.memory_bytes);
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(config.memory_bytes));
        let env = RuntimeEnvBuilder::new()
            .with_memory_pool(pool.clone())
            // A query that does not fit says so; it does not fill the disk that the stores live on.
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
            .build_arc()
            .map_err(internal)?;
        let mut session = SessionConfig::new()
            .with_target_partitions(config.partitions)
            .with_information_schema(true)
            .with_default_catalog_and_schema(CATALOG, SCHEMA);
        session.options_mut().execution.enable_recursive_ctes = false;
        let mut state = SessionStateBuilder::new()
            .with_config(session)
            .with_runtime_env(env)
            .with_default_features()
            .with_physical_optimizer_rule(Arc::new(ReduceScans))
            .build();
        for name in function::TAKEN_AWAY {
            state.deregister_udf(name).map_err(internal)?;
        }
        state.register_udf(Arc::new(function::json_get())).map_err(internal)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(config.partitions)
            // Every scan of every query needs one at the same time, or plans would wait for each other.
            .max_blocking_threads(config.concurrency * config.scans * 2)
            .thread_keep_alive(IDLE_THREAD)
            .thread_name("sql")
            .thread_stack_size(STACK)
            .enable_all()
            .build()
            .map_err(|e| Error::Internal(format!("no threads for SQL: {e}")))?;
        Ok(Core { runtime: Some(runtime), state, pool })
    }
}

struct Query {
    text: String,
    world: World,
    objects: Option<Arc<dyn ObjectSource>>,
    state: SessionState,
    pool: Arc<dyn MemoryPool>,
}

impl Query {
    async fn run(self, _place: OwnedSemaphorePermit) -> Result<Answer, Error> {
        let memory = self.world.config.memory_bytes;
        let statement = statement::parse(&self.text, self.world.config.text_bytes)?;
        let pool = self.pool.clone();
        let result = self.answer(statement).await;
        METRICS.memory.set(i64::try_from(pool.reserved()).unwrap_or(i64::MAX));
        result.map_err(|e| Error::from_datafusion(e, memory))
    }

    /// Sends the rows as they come.
    async fn export(
        self,
        _place: OwnedSemaphorePermit,
        format: Format,
        pieces: &mpsc::Sender<Result<Vec<u8>, Error>>,
    ) -> Result<(), Error> {
        let memory = self.world.config.memory_bytes;
        let statement = statement::parse(&self.text, self.world.config.text_bytes)?;
        let wrong = |e: DataFusionError| Error::from_datafusion(e, memory);
        let mut stream = self.stream(statement).await.map_err(wrong)?;
        let coded = |e: ArrowError| Error::Internal(e.to_string());
        let (mut encoder, head) = Encoder::new(format, &stream.schema()).map_err(coded)?;
        let mut next = head;
        loop {
            if pieces.send(Ok(next)).await.is_err() {
                return Err(Error::Canceled("the client has gone".to_owned()));
            }
            match stream.next().await {
                Some(batch) => next = encoder.batch(&batch.map_err(wrong)?).map_err(coded)?,
                None => break,
            }
        }
        let end = encoder.end().map_err(coded)?;
        pieces.send(Ok(end)).await.map_err(|_| Error::Canceled("the client has gone".to_owned()))
    }

    async fn stream(
        self,
        statement: datafusion::sql::parser::Statement,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        let Query { world, objects, state, .. } = self;
        let ctx = session(state, world, objects)?;
        let plan = ctx.state().statement_to_plan(statement).await?;
        let reading =
            SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        reading.verify_plan(&plan)?;
        ctx.execute_logical_plan(plan).await?.execute_stream().await
    }

    async fn answer(self, statement: datafusion::sql::parser::Statement) -> Result<Answer, DataFusionError> {
        let config = self.world.config.clone();
        let notes = self.world.notes.clone();
        let mut stream = self.stream(statement).await?;
        let columns = stream
            .schema()
            .fields()
            .iter()
            .map(|f| Column { name: f.name().clone(), kind: type_name(f.data_type()) })
            .collect();
        let mut writer = Writer::new(config.rows, config.answer_bytes);
        while let Some(batch) = stream.next().await {
            if !writer.add(&batch?) {
                break;
            }
        }
        drop(stream);
        let mut notes: Vec<String> = notes.lock().iter().cloned().collect();
        if writer.truncated {
            METRICS.truncated.inc();
            notes.push(format!("cut off after {} rows: add a LIMIT or conditions", writer.rows));
        }
        Ok(Answer {
            columns,
            row_count: writer.rows,
            truncated: writer.truncated,
            rows: writer.finish(),
            notes,
            elapsed: std::time::Duration::ZERO,
        })
    }
}

/// The shared state with this query's tables.
fn session(
    state: SessionState,
    world: World,
    objects: Option<Arc<dyn ObjectSource>>,
) -> Result<SessionContext, DataFusionError> {
    // A list of its own: the shared one would hand one caller's tables to another.
    let (catalogs, catalog) = (MemoryCatalogProviderList::new(), MemoryCatalogProvider::new());
    let tables = Tables { fixed: MemorySchemaProvider::new(), world: world.clone() };
    catalog.register_schema(SCHEMA, Arc::new(tables))?;
    catalogs.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
    let state = SessionStateBuilder::new_from_existing(state).with_catalog_list(Arc::new(catalogs)).build();
    let ctx = SessionContext::new_with_state(state);
    let table = |what| Arc::new(Table { what, world: world.clone() });
    ctx.register_table("metrics", table(What::Metrics))?;
    // The same under the name that people coming from PromQL look for.
    ctx.register_table("samples", table(What::Metrics))?;
    ctx.register_table("logs", table(What::Logs))?;
    ctx.register_table("spans", table(What::Spans))?;
    ctx.register_table("decisions", table(What::Decisions))?;
    ctx.register_table("audit", table(What::Audit))?;
    match &objects {
        Some(source) => {
            ctx.register_table("objects", table(What::Objects(source.clone())))?;
            ctx.register_table("object_history", table(What::History(source.clone())))?;
            ctx.register_table("events", table(What::Events(source.clone())))?;
        }
        None => {
            ctx.register_table("objects", Arc::new(without_objects(&listed::SCHEMA)?))?;
            ctx.register_table("object_history", Arc::new(without_objects(&history::SCHEMA)?))?;
            ctx.register_table("events", Arc::new(without_objects(&history::EVENTS)?))?;
        }
    }
    ctx.register_udtf("objects_at", Arc::new(ObjectsAt(world.clone(), objects)));
    ctx.register_udtf("promql", Arc::new(PromqlFunction(world.clone())));
    ctx.register_udtf("logql", Arc::new(LogqlFunction(world)));
    Ok(ctx)
}
