//! What reads bytes of others must read or refuse them: it must not panic, nor take memory or time without bound.
//!
//! `make fuzz` runs each target for a minute with coverage; `cargo test -p fuzz` runs the seeds, among them what once
//! crashed a target. A target takes any bytes.

mod logs;
mod store;
mod wire;

use collector::exposition::{Format, parse, parse_protobuf};

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// All targets, by the name of their directory in `seeds`.
pub const TARGETS: [(&str, Target); 20] = [
    ("promql", promql),
    ("logql", logql),
    ("traceql", traceql),
    ("words", words),
    ("loki_push", wire::loki_push),
    ("exposition", exposition),
    ("protobuf", protobuf),
    ("otlp", wire::otlp),
    ("cri", wire::cri),
    ("syslog", wire::syslog),
    ("fluent", wire::fluent),
    ("bulk", wire::bulk),
    ("zipkin", wire::zipkin),
    ("remote_write", wire::remote_write),
    ("remote_read", wire::remote_read),
    ("chunk", wire::chunk),
    ("log", store::log),
    ("block", store::block),
    ("log_frames", logs::frames),
    ("partition", logs::partition),
];

pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|t| t.0 == name).map(|t| t.1)
}

/// What parses is printed and parsed again, and is then the same.
fn promql(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(e) = promql::parse(text) {
        let once = e.to_string();
        let again = promql::parse(&once).unwrap_or_else(|e| panic!("{text:?} is printed as {once:?}: {e}"));
        assert_eq!(again.to_string(), once, "{text:?}");
    }
}

/// What parses is laid out, and then laid out no other way.
fn logql(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if logql::parse(text).is_ok() {
        let once = logql::format(text).unwrap_or_else(|e| panic!("{text:?} cannot be laid out: {e}"));
        let again = logql::format(&once).unwrap_or_else(|e| panic!("{text:?} is laid out as {once:?}: {e}"));
        assert_eq!(again, once, "{text:?}");
    }
}

fn traceql(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        drop(logql::traceql::parse(text));
    }
}

/// Whatever is typed into the search box becomes a query that parses.
fn words(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let query = logql::words::translate(text).query("{a=\"b\"}", "| json");
    logql::parse(&query).unwrap_or_else(|e| panic!("{text:?} became {query:?}: {e}"));
}

/// All text formats; what the strictest takes the others take too.
fn exposition(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    drop(parse(text, Format::Text));
    let lenient = parse(text, Format::OpenMetrics);
    if let Ok(strict) = parse(text, Format::Strict) {
        assert_eq!(lenient.map(|e| e.samples.len()), Ok(strict.samples.len()), "{text:?}");
    }
}

fn protobuf(data: &[u8]) {
    drop(parse_protobuf(data));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_seed_crashes_its_target() {
        for (name, target) in TARGETS {
            let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name);
            let mut n = 0;
            for entry in std::fs::read_dir(&dir).expect("a directory of seeds") {
                let path = entry.expect("an entry").path();
                let seed = std::fs::read(&path).expect("a seed");
                println!("{}", path.display());
                target(&seed);
                // Cut anywhere, too.
                (0..seed.len()).step_by(seed.len() / 40 + 1).for_each(|at| target(&seed[..at]));
                n += 1;
            }
            assert!(n > 0, "{name} has no seeds");
        }
    }
}
