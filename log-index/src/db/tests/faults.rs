//! A torn log, a full disk, and a head that nobody flushes.

use super::*;

#[test]
fn a_log_cut_anywhere_gives_back_what_was_before() {
    let dir = tempfile::tempdir().expect("dir");
    rt().block_on(async {
        let db = logs(dir.path());
        for i in 0..6 {
            let mut b = batch("a", vec![record(i, &format!("line {i}"))]);
            b.checkpoints.push(Checkpoint { source: "s".into(), position: i as u64 + 1 });
            db.append_logs(b).await.expect("appends");
        }
    });
    let log = std::fs::read_dir(dir.path().join("wal"))
        .expect("log")
        .next()
        .expect("a segment")
        .expect("entry")
        .path();
    let whole = std::fs::read(&log).expect("reads");
    let mut before = 0;
    for cut in 16..=whole.len() {
        let copy = tempfile::tempdir().expect("dir");
        std::fs::create_dir(copy.path().join("wal")).expect("made");
        std::fs::write(copy.path().join("wal").join(log.file_name().expect("name")), &whole[..cut])
            .expect("writes");
        let db = logs(copy.path());
        let lines = find(&db, &["line"], Direction::Forward, 100);
        let expect: Vec<String> = (0..lines.len()).map(|i| format!("line {i}")).collect();
        assert_eq!(lines, expect, "cut at {cut}");
        assert_eq!(db.checkpoint("s").unwrap_or(0), lines.len() as u64, "cut at {cut}");
        assert!(lines.len() >= before);
        before = lines.len();
    }
    assert_eq!(before, 6);
}

#[test]
fn a_head_that_is_not_flushed_has_a_bound() {
    let dir = tempfile::tempdir().expect("dir");
    rt().block_on(async {
        let patience = Duration::from_millis(1);
        let config = Config { head_bytes: 1000, patience, ..Config::new(dir.path(), Kind::Logs) };
        let db = LogIndex::open(config).expect("opens");
        let line = || batch("a", vec![record(1, &"x".repeat(1000))]);
        db.append_logs(line()).await.expect("appends");
        // As if a flush were under way that does not end.
        {
            let mut state = db.state.write();
            state.frozen = Some(Arc::new(std::mem::take(&mut state.head)));
        }
        let mut taken = 0;
        let refused = loop {
            match db.append_logs(line()).await {
                Ok(_) => taken += 1,
                Err(e) => break e,
            }
        };
        assert!(matches!(refused, SinkError::Overloaded { .. }), "{refused}");
        assert_eq!(taken, 4);
        // Its end lets the next one through.
        db.state.write().frozen = None;
        db.room.notify_waiters();
        db.append_logs(line()).await.expect("appends");
    });
}

/// Not a test of its own: the child that the next test starts on a disk of four megabytes.
#[test]
fn full_disk_child() {
    let Some(dir) = std::env::var_os("BINNACLE_LOG_FULL_DIR") else { return };
    let dir = std::path::Path::new(&dir);
    let ballast = dir.join("ballast");
    std::fs::write(&ballast, vec![1; 1 << 20]).expect("there is room");
    rt().block_on(async {
        let db = logs(&dir.join("logs"));
        // Lines that do not compress.
        let mut seed = 1u64;
        let mut line = |n: usize| {
            let mut text = format!("line {n} ");
            for _ in 0..2000 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push(char::from(b'!' + (seed >> 33) as u8 % 90));
            }
            text
        };
        let mut n = 0;
        let refused = loop {
            match db.append_logs(batch("a", vec![record(n as i64, &line(n))])).await {
                Ok(_) => n += 1,
                Err(e) => break e,
            }
        };
        assert!(matches!(refused, SinkError::Storage(_)) && n > 100, "{n}: {refused}");
        assert_eq!(find(&db, &["line"], Direction::Forward, 100_000).len(), n);
        // There is no room for a partition either; the attempt leaves nothing behind.
        db.flush().await.expect_err("the disk is full");
        let left = std::fs::read_dir(dir.join("logs")).expect("dir").map(|e| e.expect("entry").path());
        assert_eq!(left.filter(|p| p.extension().is_some_and(|e| e == "tmp")).count(), 0);
        assert!(db.append_logs(batch("a", vec![record(0, &line(0))])).await.is_err());
        // Room again: it goes on without a restart, and nothing that was acknowledged is lost.
        std::fs::remove_file(&ballast).expect("removed");
        db.append_logs(batch("a", vec![record(n as i64, &line(n))])).await.expect("goes on");
        assert_eq!(find(&db, &["line"], Direction::Forward, 100_000).len(), n + 1);
        drop(db);
        assert_eq!(find(&logs(&dir.join("logs")), &["line"], Direction::Forward, 100_000).len(), n + 1);
    });
    eprintln!("went on");
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().expect("dir");
    let script = "mount -t tmpfs -o size=4m tmpfs \"$1\" && exec \"$2\" --exact db::tests::faults::full_disk_child --nocapture";
    let out = std::process::Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .args([dir.path(), &std::env::current_exe().expect("this test")])
        .env("BINNACLE_LOG_FULL_DIR", dir.path())
        .output()
        .expect("unshare of util-linux");
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.success() && told.contains("went on"),
        "a mount namespace of its own is needed: {told}"
    );
}

