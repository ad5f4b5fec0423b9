//! What one append writes to the log: definitions of series the log does not know yet, then samples by number.
//! Format: FORMAT.md, "WAL record".

mod floats;

use parking_lot::Mutex;
use signal::{Exemplar, HistogramSample, Labels, Metadata, MetricKind, Sample};

use crate::codec::{
    HistogramState, decode_histograms, get_uvarint, get_varint, put_uvarint, put_varint, take,
};
pub(crate) use floats::{Anchor, Columns, Floats, Known};

/// Series, metadata and floats, until December 2026.
const FLOATS: u8 = 1;
/// Those, then histograms, start times and exemplars.
#[cfg(test)]
const ALL: u8 = 2;
/// The same, with floats in columns.
const COLUMNS: u8 = 3;
/// Samples of one series that a reader believes in.
const MOST: u64 = 1 << 24;

/// What one append brings beside floats, in the terms of the head.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Record {
    pub(crate) series: Vec<(u32, Labels)>,
    pub(crate) metadata: Vec<Metadata>,
    pub(crate) histograms: Vec<(u32, Vec<HistogramSample>)>,
    /// `(time of the sample, start)` for each series.
    pub(crate) starts: Vec<(u32, Vec<(i64, i64)>)>,
    pub(crate) exemplars: Vec<Exemplar>,
}

/// A record as it is read back.
pub(crate) struct Read<'a> {
    /// 0 in records of the first two versions.
    pub(crate) number: u32,
    pub(crate) record: Record,
    pub(crate) floats: ReadFloats<'a>,
}

pub(crate) enum ReadFloats<'a> {
    Columns(Columns<'a>),
    Plain(Vec<(u32, Vec<Sample>)>),
}

/// Packing keeps tables of half a megabyte: used again, not made for each record.
static PACKERS: Mutex<Vec<zstd::bulk::Compressor<'static>>> = Mutex::new(Vec::new());
/// More than these are not kept.
const IDLE_PACKERS: usize = 2;

fn pack(body: &[u8], out: &mut Vec<u8>) {
    let packer = PACKERS.lock().pop();
    let mut packer =
        packer.unwrap_or_else(|| zstd::bulk::Compressor::new(1).expect("level 1 is one of zstd's"));
    let at = out.len();
    out.resize(at + zstd::zstd_safe::compress_bound(body.len()), 0);
    let room = out.get_mut(at..).unwrap_or_default();
    let n = packer.compress_to_buffer(body, room).expect("there is room for the worst case");
    out.truncate(at + n);
    let mut idle = PACKERS.lock();
    if idle.len() < IDLE_PACKERS {
        idle.push(packer);
    }
}

