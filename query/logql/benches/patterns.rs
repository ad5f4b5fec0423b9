//! What mining costs for each batch of 200 lines that is appended, and for a flood.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use logql::patterns::Miner;
use signal::{Labels, LogRecord, LogStream, Timestamp};

fn stream(lines: usize) -> LogStream {
    let record = |i: usize| LogRecord {
        timestamp: Timestamp::from_secs(1_700_000_000 + i as i64 / 100),
        body: match i % 4 {
            0 => format!(
                r#"10.0.{}.{} - - "GET /cart/{i} HTTP/1.1" 200 {} "agent/1.0""#,
                i % 256,
                i % 99,
                i * 7
            ),
            1 => format!("level=info msg=\"order placed\" order={i} took={}ms", i % 500),
            2 => format!(
                "W1123 10:00:{:02}.000 controller.go:{} requeue after error: conflict",
                i % 60,
                i % 900
            ),
            _ => format!("connection to 192.168.0.{} closed after {} bytes", i % 256, i * 31),
        },
        ..LogRecord::default()
    };
    LogStream { labels: Labels::from_pairs([("pod", "a")]), records: (0..lines).map(record).collect() }
}

fn mining(c: &mut Criterion) {
    let mut g = c.benchmark_group("patterns");
    for lines in [200, 20_000] {
        let s = stream(lines);
        let mut m = Miner::new(Timestamp::from_secs(1_700_000_000));
        g.throughput(Throughput::Elements(lines as u64));
        g.bench_function(format!("{lines} lines"), |b| b.iter(|| m.add(&s)));
    }
}

criterion_group!(benches, mining);
criterion_main!(benches);
