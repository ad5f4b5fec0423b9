//! One frame: length, two checksums, payload.
//!
//! The header has a checksum of its own, over the place where it stands too: behind damaged bytes the next frame is
//! found again, and nothing else is taken for one.

/// Bytes before the payload: length, checksum of the payload, checksum of the header; each a little-endian `u32`.
pub(crate) const HEADER: usize = 12;
/// The first version of the format has one checksum.
const HEADER_V1: usize = 8;

/// Where frames stand, and how they are written there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) version: u32,
    /// The number of the segment: a stale frame of a reused disk block is not believed.
    pub(crate) segment: u64,
    /// The longest payload believed.
    pub(crate) limit: usize,
}

fn payload_sum(segment: u64, len: u32, payload: &[u8]) -> u32 {
    let mut h = crc32fast::Hasher::new();
    h.update(&segment.to_le_bytes());
    h.update(&len.to_le_bytes());
    h.update(payload);
    h.finalize()
}

fn header_sum(segment: u64, offset: u64, len: u32, payload: u32) -> u32 {
    let mut h = crc32fast::Hasher::new();
    h.update(&segment.to_le_bytes());
    h.update(&offset.to_le_bytes());
    h.update(&len.to_le_bytes());
    h.update(&payload.to_le_bytes());
    h.finalize()
}

/// Appends a frame that will stand at `offset` of its segment.
pub(crate) fn encode(segment: u64, offset: u64, payload: &[u8], out: &mut Vec<u8>) {
    let len = u32::try_from(payload.len()).expect("the frame limit is below 4 GiB");
    let sum = payload_sum(segment, len, payload);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(&header_sum(segment, offset, len, sum).to_le_bytes());
    out.extend_from_slice(payload);
}

/// What stands at an offset of a segment.
#[derive(Debug)]
pub(crate) enum Parsed<'a> {
    /// The payload, and how long the frame is with its header.
    Frame(&'a [u8], usize),
    /// No frame begins here, or it does not end in the segment.
    None,
    /// The payload's checksum is wrong. The frame is this long, header included, as far as it can be believed.
    Corrupt(usize),
}

impl Place {
    pub(crate) fn parse<'a>(&self, data: &'a [u8], offset: usize) -> Parsed<'a> {
        self.read(data.get(offset..).unwrap_or(&[]), offset as u64).unwrap_or(Parsed::None)
    }

    fn read<'a>(&self, data: &'a [u8], offset: u64) -> Option<Parsed<'a>> {
        let (len, rest) = data.split_first_chunk::<4>()?;
        let (sum, mut rest) = rest.split_first_chunk::<4>()?;
        let (len, sum) = (u32::from_le_bytes(*len), u32::from_le_bytes(*sum));
        if len as usize > self.limit || len == 0 {
            return None;
        }
        let mut header = HEADER_V1;
        if self.version > 1 {
            let (own, after) = rest.split_first_chunk::<4>()?;
            if header_sum(self.segment, offset, len, sum) != u32::from_le_bytes(*own) {
                return None;
            }
            rest = after;
            header = HEADER;
        }
        let payload = rest.get(..len as usize)?;
        let whole = header + payload.len();
        Some(if payload_sum(self.segment, len, payload) == sum {
            Parsed::Frame(payload, whole)
        } else {
            Parsed::Corrupt(whole)
        })
    }

    /// The next offset from `from` on where a whole frame stands.
    pub(crate) fn find(&self, data: &[u8], from: usize) -> Option<usize> {
        // Headers of the first version prove nothing by themselves: only what follows on is believed.
        (self.version > 1).then_some(())?;
        (from..data.len()).find(|at| matches!(self.parse(data, *at), Parsed::Frame(..)))
    }
}
