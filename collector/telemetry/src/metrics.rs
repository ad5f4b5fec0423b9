//! The process's own metrics: one registry, filled by each room, read by the collector and `/metrics`.

use std::sync::LazyLock;

use parking_lot::Mutex;
use prometheus_client::encoding::text::encode as encode_text;
use prometheus_client::registry::Registry;

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);

/// Registers metrics. Call it once for each metric, from a room's `static METRICS: LazyLock<…>`.
pub fn register(f: impl FnOnce(&mut Registry)) {
    f(&mut REGISTRY.lock());
}

/// All metrics in the OpenMetrics 1.0 text format.
pub fn encode() -> String {
    let mut out = String::with_capacity(32 * 1024);
    encode_text(&mut out, &REGISTRY.lock()).expect("writing to a string does not fail");
    out
}

/// The content type of [`encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
