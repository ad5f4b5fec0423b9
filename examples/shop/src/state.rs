//! What one process knows: its role, its switches, its counters, its line number.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

/// Upper bounds of the duration histogram, in seconds.
const BUCKETS: [f64; 8] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

pub(crate) struct Shop {
    pub(crate) role: String,
    pub(crate) port: u16,
    /// Base URL of the service asked next; empty for the last one.
    pub(crate) next: String,
    /// Base URL that takes OTLP over HTTP; empty sends no spans.
    pub(crate) otlp: String,
    /// Requests a second, for the load generator.
    pub(crate) rate: f64,
    /// Share of requests that fail, in thousandths.
    pub(crate) fault: AtomicU64,
    /// CPU burnt by each request, in milliseconds.
    pub(crate) burn: AtomicU64,
    lines: Mutex<u64>,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    ok: u64,
    failed: u64,
    buckets: [u64; BUCKETS.len()],
    seconds: f64,
}

pub(crate) fn now_nanos() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a program of its own, outside the house")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

impl Shop {
    pub(crate) fn from_environment() -> Result<Shop, String> {
        let var = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
        let number =
            |name: &str, default: &str| var(name, default).parse::<f64>().map_err(|e| format!("{name}: {e}"));
        let role = var("SHOP_ROLE", "web");
        if !["web", "cart", "stock", "load"].contains(&role.as_str()) {
            return Err(format!("SHOP_ROLE {role:?}: use web, cart, stock or load"));
        }
        Ok(Shop {
            port: var("SHOP_PORT", "8080").parse().map_err(|e| format!("SHOP_PORT: {e}"))?,
            next: var("SHOP_NEXT", ""),
            otlp: var("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
            rate: number("SHOP_RATE", "5")?,
            fault: AtomicU64::new((number("SHOP_FAULT", "0")? * 1000.0) as u64),
            burn: AtomicU64::new(number("SHOP_BURN_MS", "0")? as u64),
            role,
            lines: Mutex::default(),
            counts: Mutex::default(),
        })
    }

    /// One JSON line to stdout. `n` counts every line of this process from 1, so that a gap or a repeat shows.
    pub(crate) fn log(&self, level: &str, message: &str, fields: &[(&str, Value)]) {
        // Number and line are written under one lock, so that the order of numbers is the order of lines.
        let mut n = self.lines.lock().expect("no line panics half-way");
        *n += 1;
        let mut line = Map::new();
        line.insert("n".to_owned(), json!(*n));
        line.insert("level".to_owned(), json!(level));
        line.insert("service".to_owned(), json!(self.role));
        line.insert("msg".to_owned(), json!(message));
        line.extend(fields.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
        let text = format!("{}\n", Value::Object(line));
        // Nobody reads a closed stdout: there is nothing left to do with the line.
        drop(std::io::stdout().lock().write_all(text.as_bytes()));
    }

    pub(crate) fn count(&self, ok: bool, took: Duration) {
        let mut c = self.counts.lock().expect("counting does not panic");
        if ok {
            c.ok += 1;
        } else {
            c.failed += 1;
        }
        let seconds = took.as_secs_f64();
        c.seconds += seconds;
        for (i, bound) in BUCKETS.iter().enumerate() {
            if seconds <= *bound {
                c.buckets[i] += 1;
            }
        }
    }

    /// The Prometheus text format.
    pub(crate) fn metrics(&self) -> String {
        let c = self.counts.lock().expect("counting does not panic");
        let mut out = String::new();
        let mut line = |text: std::fmt::Arguments<'_>| {
            out.write_fmt(text).expect("writing to a string does not fail");
            out.push('\n');
        };
        let role = &self.role;
        line(format_args!("# HELP http_requests_total Requests answered, by status code."));
        line(format_args!("# TYPE http_requests_total counter"));
        line(format_args!("http_requests_total{{service=\"{role}\",code=\"200\"}} {}", c.ok));
        line(format_args!("http_requests_total{{service=\"{role}\",code=\"500\"}} {}", c.failed));
        line(format_args!("# HELP http_request_duration_seconds How long requests took."));
        line(format_args!("# TYPE http_request_duration_seconds histogram"));
        for (bound, n) in BUCKETS.iter().zip(c.buckets) {
            line(format_args!(
                "http_request_duration_seconds_bucket{{service=\"{role}\",le=\"{bound}\"}} {n}"
            ));
        }
        let total = c.ok + c.failed;
        line(format_args!("http_request_duration_seconds_bucket{{service=\"{role}\",le=\"+Inf\"}} {total}"));
        line(format_args!("http_request_duration_seconds_sum{{service=\"{role}\"}} {}", c.seconds));
        line(format_args!("http_request_duration_seconds_count{{service=\"{role}\"}} {total}"));
        out
    }

    /// Changes switches from a query string; says what they are now.
    pub(crate) fn switch(&self, query: &str) -> Result<String, String> {
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or("write name=value")?;
            let number: f64 = value.parse().map_err(|_| format!("{value:?} is no number"))?;
            match name {
                "fault" => self.fault.store((number.clamp(0.0, 1.0) * 1000.0) as u64, Ordering::Relaxed),
                "burn" => self.burn.store(number.clamp(0.0, 10_000.0) as u64, Ordering::Relaxed),
                _ => return Err(format!("no switch {name:?}: there are fault and burn")),
            }
        }
        let fault = self.fault.load(Ordering::Relaxed) as f64 / 1000.0;
        Ok(format!("fault={fault} burn={}\n", self.burn.load(Ordering::Relaxed)))
    }
}
