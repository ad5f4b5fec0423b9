//! Tasks with names: every future that runs on its own is named and counted.

use std::future::Future;
use std::sync::LazyLock;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use tokio::task::JoinHandle;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TaskLabel {
    task: &'static str,
}

struct Tasks {
    running: Family<TaskLabel, Gauge>,
    panics: Family<TaskLabel, Counter>,
}

static TASKS: LazyLock<Tasks> = LazyLock::new(|| {
    let tasks = Tasks { running: Family::default(), panics: Family::default() };
    crate::metrics::register(|r| {
        r.register("binnacle_telemetry_tasks", "Tasks now running, by name", tasks.running.clone());
        r.register("binnacle_telemetry_task_panics", "Tasks that ended in a panic", tasks.panics.clone());
    });
    tasks
});

/// Counts one running task for as long as it lives.
struct Running(TaskLabel);

impl Drop for Running {
    fn drop(&mut self) {
        TASKS.running.get_or_create(&self.0).dec();
        if std::thread::panicking() {
            TASKS.panics.get_or_create(&self.0).inc();
        }
    }
}

/// Runs a future on the current runtime under a name. Dropping the handle detaches it.
#[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
pub fn spawn<T: Send + 'static>(
    name: &'static str,
    future: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    let label = TaskLabel { task: name };
    TASKS.running.get_or_create(&label).inc();
    tokio::spawn(async move {
        let _running = Running(label);
        future.await
    })
}
