//! What one append writes to the log. Format: FORMAT.md, "WAL record". The bytes before compression are what the head
//! keeps: records are encoded once.

use std::cell::RefCell;

use signal::{Attributes, Checkpoint, Labels};

use crate::codec::{
    get_attributes, get_bytes, get_uvarint, get_varint, put_attributes, put_bytes, put_uvarint, put_varint,
};

const VERSION: u8 = 1;
/// What a frame may be unpacked.
const MOST: usize = 1 << 30;

/// A record: its time in nanoseconds, and where its encoded rest stands in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) time: i64,
    pub(crate) at: u32,
    pub(crate) len: u32,
}

pub(crate) type Stream = (Labels, Attributes, Vec<Place>);

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Frame {
    pub(crate) raw: Vec<u8>,
    pub(crate) streams: Vec<Stream>,
    pub(crate) checkpoints: Vec<Checkpoint>,
}

/// Encodes records as they come: first how many streams, then each stream, then the checkpoints.
pub(crate) struct Encoder {
    frame: Frame,
    last: i64,
    scratch: Vec<u8>,
}

impl Encoder {
    /// `bytes`: how many there will be, about.
    pub(crate) fn new(streams: usize, bytes: usize) -> Encoder {
        let mut frame = Frame { raw: Vec::with_capacity(bytes), ..Frame::default() };
        put_uvarint(&mut frame.raw, streams as u64);
        Encoder { frame, last: 0, scratch: Vec::new() }
    }

    pub(crate) fn stream(&mut self, labels: Labels, resource: Attributes, records: usize) {
        let raw = &mut self.frame.raw;
        put_bytes(raw, labels.encoded());
        put_attributes(raw, &resource);
        put_uvarint(raw, records as u64);
        self.last = 0;
        self.frame.streams.push((labels, resource, Vec::with_capacity(records)));
    }

    pub(crate) fn record(&mut self, time: i64, encode: impl FnOnce(&mut Vec<u8>)) {
        self.scratch.clear();
        encode(&mut self.scratch);
        let raw = &mut self.frame.raw;
        put_varint(raw, time.wrapping_sub(self.last));
        self.last = time;
        put_uvarint(raw, self.scratch.len() as u64);
        let place = Place { time, at: raw.len() as u32, len: self.scratch.len() as u32 };
        raw.extend_from_slice(&self.scratch);
        if let Some((_, _, places)) = self.frame.streams.last_mut() {
            places.push(place);
        }
    }

    pub(crate) fn finish(mut self, checkpoints: Vec<Checkpoint>) -> Frame {
        let raw = &mut self.frame.raw;
        put_uvarint(raw, checkpoints.len() as u64);
        for c in &checkpoints {
            put_bytes(raw, c.source.as_bytes());
            put_uvarint(raw, c.position);
        }
        raw.shrink_to_fit();
        self.frame.checkpoints = checkpoints;
        self.frame
    }
}

thread_local! {
    static ZSTD: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
}

impl Frame {
    /// As it is written to the log.
    pub(crate) fn packed(&self) -> Vec<u8> {
        let packed = ZSTD.with_borrow_mut(|z| {
            let z = z.get_or_insert_with(|| zstd::bulk::Compressor::new(1).expect("level 1 exists"));
            z.compress(&self.raw).expect("compressing in memory cannot fail")
        });
        let mut out = Vec::with_capacity(packed.len() + 8);
        out.push(VERSION);
        put_uvarint(&mut out, self.raw.len() as u64);
        out.extend_from_slice(&packed);
        out
    }

    pub(crate) fn records(&self) -> usize {
        self.streams.iter().map(|(_, _, places)| places.len()).sum()
    }

    /// Leaves out records whose bytes are no such thing.
    pub(crate) fn retain(&mut self, is: impl Fn(&[u8]) -> bool) {
        let raw = &self.raw;
        for (_, _, places) in &mut self.streams {
            places.retain(|p| raw.get(p.at as usize..p.at as usize + p.len as usize).is_some_and(&is));
        }
    }

    pub(crate) fn decode(d: &[u8]) -> Option<Frame> {
        let (version, mut d) = d.split_first()?;
        if *version != VERSION {
            return None;
        }
        let len = usize::try_from(get_uvarint(&mut d)?).ok().filter(|n| *n <= MOST)?;
        let raw = zstd::bulk::decompress(d, len).ok()?;
        let mut f = Frame::default();
        let b = &mut raw.as_slice();
        for _ in 0..get_uvarint(b)? {
            let labels = Labels::from_encoded(get_bytes(b)?)?;
            let resource = get_attributes(b)?;
            let (mut places, mut time) = (Vec::new(), 0i64);
            for _ in 0..get_uvarint(b)? {
                time = time.wrapping_add(get_varint(b)?);
                let data = get_bytes(b)?;
                let at = raw.len() - b.len() - data.len();
                places.push(Place { time, at: at as u32, len: data.len() as u32 });
            }
            f.streams.push((labels, resource, places));
        }
        for _ in 0..get_uvarint(b)? {
            let source = std::str::from_utf8(get_bytes(b)?).ok()?.to_owned();
            f.checkpoints.push(Checkpoint { source, position: get_uvarint(b)? });
        }
        f.raw = raw;
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
            let mut e = Encoder::new(1, 0);
            e.stream(Labels::from_pairs([("a", "b")]), Attributes::default(), rows.len());
            rows.iter().for_each(|(t, d)| e.record(*t, |out| out.extend_from_slice(d)));
            let f = e.finish(vec![Checkpoint { source: "s".into(), position: p }]);
            for ((t, d), place) in rows.iter().zip(&f.streams[0].2) {
                prop_assert_eq!((place.time, &f.raw[place.at as usize..][..place.len as usize]), (*t, d.as_slice()));
            }
            prop_assert_eq!(Frame::decode(&f.packed()), Some(f));
        }

        #[test]
        fn anything_is_refused_or_read(d in proptest::collection::vec(any::<u8>(), 0..90)) {
            drop(Frame::decode(&d));
            // Past the compression.
            let mut packed = vec![VERSION];
            put_uvarint(&mut packed, d.len() as u64);
            packed.extend(zstd::bulk::compress(&d, 1).expect("zstd"));
            drop(Frame::decode(&packed));
        }
    }
}
