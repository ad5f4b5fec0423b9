//! How fast expositions are read: all of it, and as a scraper does that has seen the series before.
//! `cargo bench -p collector -p orchestrator --bench exposition`.

use std::hint::black_box;
use std::sync::Arc;

use collector::exposition::{Format, parse};
use collector::scrape::intake::{Body, Counts, Intake};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use signal::Labels;

/// As a node_exporter of many cores writes them.
fn text(is_openmetrics: bool) -> String {
    let mut out = String::new();
    for family in 0..50 {
        let (base, total) = if is_openmetrics { ("", "_total") } else { ("_total", "_total") };
        out += &format!("# HELP node_family_{family}{base} Seconds the CPUs spent in each mode.\n");
        out += &format!("# TYPE node_family_{family}{base} counter\n");
        for cpu in 0..20 {
            for mode in ["idle", "iowait", "system", "user"] {
                let value = f64::from(family * 1000 + cpu) * 1.37;
                out += &format!("node_family_{family}{total}{{cpu=\"{cpu}\",mode=\"{mode}\"}} {value}\n");
            }
        }
    }
    if is_openmetrics {
        out += "# EOF\n";
    }
    out
}

fn benches(c: &mut Criterion) {
    let mut g = c.benchmark_group("exposition");
    for (name, format) in
        [("text", Format::Text), ("openmetrics", Format::OpenMetrics), ("strict", Format::Strict)]
    {
        let text = text(format != Format::Text);
        g.throughput(Throughput::Bytes(text.len() as u64));
        g.bench_function(format!("whole/{name}"), |b| b.iter(|| parse(black_box(&text), format)));
        if format == Format::Strict {
            continue;
        }
        let target = Labels::from_pairs([("job", "node"), ("instance", "a:9100")]);
        let mut intake = Intake::new(target, Arc::default());
        let mut now = 0;
        g.bench_function(format!("again/{name}"), |b| {
            b.iter(|| {
                now += 1000;
                intake.take(Body::Text(black_box(&text), format), now, &mut Counts::default())
            });
        });
    }
    g.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
