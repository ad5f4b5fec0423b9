//! The database as a whole: what goes in comes out, over flushes, merges, restarts and crashes.

use proptest::prelude::*;
use signal::time::Clock;
use signal::{Accepted, HistogramSeries, Labels, MatchOp, Select, SeriesSource, StartTimes, Timestamp};

use super::*;

/// A clock that tests set.
struct Fixed(i64);

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0)
    }
    fn monotonic(&self) -> std::time::Instant {
        signal::time::monotonic()
    }
}

const NOW: i64 = 1_700_000_000_000;

fn config(dir: &std::path::Path) -> Config {
    Config { clock: Arc::new(Fixed(NOW)), ..Config::new(dir) }
}

fn rt() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime")
}

fn batch(series: &[(&str, &str, i64, f64)]) -> MetricBatch {
    let mut b = MetricBatch::default();
    for (name, pod, t, v) in series {
        b.push(Labels::from_pairs([("__name__", *name), ("pod", *pod)]), NOW + t, *v);
    }
    b
}

fn all(db: &Tsdb, matchers: Vec<Matcher>) -> Vec<(String, Vec<(i64, f64)>)> {
    db.select(&Select { matchers, start: i64::MIN, end: i64::MAX })
        .expect("selects")
        .map(|s| {
            let s = s.expect("reads");
            (s.labels.to_string(), s.timestamps.iter().map(|t| t - NOW).zip(s.values).collect())
        })
        .collect()
}

fn name(n: &str) -> Vec<Matcher> {
    vec![Matcher::equal("__name__", n)]
}

#[test]
fn samples_outlive_flush_restart_and_merge() {
    let dir = tempfile::tempdir().expect("dir");
    let expect = vec![
        ("up{pod=\"a\"}".to_owned(), vec![(-3000, 1.0), (-2000, 2.0), (-1000, 3.0), (0, 4.0)]),
        ("up{pod=\"b\"}".to_owned(), vec![(-3000, 5.0)]),
    ];
    rt().block_on(async {
        let db = Tsdb::open(config(dir.path())).expect("opens");
        db.append(batch(&[("up", "a", -3000, 1.0), ("up", "b", -3000, 5.0)])).await.expect("appends");
        db.flush().await.expect("flushes");
        db.append(batch(&[("up", "a", -1000, 9.0), ("other", "a", 0, 0.0)])).await.expect("appends");
        db.flush().await.expect("flushes");
        // Out of order, and a second word on a time already told.
        db.append(batch(&[("up", "a", -2000, 2.0), ("up", "a", -1000, 3.0), ("up", "a", 0, 4.0)]))
            .await
            .expect("appends");
        assert_eq!(all(&db, name("up")), expect);
    });
    rt().block_on(async {
        let db = Tsdb::open(config(dir.path())).expect("opens");
        assert_eq!(all(&db, name("up")), expect);
        db.flush().await.expect("flushes");
        let blocks = db.state.read().blocks.clone();
        assert_eq!(blocks.len(), 3);
        crate::compact::merge(dir.path(), db.next_seq(), &blocks, &db.tombstones).expect("merges");
    });
    // The merged block makes its sources void, also after a crash before they were removed.
    let db = Tsdb::open(config(dir.path())).expect("opens");
    assert_eq!(db.stats().blocks, 1);
    assert_eq!(all(&db, name("up")), expect);
}

#[test]
fn too_old_and_too_new_are_refused_and_counted() {
    let dir = tempfile::tempdir().expect("dir");
    rt().block_on(async {
        let db = Tsdb::open(config(dir.path())).expect("opens");
        let hour = 3_600_000;
        let first = [("up", "a", 0, 1.0), ("up", "b", -hour, 1.0), ("up", "c", 2 * hour, 1.0)];
        let a = db.append(batch(&first)).await.expect("appends");
        // A series is late by its own newest sample: one that begins in the past is not.
        assert_eq!((a.accepted, a.rejected), (2, 1));
        assert!(a.reason.expect("told").starts_with("out of bounds"));
        let late = [
            ("up", "a", -hour, 1.0),
            ("up", "a", -hour / 2, 1.0),
            ("up", "b", -hour - 1, 1.0),
            ("up", "d", -400 * hour, 1.0),
        ];
        let a = db.append(batch(&late)).await.expect("appends");
        assert_eq!((a.accepted, a.rejected), (2, 2));
        assert!(a.reason.expect("told").starts_with("too old sample"));
        db.flush().await.expect("flushes");
        let a = db.append(batch(&late[..1])).await.expect("appends");
        assert_eq!(a.rejected, 1, "the newest sample is remembered over a flush");
    });
}

