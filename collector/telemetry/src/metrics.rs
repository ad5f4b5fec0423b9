//! The process's own metrics: one registry, filled by each room, read by the collector and `/metrics`.

mod process;
mod text;

use std::sync::LazyLock;

use parking_lot::Mutex;
use prometheus_client::encoding::text::encode as encode_text;
use prometheus_client::registry::Registry;

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(|| {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(process::Process));
    Mutex::new(registry)
});

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

/// What a client gets that asks for metrics with this `Accept`: a content type and the text. OpenMetrics if it names it,
/// or else Prometheus' own text format, 0.0.4.
pub fn answer(accept: Option<&str>) -> (&'static str, String) {
    let open = "application/openmetrics-text";
    if accept.is_some_and(|a| a.split(',').any(|m| m.split(';').next().unwrap_or_default().trim() == open)) {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", encode())
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", text::from_open_metrics(&encode()))
    }
}
