//! What one append writes to the log. Format: FORMAT.md, "WAL record".

use signal::{Attributes, Checkpoint, Labels};

use crate::codec::{
    get_attributes, get_bytes, get_uvarint, get_varint, put_attributes, put_bytes, put_uvarint, put_varint,
};

const VERSION: u8 = 1;

/// A record: its time in nanoseconds and its encoded rest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) time: i64,
    pub(crate) data: Box<[u8]>,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Frame {
    pub(crate) streams: Vec<(Labels, Attributes, Vec<Row>)>,
    pub(crate) checkpoints: Vec<Checkpoint>,
}

impl Frame {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut b = Vec::new();
        put_uvarint(&mut b, self.streams.len() as u64);
        for (labels, resource, rows) in &self.streams {
            put_bytes(&mut b, labels.encoded());
            put_attributes(&mut b, resource);
            put_uvarint(&mut b, rows.len() as u64);
            let mut last = 0i64;
            for r in rows {
                put_varint(&mut b, r.time.wrapping_sub(last));
                last = r.time;
                put_bytes(&mut b, &r.data);
            }
        }
        put_uvarint(&mut b, self.checkpoints.len() as u64);
        for c in &self.checkpoints {
            put_bytes(&mut b, c.source.as_bytes());
            put_uvarint(&mut b, c.position);
        }
        let mut out = vec![VERSION];
        put_uvarint(&mut out, b.len() as u64);
        out.extend(zstd::bulk::compress(&b, 1).expect("compressing in memory cannot fail"));
        out
    }

    pub(crate) fn decode(d: &[u8]) -> Option<Frame> {
        let (version, mut d) = d.split_first()?;
        if *version != VERSION {
            return None;
        }
        let len = usize::try_from(get_uvarint(&mut d)?).ok().filter(|n| *n <= 1 << 30)?;
        let body = zstd::bulk::decompress(d, len).ok()?;
        let b = &mut body.as_slice();
        let mut f = Frame::default();
        for _ in 0..get_uvarint(b)? {
            let labels = Labels::from_encoded(get_bytes(b)?)?;
            let resource = get_attributes(b)?;
            let (mut rows, mut time) = (Vec::new(), 0i64);
            for _ in 0..get_uvarint(b)? {
                time = time.wrapping_add(get_varint(b)?);
                rows.push(Row { time, data: get_bytes(b)?.into() });
            }
            f.streams.push((labels, resource, rows));
        }
        for _ in 0..get_uvarint(b)? {
            let source = std::str::from_utf8(get_bytes(b)?).ok()?.to_owned();
            f.checkpoints.push(Checkpoint { source, position: get_uvarint(b)? });
        }
        Some(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_round_trip(rows in proptest::collection::vec((any::<i64>(), proptest::collection::vec(any::<u8>(), 0..20)), 0..9), p in any::<u64>()) {
            let rows = rows.into_iter().map(|(time, d)| Row { time, data: d.into() }).collect();
            let f = Frame {
                streams: vec![(Labels::from_pairs([("a", "b")]), Attributes::default(), rows)],
                checkpoints: vec![Checkpoint { source: "s".into(), position: p }],
            };
            prop_assert_eq!(Frame::decode(&f.encode()), Some(f));
        }
    }
}