/// Appends as a remote writer's request does: keys, and labels only of what is not known.
fn by_keys(db: &Tsdb, series: &[(&str, i64, f64)]) -> (Accepted, usize) {
    let mut columns = Columns::default();
    for (pod, t, v) in series {
        columns.series.push((crate::key::Key::of(pod.as_bytes()), 1));
        columns.samples.push(signal::Sample { timestamp: NOW + t, value: *v });
    }
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let done = rt().block_on(db.append_columns(&columns, |i| {
        asked.fetch_add(1, Ordering::Relaxed);
        match series[i].0 {
            "bad" => Err("bad labels".to_owned()),
            pod => Ok(Labels::from_pairs([("__name__", "up"), ("pod", pod)])),
        }
    }));
    (done.expect("appends"), asked.into_inner())
}

#[test]
fn a_known_key_needs_no_labels_until_its_series_is_dropped() {
    let dir = tempfile::tempdir().expect("dir");
    let db = Tsdb::open(config(dir.path())).expect("opens");
    let (done, asked) = by_keys(&db, &[("a", -9, 1.0), ("bad", -9, 1.0), ("b", -9, 1.0)]);
    assert_eq!((done.accepted, done.rejected, done.reason.as_deref(), asked), (2, 1, Some("bad labels"), 3));
    let (done, asked) = by_keys(&db, &[("a", -8, 2.0), ("b", -8, stale_nan())]);
    assert_eq!((done.accepted, asked), (2, 0));
    rt().block_on(db.flush()).expect("flushes");
    assert_eq!(db.stats().series, 1, "what ended left with the flush");
    let (_, asked) = by_keys(&db, &[("a", -7, 3.0), ("b", -7, 4.0)]);
    assert_eq!(asked, 1);
    let times = |pod: &str| {
        let found = all(&db, vec![Matcher::equal("pod", pod)]);
        found[0].1.iter().map(|(t, _)| *t).collect::<Vec<_>>()
    };
    assert_eq!((times("a"), times("b")), (vec![-9, -8, -7], vec![-9, -8, -7]));
    drop(db);
    let db = Tsdb::open(config(dir.path())).expect("opens");
    assert_eq!(all(&db, vec![Matcher::equal("pod", "a")])[0].1.len(), 3);
}

#[test]
fn closed_series_end_in_a_stale_marker() {
    let dir = tempfile::tempdir().expect("dir");
    rt().block_on(async {
        let db = Tsdb::open(config(dir.path())).expect("opens");
        db.append(batch(&[("up", "a", -10, 1.0), ("up", "b", -10, 1.0)])).await.expect("appends");
        let m = Matcher::new("pod", MatchOp::Regex, "a|c").expect("pattern");
        assert_eq!(db.close_series(std::slice::from_ref(&m)).await.expect("closes"), 1);
        assert_eq!(db.close_series(&[m]).await.expect("closes"), 0);
        db.flush().await.expect("flushes");
        let got = all(&db, name("up"));
        assert!(signal::is_stale_nan(got[0].1[1].1));
        assert_eq!(got[1].1.len(), 1);
    });
}

