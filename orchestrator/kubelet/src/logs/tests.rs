//! Log writers against real pipes: whole lines, rotation, and a kill at every point of a write.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use super::intent::{Intent, IntentFile};
use super::writer::{Scratches, Writer};
use super::*;

struct Bench {
    dir: tempfile::TempDir,
    out: fs::File,
    /// Held as the shim holds it: the pipe's content outlives any writer.
    _held: OwnedFd,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let io = dir.path().join("io");
        fs::create_dir(&io).expect("io");
        let pipe = io.join("stdout");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("fifo");
        let out = OpenOptions::new().read(true).write(true).open(&pipe).expect("pipe");
        let held = out.try_clone().expect("dup").into();
        Bench { dir, out, _held: held }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("logs/0.log")
    }

    fn writer(&self) -> Writer {
        Writer::open(&self.path(), &self.dir.path().join("io"), signal::time::system_clock()).expect("writer")
    }

    /// The container's text, read back through the log's reader.
    fn text(&self) -> String {
        let mut r = Reader::open(&self.path(), Query::default()).expect("reader");
        let mut all = Vec::new();
        loop {
            match r.read().expect("read") {
                Some(b) if !b.is_empty() => all.extend(b),
                _ => return String::from_utf8(all).expect("text"),
            }
        }
    }

    /// Runs a writer until it has emptied the pipe.
    async fn drain(&self) {
        let (stop, stopped) = oneshot::channel();
        stop.send(()).expect("a receiver");
        self.writer().run(&Scratches::default(), stopped).await;
    }
}

#[tokio::test]
async fn lines_come_out_as_they_went_in() {
    let mut b = Bench::new();
    b.out.write_all(b"one\ntwo\nno end").expect("write");
    b.drain().await;
    assert_eq!(b.text(), "one\ntwo\nno end\n");
    let raw = fs::read_to_string(b.path()).expect("log");
    assert!(raw.lines().all(|l| l.contains(" stdout F ")), "{raw}");
}

#[tokio::test]
async fn rotation_loses_nothing_and_names_positions() {
    let mut b = Bench::new();
    let line = format!("{}\n", "x".repeat(8000));
    let (stop, stopped) = oneshot::channel();
    let writer = b.writer();
    let task = telemetry::task::spawn("test-log", async move {
        writer.run(&Scratches::default(), stopped).await;
    });
    let expect = line.repeat(3000);
    let mut out = b.out.try_clone().expect("dup");
    let all = expect.clone();
    tokio::task::spawn_blocking(move || out.write_all(all.as_bytes()).expect("write")).await.expect("thread");
    stop.send(()).expect("a receiver");
    task.await.expect("writer");
    let rotated = rotation::rotated(&b.path()).expect("files");
    assert!(rotated.len() >= 2, "{rotated:?}");
    assert_eq!(rotated[0].0, 0);
    assert_eq!(rotated[1].0, fs::metadata(&rotated[0].1).expect("file").len());
    assert_eq!(b.text().len(), expect.len());
    b.out.flush().expect("flush");

    let tail = Query { tail_lines: Some(2), ..Query::default() };
    let mut r = Reader::open(&b.path(), tail).expect("reader");
    assert_eq!(r.read().expect("read").map(|b| b.len()), Some(2 * line.len()));
    assert_eq!(r.away(), None, "the lines asked for are there");
    assert_eq!(Reader::open(&b.path(), Query::default()).expect("reader").away(), None);

    // The oldest file is gone: its lines are missed by whoever asks for them, and by nobody else.
    let here = fs::read_to_string(&rotated[1].1).expect("a file");
    let lost = fs::read_to_string(&rotated[0].1).expect("a file").lines().count() as u64;
    fs::remove_file(&rotated[0].1).expect("removes");
    let away = |query| Reader::open(&b.path(), query).expect("reader").away();
    let found = away(Query::default()).expect("lines are away");
    let first: jiff::Timestamp = here.split(' ').next().and_then(|t| t.parse().ok()).expect("a time");
    assert_eq!((i128::from(found.before.nanos()), found.lines), (first.as_nanosecond(), None));
    let all = away(Query { tail_lines: Some(3000), ..Query::default() }).expect("lines are away");
    assert_eq!(all.lines, Some(lost));
    assert_eq!(away(Query { tail_lines: Some(3000 - lost), ..Query::default() }), None);
    assert_eq!(away(Query { since: Some(found.before), ..Query::default() }), None);
}

#[tokio::test]
async fn what_is_not_stored_is_not_rotated_away() {
    let b = Bench::new();
    let all = format!("{}\n", "x".repeat(8000)).repeat(9000);
    for (stored, files) in [(0, 6), (u64::MAX, rotation::MAX_FILES - 1)] {
        let (stop, stopped) = oneshot::channel();
        let mut writer = b.writer();
        writer.set_stored(move || stored);
        let task = telemetry::task::spawn("test-log", async move {
            writer.run(&Scratches::default(), stopped).await;
        });
        let (mut out, text) = (b.out.try_clone().expect("dup"), all.clone());
        tokio::task::spawn_blocking(move || out.write_all(text.as_bytes()).expect("write"))
            .await
            .expect("thread");
        stop.send(()).expect("a receiver");
        task.await.expect("writer");
        assert_eq!(rotation::rotated(&b.path()).expect("files").len(), files, "stored up to {stored}");
        if stored == 0 {
            assert_eq!(b.text().len(), all.len(), "all is there");
        }
    }
}

/// Sets up what a writer that was killed left behind, and checks that its successor makes it whole.
async fn killed(text_written: usize, consumed: bool) {
    let mut b = Bench::new();
    b.out.write_all(b"first\n").expect("write");
    b.drain().await;
    let before = fs::metadata(b.path()).expect("log").len();
    let raw = b"second\nthird\n";
    b.out.write_all(raw).expect("write");
    b.out.write_all(b"fourth\n").expect("write");
    let mut text = Vec::new();
    cri::encode(raw, "stdout", "2026-01-01T00:00:00.000000000Z", cri::Rest::Waits, &mut text);
    let intent = Intent {
        stream: 0,
        position: before,
        cri: text.len() as u64,
        raw: raw.len() as u64,
        crc: crc32fast::hash(raw),
    };
    IntentFile::open(&b.dir.path().join("io/intent")).expect("intent").set(&intent).expect("set");
    let written = text_written.min(text.len());
    OpenOptions::new().append(true).open(b.path()).expect("log").write_all(&text[..written]).expect("write");
    if consumed {
        let mut buf = vec![0; raw.len()];
        b.out.read_exact(&mut buf).expect("consume");
    }
    b.drain().await;
    assert_eq!(b.text(), "first\nsecond\nthird\nfourth\n", "written {written}, consumed {consumed}");
}

#[tokio::test]
async fn a_kill_at_any_point_neither_loses_nor_doubles() {
    for written in [0, 1, 40, 90, usize::MAX] {
        killed(written, false).await;
    }
    killed(usize::MAX, true).await;
}
