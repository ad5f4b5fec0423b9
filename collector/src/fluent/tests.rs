//! The forward protocol over a real connection.

use std::io::Write;
use std::sync::Arc;

use rmpv::Value;
use signal::{Identity, SinkError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

use super::message::Scanner;
use super::{Fluent, serve};
use crate::Senders;
use crate::kept::Kept;

fn pack(v: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    rmpv::encode::write_value(&mut out, v).expect("packed");
    out
}

fn entry(line: &str) -> Value {
    // 2026-11-23T10:00:00.5Z as an event time.
    let mut time = 1_795_428_000u32.to_be_bytes().to_vec();
    time.extend_from_slice(&500_000_000u32.to_be_bytes());
    Value::Array(vec![
        Value::Ext(0, time),
        Value::Map(vec![("log".into(), line.into()), ("n".into(), 1.into())]),
    ])
}

fn option(pairs: &[(&str, &str)]) -> Value {
    Value::Map(pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect())
}

async fn start(kept: &Arc<Kept>) -> (TcpStream, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let senders = Senders::new(Arc::default(), Identity::default(), Vec::new());
    let fluent = Fluent::new(kept.clone(), senders, signal::time::system_clock());
    let stop = CancellationToken::new();
    telemetry::task::spawn("test", serve(fluent, listener, udp, stop.clone()));
    (TcpStream::connect(address).await.expect("connected"), stop)
}

#[tokio::test]
async fn every_mode_is_acknowledged_once_stored() {
    let kept = Arc::new(Kept::default());
    let (mut c, stop) = start(&kept).await;
    let packed: Vec<u8> = ["d", "e"].iter().flat_map(|l| pack(&entry(l))).collect();
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zip.write_all(&pack(&entry("f"))).expect("packed");
    let zipped = zip.finish().expect("packed");
    let Value::Array(one) = entry("a") else { panic!("an entry") };
    let messages = [
        Value::Array(vec!["t.x".into(), one[0].clone(), one[1].clone(), option(&[("chunk", "1")])]),
        Value::Array(vec![
            "t.x".into(),
            Value::Array(vec![entry("b"), entry("c")]),
            option(&[("chunk", "2")]),
        ]),
        Value::Array(vec!["t.x".into(), Value::Binary(packed), option(&[("chunk", "3")])]),
        Value::Array(vec![
            "t.x".into(),
            Value::Binary(zipped),
            option(&[("compressed", "gzip"), ("chunk", "4")]),
        ]),
    ];
    for (n, m) in messages.iter().enumerate() {
        // The store is full for a moment: the acknowledgement waits for it.
        kept.failures.lock().push(SinkError::Storage("full".to_owned()));
        c.write_all(&pack(m)).await.expect("sent");
        let expect = pack(&option(&[("ack", &(n + 1).to_string())]));
        let mut got = vec![0; expect.len()];
        c.read_exact(&mut got).await.expect("acknowledged");
        assert_eq!(got, expect);
    }
    assert_eq!(kept.bodies(), ["a", "b", "c", "d", "e", "f"]);
    let logs = kept.logs.lock();
    assert_eq!(logs[0].streams[0].labels.to_string(), r#"{service_name="t.x", tag="t.x"}"#);
    assert_eq!(logs[0].streams[0].records[0].timestamp.nanos(), 1_795_428_000_500_000_000);
    assert_eq!(logs[3].checkpoints[0].source, "once/fluent/4");
    stop.cancel();
}

#[test]
fn the_scanner_finds_the_end_of_every_value_in_any_pieces() {
    let all = [
        Value::Nil,
        Value::from(-5),
        Value::from(1u64 << 40),
        Value::F32(1.0),
        Value::F64(1.0),
        "x".repeat(300).into(),
        Value::Binary(vec![1; 70_000]),
        Value::Ext(3, vec![1, 2]),
        Value::Ext(3, vec![0; 300]),
        Value::Array((0..20).map(|i| Value::Map(vec![(i.into(), entry("x"))])).collect()),
        Value::Map((0..20).map(|i| (i.into(), Value::Array(vec![]))).collect()),
    ];
    for v in all {
        let bytes = pack(&v);
        let mut scanner = Scanner::default();
        for cut in (0..bytes.len()).step_by(bytes.len() / 50 + 1) {
            assert_eq!(scanner.end(&bytes[..cut]), Ok(None), "{v}");
        }
        let mut longer = bytes.clone();
        longer.push(0xc0);
        assert_eq!(scanner.end(&longer), Ok(Some(bytes.len())), "{v}");
    }
    assert!(Scanner::default().end(&[0xc1]).is_err());
    assert!(
        Scanner::default().end(&[0xdd, 0xff, 0xff, 0xff, 0xff]).is_err(),
        "more values than bytes are allowed"
    );
}

#[tokio::test]
async fn what_is_no_message_ends_the_connection() {
    let kept = Arc::new(Kept::default());
    for bad in [
        pack(&"text".into()),
        vec![0xc1],
        pack(&Value::Array(vec!["t".into(), Value::from(1), Value::from(2)])),
    ] {
        let (mut c, stop) = start(&kept).await;
        c.write_all(&bad).await.expect("sent");
        assert_eq!(c.read(&mut [0; 8]).await.expect("closed"), 0);
        stop.cancel();
    }
    assert!(kept.logs.lock().is_empty());
}