/// Wherever a byte of a partition turns over, what is elsewhere is still found, and an answer that lacks something says so.
#[test]
fn damage_hides_no_more_than_it_hits() {
    let dir = tempfile::tempdir().expect("dir");
    let body = |pod: &str, i: i64| format!("{pod} line {i} took {}ms", i * 7919);
    rt().block_on(async {
        let db = logs(dir.path());
        for pod in ["a", "b", "c"] {
            let records = (0..20).map(|i| record(i, &body(pod, i))).collect();
            db.append_logs(batch(pod, records)).await.expect("appends");
        }
        db.flush().await.expect("flushes");
    });
    let part = |dir: &std::path::Path| {
        let mut all = std::fs::read_dir(dir).expect("dir").map(|e| e.expect("entry").path());
        all.find(|p| p.extension().is_some_and(|e| e == "part")).expect("a partition")
    };
    let whole = std::fs::read(part(dir.path())).expect("reads");
    let name = part(dir.path()).file_name().expect("name").to_owned();
    let (mut partly, mut told) = (0, 0);
    for at in (12..whole.len()).step_by(3) {
        let copy = tempfile::tempdir().expect("dir");
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        std::fs::write(copy.path().join(&name), damaged).expect("writes");
        let db = logs(copy.path());
        let mut s = Search::new(vec![], Timestamp(0), Timestamp(i64::MAX));
        s.needles = vec!["line".to_owned()];
        let found = db.search(&s, 100, |_, r| Some(r.body)).expect("searches");
        for pod in ["a", "b", "c"] {
            let of_pod = found.iter().filter(|(_, b)| b.starts_with(pod)).count();
            assert!(of_pod == 20 || of_pod == 0, "byte {at}: {of_pod} of {pod}");
        }
        let set_aside = db.stats().partitions == 0;
        if found.len() < 60 && !set_aside {
            assert!(s.progress.damaged() > 0 && s.progress.warning().is_some(), "byte {at}");
            assert!(db.stats().damaged > 0, "byte {at}");
            told += 1;
        }
        partly += usize::from((20..60).contains(&found.len()));
        drop(db.streams(&[], Timestamp(0), Timestamp(i64::MAX)).expect("streams"));
    }
    assert!(partly > 10 && told >= partly, "{partly}, {told}");
}

#[test]
fn spans_beside_damaged_ones_are_found() {
    let dir = tempfile::tempdir().expect("dir");
    let id = |n: u8| TraceId([n; 16]);
    rt().block_on(async {
        let db = LogIndex::open(Config::new(dir.path(), Kind::Spans)).expect("opens");
        let span = |n: u8, service: u8| Span {
            trace_id: id(n),
            span_id: SpanId([n ^ service; 8]),
            name: format!("GET /{n}"),
            start: Timestamp(i64::from(n)),
            end: Timestamp(i64::from(n) + 5),
            ..Span::default()
        };
        let stream = |service: u8| SpanStream {
            labels: Labels::from_pairs([("service_name", format!("s{service}"))]),
            spans: (1..20).map(|n| span(n, service)).collect(),
            ..SpanStream::default()
        };
        db.append_spans(SpanBatch { streams: vec![stream(0), stream(64)] }).await.expect("appends");
        db.flush().await.expect("flushes");
    });
    let name = "0000000000000001.part";
    let whole = std::fs::read(dir.path().join(name)).expect("reads");
    let mut halves = 0;
    for at in (12..whole.len()).step_by(3) {
        let copy = tempfile::tempdir().expect("dir");
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        std::fs::write(copy.path().join(name), damaged).expect("writes");
        let db = LogIndex::open(Config::new(copy.path(), Kind::Spans)).expect("opens");
        let spans: usize = db.trace(id(7), &[]).expect("reads").iter().map(|s| s.spans.len()).sum();
        halves += usize::from(spans == 1);
        drop(db.summaries(&[id(7)], &[]).expect("sums up"));
        let q = SpanSearch {
            matchers: Vec::new(),
            start: Timestamp(0),
            end: Timestamp(100),
            name: None,
            min_duration: None,
            max_duration: None,
            attributes: Vec::new(),
        };
        drop(db.search_traces(&q, 10).expect("searches"));
    }
    assert!(halves > 3, "{halves}");
}
