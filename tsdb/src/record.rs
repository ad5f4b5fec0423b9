//! What one append writes to the log: definitions of series the log does not know yet, then samples by number.
//! Format: FORMAT.md, "WAL record".

use signal::{Exemplar, HistogramSample, Labels, Metadata, MetricKind, Sample};

use crate::codec::{
    HistogramState, decode_histograms, get_uvarint, get_varint, put_uvarint, put_varint, take,
};

/// Series, metadata and floats.
const FLOATS: u8 = 1;
/// Those, then histograms, start times and exemplars.
const ALL: u8 = 2;
/// Samples of one series that a reader believes in.
const MOST: u64 = 1 << 24;

/// Samples of one append in the terms of the head.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Record {
    pub(crate) series: Vec<(u32, Labels)>,
    pub(crate) metadata: Vec<Metadata>,
    pub(crate) samples: Vec<(u32, Vec<Sample>)>,
    pub(crate) histograms: Vec<(u32, Vec<HistogramSample>)>,
    /// `(time of the sample, start)` for each series.
    pub(crate) starts: Vec<(u32, Vec<(i64, i64)>)>,
    pub(crate) exemplars: Vec<Exemplar>,
}

const KINDS: [MetricKind; 8] = [
    MetricKind::Counter,
    MetricKind::Gauge,
    MetricKind::Histogram,
    MetricKind::GaugeHistogram,
    MetricKind::Summary,
    MetricKind::Info,
    MetricKind::StateSet,
    MetricKind::Unknown,
];

impl Record {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut b = Vec::new();
        put_uvarint(&mut b, self.series.len() as u64);
        for (id, labels) in &self.series {
            put_uvarint(&mut b, u64::from(*id));
            put_text(&mut b, labels.encoded());
        }
        put_uvarint(&mut b, self.metadata.len() as u64);
        for m in &self.metadata {
            put_text(&mut b, m.family.as_bytes());
            b.push(KINDS.iter().position(|k| *k == m.kind).unwrap_or(7) as u8);
            put_text(&mut b, m.help.as_bytes());
            put_text(&mut b, m.unit.as_bytes());
        }
        put_uvarint(&mut b, self.samples.len() as u64);
        // In columns: numbers and times shrink to almost nothing, and values are left for zstd to see together.
        let (mut last_id, mut last_t) = (0i64, 0i64);
        for (id, samples) in &self.samples {
            put_varint(&mut b, i64::from(*id) - last_id);
            last_id = i64::from(*id);
            put_uvarint(&mut b, samples.len() as u64);
        }
        for s in self.samples.iter().flat_map(|(_, s)| s) {
            put_varint(&mut b, s.timestamp.wrapping_sub(last_t));
            last_t = s.timestamp;
        }
        for s in self.samples.iter().flat_map(|(_, s)| s) {
            b.extend_from_slice(&s.value.to_bits().to_le_bytes());
        }
        let more = !(self.histograms.is_empty() && self.starts.is_empty() && self.exemplars.is_empty());
        if more {
            self.encode_more(&mut b);
        }
        let mut out = vec![if more { ALL } else { FLOATS }];
        put_uvarint(&mut out, b.len() as u64);
        out.extend(zstd::bulk::compress(&b, 1).expect("compressing in memory cannot fail"));
        out
    }

    pub(crate) fn decode(mut data: &[u8]) -> Option<Record> {
        let version = *take(&mut data, 1)?.first()?;
        if !(FLOATS..=ALL).contains(&version) {
            return None;
        }
        let len = usize::try_from(get_uvarint(&mut data)?).ok().filter(|n| *n <= 1 << 30)?;
        let body = zstd::bulk::decompress(data, len).ok()?;
        let b = &mut body.as_slice();
        let mut r = Record::default();
        for _ in 0..get_uvarint(b)? {
            let id = u32::try_from(get_uvarint(b)?).ok()?;
            r.series.push((id, Labels::from_encoded(get_text(b)?)?));
        }
        for _ in 0..get_uvarint(b)? {
            let family = String::from_utf8(get_text(b)?.to_vec()).ok()?;
            let kind = *KINDS.get(usize::from(*take(b, 1)?.first()?))?;
            let help = String::from_utf8(get_text(b)?.to_vec()).ok()?;
            let unit = String::from_utf8(get_text(b)?.to_vec()).ok()?;
            r.metadata.push(Metadata { family, kind, help, unit });
        }
        let mut id = 0i64;
        for _ in 0..get_uvarint(b)? {
            id = id.checked_add(get_varint(b)?)?;
            let n = usize::try_from(get_uvarint(b)?).ok().filter(|n| *n <= body.len())?;
            r.samples.push((u32::try_from(id).ok()?, vec![Sample { timestamp: 0, value: 0.0 }; n]));
        }
        let mut t = 0i64;
        for s in r.samples.iter_mut().flat_map(|(_, s)| s) {
            t = t.wrapping_add(get_varint(b)?);
            s.timestamp = t;
        }
        for s in r.samples.iter_mut().flat_map(|(_, s)| s) {
            s.value = f64::from_bits(u64::from_le_bytes(take(b, 8)?.try_into().ok()?));
        }
        if version == ALL {
            r.decode_more(b)?;
        }
        Some(r)
    }

    /// What few records have: numbers of series stand as they are, since there are not many.
    fn encode_more(&self, b: &mut Vec<u8>) {
        put_uvarint(b, self.histograms.len() as u64);
        for (id, samples) in &self.histograms {
            let (mut state, mut stream) = (HistogramState::default(), Vec::new());
            samples.iter().for_each(|s| state.push(&mut stream, s));
            put_uvarint(b, u64::from(*id));
            put_uvarint(b, u64::from(state.count));
            put_text(b, &stream);
        }
        put_uvarint(b, self.starts.len() as u64);
        for (id, times) in &self.starts {
            put_uvarint(b, u64::from(*id));
            put_uvarint(b, times.len() as u64);
            for (t, start) in times {
                put_varint(b, *t);
                put_varint(b, start.wrapping_sub(*t));
            }
        }
        put_uvarint(b, self.exemplars.len() as u64);
        for e in &self.exemplars {
            put_text(b, e.series.encoded());
            put_text(b, e.labels.encoded());
            put_varint(b, e.timestamp);
            b.extend_from_slice(&e.value.to_bits().to_le_bytes());
        }
    }

    fn decode_more(&mut self, b: &mut &[u8]) -> Option<()> {
        for _ in 0..get_uvarint(b)? {
            let id = u32::try_from(get_uvarint(b)?).ok()?;
            let count = u32::try_from(get_uvarint(b)?).ok()?;
            let mut samples = Vec::new();
            decode_histograms(get_text(b)?, count, |s| samples.push(s))?;
            self.histograms.push((id, samples));
        }
        for _ in 0..get_uvarint(b)? {
            let id = u32::try_from(get_uvarint(b)?).ok()?;
            let n = get_uvarint(b).filter(|n| *n <= MOST)?;
            let times: Option<Vec<(i64, i64)>> = (0..n)
                .map(|_| {
                    let t = get_varint(b)?;
                    Some((t, t.wrapping_add(get_varint(b)?)))
                })
                .collect();
            self.starts.push((id, times?));
        }
        for _ in 0..get_uvarint(b)? {
            let series = Labels::from_encoded(get_text(b)?)?;
            let labels = Labels::from_encoded(get_text(b)?)?;
            let timestamp = get_varint(b)?;
            let value = f64::from_bits(u64::from_le_bytes(take(b, 8)?.try_into().ok()?));
            self.exemplars.push(Exemplar { series, labels, value, timestamp });
        }
        Some(())
    }
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_uvarint(out, text.len() as u64);
    out.extend_from_slice(text);
}

