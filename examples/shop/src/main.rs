//! The shop: one binary, three services and a load generator, chosen by `SHOP_ROLE`.
//!
//! `web` (shows pages, asks cart) → `cart` (keeps nothing, asks stock) → `stock` (answers). `load` asks web. Each
//! writes one JSON line a request, numbered without gap, to stdout; counts requests at `/metrics`; and sends a span
//! a request over OTLP/HTTP, the trace carried on in `traceparent`.
//!
//! Switches, changed while it runs by `PUT /switch?fault=0.2&burn=50`: the share of requests that fail, and
//! milliseconds of CPU burnt by each request.

mod load;
mod serve;
mod state;
mod trace;

use std::sync::Arc;

use state::Shop;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let shop = Arc::new(Shop::from_environment()?);
    shop.log("info", "started", &[]);
    let spans = trace::start(shop.clone());
    let stop = async {
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        term.recv().await;
        Ok::<(), std::io::Error>(())
    };
    let work = async {
        match shop.role.as_str() {
            "load" => load::run(shop.clone()).await,
            _ => serve::run(shop.clone(), spans).await,
        }
    };
    tokio::select! {
        r = work => r?,
        r = stop => r?,
    }
    shop.log("info", "stopped", &[]);
    Ok(())
}
