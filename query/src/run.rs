//! Where queries run: at most so many at once, off the async threads, stopped when nobody waits any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::App;
use crate::error::Failure;

/// Sets the flag when the request's future is dropped, which is what a client that hangs up does.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs blocking work in a place of its own; `work` gets a flag that turns true when it should stop.
pub(crate) async fn run<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(&App, Arc<AtomicBool>) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let _place = app.places.acquire().await.map_err(|_| Failure::Canceled("shutting down".to_owned()))?;
    let stop = Arc::new(AtomicBool::new(false));
    let _guard = StopOnDrop(stop.clone());
    let app = app.clone();
    tokio::task::spawn_blocking(move || work(&app, stop))
        .await
        .map_err(|e| Failure::Internal(format!("the query failed unexpectedly: {e}")))?
}
