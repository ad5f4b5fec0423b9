//! Frames of SPDY/3.1 as bytes: what clients of `exec` and `port-forward` send and take.
//!
//! Headers are one zlib stream per direction over the protocol's dictionary. Ours are written as stored blocks:
//! they are empty. Source: draft-mbelshe-httpbis-spdy-00, section 2.6.

use bytes::{BufMut, Bytes, BytesMut};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

pub(super) const HEAD: usize = 8;
const VERSION: u16 = 3;
const FIN: u8 = 1;
/// A block of headers, decompressed; kubectl's take some sixty bytes.
const MAX_HEADERS: usize = 16 << 10;
/// Deflate looks back no further.
const WINDOW: usize = 32 << 10;

/// Words that headers are likely to have, each behind its length, then values as they stand.
const NAMES: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from host \
    if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
    keep-alive origin";
const VALUES: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
    Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 \
    Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept \
    Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
    application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=\
    utf-8charset=iso-8859-1,utf-,*,enq=0.";

fn dictionary() -> Vec<u8> {
    let mut out = Vec::with_capacity(1423);
    for name in NAMES.split_whitespace() {
        let name = name.replace('_', " ");
        out.put_u32(name.len() as u32);
        out.put_slice(name.as_bytes());
    }
    out.put_slice(VALUES.as_bytes());
    out
}

/// The first eight bytes of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    Data { stream: u32, fin: bool, length: usize },
    Control { kind: u16, flags: u8, length: usize },
}

pub(super) const SYN_STREAM: u16 = 1;
pub(super) const RST_STREAM: u16 = 3;
pub(super) const PING: u16 = 6;
pub(super) const GOAWAY: u16 = 7;
pub(super) const HEADERS: u16 = 8;

impl Head {
    /// `None`: another version of the protocol.
    pub(super) fn parse(b: [u8; HEAD]) -> Option<Head> {
        let word = u32::from_be_bytes([b[0], b[1], b[2], b[3]]);
        let length = u32::from_be_bytes([0, b[5], b[6], b[7]]) as usize;
        if word >> 31 == 0 {
            return Some(Head::Data { stream: word, fin: b[4] & FIN != 0, length });
        }
        let (version, kind) = ((word >> 16) as u16 & 0x7fff, word as u16);
        (version == VERSION).then_some(Head::Control { kind, flags: b[4], length })
    }
}

pub(super) fn is_fin(flags: u8) -> bool {
    flags & FIN != 0
}

fn control(kind: u16, body: &[u8]) -> Bytes {
    let mut b = BytesMut::with_capacity(HEAD + body.len());
    b.put_u16(0x8000 | VERSION);
    b.put_u16(kind);
    b.put_u32(body.len() as u32);
    b.put_slice(body);
    b.freeze()
}

pub(super) fn data(stream: u32, fin: bool, content: &[u8]) -> Bytes {
    let mut b = BytesMut::with_capacity(HEAD + content.len());
    b.put_u32(stream);
    b.put_u32(u32::from(if fin { FIN } else { 0 }) << 24 | content.len() as u32);
    b.put_slice(content);
    b.freeze()
}

