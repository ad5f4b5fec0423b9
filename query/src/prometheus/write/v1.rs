//! Remote write 1.0 (Prometheus: prompb/remote.proto).

use signal::{Exemplar, HistogramSeries, Labels, METRIC_NAME, Metadata, Sample, TimeSeries};

use super::fields::{Fields, Value};
use super::{Decoded, wire};
use crate::error::Failure;

#[derive(Clone, PartialEq, prost::Message)]
struct PbExemplar {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<wire::Label>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(int64, tag = "3")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbMetadata {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    family: String,
    #[prost(string, tag = "4")]
    help: String,
    #[prost(string, tag = "5")]
    unit: String,
}

/// One series of a request, its texts still in the request: most of what comes is known already.
#[derive(Debug, Default)]
struct Series<'a> {
    labels: Vec<(&'a str, &'a str)>,
    samples: Vec<Sample>,
    histograms: Vec<wire::Histogram>,
    exemplars: Vec<PbExemplar>,
}

impl<'a> Series<'a> {
    /// Takes the place of what was in it.
    fn read(&mut self, raw: &'a [u8]) -> Option<()> {
        self.labels.clear();
        self.samples.clear();
        self.histograms.clear();
        self.exemplars.clear();
        let mut fields = Fields::new(raw);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Value::Bytes(b)) => self.labels.push(label(b)?),
                (2, Value::Bytes(b)) => self.samples.push(sample(b)?),
                (3, Value::Bytes(b)) => self.exemplars.push(prost::Message::decode(b).ok()?),
                (4, Value::Bytes(b)) => self.histograms.push(prost::Message::decode(b).ok()?),
                (1..=4, _) => return None,
                _ => {}
            }
        }
        Some(())
    }
}

fn label(raw: &[u8]) -> Option<(&str, &str)> {
    let mut pair = ("", "");
    let mut fields = Fields::new(raw);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Bytes(b)) => pair.0 = std::str::from_utf8(b).ok()?,
            (2, Value::Bytes(b)) => pair.1 = std::str::from_utf8(b).ok()?,
            (1 | 2, _) => return None,
            _ => {}
        }
    }
    Some(pair)
}

fn sample(raw: &[u8]) -> Option<Sample> {
    let mut sample = Sample { timestamp: 0, value: 0.0 };
    let mut fields = Fields::new(raw);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Fixed64(bits)) => sample.value = f64::from_bits(bits),
            (2, Value::Varint(n)) => sample.timestamp = n.cast_signed(),
            (1 | 2, _) => return None,
            _ => {}
        }
    }
    Some(sample)
}

fn take(s: &mut Series<'_>, out: &mut Decoded) {
    let n = s.samples.len() + s.histograms.len();
    let labels = match s.labels() {
        Ok(labels) => labels,
        Err(why) => return out.refuse(n, why),
    };
    let histograms: Vec<_> = s.histograms.iter().filter_map(wire::Histogram::sample).collect();
    if histograms.len() < s.histograms.len() {
        out.refuse(s.histograms.len() - histograms.len(), "spans and buckets do not fit".to_owned());
    }
    if !histograms.is_empty() {
        out.batch.histograms.push(HistogramSeries { labels: labels.clone(), samples: histograms });
    }
    out.batch.exemplars.extend(s.exemplars.iter().map(|e| Exemplar {
        series: labels.clone(),
        labels: Labels::from_pairs(e.labels.iter().map(|l| (&l.name, &l.value))),
        value: e.value,
        timestamp: e.timestamp,
    }));
    if !s.samples.is_empty() {
        out.batch.series.push(TimeSeries { labels, samples: s.samples.as_slice().into() });
    }
}

/// A request whose series are, most of them, known: floats in columns under the key of their labels' bytes.
#[derive(Debug, Default)]
pub(super) struct Request<'a> {
    pub(super) columns: tsdb::Columns,
    /// The bytes of the labels of each of the columns' series.
    names: Vec<&'a [u8]>,
    /// Everything else, and what was wrong.
    pub(super) rest: Decoded,
}

impl Request<'_> {
    /// What the labels of one of the columns' series say.
    pub(super) fn labels(&self, at: usize) -> Result<Labels, String> {
        let bytes = self.names.get(at).copied().unwrap_or(&[]);
        let mut s = Series::default();
        s.read(bytes).ok_or("malformed labels")?;
        s.labels()
    }
}

impl Series<'_> {
    fn labels(&self) -> Result<Labels, String> {
        let labels = Labels::from_ordered(&self.labels)
            .unwrap_or_else(|| Labels::from_pairs(self.labels.iter().copied()));
        let nameless = self.labels.iter().any(|(name, _)| name.is_empty());
        let given = self.labels.iter().filter(|(_, value)| !value.is_empty()).count();
        if labels.get(METRIC_NAME).is_none() || labels.len() != given || nameless {
            return Err(format!("invalid labels: {labels}"));
        }
        Ok(labels)
    }
}

/// The length of a field whose one-byte tag is `tag` and stands at the front.
#[inline]
fn length(tag: u8, rest: &[u8]) -> Option<(usize, &[u8])> {
    match rest {
        [t, n, r @ ..] if *t == tag && *n < 0x80 => Some((usize::from(*n), r)),
        [t, low, high, r @ ..] if *t == tag && *high < 0x80 => {
            Some((usize::from(low & 0x7f) | usize::from(*high) << 7, r))
        }
        _ => None,
    }
}

