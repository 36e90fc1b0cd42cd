//! Finds the end of a head in bytes that arrive piece by piece, each byte looked at once.
//!
//! Also refuses what no later step should have to think about: lines that do not end in CR LF.

/// How far a head has been looked at. One per head.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scan {
    /// Bytes looked at.
    seen: usize,
    /// Where the line begins that is looked at.
    line: usize,
    lines: usize,
}

/// The sizes that a head may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScanLimits {
    /// The first line.
    pub(crate) line: usize,
    /// All of it.
    pub(crate) head: usize,
}

/// What is wrong with a head before it is even whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScanFault {
    /// A line without CR LF at its end, or a first byte that begins no message.
    Malformed,
    /// The first line is too long.
    Line,
    /// The head is too long.
    Head,
}

impl Scan {
    /// Looks at what is new in `bytes`, which begin with the head; gives its length once it is whole.
    pub(crate) fn advance(&mut self, bytes: &[u8], limits: &ScanLimits) -> Result<Option<usize>, ScanFault> {
        for newline in memchr::memchr_iter(b'\n', &bytes[self.seen..]) {
            let end = self.seen + newline;
            // sizes first: what is too long is so before its end is seen, however its bytes come
            if self.lines == 0 && end > limits.line {
                return Err(ScanFault::Line);
            }
            if end >= limits.head {
                return Err(ScanFault::Head);
            }
            if end == self.line || bytes[end - 1] != b'\r' {
                return Err(ScanFault::Malformed);
            }
            let is_empty = end - 1 == self.line;
            if self.lines == 0 && is_empty {
                return Err(ScanFault::Malformed);
            }
            if is_empty {
                return Ok(Some(end + 1));
            }
            self.line = end + 1;
            self.lines += 1;
        }
        self.seen = bytes.len();
        self.within(limits)
    }

    fn within(&self, limits: &ScanLimits) -> Result<Option<usize>, ScanFault> {
        if self.lines == 0 && self.seen > limits.line {
            return Err(ScanFault::Line);
        }
        if self.seen > limits.head { Err(ScanFault::Head) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: ScanLimits = ScanLimits { line: 20, head: 60 };

    #[test]
    fn the_end_is_found_and_what_is_wrong_is_named() {
        let long_line = format!("GET /{} HTTP/1.1\r\n", "x".repeat(30));
        let long_head = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "x".repeat(60));
        for (text, expected) in [
            ("GET / HTTP/1.1\r\n\r\nrest", Ok(Some(18))),
            ("GET / HTTP/1.1\r\na: b\r\n\r\n", Ok(Some(24))),
            ("GET / HTTP/1.1\r\na: b\r\n", Ok(None)),
            ("", Ok(None)),
            ("GET / HTTP/1.1\n\n", Err(ScanFault::Malformed)),
            ("GET / HTTP/1.1\r\na: b\n\r\n", Err(ScanFault::Malformed)),
            ("GET / HTTP/1.1\r\na: b\r\n\n", Err(ScanFault::Malformed)),
            ("\r\nGET", Err(ScanFault::Malformed)),
            ("\n", Err(ScanFault::Malformed)),
            (&long_line, Err(ScanFault::Line)),
            (&long_line[..25], Err(ScanFault::Line)),
            (&long_head, Err(ScanFault::Head)),
        ] {
            assert_eq!(Scan::default().advance(text.as_bytes(), &LIMITS), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_too_long_and_ends_wrong_is_too_long_in_pieces_and_as_a_whole() {
        let line = format!("{}\n", "a".repeat(LIMITS.line + 1));
        let head = format!("a\r\n{}\n", "a".repeat(LIMITS.head));
        for (text, expected) in [(line, ScanFault::Line), (head, ScanFault::Head)] {
            for cut in 0..text.len() {
                let mut scan = Scan::default();
                let first = scan.advance(&text.as_bytes()[..cut], &LIMITS);
                let pieces = if first == Ok(None) { scan.advance(text.as_bytes(), &LIMITS) } else { first };
                assert_eq!(pieces, Err(expected), "{text:?} cut at {cut}");
            }
        }
    }

    proptest! {
        #[test]
        fn pieces_give_the_same_as_the_whole(text in "[a\r\n ]{0,40}", cut in 0_usize..40) {
            let bytes = text.as_bytes();
            let whole = Scan::default().advance(bytes, &LIMITS);
            let mut scan = Scan::default();
            let first = scan.advance(&bytes[..cut.min(bytes.len())], &LIMITS);
            let pieces = if first == Ok(None) { scan.advance(bytes, &LIMITS) } else { first };
            prop_assert_eq!(pieces, whole);
        }
    }
}
