//! Debian's Prometheus as a process of its own, given samples by remote write.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use signal::Labels;

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Prometheus {
    port: u16,
    process: Child,
    _dir: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Gone already, then.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Prometheus {
    pub(crate) fn start() -> Prometheus {
        let dir = tempfile::tempdir().expect("dir");
        let config = dir.path().join("prometheus.yml");
        std::fs::write(&config, "global: {}\n").expect("writes");
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("address").port();
        let log = std::fs::File::create(dir.path().join("log")).expect("log");
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--web.enable-remote-write-receiver")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus is missing: `make test` installs it");
        let mut this = Prometheus { port, process, _dir: dir };
        let began = signal::time::monotonic();
        while this.get("/-/ready").is_none_or(|(status, _)| status != 200) {
            assert!(this.process.try_wait().expect("a process").is_none(), "prometheus ended");
            assert!(began.elapsed() < PATIENCE, "prometheus is not ready");
            std::thread::yield_now();
        }
        this
    }

    fn get(&self, path: &str) -> Option<(u16, Vec<u8>)> {
        self.exchange(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())
    }

    /// One request and its whole answer; `None` if nobody listens.
    fn exchange(&self, request: &[u8]) -> Option<(u16, Vec<u8>)> {
        let mut s = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        s.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        s.write_all(request).ok()?;
        let mut all = Vec::new();
        s.read_to_end(&mut all).ok()?;
        let end = all.windows(4).position(|w| w == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&all[..end]);
        let status = head.split_whitespace().nth(1)?.parse().ok()?;
        Some((status, all[end + 4..].to_vec()))
    }

    /// In order of time, as its head wants them.
    pub(crate) fn write(&self, series: &[(Labels, Vec<(i64, f64)>)]) {
        let mut times: Vec<i64> = series.iter().flat_map(|(_, p)| p).map(|(t, _)| *t).collect();
        times.sort_unstable();
        times.dedup();
        for part in times.chunks(20) {
            let inside =
                |t: i64| part.first().is_some_and(|f| t >= *f) && part.last().is_some_and(|l| t <= *l);
            let mut body = Vec::new();
            for (labels, points) in series {
                let mut one = Vec::new();
                for (n, v) in labels {
                    let pair = [field(1, n.as_bytes()), field(2, v.as_bytes())].concat();
                    one.extend(field(1, &pair));
                }
                for (t, v) in points.iter().filter(|(t, _)| inside(*t)) {
                    let mut sample = vec![9];
                    sample.extend(v.to_bits().to_le_bytes());
                    sample.push(16);
                    sample.extend(uvarint(*t as u64));
                    one.extend(field(2, &sample));
                }
                body.extend(field(1, &one));
            }
            let packed = snap::raw::Encoder::new().compress_vec(&body).expect("packs");
            let head = format!(
                "POST /api/v1/write HTTP/1.0\r\nHost: localhost\r\nContent-Encoding: snappy\r\n\
                 Content-Type: application/x-protobuf\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\n\
                 Content-Length: {}\r\n\r\n",
                packed.len()
            );
            let (status, text) = self.exchange(&[head.as_bytes(), &packed].concat()).expect("an answer");
            assert_eq!(status / 100, 2, "{}", String::from_utf8_lossy(&text));
        }
    }

    pub(crate) fn range(&self, query: &str, start: i64, end: i64, step: i64) -> Value {
        let seconds = |ms: i64| format!("{}.{:03}", ms / 1000, ms % 1000);
        let escaped: String = query.bytes().map(|b| format!("%{b:02X}")).collect();
        let path = format!(
            "/api/v1/query_range?query={escaped}&start={}&end={}&step={}",
            seconds(start),
            seconds(end),
            seconds(step)
        );
        let (_, body) = self.get(&path).expect("an answer");
        serde_json::from_slice(&body).expect("JSON")
    }
}

fn uvarint(mut n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while n >= 0x80 {
        out.push(n as u8 & 0x7f | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

fn field(number: u64, body: &[u8]) -> Vec<u8> {
    [uvarint(number << 3 | 2), uvarint(body.len() as u64), body.to_vec()].concat()
}
