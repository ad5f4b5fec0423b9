//! What one append writes to the log: definitions of series the log does not know yet, then samples by number.
//! Format: FORMAT.md, "WAL record".

use signal::{Labels, Metadata, MetricKind, Sample};

use crate::codec::{get_bytes, get_uvarint, get_varint, put_uvarint, put_varint};

const VERSION: u8 = 1;

/// Samples of one append in the terms of the head.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Record {
    pub(crate) series: Vec<(u32, Labels)>,
    pub(crate) metadata: Vec<Metadata>,
    pub(crate) samples: Vec<(u32, Vec<Sample>)>,
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
        let mut out = vec![VERSION];
        put_uvarint(&mut out, b.len() as u64);
        out.extend(zstd::bulk::compress(&b, 1).expect("compressing in memory cannot fail"));
        out
    }

    pub(crate) fn decode(mut data: &[u8]) -> Option<Record> {
        if get_bytes(&mut data, 1)? != [VERSION] {
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
            let kind = *KINDS.get(usize::from(*get_bytes(b, 1)?.first()?))?;
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
            s.value = f64::from_bits(u64::from_le_bytes(get_bytes(b, 8)?.try_into().ok()?));
        }
        Some(r)
    }
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_uvarint(out, text.len() as u64);
    out.extend_from_slice(text);
}

fn get_text<'a>(data: &mut &'a [u8]) -> Option<&'a [u8]> {
    let n = usize::try_from(get_uvarint(data)?).ok()?;
    get_bytes(data, n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            };
            prop_assert_eq!(Record::decode(&r.encode()), Some(r));
        }
    }
}
