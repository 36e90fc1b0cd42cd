//! What a server of PostgreSQL may say: its messages as they pass, judged by their heads before anybody reserves memory for them.
//!
//! Keeps no content but that of a demand for a password, which may ask for hours of work. Source: PostgreSQL's manual, "Message Formats": one byte of a kind, then four of a length that counts itself.

/// The longest message that passes, without its kind: the longest of honest ones are rows of a few kilobytes.
pub(crate) const LONGEST: u32 = 64 << 10;

/// Of the work that a password may be asked to cost (SCRAM); servers ask for 4,096 unless they are told otherwise.
const MOST_ITERATIONS: u64 = 200_000;
/// The longest demand for a password, as a length counts.
const LONGEST_DEMAND: u32 = 2 << 10;

/// The kind of a demand for a password.
const DEMAND: u8 = b'R';
/// How a demand begins that tells the work.
const SCRAM_CHALLENGE: [u8; 4] = [0, 0, 0, 11];

/// The kind and the length.
const HEAD: usize = 5;
/// What a length counts of its head.
const OWN_LENGTH: u32 = 4;

/// Why a connection was ended in the midst of what the server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// A message that no honest server sends.
    #[error("a message of {0} bytes, expected at most {LONGEST}")]
    LongMessage(u32),
    /// More than an answer may have in all.
    #[error("an answer that goes on after {0} bytes")]
    LongAnswer(u64),
    /// A password that is to cost more than any honest server asks for.
    #[error("a password of {0} iterations, expected at most {MOST_ITERATIONS}")]
    DearPassword(u64),
    /// No message: its length does not even count itself.
    #[error("a message of {0} bytes, expected at least {OWN_LENGTH}")]
    NoMessage(u32),
}

/// Where in its messages a server is, and how much it may still say.
pub(super) struct Frames {
    head: [u8; HEAD],
    /// Of the head, those that have come.
    filled: usize,
    /// Of the message, those that are still to come.
    rest: usize,
    /// Of a demand for a password, what has come.
    demand: Vec<u8>,
    allowed: u64,
    left: u64,
}

impl Frames {
    /// Before the first message, of which nothing is allowed yet.
    pub(super) fn new() -> Self {
        Self { head: [0; HEAD], filled: 0, rest: 0, demand: Vec::new(), allowed: 0, left: 0 }
    }

    /// From here on so many bytes may come.
    pub(super) fn allow(&mut self, bytes: u64) {
        (self.allowed, self.left) = (bytes, bytes);
    }

    /// Judges the next bytes, which the reader must not see unless they pass.
    ///
    /// # Errors
    /// When the server must not be read any further; any split of what it says comes to the same.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        let (within, beyond) = bytes.split_at(most);
        self.left -= most as u64;
        self.walk(within)?;
        if beyond.is_empty() { Ok(()) } else { Err(FrameError::LongAnswer(self.allowed)) }
    }

    fn walk(&mut self, mut bytes: &[u8]) -> Result<(), FrameError> {
        while !bytes.is_empty() {
            let of_message = self.rest.min(bytes.len());
            self.rest -= of_message;
            if self.head[0] == DEMAND && of_message > 0 {
                self.demand.extend(&bytes[..of_message]);
                if self.rest == 0 {
                    affordable(&std::mem::take(&mut self.demand))?;
                }
            }
            bytes = &bytes[of_message..];
            let of_head = (HEAD - self.filled).min(bytes.len());
            self.head[self.filled..][..of_head].copy_from_slice(&bytes[..of_head]);
            self.filled += of_head;
            bytes = &bytes[of_head..];
            if self.filled == HEAD {
                self.filled = 0;
                self.rest = rest(self.head)?;
            }
        }
        Ok(())
    }
}

fn rest([kind, length @ ..]: [u8; HEAD]) -> Result<usize, FrameError> {
    let longest = if kind == DEMAND { LONGEST_DEMAND } else { LONGEST };
    match u32::from_be_bytes(length) {
        short @ ..OWN_LENGTH => Err(FrameError::NoMessage(short)),
        long if long > longest => Err(FrameError::LongMessage(long)),
        length => Ok((length - OWN_LENGTH) as usize),
    }
}