#[test]
fn labels_and_metadata_are_found() {
    let dir = tempfile::tempdir().expect("dir");
    rt().block_on(async {
        let db = Tsdb::open(config(dir.path())).expect("opens");
        let mut b = batch(&[("up", "a", 0, 1.0), ("down", "b", 0, 1.0)]);
        let m = Metadata {
            family: "up".into(),
            kind: signal::MetricKind::Gauge,
            help: "is it".into(),
            unit: String::new(),
        };
        b.metadata.push(m.clone());
        db.append(b).await.expect("appends");
        db.flush().await.expect("flushes");
        let s = Select { matchers: vec![], start: NOW - 1, end: NOW };
        assert_eq!(db.label_names(&s).expect("names"), ["__name__", "pod"]);
        assert_eq!(db.label_values("pod", &s).expect("values"), ["a", "b"]);
        drop(db);
        let db = Tsdb::open(config(dir.path())).expect("opens");
        assert_eq!(db.metadata("up"), Some(m));
    });
}

/// Not a test of its own: the child that `acknowledged_samples_survive_kill_nine` starts and kills.
#[test]
fn crash_child() {
    let Some(dir) = std::env::var_os("BINNACLE_TSDB_CRASH_DIR") else { return };
    rt().block_on(async {
        let db = Tsdb::open(config(std::path::Path::new(&dir))).expect("opens");
        for i in 0.. {
            db.append(batch(&[("n", "a", i - 1_000_000, i as f64)])).await.expect("appends");
            if i % 50 == 49 {
                db.flush().await.expect("flushes");
            }
            eprintln!("acknowledged {i}");
        }
    });
}

#[test]
fn acknowledged_samples_survive_kill_nine() {
    use std::io::BufRead;
    let dir = tempfile::tempdir().expect("dir");
    let mut child = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "db::tests::crash_child", "--nocapture"])
        .env("BINNACLE_TSDB_CRASH_DIR", dir.path())
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("starts");
    let lines = std::io::BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut last = 0;
    for line in lines {
        let line = line.expect("text");
        if let Some(n) = line.strip_prefix("acknowledged ") {
            last = n.parse().expect("number");
            if last == 120 {
                child.kill().expect("killed");
            }
        }
    }
    child.wait().expect("ended");
    assert!(last >= 120);
    let db = Tsdb::open(config(dir.path())).expect("opens");
    let got = all(&db, name("n"));
    let values: Vec<f64> = got[0].1.iter().map(|(_, v)| *v).collect();
    assert!(values.len() > last && values.iter().enumerate().all(|(i, v)| *v == i as f64), "{values:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn any_mix_of_appends_flushes_and_restarts_equals_a_map(
        steps in proptest::collection::vec((0..8u8, 0..3usize, 0..100i64, -5..5i32), 1..60),
    ) {
        let dir = tempfile::tempdir().expect("dir");
        let runtime = rt();
        let mut db = Tsdb::open(config(dir.path())).expect("opens");
        let mut model: BTreeMap<(usize, i64), f64> = BTreeMap::new();
        for (op, pod, t, v) in steps {
            match op {
                0 => runtime.block_on(db.flush()).expect("flushes"),
                1 => {
                    drop(db);
                    db = Tsdb::open(config(dir.path())).expect("opens");
                }
                _ => {
                    let pods = ["a", "b", "c"];
                    runtime.block_on(db.append(batch(&[("m", pods[pod], t, f64::from(v))]))).expect("appends");
                    model.insert((pod, t), f64::from(v));
                }
            }
        }
        let got: BTreeMap<(usize, i64), f64> = all(&db, name("m"))
            .into_iter()
            .flat_map(|(l, s)| {
                let pod = ["a", "b", "c"].iter().position(|p| l.contains(&format!("\"{p}\""))).expect("pod");
                s.into_iter().map(move |(t, v)| ((pod, t), v))
            })
            .collect();
        prop_assert_eq!(got, model);
    }
}