/// Unpacks a record's body. `None` if it is none.
pub(crate) fn unpack(mut data: &[u8]) -> Option<(u8, Vec<u8>)> {
    let version = *take(&mut data, 1)?.first()?;
    if !(FLOATS..=COLUMNS).contains(&version) {
        return None;
    }
    let len = usize::try_from(get_uvarint(&mut data)?).ok().filter(|n| *n <= 1 << 30)?;
    Some((version, zstd::bulk::decompress(data, len).ok()?))
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
    pub(crate) fn is_empty(&self) -> bool {
        *self == Record::default()
    }

    pub(crate) fn encode(&self, floats: &Floats) -> Vec<u8> {
        let mut b = Vec::with_capacity(64 + 8 * floats.samples.len());
        put_uvarint(&mut b, u64::from(floats.record));
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
        floats.encode(&mut b);
        self.encode_more(&mut b);
        let mut out = vec![COLUMNS];
        put_uvarint(&mut out, b.len() as u64);
        pack(&b, &mut out);
        out
    }

    /// `body` is what [`unpack`] gave.
    pub(crate) fn decode(version: u8, body: &[u8]) -> Option<Read<'_>> {
        let mut rest = body;
        let b = &mut rest;
        let mut r = Record::default();
        let number = if version == COLUMNS { u32::try_from(get_uvarint(b)?).ok()? } else { 0 };
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
        let floats = if version == COLUMNS {
            ReadFloats::Columns(Columns::decode(number, b)?)
        } else {
            ReadFloats::Plain(decode_plain(b, body.len())?)
        };
        if version != FLOATS {
            r.decode_more(b)?;
        }
        Some(Read { number, record: r, floats })
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

/// Floats as the first two versions have them.
fn decode_plain(b: &mut &[u8], most: usize) -> Option<Vec<(u32, Vec<Sample>)>> {
    let mut all = Vec::new();
    let mut id = 0i64;
    for _ in 0..get_uvarint(b)? {
        id = id.checked_add(get_varint(b)?)?;
        let n = usize::try_from(get_uvarint(b)?).ok().filter(|n| *n <= most)?;
        all.push((u32::try_from(id).ok()?, vec![Sample { timestamp: 0, value: 0.0 }; n]));
    }
    let mut t = 0i64;
    for s in all.iter_mut().flat_map(|(_, s)| s) {
        t = t.wrapping_add(get_varint(b)?);
        s.timestamp = t;
    }
    for s in all.iter_mut().flat_map(|(_, s)| s) {
        s.value = f64::from_bits(u64::from_le_bytes(take(b, 8)?.try_into().ok()?));
    }
    Some(all)
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

    fn check(r: &Record, floats: &Floats) -> Result<(), TestCaseError> {
        let (version, body) = unpack(&r.encode(floats)).expect("a record");
        let read = Record::decode(version, &body).expect("decodes");
        prop_assert_eq!((read.number, &read.record), (floats.record, r));
        let ReadFloats::Columns(columns) = read.floats else { panic!("columns") };
        let mut known: Vec<Option<Known>> = (0..10).map(|i| Some(Known::new(i))).collect();
        let mut got = Vec::new();
        prop_assert_eq!(columns.read(&mut known, |id, s| got.push((id, s))), 0);
        let expect: Vec<(u32, Sample)> = floats
            .series
            .iter()
            .flat_map(|(id, n)| std::iter::repeat_n(*id, *n as usize))
            .zip(floats.samples.iter().copied())
            .collect();
        prop_assert_eq!(got, expect);
        Ok(())
    }

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
        let mut floats = Floats::new(3, 1, 1);
        floats.push(7, &mut Anchor::default(), &[Sample { timestamp: 5, value: 1.0 }]);
        check(&r, &floats).expect("the same");
    }

    /// Written by the first release; times in milliseconds.
    #[test]
    fn records_of_the_first_versions_are_read() {
        let mut body = Vec::new();
        put_uvarint(&mut body, 1);
        put_uvarint(&mut body, 4);
        put_text(&mut body, Labels::from_pairs([("__name__", "up")]).encoded());
        put_uvarint(&mut body, 0);
        put_uvarint(&mut body, 1);
        put_varint(&mut body, 4);
        put_uvarint(&mut body, 2);
        put_varint(&mut body, 1000);
        put_varint(&mut body, 500);
        body.extend_from_slice(&1f64.to_bits().to_le_bytes());
        body.extend_from_slice(&0.5f64.to_bits().to_le_bytes());
        for version in [FLOATS, ALL] {
            let mut frame = vec![version];
            let mut body = body.clone();
            if version == ALL {
                body.extend_from_slice(&[0, 0, 0]);
            }
            put_uvarint(&mut frame, body.len() as u64);
            frame.extend(zstd::bulk::compress(&body, 1).expect("in memory"));
            let (v, body) = unpack(&frame).expect("a record");
            let read = Record::decode(v, &body).expect("decodes");
            let ReadFloats::Plain(floats) = read.floats else { panic!("plain") };
            let samples =
                vec![Sample { timestamp: 1000, value: 1.0 }, Sample { timestamp: 1500, value: 0.5 }];
            assert_eq!((read.record.series[0].0, floats), (4, vec![(4, samples)]));
        }
    }

    proptest! {
        #[test]
        fn records_round_trip(
            series in proptest::collection::vec((any::<u32>(), "[a-z]{1,5}", ".{1,9}"), 0..5),
            samples in proptest::collection::vec((0..10u32, proptest::collection::vec((any::<i64>(), -1e9..1e9f64), 1..5)), 0..9),
        ) {
            let r = Record {
                series: series.into_iter().map(|(id, n, v)| (id, Labels::from_pairs([(n, v)]))).collect(),
                metadata: vec![Metadata { family: "f".into(), kind: MetricKind::Gauge, help: "h".into(), unit: String::new() }],
                ..Record::default()
            };
            let mut floats = Floats::new(1, 0, 0);
            for (id, s) in samples {
                let s: Vec<Sample> = s.into_iter().map(|(timestamp, value)| Sample { timestamp, value }).collect();
                floats.push(id, &mut Anchor::default(), &s);
            }
            check(&r, &floats)?;
        }

        #[test]
        fn any_bytes_are_refused_or_read(data in proptest::collection::vec(any::<u8>(), 0..200), version in 0..5u8) {
            unpack(&data);
            Record::decode(version, &data);
        }
    }
}
