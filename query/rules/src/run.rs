//! Which groups run, and when.

mod task;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use promql::Engine;
use signal::time::SharedClock;
use signal::{SeriesSource, Sink, Timestamp};
use template::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::file::GroupSpec;
use crate::group::{Group, GroupView};
use crate::metrics::{GroupLabel, METRICS};
use crate::notify::Notifier;
use crate::source::{Source, SourceFile};
use crate::texts;

/// The rules of this process.
pub struct Rules {
    config: Config,
    engine: Engine,
    samples: Arc<dyn SeriesSource>,
    sink: Arc<dyn Sink>,
    clock: SharedClock,
    notifier: Notifier,
    external_labels: Value,
    /// Groups that are evaluated at once.
    places: Semaphore,
    /// Held while files are read and groups start and end, which is one after the other.
    source: tokio::sync::Mutex<Box<dyn Source>>,
    state: Mutex<State>,
    stop: CancellationToken,
}

#[derive(Default)]
struct State {
    groups: BTreeMap<(PathBuf, String), Running>,
    files: BTreeMap<PathBuf, File>,
    /// When files were read last; `None` before the first time.
    loaded_at: Option<Timestamp>,
}

/// What is known of a file.
#[derive(Default)]
struct File {
    /// As of when it was good.
    groups: Vec<GroupSpec>,
    /// What is wrong with it now.
    errors: Vec<String>,
}

struct Running {
    spec: GroupSpec,
    view: Shown,
    stop: CancellationToken,
    task: JoinHandle<Group>,
}

/// What a group shows: put out as a whole after each evaluation.
type Shown = Arc<Mutex<Arc<GroupView>>>;

impl Rules {
    pub fn new(
        config: Config,
        source: Box<dyn Source>,
        engine: Engine,
        samples: Arc<dyn SeriesSource>,
        sink: Arc<dyn Sink>,
        clock: SharedClock,
        stop: CancellationToken,
    ) -> Arc<Rules> {
        Arc::new(Rules {
            notifier: Notifier::new(&config.alertmanagers, config.external_labels.clone()),
            external_labels: texts::labels_value(&config.external_labels),
            places: Semaphore::new(config.concurrency),
            config,
            engine,
            samples,
            sink,
            clock,
            source: tokio::sync::Mutex::new(source),
            state: Mutex::default(),
            stop,
        })
    }

    /// Reads files whenever they change, until the process ends. Groups run on the runtime of this future.
    pub async fn run(self: Arc<Self>) {
        self.notifier.start(&self.stop);
        loop {
            self.clone().load(false).await;
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(self.config.poll) => {}
            }
        }
    }

    /// Reads all files now. Errors: what is wrong with them; those that are good are in force all the same.
    pub async fn reload(self: Arc<Self>) -> Result<(), Vec<String>> {
        self.clone().load(true).await;
        let problems = self.problems();
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// All groups, in order of files and names.
    pub fn groups(&self) -> Vec<Arc<GroupView>> {
        self.state.lock().groups.values().map(|g| g.view.lock().clone()).collect()
    }

    /// What is wrong with rule files; their last good rules stay in force.
    pub fn problems(&self) -> Vec<String> {
        self.state.lock().files.values().flat_map(|f| f.errors.iter().cloned()).collect()
    }

    /// When rule files were read last.
    pub fn loaded_at(&self) -> Option<Timestamp> {
        self.state.lock().loaded_at
    }

    /// Where alerts are sent.
    pub fn alertmanagers(&self) -> Vec<String> {
        self.notifier.urls()
    }

    async fn load(self: Arc<Self>, anyway: bool) {
        let rules = self.clone();
        // A reload that its caller gives up must not leave half of the groups behind.
        let whole = telemetry::task::spawn("rules-load", async move {
            let mut source = rules.source.lock().await;
            let files = tokio::task::block_in_place(|| source.read(anyway));
            if let Some(files) = files {
                rules.apply(files).await;
            }
        });
        if let Err(e) = whole.await {
            tracing::error!(error = %e, "rules could not be read");
        }
    }

    /// Starts, changes and ends groups, so that those of the files run.
    async fn apply(self: &Arc<Self>, files: Vec<SourceFile>) {
        let (wanted, is_first) = self.take_files(files);
        let gone: Vec<((PathBuf, String), Running)> = {
            let state = &mut *self.state.lock();
            state.groups.extract_if(.., |key, g| wanted.get(key) != Some(&g.spec)).collect()
        };
        let mut old = BTreeMap::new();
        for (key, g) in gone {
            g.stop.cancel();
            match g.task.await {
                Ok(group) => drop(old.insert(key, group)),
                Err(e) => tracing::error!(group = key.1, error = %e, "a rule group ended unexpectedly"),
            }
        }
        for ((file, name), spec) in wanted {
            let key = (file.clone(), name);
            if self.state.lock().groups.contains_key(&key) {
                continue;
            }
            let mut group = Group::new(spec, file, self.config.interval, !is_first);
            if let Some(old) = old.remove(&key) {
                group.inherit(old);
            }
            self.start(key, group);
        }
        for ((file, name), group) in old {
            METRICS.forget(&label(&file, &name));
            telemetry::task::spawn("rules-end", self.clone().end(group));
        }
    }

    /// Keeps what the files say, and gives the groups that shall run.
    fn take_files(&self, files: Vec<SourceFile>) -> (BTreeMap<(PathBuf, String), GroupSpec>, bool) {
        let state = &mut *self.state.lock();
        let is_first = state.loaded_at.replace(self.clock.now()).is_none();
        state.files.retain(|p, _| files.iter().any(|f| f.path == *p));
        for f in files {
            let known = state.files.entry(f.path.clone()).or_default();
            match f.groups {
                Ok(groups) => *known = File { groups, errors: Vec::new() },
                Err(errors) => {
                    for e in &errors {
                        tracing::error!(
                            error = e,
                            "a rule file is broken: its last good rules stay in force"
                        );
                    }
                    known.errors = errors;
                }
            }
        }
        let broken = state.files.values().filter(|f| !f.errors.is_empty()).count();
        METRICS.broken_files.set(i64::try_from(broken).unwrap_or(i64::MAX));
        METRICS.loaded.set(i64::from(broken == 0));
        METRICS.loaded_at.set(self.clock.now().secs_f64());
        let groups = state.files.iter().flat_map(|(p, f)| f.groups.iter().map(move |g| (p, g)));
        (groups.map(|(p, g)| ((p.clone(), g.name.clone()), g.clone())).collect(), is_first)
    }

    fn start(self: &Arc<Self>, key: (PathBuf, String), group: Group) {
        let label = label(&key.0, &key.1);
        METRICS.interval.get_or_create(&label).set(group.interval.as_secs_f64());
        METRICS.rules.get_or_create(&label).set(i64::try_from(group.rules.len()).unwrap_or(i64::MAX));
        let view = Arc::new(Mutex::new(group.view()));
        let stop = self.stop.child_token();
        let spec = group.spec.clone();
        let task =
            telemetry::task::spawn("rule-group", task::run(self.clone(), group, view.clone(), stop.clone()));
        self.state.lock().groups.insert(key, Running { spec, view, stop, task });
    }

    /// Ends the series of a group that is gone, after a while in which another file may have taken them over.
    async fn end(self: Arc<Self>, group: Group) {
        let wait = group.interval * 2;
        let now = self.clock.now().millis();
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(wait) => task::end(self, group, now).await,
        }
    }
}

fn label(file: &std::path::Path, name: &str) -> GroupLabel {
    GroupLabel { rule_group: format!("{};{name}", file.display()) }
}

#[cfg(test)]
mod tests;