/// A sample as every sender writes it: value, then time.
#[inline]
pub(super) fn plain_sample(b: &[u8]) -> Option<Sample> {
    let (value, rest) = b.strip_prefix(&[0x09])?.split_first_chunk::<8>()?;
    let rest = rest.strip_prefix(&[0x10])?;
    let mut timestamp = 0u64;
    for (i, byte) in rest.iter().enumerate() {
        timestamp |= u64::from(byte & 0x7f) << (7 * i).min(63);
        if *byte < 0x80 {
            let value = f64::from_le_bytes(*value);
            return (i + 1 == rest.len() && i < 9)
                .then_some(Sample { timestamp: timestamp.cast_signed(), value });
        }
    }
    None
}

/// A series of nothing but labels and then floats, as nearly all are. Leaves everything as it was if it is another.
#[inline]
fn plain<'a>(raw: &'a [u8], out: &mut Request<'a>) -> Option<()> {
    let mut rest = raw;
    while let Some((n, r)) = length(0x0a, rest) {
        rest = r.get(n..)?;
    }
    let (name, mut floats) = raw.split_at_checked(raw.len() - rest.len())?;
    let before = out.columns.samples.len();
    while let Some((n, r)) = length(0x12, floats) {
        let Some((sample, others)) = r.split_at_checked(n).and_then(|(b, o)| Some((plain_sample(b)?, o)))
        else {
            break;
        };
        out.columns.samples.push(sample);
        floats = others;
    }
    if !floats.is_empty() || name.is_empty() {
        out.columns.samples.truncate(before);
        return None;
    }
    let n = out.columns.samples.len() - before;
    if n > 0 {
        out.columns.series.push((tsdb::Key::of(name), n as u32));
        out.names.push(name);
    }
    Some(())
}

fn read<'a>(raw: &'a [u8]) -> Option<Request<'a>> {
    let mut out = Request::default();
    let mut series = Series::default();
    let mut fields = Fields::new(raw);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Bytes(b)) if plain(b, &mut out).is_some() => {}
            (1, Value::Bytes(b)) => {
                series.read(b)?;
                take(&mut series, &mut out.rest);
            }
            (3, Value::Bytes(b)) => {
                let m: PbMetadata = prost::Message::decode(b).ok()?;
                out.rest.batch.metadata.push(Metadata {
                    family: m.family,
                    kind: wire::kind(m.kind),
                    help: m.help,
                    unit: m.unit,
                });
            }
            (1 | 3, _) => return None,
            _ => {}
        }
    }
    Some(out)
}

pub(super) fn decode(raw: &[u8]) -> Result<Request<'_>, Failure> {
    read(raw).ok_or_else(|| Failure::Bad("not a remote write request: malformed protobuf".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What senders write, field by field, through an implementation that is not this one.
    #[derive(Clone, PartialEq, prost::Message)]
    struct PbSeries {
        #[prost(message, repeated, tag = "1")]
        labels: Vec<wire::Label>,
        #[prost(message, repeated, tag = "2")]
        samples: Vec<wire::Sample>,
        #[prost(uint32, tag = "99")]
        unknown: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct PbRequest {
        #[prost(message, repeated, tag = "1")]
        timeseries: Vec<PbSeries>,
    }

    #[test]
    fn reads_what_prost_writes_and_refuses_what_is_cut_off() {
        let pair = |name: &str, value: &str| wire::Label { name: name.to_owned(), value: value.to_owned() };
        let series = |n: i64, labels: Vec<wire::Label>| PbSeries {
            labels,
            samples: vec![wire::Sample { value: 0.5, timestamp: n, start_timestamp: 0 }; 2],
            unknown: if n < 0 { 7 } else { 0 },
        };
        let request = PbRequest {
            timeseries: vec![
                series(-5, vec![pair("job", "x"), pair("__name__", "up")]),
                series(1_700_000_000_000, vec![pair("__name__", "up"), pair("job", "y")]),
                series(1, vec![pair("job", "nameless")]),
            ],
        };
        let raw = prost::Message::encode_to_vec(&request);
        let decoded = decode(&raw).expect("a message");
        let floats = &decoded.columns;
        let mut at = 0;
        let got: Vec<_> = floats
            .series
            .iter()
            .enumerate()
            .map(|(i, (_, n))| {
                at += *n as usize;
                (decoded.labels(i).map(|l| l.to_string()), floats.samples[at - *n as usize..at].to_vec())
            })
            .collect();
        let twice = |timestamp| vec![Sample { timestamp, value: 0.5 }; 2];
        assert_eq!(
            got,
            [
                (Ok(r#"up{job="y"}"#.to_owned()), twice(1_700_000_000_000)),
                (Err(r#"invalid labels: {job="nameless"}"#.to_owned()), twice(1)),
            ]
        );
        // A time before 1970 takes the longest form; and what no sender does (an unknown field) takes the long way.
        let others: Vec<_> =
            decoded.rest.batch.series.iter().map(|s| (s.labels.to_string(), s.samples.clone())).collect();
        assert_eq!(others, [(r#"up{job="x"}"#.to_owned(), twice(-5))]);
        assert!(decode(&raw[..raw.len() - 1]).is_err());
        assert!(decode(&[0x0a]).is_err());
        assert!(decode(b"\x0f").is_err());
    }
}