/// Looks for `i=4096` among the parts of a challenge (RFC 5802, section 7). A number that is none is the driver's default.
fn affordable(demand: &[u8]) -> Result<(), FrameError> {
    let Some(challenge) = demand.strip_prefix(&SCRAM_CHALLENGE) else { return Ok(()) };
    for digits in challenge.split(|byte| *byte == b',').filter_map(|part| part.strip_prefix(b"i=")) {
        let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
        let iterations =
            digits.fold(0_u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
        if iterations > MOST_ITERATIONS {
            return Err(FrameError::DearPassword(iterations));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLENTY: u64 = 8 << 20;

    /// What becomes of a stream that is split at these places.
    fn judged(stream: &[u8], cuts: &[usize], allowed: u64) -> Result<(), FrameError> {
        let mut frames = Frames::new();
        frames.allow(allowed);
        let mut from = 0;
        for cut in cuts.iter().copied().chain([stream.len()]) {
            frames.pass(&stream[from..cut])?;
            from = cut;
        }
        Ok(())
    }

    fn message(kind: u8, length: u32, content: usize) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend(length.to_be_bytes());
        bytes.resize(bytes.len() + content, 0xff);
        bytes
    }

    #[test]
    fn messages_of_every_length_up_to_the_longest_pass() {
        for length in [4, 5, 8, 1 << 10, LONGEST] {
            let mut stream = message(b'D', length, length as usize - 4);
            stream.extend(message(b'Z', 5, 1));
            assert_eq!(judged(&stream, &[], PLENTY), Ok(()), "{length}");
        }
    }

    #[test]
    fn a_head_alone_decides() {
        for (length, verdict) in [
            (0, FrameError::NoMessage(0)),
            (3, FrameError::NoMessage(3)),
            (LONGEST + 1, FrameError::LongMessage(LONGEST + 1)),
            (u32::MAX, FrameError::LongMessage(u32::MAX)),
        ] {
            let mut stream = message(b'R', 8, 4);
            stream.extend(message(b'D', length, 0));
            assert_eq!(judged(&stream, &[], PLENTY), Err(verdict));
        }
    }

    #[test]
    fn a_password_may_not_cost_hours_however_the_demand_is_split() {
        let demand = |challenge: &str| {
            let content = [&SCRAM_CHALLENGE, challenge.as_bytes()].concat();
            let mut bytes = message(DEMAND, content.len() as u32 + OWN_LENGTH, 0);
            bytes.extend(content);
            bytes
        };
        for (challenge, verdict) in [
            ("r=abc,s=c2FsdA==,i=4096", Ok(())),
            ("r=abc,s=c2FsdA==,i=200000", Ok(())),
            ("r=i=900000000,s=c2FsdA==,i=4096", Ok(())),
            ("r=abc,s=c2FsdA==,i=200001", Err(FrameError::DearPassword(200_001))),
            ("i=4096,i=+7,i=4294967295x,r=abc", Err(FrameError::DearPassword(4_294_967_295))),
        ] {
            let stream = demand(challenge);
            for cut in 0..stream.len() {
                assert_eq!(judged(&stream, &[cut], PLENTY), verdict, "{challenge} {cut}");
            }
        }
        let long = message(DEMAND, LONGEST_DEMAND + 1, 0);
        assert_eq!(judged(&long, &[], PLENTY), Err(FrameError::LongMessage(LONGEST_DEMAND + 1)));
    }

    #[test]
    fn an_answer_may_have_what_is_allowed_and_not_one_byte_more() {
        let stream = message(b'D', 100, 96).repeat(3);
        assert_eq!(judged(&stream, &[], stream.len() as u64), Ok(()));
        let most = stream.len() as u64 - 1;
        assert_eq!(judged(&stream, &[], most), Err(FrameError::LongAnswer(most)));
    }

    #[test]
    fn each_answer_has_its_own_allowance() {
        let mut frames = Frames::new();
        let stream = message(b'D', 100, 96);
        assert_eq!(frames.pass(&stream), Err(FrameError::LongAnswer(0)), "nobody asked");
        let mut frames = Frames::new();
        for _ in 0..10 {
            frames.allow(stream.len() as u64);
            assert_eq!(frames.pass(&stream), Ok(()));
        }
    }

    proptest! {
        #[test]
        fn any_split_comes_to_the_same(
            lengths in prop::collection::vec(prop_oneof![4_u32..40, 0_u32..6, Just(LONGEST + 1)], 0..20),
            cuts in prop::collection::vec(0_usize..400, 0..20),
            allowed in 0_u64..500,
        ) {
            let stream: Vec<u8> = lengths.iter().flat_map(|length| message(b'D', *length, (*length as usize).clamp(4, 44) - 4)).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.sort_unstable();
            prop_assert_eq!(judged(&stream, &cuts, allowed), judged(&stream, &[], allowed));
        }
    }
}
