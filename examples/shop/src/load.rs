//! The load generator: so many requests a second at `SHOP_NEXT`, each a trace of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::state::{Shop, now_nanos};

/// Requests on their way at once; more than that are not made, and said.
const AT_ONCE: usize = 64;

pub(crate) async fn run(shop: Arc<Shop>) -> std::io::Result<()> {
    // A connection for each request, as many clients would make: kept ones would all stay with the first pod.
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http::<Full<Bytes>>();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / shop.rate.max(0.1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let paths = ["/", "/products", "/cart", "/checkout"];
    loop {
        ticks.tick().await;
        let Ok(place) = places.clone().try_acquire_owned() else {
            shop.log("warn", "the shop is too slow for this rate", &[]);
            continue;
        };
        let path = paths[rand::random_range(0..paths.len())];
        let request = http::Request::get(format!("{}{path}", shop.next)).body(Full::default());
        let (client, shop) = (client.clone(), shop.clone());
        #[expect(clippy::disallowed_methods, reason = "a program of its own, outside the house")]
        tokio::spawn(async move {
            let _place = place;
            let start = now_nanos();
            let answer = async {
                let response =
                    client.request(request.map_err(|e| e.to_string())?).await.map_err(|e| e.to_string())?;
                let status = response.status();
                response.into_body().collect().await.map_err(|e| e.to_string())?;
                if status.is_success() { Ok(()) } else { Err(format!("status {status}")) }
            };
            let result = tokio::time::timeout(Duration::from_secs(10), answer)
                .await
                .unwrap_or_else(|_| Err("no answer in 10 s".to_owned()));
            shop.count(result.is_ok(), Duration::from_nanos(now_nanos().saturating_sub(start)));
            if let Err(e) = result {
                shop.log("warn", "request failed", &[("path", json!(path)), ("error", json!(e))]);
            }
        });
    }
}
