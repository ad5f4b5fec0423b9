//! One frame: length, checksum, payload.

/// Bytes before the payload: length and checksum, each a little-endian `u32`.
pub(crate) const HEADER: usize = 8;

/// The checksum covers the segment's number, so that a stale frame of a reused disk block is not believed,
/// and the length.
fn checksum(segment: u64, len: u32, payload: &[u8]) -> u32 {
    let mut h = crc32fast::Hasher::new();
    h.update(&segment.to_le_bytes());
    h.update(&len.to_le_bytes());
    h.update(payload);
    h.finalize()
}

pub(crate) fn encode(segment: u64, payload: &[u8], out: &mut Vec<u8>) {
    let len = u32::try_from(payload.len()).expect("the frame limit is below 4 GiB");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&checksum(segment, len, payload).to_le_bytes());
    out.extend_from_slice(payload);
}

/// What stands at the start of `data`.
pub(crate) enum Parsed<'a> {
    Frame(&'a [u8]),
    /// The data ends inside the frame, or the length is not believable.
    Short,
    /// The frame is all there but its checksum is wrong; it claims to be this long, header included.
    Corrupt(usize),
}

pub(crate) fn parse(segment: u64, data: &[u8], limit: usize) -> Parsed<'_> {
    let Some((len, rest)) = data.split_first_chunk::<4>() else { return Parsed::Short };
    let Some((sum, rest)) = rest.split_first_chunk::<4>() else { return Parsed::Short };
    let len = u32::from_le_bytes(*len);
    if len as usize > limit {
        return Parsed::Short;
    }
    let Some(payload) = rest.get(..len as usize) else { return Parsed::Short };
    if checksum(segment, len, payload) == u32::from_le_bytes(*sum) {
        Parsed::Frame(payload)
    } else {
        Parsed::Corrupt(HEADER + payload.len())
    }
}