/// The answer to a SYN_STREAM, without headers. The first one of a connection begins the zlib stream.
pub(super) fn syn_reply(stream: u32, first: bool) -> Bytes {
    // Two bytes of zlib header, a stored block with the count of headers, 0, and an empty block that flushes.
    const BLOCKS: [u8; 16] = [0x78, 0x01, 0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    let mut body = stream.to_be_bytes().to_vec();
    body.extend_from_slice(&BLOCKS[if first { 0 } else { 2 }..]);
    control(2, &body)
}

/// Refuses or ends a stream.
pub(super) fn rst_stream(stream: u32, code: u32) -> Bytes {
    control(RST_STREAM, &[stream.to_be_bytes(), code.to_be_bytes()].concat())
}

pub(super) fn ping(id: u32) -> Bytes {
    control(PING, &id.to_be_bytes())
}

/// The client's headers: one zlib stream over all frames of a connection.
pub(super) struct HeaderReader {
    inflate: Box<DecompressorOxide>,
    /// What was decompressed so far, as far back as deflate may look, then room for one block.
    buffer: Vec<u8>,
    filled: usize,
    begun: bool,
}

impl HeaderReader {
    pub(super) fn new() -> Self {
        let mut buffer = dictionary();
        let filled = buffer.len();
        buffer.resize(WINDOW + MAX_HEADERS, 0);
        HeaderReader { inflate: Box::default(), buffer, filled, begun: false }
    }

    /// The headers of one frame; `None` if they are no headers, or too many.
    pub(super) fn read(&mut self, mut block: &[u8]) -> Option<Vec<(String, String)>> {
        if !self.begun {
            // Header, and the dictionary's checksum if it is used; either way deflate follows.
            let uses_dictionary = block.get(1)? & 0x20 != 0;
            block = block.get(if uses_dictionary { 6 } else { 2 }..)?;
            self.begun = true;
        }
        if self.filled > WINDOW {
            self.buffer.copy_within(self.filled - WINDOW..self.filled, 0);
            self.filled = WINDOW;
        }
        let end = (self.filled + MAX_HEADERS).min(self.buffer.len());
        let flags = TINFL_FLAG_HAS_MORE_INPUT | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let (status, read, written) =
            decompress(&mut self.inflate, block, &mut self.buffer[..end], self.filled, flags);
        if status != TINFLStatus::NeedsMoreInput || read != block.len() {
            return None;
        }
        let start = self.filled;
        self.filled += written;
        pairs(&self.buffer[start..self.filled])
    }
}

/// Count, then length and text of each name and value.
fn pairs(mut b: &[u8]) -> Option<Vec<(String, String)>> {
    let count = number(&mut b)?;
    let mut out = Vec::new();
    for _ in 0..count {
        let name = text(&mut b)?.to_ascii_lowercase();
        out.push((name, text(&mut b)?));
    }
    Some(out)
}

fn number<'a>(b: &mut &'a [u8]) -> Option<usize> {
    let all: &'a [u8] = b;
    let (head, rest) = all.split_first_chunk::<4>()?;
    *b = rest;
    Some(u32::from_be_bytes(*head) as usize)
}

fn text<'a>(b: &mut &'a [u8]) -> Option<String> {
    let n = number(b)?;
    let all: &'a [u8] = b;
    let (head, rest) = all.split_at_checked(n)?;
    *b = rest;
    String::from_utf8(head.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_protocols() {
        let d = dictionary();
        let (mut a, mut b) = (1u32, 0u32);
        for x in &d {
            a = (a + u32::from(*x)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!((d.len(), b << 16 | a), (1423, 0xe3c6_a7c2));
    }

    #[test]
    fn frames_begin_as_written() {
        let d = data(3, true, b"abc");
        let head = Head::parse(d[..HEAD].try_into().expect("eight bytes"));
        assert_eq!(head, Some(Head::Data { stream: 3, fin: true, length: 3 }));
        let p = ping(7);
        let head = Head::parse(p[..HEAD].try_into().expect("eight bytes"));
        assert_eq!(head, Some(Head::Control { kind: PING, flags: 0, length: 4 }));
        assert_eq!(Head::parse([0x80, 2, 0, 1, 0, 0, 0, 0]), None);
    }

    #[test]
    fn our_empty_headers_are_readable() {
        let mut r = HeaderReader::new();
        assert_eq!(r.read(&syn_reply(1, true)[HEAD + 4..]), Some(Vec::new()));
        assert_eq!(r.read(&syn_reply(3, false)[HEAD + 4..]), Some(Vec::new()));
    }

    #[test]
    fn torn_headers_are_refused() {
        let stored = |content: &[u8]| {
            let n = content.len() as u16;
            let mut b = vec![0];
            b.extend_from_slice(&n.to_le_bytes());
            b.extend_from_slice(&(!n).to_le_bytes());
            b.extend_from_slice(content);
            b.extend_from_slice(&[0, 0, 0, 0xff, 0xff]);
            b
        };
        let content = [&[0, 0, 0, 1, 0, 0, 0, 4][..], b"Port", &[0, 0, 0, 2], b"80"].concat();
        let mut block = vec![0x78, 0x01];
        block.extend(stored(&content));
        let mut r = HeaderReader::new();
        assert_eq!(r.read(&block), Some(vec![("port".to_owned(), "80".to_owned())]));
        for cut in 0..content.len() {
            let mut block = vec![0x78, 0x01];
            block.extend(stored(&content[..cut]));
            assert_eq!(HeaderReader::new().read(&block), None, "{cut}");
        }
        // Many blocks: the window moves.
        for _ in 0..3000 {
            assert!(r.read(&stored(&content)).is_some());
        }
    }
}
