//! The messages of remote read and remote write 1.0 (Prometheus: prompb/types.proto, prompb/remote.proto), and frames of
//! streamed remote read.

use signal::histogram::{Bucket, CUSTOM_SCHEMA, ResetHint, Span};
use signal::{FloatHistogram, HistogramSample, HistogramSeries, Labels, MetricBatch, Sample, SeriesColumns};

use crate::bits::take_uvarint;
use crate::crc::crc32c;
use crate::{Error, chunk};

/// `POST` body of remote write 1.0, without metadata and exemplars.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadRequest {
    #[prost(message, repeated, tag = "1")]
    pub queries: Vec<Query>,
    /// What the client understands, best first: 0 samples, 1 streamed chunks. Nothing is samples.
    #[prost(int32, repeated, tag = "2")]
    pub accepted_response_types: Vec<i32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Query {
    /// Milliseconds, both ends included.
    #[prost(int64, tag = "1")]
    pub start: i64,
    #[prost(int64, tag = "2")]
    pub end: i64,
    #[prost(message, repeated, tag = "3")]
    pub matchers: Vec<LabelMatcher>,
    #[prost(message, optional, tag = "4")]
    pub hints: Option<ReadHints>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct LabelMatcher {
    /// 0 `=`, 1 `!=`, 2 `=~`, 3 `!~`
    #[prost(int32, tag = "1")]
    pub op: i32,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub value: String,
}

/// What the samples are for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadHints {
    #[prost(int64, tag = "1")]
    pub step: i64,
    /// `series`: labels without samples will do.
    #[prost(string, tag = "2")]
    pub func: String,
    #[prost(int64, tag = "3")]
    pub start: i64,
    #[prost(int64, tag = "4")]
    pub end: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadResponse {
    #[prost(message, repeated, tag = "1")]
    pub results: Vec<QueryResult>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct QueryResult {
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<FloatSample>,
    #[prost(message, repeated, tag = "4")]
    pub histograms: Vec<Histogram>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Label {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FloatSample {
    #[prost(double, tag = "1")]
    pub value: f64,
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
}

/// Counts are floats: that is how they are held.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Histogram {
    #[prost(uint64, optional, tag = "1")]
    pub count_int: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub count_float: Option<f64>,
    #[prost(double, tag = "3")]
    pub sum: f64,
    #[prost(sint32, tag = "4")]
    pub schema: i32,
    #[prost(double, tag = "5")]
    pub zero_threshold: f64,
    #[prost(double, optional, tag = "7")]
    pub zero_count_float: Option<f64>,
    #[prost(message, repeated, tag = "8")]
    pub negative_spans: Vec<BucketSpan>,
    #[prost(double, repeated, tag = "10")]
    pub negative_counts: Vec<f64>,
    #[prost(message, repeated, tag = "11")]
    pub positive_spans: Vec<BucketSpan>,
    #[prost(double, repeated, tag = "13")]
    pub positive_counts: Vec<f64>,
    #[prost(int32, tag = "14")]
    pub reset_hint: i32,
    #[prost(int64, tag = "15")]
    pub timestamp: i64,
    #[prost(double, repeated, tag = "16")]
    pub custom_values: Vec<f64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct BucketSpan {
    #[prost(sint32, tag = "1")]
    pub offset: i32,
    #[prost(uint32, tag = "2")]
    pub length: u32,
}

/// One frame of a streamed answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChunkedReadResponse {
    #[prost(message, repeated, tag = "1")]
    pub chunked_series: Vec<ChunkedSeries>,
    #[prost(int64, tag = "2")]
    pub query_index: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ChunkedSeries {
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    pub chunks: Vec<Chunk>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Chunk {
    #[prost(int64, tag = "1")]
    pub min: i64,
    #[prost(int64, tag = "2")]
    pub max: i64,
    #[prost(int32, tag = "3")]
    pub encoding: i32,
    #[prost(bytes = "vec", tag = "4")]
    pub data: Vec<u8>,
}

pub fn labels(l: &Labels) -> Vec<Label> {
    l.iter().map(|(name, value)| Label { name: name.to_owned(), value: value.to_owned() }).collect()
}

impl Histogram {
    pub fn of(s: &HistogramSample) -> Histogram {
        let h = &s.histogram;
        let side = |buckets: &[Bucket]| {
            let (spans, counts) = FloatHistogram::to_spans(buckets);
            let spans = spans.into_iter().map(|(offset, length)| BucketSpan { offset, length });
            (spans.collect(), counts)
        };
        let (positive_spans, positive_counts) = side(&h.positive);
        let (negative_spans, negative_counts) = side(&h.negative);
        Histogram {
            count_int: None,
            count_float: Some(h.count),
            sum: h.sum,
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            zero_count_float: Some(h.zero_count),
            negative_spans,
            negative_counts,
            positive_spans,
            positive_counts,
            reset_hint: match h.hint {
                ResetHint::Unknown => 0,
                ResetHint::Reset => 1,
                ResetHint::NotReset => 2,
                ResetHint::Gauge => 3,
            },
            timestamp: s.timestamp,
            custom_values: h.bounds.to_vec(),
        }
    }

    /// `None` if spans and counts do not fit each other.
    pub fn sample(&self) -> Option<HistogramSample> {
        let side = |spans: &[BucketSpan], counts: &[f64]| {
            let spans: Vec<Span> = spans.iter().map(|s| (s.offset, s.length)).collect();
            FloatHistogram::from_spans(&spans, counts.iter().copied())
        };
        let mut h = FloatHistogram {
            hint: match self.reset_hint {
                1 => ResetHint::Reset,
                2 => ResetHint::NotReset,
                3 => ResetHint::Gauge,
                _ => ResetHint::Unknown,
            },
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count_float.unwrap_or(0.0),
            count: self.count_float.unwrap_or(self.count_int.unwrap_or(0) as f64),
            sum: self.sum,
            positive: side(&self.positive_spans, &self.positive_counts)?,
            negative: side(&self.negative_spans, &self.negative_counts)?,
            bounds: self.custom_values.as_slice().into(),
        };
        if h.schema > 8 && h.schema != CUSTOM_SCHEMA {
            h.reduce(8);
        }
        Some(HistogramSample { timestamp: self.timestamp, start: 0, histogram: h.into() })
    }
}

/// A series with all its samples.
pub fn series(s: &SeriesColumns) -> TimeSeries {
    let float = |(t, v): (&i64, &f64)| FloatSample { value: *v, timestamp: *t };
    TimeSeries {
        labels: labels(&s.labels),
        samples: s.timestamps.iter().zip(&s.values).map(float).collect(),
        histograms: s.histograms.iter().map(Histogram::of).collect(),
    }
}

impl WriteRequest {
    /// The samples as a batch; histograms that contradict themselves are counted and left out.
    pub fn into_batch(self) -> (MetricBatch, usize) {
        let mut batch = MetricBatch::default();
        let mut wrong = 0;
        for s in self.timeseries {
            let labels = Labels::from_pairs(s.labels.iter().map(|l| (&l.name, &l.value)));
            if !s.samples.is_empty() {
                let samples = s.samples.iter();
                let samples = samples.map(|s| Sample { timestamp: s.timestamp, value: s.value }).collect();
                batch.series.push(signal::TimeSeries { labels: labels.clone(), samples });
            }
            let found: Vec<HistogramSample> = s.histograms.iter().filter_map(Histogram::sample).collect();
            wrong += s.histograms.len() - found.len();
            if !found.is_empty() {
                batch.histograms.push(HistogramSeries { labels, samples: found });
            }
        }
        (batch, wrong)
    }
}

/// The frames of one series' chunks, each of `most` bytes at most unless a single chunk is longer.
pub fn frames(s: &SeriesColumns, query: usize, most: usize, mut frame: impl FnMut(Vec<u8>) -> bool) -> bool {
    let labels = labels(&s.labels);
    let fixed: usize = labels.iter().map(|l| l.name.len() + l.value.len() + 8).sum();
    let mut chunks = Vec::new();
    let mut size = fixed;
    let mut send = |chunks: Vec<Chunk>| {
        let series = ChunkedSeries { labels: labels.clone(), chunks };
        frame(framed(&ChunkedReadResponse { chunked_series: vec![series], query_index: query as i64 }))
    };
    for c in chunk::encode(s) {
        if !chunks.is_empty() && size + c.data.len() > most {
            if !send(std::mem::take(&mut chunks)) {
                return false;
            }
            size = fixed;
        }
        size += c.data.len() + 32;
        chunks.push(Chunk { min: c.min, max: c.max, encoding: c.encoding as i32, data: c.data });
    }
    send(chunks)
}

/// Length, CRC-32C, message (Prometheus: storage/remote/chunked.go).
fn framed(m: &ChunkedReadResponse) -> Vec<u8> {
    let body = prost::Message::encode_to_vec(m);
    let mut out = Vec::with_capacity(body.len() + 14);
    let mut n = body.len();
    while n >= 0x80 {
        out.push(n as u8 & 0x7f | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out.extend_from_slice(&crc32c(&body).to_be_bytes());
    out.extend_from_slice(&body);
    out
}

/// The longest frame taken: ours are of [`frames`]' making, others' of a megabyte and one chunk.
const MOST_FRAME: u64 = 64 << 20;

/// Takes the first frame out of what has come so far; `None` if it is not whole yet.
pub fn take_frame(buffer: &mut Vec<u8>) -> Result<Option<ChunkedReadResponse>, Error> {
    let damaged = |why| Error::Damaged { what: "a streamed answer".to_owned(), why };
    let mut rest = buffer.as_slice();
    let Some(len) = take_uvarint(&mut rest) else {
        return if buffer.len() < 10 { Ok(None) } else { Err(damaged("a frame has no length")) };
    };
    if len > MOST_FRAME {
        return Err(damaged("a frame is too long"));
    }
    let len = len as usize;
    let (Some(crc), Some(body)) = (rest.get(..4), rest.get(4..4 + len)) else { return Ok(None) };
    if crc != crc32c(body).to_be_bytes() {
        return Err(damaged("a frame's checksum is another"));
    }
    let frame = prost::Message::decode(body).map_err(|_| damaged("a frame is no message"))?;
    let used = buffer.len() - rest.len() + 4 + len;
    buffer.drain(..used);
    Ok(Some(frame))
}

impl ChunkedSeries {
    /// The samples of this frame's chunks.
    pub fn columns(&self) -> Result<SeriesColumns, Error> {
        let mut out = SeriesColumns {
            labels: Labels::from_pairs(self.labels.iter().map(|l| (&l.name, &l.value))),
            ..SeriesColumns::default()
        };
        let mut times = Vec::new();
        for c in &self.chunks {
            let encoding = u8::try_from(c.encoding).ok().and_then(chunk::Encoding::from_number);
            let encoding = encoding
                .ok_or_else(|| Error::Unsupported(format!("chunks of kind {} are not known", c.encoding)))?;
            chunk::decode(encoding, &c.data, |s| match s {
                chunk::Sample::Float(t, v) => {
                    times.push(t);
                    out.values.push(v);
                }
                chunk::Sample::Histogram(h) => out.histograms.push(h),
            })?;
        }
        out.timestamps = times.into();
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_series_go_in_several_frames() {
        let n = 10_000;
        let s = SeriesColumns {
            labels: Labels::from_pairs([("__name__", "a"), ("b", "c")]),
            timestamps: std::sync::Arc::new((0..n).map(|i| i * 15_000).collect()),
            values: (0..n).map(|i| (i as f64).sqrt()).collect(),
            ..SeriesColumns::default()
        };
        let mut all = Vec::new();
        assert!(frames(&s, 3, 20_000, |f| {
            all.push(f);
            true
        }));
        assert!(all.len() > 2);
        assert!(all.iter().all(|f| f.len() <= 20_200));
        let (mut times, mut values) = (Vec::new(), Vec::new());
        // As they come over a wire: cut anywhere.
        let mut buffer = Vec::new();
        for part in all.concat().chunks(777) {
            buffer.extend_from_slice(part);
            while let Some(m) = take_frame(&mut buffer).expect("a frame") {
                assert_eq!((m.query_index, m.chunked_series.len()), (3, 1));
                let got = m.chunked_series[0].columns().expect("chunks");
                assert_eq!(got.labels, s.labels);
                times.extend(got.timestamps.iter());
                values.extend(got.values);
            }
        }
        assert!(buffer.is_empty());
        assert_eq!((&times, values), (&*s.timestamps, s.values));
        let mut bad = all.remove(0);
        bad[100] ^= 1;
        assert!(take_frame(&mut bad).is_err());
    }
}