#[test]
fn histograms_starts_and_exemplars_outlive_flush_restart_and_merge() {
    use signal::histogram::ResetHint;
    use signal::{FloatHistogram, HistogramSample};
    let dir = tempfile::tempdir().expect("dir");
    let labels = Labels::from_pairs([("__name__", "h")]);
    let histogram = |t: i64, counts: &[f64]| {
        let h = FloatHistogram {
            count: counts.iter().sum(),
            sum: 1.0,
            positive: FloatHistogram::buckets(0, counts),
            ..FloatHistogram::default()
        };
        HistogramSample { timestamp: NOW + t, start: NOW - 9000, histogram: h.into() }
    };
    let one = |samples: Vec<HistogramSample>| {
        let mut b = batch(&[("c_total", "a", samples[0].timestamp - NOW, 1.0)]);
        b.histograms.push(HistogramSeries { labels: labels.clone(), samples });
        b.starts.push(StartTimes {
            labels: b.series[0].labels.clone(),
            times: vec![(b.series[0].samples[0].timestamp, NOW - 8000)],
        });
        b
    };
    let check = |db: &Tsdb, expect: &[(i64, f64, ResetHint)]| {
        let select = |m| Select { matchers: name(m), start: i64::MIN, end: i64::MAX };
        let s = db.select(&select("h")).expect("selects").next().expect("is there").expect("reads");
        let got: Vec<_> =
            s.histograms.iter().map(|h| (h.timestamp - NOW, h.histogram.count, h.histogram.hint)).collect();
        assert_eq!(got, expect);
        assert!(s.histograms.iter().all(|h| h.start == NOW - 9000));
        let s = db.select(&select("c_total")).expect("selects").next().expect("is there").expect("reads");
        assert!(s.starts.len() == s.timestamps.len() && s.starts.iter().all(|s| *s == NOW - 8000), "{s:?}");
    };
    use ResetHint::{NotReset, Unknown};
    rt().block_on(async {
        let db = Tsdb::open(config(dir.path())).expect("opens");
        let mut b = one(vec![histogram(-5000, &[1.0, 2.0]), histogram(-4000, &[2.0, 2.0])]);
        let exemplar = Exemplar {
            series: labels.clone(),
            labels: Labels::from_pairs([("trace_id", "t")]),
            value: 0.5,
            timestamp: NOW - 4000,
        };
        b.exemplars.push(exemplar);
        assert_eq!(db.append(b).await.expect("appends").accepted, 3);
        check(&db, &[(-5000, 3.0, Unknown), (-4000, 4.0, NotReset)]);
        db.flush().await.expect("flushes");
        db.append(one(vec![histogram(-3000, &[3.0, 2.0]), histogram(-2000, &[1.0, 0.0])]))
            .await
            .expect("appends");
    });
    let all = [(-5000, 3.0, Unknown), (-4000, 4.0, NotReset), (-3000, 5.0, Unknown), (-2000, 1.0, Unknown)];
    rt().block_on(async {
        let db = Tsdb::open(config(dir.path())).expect("opens");
        check(&db, &all);
        db.flush().await.expect("flushes");
        let blocks = db.state.read().blocks.clone();
        crate::compact::merge(dir.path(), db.next_seq(), &blocks, &db.tombstones).expect("merges");
    });
    rt().block_on(async {
        let db = Tsdb::open(config(dir.path())).expect("opens");
        assert_eq!(db.stats().blocks, 1);
        check(&db, &all);
        // Out of order: nobody knows any more what follows what.
        db.append(one(vec![histogram(-4500, &[9.0])])).await.expect("appends");
        let with_late = [all[0], (-4500, 9.0, Unknown), (-4000, 4.0, Unknown), all[2], all[3]];
        check(&db, &with_late);
        let bad = HistogramSample {
            histogram: FloatHistogram { count: -1.0, ..FloatHistogram::default() }.into(),
            ..histogram(-1000, &[1.0])
        };
        assert_eq!(db.append(one(vec![bad])).await.expect("appends").rejected, 1);
        let m = Matcher::equal("__name__", "h");
        assert_eq!(db.close_series(std::slice::from_ref(&m)).await.expect("closes"), 1);
        assert_eq!(db.close_series(&[m]).await.expect("closes"), 0);
    });
}

