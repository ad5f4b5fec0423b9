//! Runs test scripts for LogQL, in the manner of Prometheus' promqltest:
//!
//! ```text
//! load
//!   {app="web", pod="a"}
//!     0s "GET / 200" user=ann severity=warn
//!     10s..1m/10s "GET /{{i}} 200"
//!
//! eval log from 0s to 1m limit 2 forward {app="web"} |= "/1"
//!   {app="web", pod="a"} 20s "GET /1 200"
//!
//! eval instant at 1m count_over_time({app="web"}[1m])
//!   {app="web", pod="a"} 6
//!
//! eval range from 0s to 2m step 1m rate({app="web"}[1m])
//!   {app="web", pod="a"} 0.0166 0.1 _
//!
//! eval instant at 1m rate({app="web"})
//!   expect fail msg: parse error at line 1, col 18: …
//! ```
//!
//! Indented lines belong to the command above them. What stands behind a line of a `load` is what the record knows
//! beside its text; `severity`, `trace_id` and `span_id` are the record's own. `a..b/c` stands for a line at each
//! of these times, with `{{i}}` counted from 0. An entry that is expected without labels may come from any stream.
//! Every evaluation runs twice: over records in memory, and over the same on disk.

mod check;
pub(crate) mod read;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use log_index::{Config, Direction, Kind, LogIndex};
use signal::{LogBatch, LogStream, Timestamp};

use crate::eval::{Engine, Limits, LogResult, Options};
use read::{Command, Eval, When};

/// What a script gave.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub passed: usize,
    pub failed: usize,
    /// `line N: query: why`, one for each failed evaluation.
    pub failures: Vec<String>,
}

/// Runs a file. Errors: it cannot be read, or its commands are not understood.
pub fn run_file(path: &Path) -> Result<Report, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    run(&text)
}

/// Runs a script.
pub fn run(text: &str) -> Result<Report, String> {
    let mut report = Report::default();
    let mut world = World::new()?;
    for command in read::script(text)? {
        match command {
            Command::Clear => world = World::new()?,
            Command::Load(streams) => world.load(&streams)?,
            Command::Eval(eval) => match world.check(&eval) {
                Ok(()) => report.passed += 1,
                Err(why) => {
                    report.failed += 1;
                    report.failures.push(format!("line {}: {}: {why}", eval.line, eval.query));
                }
            },
        }
    }
    Ok(report)
}

/// Two indexes with the same records: one keeps them in memory, the other on disk.
struct World {
    _dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    memory: Engine,
    disk: Engine,
}

impl World {
    fn new() -> Result<World, String> {
        let dir = tempfile::tempdir().map_err(|e| format!("a directory for the test: {e}"))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| format!("a runtime for the test: {e}"))?;
        let open = |name: &str| {
            let index = LogIndex::open(Config::new(dir.path().join(name), Kind::Logs));
            index.map(|i| Engine::new(i, Limits::default())).map_err(|e| e.to_string())
        };
        Ok(World { memory: open("memory")?, disk: open("disk")?, _dir: dir, runtime })
    }

    fn load(&mut self, streams: &[LogStream]) -> Result<(), String> {
        let store = async |index: &Arc<LogIndex>| {
            let batch = LogBatch { streams: streams.to_vec(), checkpoints: Vec::new() };
            index.append_logs(batch).await.map(|_| ()).map_err(|e| e.to_string())
        };
        self.runtime.block_on(async {
            store(self.memory.index()).await?;
            store(self.disk.index()).await?;
            self.disk.index().flush().await.map_err(|e| e.to_string())
        })
    }

    fn check(&self, eval: &Eval) -> Result<(), String> {
        for (place, engine) in [("in memory", &self.memory), ("on disk", &self.disk)] {
            check::outcome(eval, ask(engine, eval)).map_err(|e| format!("{place}: {e}"))?;
        }
        Ok(())
    }
}

fn ask(engine: &Engine, eval: &Eval) -> Result<LogResult, String> {
    let at = |ms: i64| Timestamp::from_millis(ms);
    let mut o = Options { limit: 1000, ..Options::default() };
    let answer = match &eval.when {
        When::Instant(t) => engine.instant(&eval.query, at(*t), &o),
        When::Range(start, end, step) => {
            let step = Duration::from_millis(u64::try_from(*step).unwrap_or(1));
            engine.range(&eval.query, at(*start), at(*end), step, &o)
        }
        When::Log { start, end, limit, forward } => {
            o.limit = *limit;
            o.direction = if *forward { Direction::Forward } else { Direction::Backward };
            engine.range(&eval.query, at(*start), at(*end), Duration::from_secs(1), &o)
        }
        When::Format => return Ok(LogResult::Streams(Vec::new())),
    };
    answer.map(|(r, _)| r).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests;
