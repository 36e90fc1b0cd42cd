//! Follows the frames in a run of bytes (RFC 9113, section 4.1): their heads, and where they end.
//!
//! Judges nothing and keeps no payload but the few bytes that hold an error code. Whoever reads frames in earnest is the
//! `h2` crate; here they are only counted, on their way to it and from it.

/// With it a client begins, before its first frame (RFC 9113, section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The bytes before a payload.
const HEAD_BYTES: usize = 9;

/// The bytes up to the end of an error code: in GOAWAY it stands behind the number of a stream.
const LONGEST: usize = HEAD_BYTES + 8;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Data,
    Headers,
    Reset,
    GoAway,
    Continuation,
    /// About the connection or a stream, or unknown: it moves nothing.
    Control,
}

/// A frame, as far as it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) stream: u32,
    flags: u8,
    /// Of the payload, in bytes.
    pub(crate) length: usize,
    /// Of a reset or a GOAWAY.
    pub(crate) code: u32,
}

impl Frame {
    /// Whether a header block ends with it.
    pub(crate) fn ends_headers(self) -> bool {
        self.flags & 0x4 != 0
    }

    /// Whether it is a part of a head, or of trailers.
    pub(crate) fn is_of_head(self) -> bool {
        matches!(self.kind, Kind::Headers | Kind::Continuation)
    }

    /// Whether a stream ends with it.
    pub(crate) fn ends_stream(self) -> bool {
        self.flags & 0x1 != 0
    }
}

/// Where in a frame one direction of a connection stands.
#[derive(Debug)]
pub(crate) struct Frames {
    begun: [u8; LONGEST],
    have: usize,
    /// Bytes that are still to come of what is passed over: a preface, a payload.
    rest: usize,
}

impl Frames {
    /// A direction that begins with so many bytes that are no frame.
    pub(crate) fn behind(preface: usize) -> Self {
        Self { begun: [0; LONGEST], have: 0, rest: preface }
    }

    /// Goes on by these bytes and tells each frame whose head, with its error code, has become whole.
    pub(crate) fn advance(&mut self, mut bytes: &[u8], mut each: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            if self.rest > 0 {
                let passed = self.rest.min(bytes.len());
                self.rest -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            let taken = (self.wanted() - self.have).min(bytes.len());
            self.begun[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have >= HEAD_BYTES && self.have == self.wanted() {
                each(self.frame());
                self.rest = self.length() - (self.have - HEAD_BYTES);
                self.have = 0;
            }
        }
    }

    /// Whether a frame has been told whose payload is not whole.
    pub(crate) fn is_within(&self) -> bool {
        self.rest > 0
    }

    /// How much of a frame is to be collected: its head, and the error code where there is one.
    fn wanted(&self) -> usize {
        if self.have < HEAD_BYTES {
            return HEAD_BYTES;
        }
        let code = match self.kind() {
            Kind::Reset => 4,
            Kind::GoAway => 8,
            _ => 0,
        };
        HEAD_BYTES + code.min(self.length())
    }

    fn kind(&self) -> Kind {
        match self.begun[3] {
            0 => Kind::Data,
            1 => Kind::Headers,
            3 => Kind::Reset,
            7 => Kind::GoAway,
            9 => Kind::Continuation,
            _ => Kind::Control,
        }
    }

    fn length(&self) -> usize {
        let [first, second, third, ..] = self.begun;
        usize::from(first) << 16 | usize::from(second) << 8 | usize::from(third)
    }

    fn frame(&self) -> Frame {
        let code = self.begun[HEAD_BYTES..self.have].last_chunk().map_or(0, |code| u32::from_be_bytes(*code));
        let [_, _, _, _, _, first, second, third, fourth, ..] = self.begun;
        // the highest bit means nothing
        let stream = u32::from_be_bytes([first & 0x7f, second, third, fourth]);
        Frame { kind: self.kind(), stream, flags: self.begun[4], length: self.length(), code }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn frames_are_the_same_however_their_bytes_arrive() {
        let bytes = [
            b"PREFACE".to_vec(),
            encode(4, 0, b""),
            encode(1, 0x5, b"block"),
            encode(0, 0, &[b'x'; 200]),
            encode(3, 0, &[0, 0, 0, 8]),
            encode(7, 0, &[0, 0, 0, 1, 0, 0, 0, 11, b'w', b'h', b'y']),
            encode(3, 0, b"ab"), // too short for a code: for others to refuse
            encode(0, 1, b""),
        ]
        .concat();
        let expected = [
            (Kind::Control, 0, 0),
            (Kind::Headers, 5, 0),
            (Kind::Data, 200, 0),
            (Kind::Reset, 4, 8),
            (Kind::GoAway, 11, 11),
            (Kind::Reset, 2, 0),
            (Kind::Data, 0, 0),
        ];
        for size in 1..=bytes.len() {
            let (mut frames, mut seen) = (Frames::behind(7), Vec::new());
            for piece in bytes.chunks(size) {
                frames.advance(piece, |frame| seen.push((frame.kind, frame.length, frame.code)));
            }
            assert_eq!(seen, expected, "in pieces of {size}");
            assert!(!frames.is_within());
        }
    }

    #[test]
    fn a_payload_that_is_not_whole_is_told() {
        let mut frames = Frames::behind(0);
        let bytes = encode(1, 0x4, b"block");
        frames.advance(&bytes[..12], |frame| assert!(frame.ends_headers() && !frame.ends_stream()));
        assert!(frames.is_within());
        frames.advance(&bytes[12..], |_| panic!("one frame is told once"));
        assert!(!frames.is_within());
    }
}
