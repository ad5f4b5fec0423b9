//! Runs test scripts for TraceQL:
//!
//! ```text
//! load
//!   trace 1
//!     a service=web name="GET /" kind=server start=1s duration=100ms status=error http.status_code=500
//!     b parent=a service=db resource.region=eu event=retry@5ms link=2/c
//!
//! eval search from 0s to 1m { status = error } >> { resource.service.name = "db" }
//!   trace 1: b
//!
//! eval metrics from 0s to 20s step 10s { } | rate() by (resource.service.name)
//!   {resource.service.name=web} 0.1 0
//!
//! eval parse { .a = }
//!   expect fail msg: parse error at line 1, col 8: syntax error: unexpected }
//! ```
//!
//! A search's answer has a line for each spanset; `expect ordered` wants the traces in this order. Every evaluation
//! runs over spans in memory and over the same on disk.

use std::path::Path;
use std::time::Duration;

use log_index::{Config, Kind, LogIndex};
use signal::{
    Labels, Span, SpanBatch, SpanEvent, SpanId, SpanKind, SpanLink, SpanStatus, SpanStream, Timestamp,
    TraceId,
};

use super::{Engine, Found, Limits, Options, Series, parse};
use crate::script::Report;
use crate::script::read::{Fail, attribute, millis, pairs};

/// Runs a file. Errors: it cannot be read, or its commands are not understood.
pub fn run_file(path: &Path) -> Result<Report, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    run(&text)
}

/// Runs a script.
pub fn run(text: &str) -> Result<Report, String> {
    let mut report = Report::default();
    let mut world = World::new()?;
    let mut lines = text.lines().enumerate().map(|(i, l)| (i + 1, l)).peekable();
    while let Some((number, line)) = lines.next() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut block = Vec::new();
        while let Some((_, l)) = lines.next_if(|(_, l)| l.starts_with([' ', '\t']) || l.trim().is_empty()) {
            let l = l.trim();
            if !l.is_empty() && !l.starts_with('#') {
                block.push(l);
            }
        }
        let wrong = |e: String| format!("line {number}: {e}");
        match line.split_once(' ').unwrap_or((line, "")) {
            ("clear", _) => world = World::new()?,
            ("load", _) => world.load(&block).map_err(wrong)?,
            ("eval", rest) => {
                let eval = Eval::read(rest, &block).map_err(wrong)?;
                match world.check(&eval) {
                    Ok(()) => report.passed += 1,
                    Err(why) => {
                        report.failed += 1;
                        report.failures.push(format!("line {number}: {}: {why}", eval.query));
                    }
                }
            }
            (word, _) => return Err(wrong(format!("{word:?} is no command: clear, load or eval"))),
        }
    }
    Ok(report)
}

struct Eval {
    when: When,
    query: String,
    fail: Option<Fail>,
    ordered: bool,
    expected: Vec<String>,
}

enum When {
    Parse,
    /// Milliseconds.
    Search {
        start: i64,
        end: i64,
        limit: usize,
    },
    Metrics {
        start: i64,
        end: i64,
        step: i64,
    },
}

