//! Where one message ends and the next begins in a TCP stream (RFC 6587): each by itself, as rsyslog does it.
//!
//! A digit other than 0 begins a length; whatever else begins, most often `<`, ends with a newline or a zero byte.

use bytes::{Buf, BytesMut};

/// A message that is longer is cut into several.
pub(super) const LONGEST: usize = 256 << 10;
/// Digits of a length.
const DIGITS: usize = 7;

#[derive(Default)]
pub(super) struct Frames {
    /// Up to here no end of a line was found.
    searched: usize,
}

impl Frames {
    /// Gives every whole message to `each` and takes it out of the buffer; at the end of the stream the rest, too.
    pub(super) fn read(
        &mut self,
        buffer: &mut BytesMut,
        ended: bool,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), String> {
        loop {
            match buffer.first() {
                None => return Ok(()),
                Some(b'\n' | b'\r' | 0 | b' ') => {
                    buffer.advance(1);
                    self.searched = 0;
                    continue;
                }
                Some(b'1'..=b'9') => {
                    let head = &buffer[..buffer.len().min(DIGITS + 1)];
                    let digits = head.iter().take_while(|b| b.is_ascii_digit()).count();
                    if head.get(digits) == Some(&b' ') {
                        let len = head[..digits].iter().fold(0, |n, b| n * 10 + usize::from(b - b'0'));
                        if len > LONGEST {
                            return Err(format!("a message of {len} bytes: at most {LONGEST} are taken"));
                        }
                        if buffer.len() < digits + 1 + len {
                            if ended {
                                each(&buffer[digits + 1..]);
                                buffer.clear();
                            }
                            return Ok(());
                        }
                        buffer.advance(digits + 1);
                        each(&buffer[..len]);
                        buffer.advance(len);
                        self.searched = 0;
                        continue;
                    }
                    if digits == head.len() && digits <= DIGITS && !ended {
                        return Ok(());
                    }
                    // A line that happens to begin with a digit.
                }
                Some(_) => {}
            }
            let found = buffer[self.searched..].iter().position(|b| *b == b'\n' || *b == 0);
            let (len, skip) = match found.map(|n| n + self.searched) {
                Some(n) => (n, 1),
                None if ended || buffer.len() >= LONGEST => (buffer.len().min(LONGEST), 0),
                None => {
                    self.searched = buffer.len();
                    return Ok(());
                }
            };
            each(&buffer[..len]);
            buffer.advance(len + skip);
            self.searched = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_framings_in_pieces_of_any_size() {
        let check = |input: &[u8], expect: &[&str]| {
            for size in [1, 2, 3, 7, 1000] {
                let (mut frames, mut buffer, mut got) = (Frames::default(), BytesMut::new(), Vec::new());
                let mut each = |m: &[u8]| got.push(String::from_utf8_lossy(m).into_owned());
                for piece in input.chunks(size) {
                    buffer.extend_from_slice(piece);
                    frames.read(&mut buffer, false, &mut each).expect("frames");
                }
                frames.read(&mut buffer, true, &mut each).expect("frames");
                assert_eq!(got, expect, "{:?} by {size}", String::from_utf8_lossy(input));
            }
        };
        check(b"<1>a\n<2>b\r\n\n<3>c", &["<1>a", "<2>b\r", "<3>c"]);
        check(b"5 <1>ab5 <2>\nc<3>d\n", &["<1>ab", "<2>\nc", "<3>d"]);
        check(b"4 <1>a\n4 <2>b\n", &["<1>a", "<2>b"]);
        check(b"12345678 x\n", &["12345678 x"]);
        check(b"9 <1>a", &["<1>a"]);
        check(b"<1>a\0<2>b\0", &["<1>a", "<2>b"]);
    }

    #[test]
    fn a_length_that_is_too_large_ends_the_connection() {
        let mut buffer = BytesMut::from(&b"9999999 <1>"[..]);
        assert!(Frames::default().read(&mut buffer, false, |_| {}).is_err());
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut buffer = BytesMut::from(vec![b'x'; LONGEST + 3].as_slice());
        let mut got = Vec::new();
        Frames::default().read(&mut buffer, false, |m| got.push(m.len())).expect("frames");
        assert_eq!((got, buffer.len()), (vec![LONGEST], 3));
    }
}
