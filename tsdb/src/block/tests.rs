//! Blocks of every version that was ever written open, and hold what was put into them.

use std::path::Path;
use std::sync::Arc;

use signal::{FloatHistogram, HistogramSample, Labels};

use super::*;
use crate::merge::{Columns, Extras};

const BEGIN: i64 = 1_700_000_000_000;

/// What the fixtures hold: constants, decimals, random bits, stale markers; even and jittered times; short series;
/// from version 2 on histograms and start times.
fn contents(version: u32) -> Vec<(Labels, SeriesData)> {
    let series = (0..40u64).map(|n| {
        let (name, pod) = (format!("m{:02}", n / 4), format!("pod-{}", n % 4));
        let mut data = SeriesData::default();
        let count = if n % 4 == 3 { 5 } else { 300 };
        for i in 0..count {
            let jitter = if n % 2 == 1 { (i * 7919 % 13) as i64 } else { 0 };
            let value = match n % 5 {
                0 => 7.0,
                1 => (i * n) as f64 / 100.0,
                2 => f64::from_bits((i * n).wrapping_mul(0x9E37_79B9_7F4A_7C15)),
                3 if i == count - 1 => f64::from_bits(signal::STALE_NAN_BITS),
                _ => (i * i % 97) as f64,
            };
            data.columns.push(BEGIN + i as i64 * 15_000 + jitter, value);
        }
        if version >= 2 && n % 10 == 0 {
            data.starts = vec![(BEGIN, BEGIN - 1000)];
            let h = FloatHistogram { schema: 3, count: 4.0, sum: 9.5, ..FloatHistogram::default() };
            data.histograms =
                vec![HistogramSample { timestamp: BEGIN + 9_000_000, start: 5, histogram: Arc::new(h) }];
        }
        (Labels::from_pairs([("__name__", name.as_str()), ("pod", pod.as_str())]), data)
    });
    series.collect()
}

fn holds(path: &Path, version: u32) {
    let block = Arc::new(Block::open(path.to_owned()).expect("opens"));
    assert_eq!(block.meta.version, version);
    let mut reader = Reader::new(block).expect("reads");
    for (i, (labels, data)) in contents(version).into_iter().enumerate() {
        let i = i as u32;
        assert_eq!(reader.labels(i).expect("labels"), labels);
        let (mut got, mut extras) = (Columns::default(), Extras::default());
        reader.read(i, i64::MIN, i64::MAX, &mut got).expect("reads");
        reader.read_extra(i, i64::MIN, i64::MAX, &mut extras).expect("reads");
        let bits = |c: &Columns| c.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!((&got.times, bits(&got)), (&data.columns.times, bits(&data.columns)), "{labels}");
        assert_eq!(extras.finish(), (data.histograms, data.starts));
        let mut part = Columns::default();
        reader.read(i, BEGIN + 15_000, BEGIN + 45_000, &mut part).expect("reads");
        let inside = |t: &&i64| (BEGIN + 15_000..=BEGIN + 45_000).contains(*t);
        assert_eq!(part.times, got.times.iter().filter(inside).copied().collect::<Vec<_>>());
    }
    // Labels are found from anywhere.
    for i in [39, 3, 17, 16, 15, 0] {
        let expect = contents(version).into_iter().nth(i as usize).map(|(l, _)| l);
        assert_eq!(reader.labels(i).ok(), expect);
    }
}

#[test]
fn fixtures_of_all_versions_are_read() {
    for version in 1..=VERSION {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/block/fixtures/v{version}.blk"));
        holds(&path, version);
    }
}

#[test]
fn what_is_written_is_read() {
    let dir = tempfile::tempdir().expect("dir");

    let mut w = Writer::create(dir.path(), Meta { seq: 1, order: 1, ..Meta::default() }).expect("creates");
    contents(VERSION).iter().for_each(|(labels, data)| w.add(labels, data).expect("adds"));
    holds(&w.finish().expect("writes").expect("not empty"), VERSION);
}

/// Any bit that is wrong is noticed: by the footer, or by the checksum of what it lies in.
#[test]
fn a_flipped_bit_is_noticed() {
    let dir = tempfile::tempdir().expect("dir");
    let whole = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/block/fixtures/v3.blk"));
    let whole = whole.expect("fixture");
    let path = dir.path().join("0000000000000001.blk");
    let read = |path: &Path| -> Result<(), Error> {
        let mut reader = Reader::new(Arc::new(Block::open(path.to_owned())?))?;
        for i in 0..reader.index.series() {
            reader.labels(i)?;
            reader.read(i, i64::MIN, i64::MAX, &mut Columns::default())?;
            reader.read_extra(i, i64::MIN, i64::MAX, &mut Extras::default())?;
        }
        Ok(())
    };
    // The magic number at the front says what the file is to people; the footer has another.
    for at in (12..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bytes).expect("writes");
        assert!(read(&path).is_err(), "byte {at}");
    }
}
