//! Where the frames of a WebSocket end (RFC 6455, section 5.2), so that a word of our own can stand between two of them.
//!
//! Headers are read, payloads are skipped, and nothing is kept. What the frames say is no concern of a proxy.

/// Close, with 1001: going away (RFC 6455, section 7.4.1). A server's frame, so it is not masked.
const GOING_AWAY: &[u8] = b"\x88\x02\x03\xe9";

/// The opcode of a close frame.
const CLOSE: u8 = 8;

/// What a server has sent of its frames.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    place: Place,
    /// Behind a close frame nothing may follow.
    is_closed: bool,
    leaves: bool,
    /// Bytes of our own close frame that are written.
    said: usize,
}

/// What the next byte is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// The first of a frame.
    #[default]
    Start,
    /// The one with the mask bit and the length, or the code of a longer one.
    Length,
    /// One of a longer length.
    Longer { left: u8, length: u64, mask: u64 },
    /// One of the mask or the payload.
    Skipped { left: u64 },
}

impl Place {
    fn behind_length(length: u64, mask: u64) -> Self {
        match length.saturating_add(mask) {
            0 => Self::Start,
            left => Self::Skipped { left },
        }
    }
}

impl Frames {
    /// These bytes went out.
    pub(crate) fn advance(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            bytes = rest;
            self.place = match self.place {
                Place::Start => {
                    self.is_closed |= byte & 0x0f == CLOSE;
                    Place::Length
                }
                Place::Length => {
                    let mask = if byte & 0x80 != 0 { 4 } else { 0 };
                    match byte & 0x7f {
                        126 => Place::Longer { left: 2, length: 0, mask },
                        127 => Place::Longer { left: 8, length: 0, mask },
                        length => Place::behind_length(length.into(), mask),
                    }
                }
                Place::Longer { left, length, mask } => {
                    let length = (length << 8) | u64::from(byte);
                    match left {
                        1 => Place::behind_length(length, mask),
                        _ => Place::Longer { left: left - 1, length, mask },
                    }
                }
                Place::Skipped { left } => {
                    // this byte, and what else is here of it
                    let more = usize::try_from(left - 1).unwrap_or(usize::MAX).min(bytes.len());
                    bytes = &bytes[more..];
                    match left - 1 - more as u64 {
                        0 => Place::Start,
                        left => Place::Skipped { left },
                    }
                }
            };
        }
    }

    /// The client is to be told to go, as soon as a frame has ended.
    pub(crate) fn leave(&mut self) {
        self.leaves = true;
    }

    /// What is to be written now in place of anything else; empty when that is all.
    pub(crate) fn farewell(&self) -> Option<&'static [u8]> {
        let is_due = self.leaves && !self.is_closed && self.place == Place::Start;
        is_due.then(|| &GOING_AWAY[self.said..])
    }

    /// So much of it went out.
    pub(crate) fn said(&mut self, count: usize) {
        self.said += count;
    }

    /// Whether the client was told to go.
    pub(crate) fn has_left(&self) -> bool {
        self.said == GOING_AWAY.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame with a payload of zeros; `mask` is the bit beside its length.
    fn frame(opcode: u8, length: u64, mask: u8) -> Vec<u8> {
        let mut bytes = vec![opcode];
        match length {
            0..126 => bytes.push(mask | u8::try_from(length).unwrap()),
            126..65_536 => {
                bytes.push(mask | 126);
                bytes.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend_from_slice(&length.to_be_bytes());
            }
        }
        let payload = usize::try_from(length).unwrap() + if mask > 0 { 4 } else { 0 };
        bytes.resize(bytes.len() + payload, 0);
        bytes
    }

    fn leaving() -> Frames {
        let mut frames = Frames::default();
        frames.leave();
        frames
    }

    #[test]
    fn a_word_may_stand_behind_a_frame_of_each_form_and_nowhere_within() {
        for length in [0, 1, 125, 126, 127, 255, 256, 65_535, 65_536, 100_000] {
            for (opcode, mask) in [(0x01, 0), (0x82, 0), (0x00, 0x80), (0x89, 0x80)] {
                let bytes = frame(opcode, length, mask);
                let mut frames = leaving();
                for (number, byte) in bytes.iter().enumerate() {
                    assert_eq!(frames.farewell().is_some(), number == 0, "{length}, byte {number}");
                    frames.advance(&[*byte]);
                }
                assert_eq!(frames.farewell(), Some(GOING_AWAY), "{length}");
            }
        }
    }

    #[test]
    fn behind_a_close_frame_nothing_is_said() {
        let mut frames = leaving();
        frames.advance(&frame(0x88, 2, 0));
        assert_eq!(frames.farewell(), None);
    }

    #[test]
    fn the_longest_length_is_waited_for() {
        let mut frames = leaving();
        frames.advance(&[0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        frames.advance(&[0; 100_000]);
        assert_eq!(frames.farewell(), None);
    }

    #[test]
    fn a_part_of_the_word_is_followed_by_its_rest() {
        let mut frames = Frames::default();
        assert_eq!(frames.farewell(), None, "nobody leaves");
        frames.leave();
        frames.said(3);
        assert_eq!((frames.farewell(), frames.has_left()), (Some(&GOING_AWAY[3..]), false));
        frames.said(1);
        assert_eq!((frames.farewell(), frames.has_left()), (Some(&[][..]), true));
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_changes_nothing(
            lengths in prop::collection::vec(prop_oneof![0u64..300, 65_000u64..66_000], 1..6),
            cuts in prop::collection::vec(1usize..70_000, 1..40),
        ) {
            let bytes: Vec<u8> = lengths.iter().flat_map(|length| frame(0x82, *length, 0)).collect();
            let mut ends: Vec<usize> = Vec::new();
            for length in &lengths {
                ends.push(ends.last().unwrap_or(&0) + frame(0x82, *length, 0).len());
            }
            let (mut frames, mut at) = (leaving(), 0);
            for cut in cuts {
                let next = (at + cut).min(bytes.len());
                frames.advance(&bytes[at..next]);
                at = next;
                prop_assert_eq!(frames.farewell().is_some(), at == 0 || ends.contains(&at));
            }
        }
    }
}
