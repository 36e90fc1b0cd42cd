//! The chunked coding, read strictly (RFC 9112, section 7.1): sizes of 1 to 16 hex digits, lines that end in CR LF.
//!
//! Extensions are read over and never passed on; trailers are collected, and filtered by whoever writes them.

/// All extensions of one body together, and its trailer section: more is an attack.
const MAX_EXTENSION_BYTES: usize = 16 << 10;
const MAX_TRAILER_BYTES: usize = 16 << 10;

/// Reads one body. Holds no data: the caller's slices are passed through.
#[derive(Debug, Default)]
pub(crate) struct ChunkDecoder {
    state: State,
    size: u64,
    digits: u8,
    extension_bytes: usize,
    /// The trailer section as received, with the blank line that ends it.
    trailers: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Extension,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    Trailers,
    Done,
}

/// The coding is broken: where the body ends cannot be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadChunk;

/// What a step gave: bytes used, and how many of the last of them are data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) used: usize,
    pub(crate) data: usize,
}

impl ChunkDecoder {
    /// Whether the last chunk and the trailers are read.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The trailer section.
    pub(crate) fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Reads up to the end of the next piece of data, of at most `limit` bytes, or of the input.
    pub(crate) fn step(&mut self, input: &[u8], limit: usize) -> Result<Step, BadChunk> {
        let mut used = 0;
        while used < input.len() && self.state != State::Done {
            if self.state == State::Data {
                let available = input.len() - used;
                let data = usize::try_from(self.size).unwrap_or(usize::MAX).min(available).min(limit);
                self.size -= data as u64;
                if self.size == 0 {
                    self.state = State::DataReturn;
                }
                return Ok(Step { used: used + data, data });
            }
            self.byte(input[used])?;
            used += 1;
        }
        Ok(Step { used, data: 0 })
    }

    fn byte(&mut self, byte: u8) -> Result<(), BadChunk> {
        self.state = match (self.state, byte) {
            (State::Size, b'\r') if self.digits > 0 => State::SizeLineFeed,
            (State::Size, b';') if self.digits > 0 => State::Extension,
            (State::Size, _) => self.digit(byte)?,
            (State::Extension, b'\r') => State::SizeLineFeed,
            (State::Extension, b'\t' | 0x20..=0x7e | 0x80..) => {
                self.extension_bytes += 1;
                if self.extension_bytes > MAX_EXTENSION_BYTES {
                    return Err(BadChunk);
                }
                State::Extension
            }
            (State::SizeLineFeed, b'\n') if self.size == 0 => State::Trailers,
            (State::SizeLineFeed, b'\n') => State::Data,
            (State::DataReturn, b'\r') => State::DataLineFeed,
            (State::DataLineFeed, b'\n') => {
                self.digits = 0;
                State::Size
            }
            (State::Trailers, _) => self.trailer(byte)?,
            _ => return Err(BadChunk),
        };
        Ok(())
    }

    fn digit(&mut self, byte: u8) -> Result<State, BadChunk> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ => return Err(BadChunk),
        };
        if self.digits == 16 {
            return Err(BadChunk);
        }
        self.digits += 1;
        self.size = self.size << 4 | u64::from(digit);
        Ok(State::Size)
    }

    fn trailer(&mut self, byte: u8) -> Result<State, BadChunk> {
        self.trailers.push(byte);
        if byte != b'\n' {
            return if self.trailers.len() > MAX_TRAILER_BYTES { Err(BadChunk) } else { Ok(State::Trailers) };
        }
        match self.trailers.as_slice() {
            b"\r\n" | [.., b'\r', b'\n', b'\r', b'\n'] => Ok(State::Done),
            [.., b'\r', b'\n'] => Ok(State::Trailers),
            _ => Err(BadChunk),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Decodes input that comes in pieces of this size: the data, and how much input was used.
    fn decode(input: &[u8], piece: usize) -> Result<Option<(Vec<u8>, usize)>, BadChunk> {
        let (mut decoder, mut data, mut at) = (ChunkDecoder::default(), Vec::new(), 0);
        while !decoder.is_done() {
            let end = (at + piece).min(input.len());
            if at == end {
                return Ok(None);
            }
            let step = decoder.step(&input[at..end], 3)?;
            data.extend_from_slice(&input[at + step.used - step.data..at + step.used]);
            at += step.used;
        }
        Ok(Some((data, at)))
    }

    #[test]
    fn lawful_bodies_are_read_to_their_end() {
        for (text, data) in [
            ("0\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "hello"),
            ("5;a=b;c=\"d e\"\r\nhello\r\n00\r\n\r\n", "hello"),
            ("A\r\n0123456789\r\n1\r\nx\r\n0\r\nA: b\r\nC: d\r\n\r\n", "0123456789x"),
            ("0000000000000001\r\nx\r\n0\r\n\r\n", "x"),
        ] {
            for piece in 1..=text.len() {
                let decoded = decode(text.as_bytes(), piece).unwrap().unwrap();
                assert_eq!(decoded, (data.as_bytes().to_vec(), text.len()), "{text:?} by {piece}");
            }
        }
    }

    #[test]
    fn sizes_and_lines_that_others_may_read_differently_are_refused() {
        for text in [
            "\r\n",
            "+1\r\nx",
            "-1\r\n",
            "0x1\r\nx",
            "1_0\r\n",
            " 1\r\nx",
            "1 \r\nx",
            "1\nx\r\n",
            "1\r\nx\n0\r\n\r\n",
            "1\r\nxy\r\n",
            "1;a\nx",
            "1;a\0\r\nx",
            "1;a\rx",
            "00000000000000001\r\nx",
            "g\r\n",
            ";a\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\n\n",
        ] {
            assert_eq!(decode(text.as_bytes(), 100), Err(BadChunk), "{text:?}");
        }
        let extension = format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(MAX_EXTENSION_BYTES + 1));
        assert_eq!(decode(extension.as_bytes(), 1 << 20), Err(BadChunk));
        let trailer = format!("0\r\na: {}\r\n\r\n", "a".repeat(MAX_TRAILER_BYTES));
        assert_eq!(decode(trailer.as_bytes(), 1 << 20), Err(BadChunk));
    }

    #[test]
    fn a_body_that_stops_early_is_not_done() {
        for text in ["", "5", "5\r\nhel", "5\r\nhello\r\n", "5\r\nhello\r\n0\r\n", "0\r\nA: b\r\n"] {
            assert_eq!(decode(text.as_bytes(), 100), Ok(None), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_give_the_same_as_the_whole(text in "[0-9a-f;\r\n]{0,60}", piece in 1_usize..8) {
            prop_assert_eq!(decode(text.as_bytes(), piece), decode(text.as_bytes(), 100));
        }
    }
}
