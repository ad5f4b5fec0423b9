//! Chunks: runs of samples of one series, packed as Prometheus packs them.

use signal::{HistogramSample, SeriesColumns};

use crate::{Error, histogram, xor};

/// Samples in a chunk, as in Prometheus.
const SAMPLES: usize = 120;

/// How a chunk is packed; the numbers are Prometheus'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Xor = 1,
    Histogram = 2,
    FloatHistogram = 3,
}

impl Encoding {
    pub fn from_number(n: u8) -> Option<Self> {
        [Encoding::Xor, Encoding::Histogram, Encoding::FloatHistogram].into_iter().find(|e| *e as u8 == n)
    }
}

/// A packed run. Times are those of its first and last sample, in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    pub encoding: Encoding,
    pub min: i64,
    pub max: i64,
    pub data: Vec<u8>,
}

/// Packs a series' samples, in order of time.
pub fn encode(s: &SeriesColumns) -> Vec<Chunk> {
    let floats = s.timestamps.chunks(SAMPLES).zip(s.values.chunks(SAMPLES)).filter_map(|(times, values)| {
        let (min, max) = (*times.first()?, *times.last()?);
        Some(Chunk { encoding: Encoding::Xor, min, max, data: xor::encode(times, values) })
    });
    let mut out: Vec<Chunk> = floats.collect();
    let mut rest = s.histograms.as_slice();
    while let (Some(first), n @ 1..) = (rest.first(), histogram::run(rest, SAMPLES)) {
        let (now, later) = rest.split_at(n);
        let max = now.last().map_or(first.timestamp, |l| l.timestamp);
        let data = histogram::encode(now);
        out.push(Chunk { encoding: Encoding::FloatHistogram, min: first.timestamp, max, data });
        rest = later;
    }
    if !s.histograms.is_empty() {
        out.sort_by_key(|c| c.min);
    }
    out
}

/// What comes out of a chunk.
pub enum Sample {
    Float(i64, f64),
    Histogram(HistogramSample),
}

/// Unpacks a chunk. After an error, some samples may have been given already.
pub fn decode(encoding: Encoding, data: &[u8], mut sample: impl FnMut(Sample)) -> Result<(), Error> {
    let done = match encoding {
        Encoding::Xor => xor::decode(data, |t, v| sample(Sample::Float(t, v))),
        Encoding::Histogram => histogram::decode(data, false, |s| sample(Sample::Histogram(s))),
        Encoding::FloatHistogram => histogram::decode(data, true, |s| sample(Sample::Histogram(s))),
    };
    done.ok_or_else(|| Error::Damaged { what: "a chunk".to_owned(), why: "it ends before its last sample" })
}