fn get_text<'a>(data: &mut &'a [u8]) -> Option<&'a [u8]> {
    let n = usize::try_from(get_uvarint(data)?).ok()?;
    take(data, n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use signal::FloatHistogram;

    #[test]
    fn what_few_records_have_round_trips() {
        let h = FloatHistogram {
            count: 3.0,
            sum: 0.5,
            positive: FloatHistogram::buckets(1, &[1.0, 2.0]),
            ..FloatHistogram::default()
        };
        let labels = Labels::from_pairs([("__name__", "h")]);
        let r = Record {
            series: vec![(7, labels.clone())],
            samples: vec![(7, vec![Sample { timestamp: 5, value: 1.0 }])],
            histograms: vec![(7, vec![HistogramSample { timestamp: 6, start: 2, histogram: h.into() }])],
            starts: vec![(7, vec![(5, 1)])],
            exemplars: vec![Exemplar {
                series: labels,
                labels: Labels::from_pairs([("trace_id", "abc")]),
                value: 0.25,
                timestamp: 6,
            }],
            ..Record::default()
        };
        assert_eq!(r.encode()[0], ALL);
        assert_eq!(Record::decode(&r.encode()), Some(r));
    }

    proptest! {
        #[test]
        fn records_round_trip(
            series in proptest::collection::vec((any::<u32>(), "[a-z]{1,5}", ".{1,9}"), 0..5),
            samples in proptest::collection::vec((any::<u32>(), proptest::collection::vec((any::<i64>(), -1e9..1e9f64), 0..5)), 0..9),
        ) {
            let r = Record {
                series: series.into_iter().map(|(id, n, v)| (id, Labels::from_pairs([(n, v)]))).collect(),
                metadata: vec![Metadata { family: "f".into(), kind: MetricKind::Gauge, help: "h".into(), unit: String::new() }],
                samples: samples.into_iter()
                    .map(|(id, s)| (id, s.into_iter().map(|(timestamp, value)| Sample { timestamp, value }).collect()))
                    .collect(),
                ..Record::default()
            };
            prop_assert_eq!(Record::decode(&r.encode()), Some(r));
        }
    }
}