#[test]
fn exemplars_come_back_with_the_log() {
    let dir = tempfile::tempdir().expect("dir");
    let mut b = batch(&[("up", "a", 0, 1.0)]);
    let series = b.series[0].labels.clone();
    let exemplar =
        Exemplar { series, labels: Labels::from_pairs([("trace_id", "t")]), value: 0.5, timestamp: NOW };
    b.exemplars.push(exemplar.clone());
    rt().block_on(async {
        let db = Tsdb::open(config(dir.path())).expect("opens");
        db.append(b).await.expect("appends");
    });
    let db = Tsdb::open(config(dir.path())).expect("opens");
    assert_eq!(db.exemplars(&[name("up")], NOW, NOW), [exemplar]);
    assert_eq!(db.exemplars(&[name("down")], NOW, NOW), []);
}

#[test]
fn ended_series_leave_memory_without_a_flush_of_the_others() {
    let dir = tempfile::tempdir().expect("dir");
    let expect = |db: &Tsdb| {
        let found = all(db, name("up"));
        assert_eq!(found.iter().map(|(_, s)| s.len()).collect::<Vec<_>>(), [3, 2, 1]);
        assert!(signal::is_stale_nan(found[1].1[1].1));
    };
    rt().block_on(async {
        let db = Tsdb::open(config(dir.path())).expect("opens");
        db.append(batch(&[("up", "a", -9, 1.0), ("up", "b", -9, 1.0)])).await.expect("appends");
        db.append(batch(&[("up", "a", -8, 1.0), ("up", "b", -8, stale_nan())])).await.expect("appends");
        db.flush_dead().await.expect("flushes");
        let facts = db.facts();
        assert_eq!((facts.series, facts.dead_series, facts.blocks, facts.head_samples), (1, 0, 1, 2));
        // The number of the one that left is another series' now.
        db.append(batch(&[("up", "a", -7, 1.0), ("up", "c", -7, 1.0)])).await.expect("appends");
        expect(&db);
    });
    rt().block_on(async {
        let db = Tsdb::open(config(dir.path())).expect("opens");
        expect(&db);
        db.flush_dead().await.expect("flushes");
        db.flush().await.expect("flushes");
        expect(&db);
        assert_eq!(db.facts().series, 2);
    });
    let db = Tsdb::open(config(dir.path())).expect("opens");
    assert_eq!(db.facts().replayed_samples, 0);
    expect(&db);
}

#[test]
fn limits_of_a_namespace_name_it_and_its_largest_metrics() {
    let dir = tempfile::tempdir().expect("dir");
    let limits = crate::Limits { series: 3, samples_per_second: 1, ..crate::Limits::default() };
    let db = Tsdb::open(Config { limits, ..config(dir.path()) }).expect("opens");
    let send = |namespace: &str, pods: std::ops::Range<i32>| {
        let mut b = MetricBatch::default();
        for pod in pods {
            let pod = pod.to_string();
            b.push(
                Labels::from_pairs([("__name__", "up"), ("namespace", namespace), ("pod", &pod)]),
                NOW,
                1.0,
            );
        }
        rt().block_on(db.append(b))
    };
    let done = send("shop", 0..5).expect("appends");
    assert_eq!((done.accepted, done.rejected), (3, 2));
    let why = done.reason.expect("told");
    assert!(
        why.contains("\"shop\"") && why.contains("limit of 3 live series") && why.contains("up with 3"),
        "{why}"
    );
    assert_eq!(send("bank", 0..3).expect("appends").rejected, 0);
    // A burst of half a minute passes, more does not until there is room again.
    assert_eq!(send("shop", 0..3).expect("appends").accepted, 3);
    let many = |n: i64| {
        let mut b = MetricBatch::default();
        let labels = Labels::from_pairs([("__name__", "up"), ("namespace", "shop"), ("pod", "0")]);
        let samples = (1..=n).map(|t| signal::Sample { timestamp: NOW + t, value: 1.0 }).collect();
        b.series.push(signal::TimeSeries { labels, samples });
        rt().block_on(db.append(b))
    };
    assert!(many(25).is_ok());
    let refused = many(25).expect_err("over the rate");
    assert!(refused.retryable() && refused.to_string().contains("1 samples a second"), "{refused}");
    assert_eq!(
        db.facts().samples_refused.iter().find(|(r, _)| *r == "rate_limit"),
        Some(&("rate_limit", 25))
    );
}

