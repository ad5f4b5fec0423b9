//! Syslog over real sockets.

use std::sync::Arc;
use std::time::Duration;

use signal::{Identity, SinkError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

use super::{Syslog, serve_tcp, serve_udp};
use crate::Senders;
use crate::kept::Kept;

fn syslog(kept: &Arc<Kept>) -> Syslog {
    let senders = Senders::new(Arc::default(), Identity::default(), Vec::new());
    Syslog::new(kept.clone(), senders, signal::time::system_clock())
}

async fn wait_for(kept: &Kept, n: usize) -> Vec<String> {
    for _ in 0..2000 {
        let got = kept.bodies();
        if got.len() >= n {
            return got;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    kept.bodies()
}

#[tokio::test]
async fn tcp_in_both_framings_while_the_store_is_full() {
    let kept = Arc::new(Kept::default());
    kept.failures.lock().push(SinkError::Storage("full".to_owned()));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    telemetry::task::spawn("test", serve_tcp(syslog(&kept), listener, stop.clone()));
    let mut c = TcpStream::connect(address).await.expect("connected");
    c.write_all(b"<13>1 - h app - - - one\n25 <13>1 - h app - - - two\nx<13>1 - h app - - - three")
        .await
        .expect("sent");
    c.shutdown().await.expect("ended");
    assert_eq!(c.read(&mut [0; 8]).await.expect("closed"), 0);
    assert_eq!(wait_for(&kept, 3).await, ["one", "two\nx", "three"]);
    assert_eq!(
        kept.logs.lock()[0].streams[0].labels.to_string(),
        r#"{host="h", job="syslog", service_name="app"}"#
    );
    stop.cancel();
}

#[tokio::test]
async fn udp_datagrams_are_messages() {
    let kept = Arc::new(Kept::default());
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");
    let stop = CancellationToken::new();
    telemetry::task::spawn("test", serve_udp(syslog(&kept), socket, stop.clone()));
    let c = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    for text in ["<13>1 - h a - - - one", "<13>1 - h a - - - two\n", ""] {
        c.send_to(text.as_bytes(), address).await.expect("sent");
    }
    assert_eq!(wait_for(&kept, 2).await, ["one", "two"]);
    stop.cancel();
}