impl Eval {
    fn read(rest: &str, block: &[&str]) -> Result<Eval, String> {
        let (kind, mut rest) = rest.split_once(' ').ok_or("search, metrics or parse is missing")?;
        let mut take = |word: &str| -> Option<&str> {
            let after = rest.trim_start().strip_prefix(word)?.strip_prefix(' ')?.trim_start();
            let end = after.find(' ').unwrap_or(after.len());
            rest = &after[end..];
            Some(&after[..end])
        };
        let when = if kind == "parse" {
            When::Parse
        } else {
            let start = millis(take("from").ok_or("from TIME is missing")?)?;
            let end = millis(take("to").ok_or("to TIME is missing")?)?;
            match kind {
                "search" => {
                    let limit =
                        take("limit").map_or(Ok(100), |n| n.parse().map_err(|_| "limit is a number"))?;
                    When::Search { start, end, limit }
                }
                "metrics" => {
                    let step = millis(take("step").ok_or("step DURATION is missing")?)?;
                    When::Metrics { start, end, step }
                }
                _ => return Err(format!("{kind:?}: search, metrics or parse is expected")),
            }
        };
        let mut e =
            Eval { when, query: rest.trim().to_owned(), fail: None, ordered: false, expected: Vec::new() };
        for line in block {
            match line.strip_prefix("expect ") {
                None => e.expected.push((*line).to_owned()),
                Some("ordered") => e.ordered = true,
                Some("fail") => e.fail = Some(Fail::Any),
                Some(what) => {
                    e.fail =
                        Some(match (what.strip_prefix("fail msg: "), what.strip_prefix("fail regex: ")) {
                            (Some(m), _) => Fail::Message(m.to_owned()),
                            (_, Some(r)) => Fail::Regex(regex::Regex::new(r).map_err(|e| e.to_string())?),
                            _ => return Err(format!("expect {what}: fail or ordered is known")),
                        });
                }
            }
        }
        Ok(e)
    }
}

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
            let index = LogIndex::open(Config::new(dir.path().join(name), Kind::Spans));
            index.map(|i| Engine::new(i, Limits::default())).map_err(|e| e.to_string())
        };
        Ok(World { memory: open("memory")?, disk: open("disk")?, _dir: dir, runtime })
    }

    fn load(&mut self, block: &[&str]) -> Result<(), String> {
        let mut batch = SpanBatch::default();
        let mut trace = TraceId::INVALID;
        for line in block {
            match line.strip_prefix("trace ") {
                Some(n) => trace = trace_id(n)?,
                None => batch.streams.push(span(trace, line)?),
            }
        }
        self.runtime.block_on(async {
            for engine in [&self.memory, &self.disk] {
                engine.index().append_spans(batch.clone()).await.map_err(|e| e.to_string())?;
            }
            self.disk.index().flush().await.map_err(|e| e.to_string())
        })
    }

    fn check(&self, eval: &Eval) -> Result<(), String> {
        for (place, engine) in [("in memory", &self.memory), ("on disk", &self.disk)] {
            outcome(eval, ask(engine, eval)).map_err(|e| format!("{place}: {e}"))?;
        }
        Ok(())
    }
}

fn trace_id(n: &str) -> Result<TraceId, String> {
    format!("{:0>32}", n.trim()).parse().map_err(|e| format!("trace {n}: {e}"))
}

/// A name of up to eight letters is an id.
fn span_id(name: &str) -> SpanId {
    let mut id = [0; 8];
    name.bytes().take(8).enumerate().for_each(|(i, b)| id[i] = b);
    SpanId(id)
}

fn nanos(text: &str) -> Result<i64, String> {
    let seconds = crate::fields::duration(text).ok_or_else(|| format!("{text:?} is no duration"))?;
    Ok((seconds * 1e9).round() as i64)
}

fn span(trace_id_: TraceId, line: &str) -> Result<SpanStream, String> {
    let (id, rest) = line.split_once(' ').unwrap_or((line, ""));
    let mut s = Span { trace_id: trace_id_, span_id: span_id(id), name: id.to_owned(), ..Span::default() };
    let (mut start, mut length, mut message) = (0, 0, String::new());
    let mut stream = SpanStream::default();
    let mut labels = vec![("service_name".to_owned(), String::new())];
    for (name, value) in pairs(rest)? {
        match name.as_str() {
            "parent" => s.parent_span_id = span_id(&value),
            "service" => labels[0].1 = value,
            "namespace" => labels.push((name, value)),
            "name" => s.name = value,
            "start" => start = nanos(&value)?,
            "duration" => length = nanos(&value)?,
            "message" => message = value,
            "kind" => {
                s.kind = (0..6)
                    .map(SpanKind::from_number)
                    .find(|k| k.as_str() == value)
                    .ok_or_else(|| format!("{value:?} is no kind"))?;
            }
            "status" => {
                s.status = match value.as_str() {
                    "ok" => SpanStatus::Ok,
                    "error" => SpanStatus::Error(String::new()),
                    _ => SpanStatus::Unset,
                }
            }
            "event" => {
                let (name, after) = value.split_once('@').unwrap_or((&value, "0"));
                let timestamp = Timestamp(start + nanos(after)?);
                s.events.push(SpanEvent { timestamp, name: name.to_owned(), attributes: Default::default() });
            }
            "link" => {
                let (t, id) = value.split_once('/').ok_or("link=TRACE/SPAN")?;
                s.links.push(SpanLink {
                    trace_id: trace_id(t)?,
                    span_id: span_id(id),
                    attributes: Default::default(),
                });
            }
            n => match (n.strip_prefix("resource."), n.strip_prefix("event."), n.strip_prefix("link.")) {
                (Some(n), ..) => stream.resource.set(n, attribute(&value)),
                (_, Some(n), _) => {
                    let e = s.events.last_mut().ok_or("event.x=… needs event=… before it")?;
                    e.attributes.set(n, attribute(&value));
                }
                (.., Some(n)) => {
                    let l = s.links.last_mut().ok_or("link.x=… needs link=… before it")?;
                    l.attributes.set(n, attribute(&value));
                }
                _ => s.attributes.set(n, attribute(&value)),
            },
        }
    }
    (s.start, s.end) = (Timestamp(start), Timestamp(start + length));
    if let SpanStatus::Error(m) = &mut s.status {
        *m = message;
    }
    stream.labels = Labels::from_pairs(labels);
    stream.spans.push(s);
    Ok(stream)
}