#[test]
fn damage_in_the_log_costs_what_it_hit_and_is_told() {
    let dir = tempfile::tempdir().expect("dir");
    rt().block_on(async {
        let db = Tsdb::open(config(dir.path())).expect("opens");
        for t in 0..100 {
            db.append(batch(&[("up", "a", t - 200, t as f64), ("up", "b", t - 200, 0.1)]))
                .await
                .expect("appends");
        }
    });
    let path = dir.path().join("wal/0000000000000001.wal");
    let mut log = fs::read(&path).expect("reads");
    let middle = log.len() / 2;
    log[middle] ^= 0x55;
    fs::write(&path, log).expect("writes");
    let db = Tsdb::open(config(dir.path())).expect("opens");
    let found = all(&db, name("up"));
    assert_eq!(found.len(), 2);
    for (_, samples) in &found {
        // The record that was hit, and if it held the anchors those that hang from them.
        assert!(samples.len() >= 50 && samples.len() < 100, "{}", samples.len());
    }
    assert!(found[0].1.iter().all(|(t, v)| *v == (t + 200) as f64));
    assert!(found[1].1.iter().all(|(_, v)| *v == 0.1));
    assert_eq!(db.facts().quarantined, 1);
    assert!(db.damage().expect("told").contains("1 damaged part"));
}

/// The log of a head, cut at every byte: what comes back is always the beginning of what was acknowledged.
#[test]
fn a_log_cut_anywhere_gives_a_prefix() {
    let dir = tempfile::tempdir().expect("dir");
    rt().block_on(async {
        let db = Tsdb::open(config(dir.path())).expect("opens");
        for t in 0..5 {
            db.append(batch(&[("up", "a", t - 200, (t * t) as f64)])).await.expect("appends");
        }
    });
    let log = fs::read(dir.path().join("wal/0000000000000001.wal")).expect("reads");
    for cut in 0..log.len() {
        let d = tempfile::tempdir().expect("dir");
        fs::create_dir(d.path().join("wal")).expect("made");
        fs::write(d.path().join("wal/0000000000000001.wal"), &log[..cut]).expect("writes");
        let db = Tsdb::open(config(d.path())).expect("opens");
        let found = all(&db, name("up"));
        let samples = found.first().map_or(&[][..], |(_, s)| s.as_slice());
        assert!(
            samples.iter().zip(0..).all(|((at, v), t)| *at == t - 200 && *v == (t * t) as f64),
            "cut at {cut}"
        );
        assert!(db.damage().is_none(), "cut at {cut}");
    }
}

#[test]
fn a_clean_end_leaves_little_to_read_back() {
    let dir = tempfile::tempdir().expect("dir");
    rt().block_on(async {
        let db = Tsdb::open(config(dir.path())).expect("opens");
        db.append(batch(&[("up", "a", -9, 1.0)])).await.expect("appends");
        db.checkpoint().await.expect("writes");
        assert_eq!(db.facts().blocks, 0, "a few samples are read back faster than a block is written");
        // Noise, so that it takes the bytes it looks like.
        for round in 0..6u64 {
            let mut b = MetricBatch::default();
            for pod in 0..1000u64 {
                let labels = Labels::from_pairs([("__name__", "noise".to_owned()), ("pod", pod.to_string())]);
                let samples = (0..100)
                    .map(|i| {
                        let at = round * 100 + i;
                        let value =
                            f64::from_bits(((pod << 20 | at) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 2);
                        signal::Sample { timestamp: NOW - 1000 + at as i64, value }
                    })
                    .collect();
                b.series.push(signal::TimeSeries { labels, samples });
            }
            assert_eq!(db.append(b).await.expect("appends").rejected, 0);
        }
        db.checkpoint().await.expect("writes");
    });
    let db = Tsdb::open(config(dir.path())).expect("opens");
    assert_eq!((db.facts().blocks, db.facts().replayed_samples), (1, 0));
}