fn ask(engine: &Engine, eval: &Eval) -> Result<Vec<String>, String> {
    let q = parse(&eval.query).map_err(|e| e.to_string())?;
    let at = Timestamp::from_millis;
    match eval.when {
        When::Parse => Ok(Vec::new()),
        When::Search { start, end, limit } => {
            let o = Options { limit, ..Options::default() };
            let (found, _) = engine.search(&q, at(start), at(end), &o).map_err(|e| e.to_string())?;
            Ok(found.iter().flat_map(spansets).collect())
        }
        When::Metrics { start, end, step } => {
            let step_ = Duration::from_millis(u64::try_from(step).unwrap_or(1));
            let all = engine.measure(&q, at(start), at(end), Some(step_), &Options::default());
            Ok(all.map_err(|e| e.to_string())?.iter().map(|s| series(s, start, end, step)).collect())
        }
    }
}

/// `trace 1: a b`, with what `by()` and aggregates say in braces.
fn spansets(f: &Found) -> Vec<String> {
    let id = f.trace_id.to_string();
    let set = |s: &super::FoundSet| {
        let mut line = format!("trace {}:", id.trim_start_matches('0'));
        for span in &s.spans {
            let name: String = span.span_id.0.iter().filter(|b| **b != 0).map(|b| char::from(*b)).collect();
            line.push_str(&format!(" {name}"));
        }
        if !s.attributes.is_empty() {
            let all: Vec<String> = s.attributes.iter().map(|(n, v)| format!("{n}={v}")).collect();
            line.push_str(&format!(" {{{}}}", all.join(", ")));
        }
        line
    };
    f.sets.iter().map(set).collect()
}

fn series(s: &Series, start: i64, end: i64, step: i64) -> String {
    let labels: Vec<String> = s.labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
    let mut out = format!("{{{}}}", labels.join(", "));
    let mut t = start.div_euclid(step) * step + step;
    while t < end + step {
        match s.samples.iter().find(|(at, _)| *at == t) {
            Some((_, v)) => out.push_str(&format!(" {}", (v * 1e6).round() / 1e6)),
            None => out.push_str(" _"),
        }
        t += step;
    }
    out
}

fn outcome(eval: &Eval, got: Result<Vec<String>, String>) -> Result<(), String> {
    let mut got = match (got, &eval.fail) {
        (Ok(got), None) => got,
        (Ok(_), Some(_)) => return Err("should have failed".to_owned()),
        (Err(e), None) => return Err(format!("failed: {e}")),
        (Err(e), Some(f)) => {
            let fits = match f {
                Fail::Any => true,
                Fail::Message(m) => *m == e,
                Fail::Regex(r) => r.is_match(&e),
            };
            return if fits { Ok(()) } else { Err(format!("failed otherwise: {e}")) };
        }
    };
    let mut expected = eval.expected.clone();
    if !eval.ordered {
        got.sort();
        expected.sort();
    }
    if got == expected { Ok(()) } else { Err(format!("expected {expected:?}, got {got:?}")) }
}
