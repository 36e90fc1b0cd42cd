//! HTTP/2 by hand: an entry's text as frames, and answers read from frames. Written from RFC 9113 and RFC 7541 and nothing else.
//!
//! The text of an entry is one thing a line; a line of fields belongs to the block above it:
//!
//! ```text
//! HEADERS 1 end             a block on stream 1, with END_STREAM; `open` leaves END_HEADERS away
//! :method: GET
//! x-name: a\rb              escapes once more, as the bytes of a field may be anything
//! CONTINUATION 1            more of the block
//! DATA 1 end |hello         what stands behind the bar
//! RST 1                     RST_STREAM with CANCEL
//! ```
//!
//! Every text means frames, so that a mutated one does too. Strings are literals without Huffman's code, and no table is used.

use std::collections::BTreeMap;

use crate::grammar::Field;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// One stream, as it was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Its number.
    pub(crate) stream: u32,
    /// The first block, pseudo fields included.
    pub(crate) fields: Vec<Field>,
    /// All of its DATA.
    pub(crate) data: Vec<u8>,
    /// The last block, if there is a second one.
    pub(crate) trailers: Vec<Field>,
    blocks: usize,
}

/// What the text of an entry means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Script {
    /// All frames.
    pub(crate) bytes: Vec<u8>,
    /// The streams that they open, in order.
    pub(crate) streams: Vec<Sent>,
}

/// The preface and our settings: the other side is to use no table, so that each answer can be read alone.
pub(crate) fn greeting() -> Vec<u8> {
    [PREFACE, &frame((SETTINGS, 0), 0, &[0, 1, 0, 0, 0, 0])].concat()
}

/// A lawful GET of this target.
pub(crate) fn get(stream: u32, target: &[u8]) -> Vec<u8> {
    let fields: [(&[u8], &[u8]); 4] =
        [(b":method", b"GET"), (b":scheme", b"http"), (b":path", target), (b":authority", b"follower.example")];
    let block: Vec<u8> = fields.iter().flat_map(|(name, value)| literal(name, value)).collect();
    frame((HEADERS, END_HEADERS | END_STREAM), stream, &block)
}

/// A block that is being put together.
struct Block {
    kind: (u8, u8),
    stream: u32,
    hpack: Vec<u8>,
}

/// Reads the text of an entry.
pub(crate) fn script(text: &[u8]) -> Script {
    let (mut script, mut block) = (Script::default(), None::<Block>);
    for line in lines(text) {
        let words: Vec<&[u8]> =
            line.split(|&byte| byte == b'|').next().unwrap_or_default().split(|&byte| byte == b' ').collect();
        let has = |word: &[u8]| words.contains(&word);
        let stream = words.get(1).and_then(|word| std::str::from_utf8(word).ok()?.parse().ok()).unwrap_or(1);
        let ends = if has(b"end") { END_STREAM } else { 0 };
        match words[0] {
            b"HEADERS" | b"CONTINUATION" => {
                script.finish(block.take());
                let whole = if has(b"open") { 0 } else { END_HEADERS };
                let kind = if words[0] == b"HEADERS" { HEADERS } else { CONTINUATION };
                let flags = if kind == HEADERS { ends | whole } else { whole };
                if kind == HEADERS {
                    script.stream(stream).blocks += 1;
                }
                block = Some(Block { kind: (kind, flags), stream, hpack: Vec::new() });
            }
            b"DATA" => {
                script.finish(block.take());
                let payload = line.iter().position(|&byte| byte == b'|').map_or(&b""[..], |bar| &line[bar + 1..]);
                let payload = unescape(payload);
                script.bytes.extend(frame((DATA, ends), stream, &payload));
                if let Some(sent) = script.streams.iter_mut().find(|sent| sent.stream == stream) {
                    sent.data.extend(payload);
                }
            }
            b"RST" => {
                script.finish(block.take());
                script.bytes.extend(frame((RST_STREAM, 0), stream, &[0, 0, 0, 8]));
            }
            _ => {
                let (name, value) = field(line);
                if let Some(block) = &mut block {
                    block.hpack.extend(literal(&name, &value));
                    let sent = script.stream(block.stream);
                    if sent.blocks > 1 { sent.trailers.push((name, value)) } else { sent.fields.push((name, value)) }
                }
            }
        }
    }
    script.finish(block);
    script
}

impl Script {
    fn finish(&mut self, block: Option<Block>) {
        if let Some(Block { kind, stream, hpack }) = block {
            self.bytes.extend(frame(kind, stream, &hpack));
        }
    }

    fn stream(&mut self, stream: u32) -> &mut Sent {
        let at = self.streams.iter().position(|sent| sent.stream == stream).unwrap_or_else(|| {
            self.streams.push(Sent { stream, ..Sent::default() });
            self.streams.len() - 1
        });
        &mut self.streams[at]
    }
}

/// Lines that end with CR LF; an empty one says nothing.
fn lines(text: &[u8]) -> Vec<&[u8]> {
    let (mut lines, mut rest) = (Vec::new(), text);
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    lines.push(rest);
    lines.into_iter().filter(|line| !line.is_empty()).collect()
}

/// `name: value`; a colon at the beginning is a part of the name, unless a blank follows: then the name is empty.
fn field(line: &[u8]) -> Field {
    if let Some(value) = line.strip_prefix(b": ") {
        return (Vec::new(), unescape(value));
    }
    let colon = line.iter().skip(1).position(|&byte| byte == b':').map_or(line.len(), |at| at + 1);
    let value = line.get(colon + 1..).unwrap_or_default();
    (unescape(&line[..colon]), unescape(value.strip_prefix(b" ").unwrap_or(value)))
}

/// `\r`, `\n`, `\0`, `\s` and `\x7f`; all else is meant as it stands.
fn unescape(text: &[u8]) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let [first, after @ ..] = rest {
        let hex = |digits: &[u8]| std::str::from_utf8(digits).ok().and_then(|text| u8::from_str_radix(text, 16).ok());
        let (byte, used) = match (first, after) {
            (b'\\', [b'r', ..]) => (b'\r', 2),
            (b'\\', [b'n', ..]) => (b'\n', 2),
            (b'\\', [b'0', ..]) => (0, 2),
            (b'\\', [b's', ..]) => (b' ', 2),
            (b'\\', [b'x', high, low, ..]) => hex(&[*high, *low]).map_or((b'\\', 1), |byte| (byte, 4)),
            _ => (*first, 1),
        };
        bytes.push(byte);
        rest = &rest[used..];
    }
    bytes
}

fn frame((kind, flags): (u8, u8), stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&[length[1], length[2], length[3], kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// A literal that is never indexed, with a new name (RFC 7541, section 6.2.2).
fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0][..], &length(name.len()), name, &length(value.len()), value].concat()
}

/// An integer behind a prefix of seven bits (RFC 7541, section 5.1).
fn length(mut value: usize) -> Vec<u8> {
    if value < 127 {
        return vec![value as u8];
    }
    let mut bytes = vec![127];
    value -= 127;
    while value >= 128 {
        bytes.push((value % 128 + 128) as u8);
        value /= 128;
    }
    bytes.push(value as u8);
    bytes
}

/// How a stream has gone so far for who has opened it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Of the final answer.
    pub(crate) status: Option<u16>,
    /// The answer is over, or the stream was reset.
    pub(crate) is_over: bool,
    /// The code of a reset that is an error.
    pub(crate) reset: Option<u32>,
}

/// What has come back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    /// By stream.
    pub(crate) streams: BTreeMap<u32, Outcome>,
    /// The code of a GOAWAY that is an error.
    pub(crate) go_away: Option<u32>,
    /// Why it cannot be read.
    pub(crate) dirt: Option<String>,
}

/// Reads frames, as far as they are whole.
pub(crate) fn answers(bytes: &[u8]) -> Answers {
    let (mut answers, mut rest) = (Answers::default(), bytes);
    while let [a, b, c, kind, flags, id @ ..] = rest {
        let end = 9 + u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let (true, Some(payload)) = (id.len() >= 4, rest.get(9..end)) else { break };
        let stream = u32::from_be_bytes([id[0], id[1], id[2], id[3]]);
        let code =
            |at: usize| payload.get(at..at + 4).map(|code| u32::from_be_bytes([code[0], code[1], code[2], code[3]]));
        match *kind {
            GOAWAY => answers.go_away = answers.go_away.or(code(4).filter(|code| *code != 0)),
            RST_STREAM => {
                let outcome = answers.streams.entry(stream).or_default();
                (outcome.reset, outcome.is_over) = (code(0).filter(|code| *code != 0), true);
            }
            HEADERS | DATA => {
                let outcome = answers.streams.entry(stream).or_default();
                outcome.is_over |= flags & END_STREAM != 0;
                if *kind == HEADERS && outcome.status.is_none() {
                    match status(payload) {
                        Some(status) if status >= 200 => outcome.status = Some(status),
                        Some(_) => {}
                        None => answers.dirt = Some(format!("an answer without a status: {payload:x?}")),
                    }
                }
            }
            _ => {}
        }
        rest = &rest[end..];
    }
    answers
}

/// The status, which is the first field of an answer.
fn status(block: &[u8]) -> Option<u16> {
    const KNOWN: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    // changes of the table's size come first (RFC 7541, section 6.3)
    let block = &block[block.iter().position(|byte| byte & 0xe0 != 0x20)?..];
    match block {
        [indexed @ 0x88..=0x8e, ..] => Some(KNOWN[usize::from(indexed - 0x88)]),
        [0x48 | 0x08 | 0x18, 3, text @ ..] => std::str::from_utf8(text.get(..3)?).ok()?.parse().ok(),
        [0x48 | 0x08 | 0x18, coded, rest @ ..] if coded & 0x80 != 0 => digits(rest.get(..usize::from(coded & 0x7f))?),
        _ => None,
    }
}

/// Three digits in Huffman's code: five bits for those up to 2, six for the others (RFC 7541, appendix B).
fn digits(coded: &[u8]) -> Option<u16> {
    let bits: Vec<u16> = coded.iter().flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1))).collect();
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let value = |length: usize| Some(bits.get(at..at + length)?.iter().fold(0, |all, bit| all << 1 | bit));
        let (digit, length) = if value(5)? <= 2 { (value(5)?, 5) } else { (value(6)?.checked_sub(22)?, 6) };
        (number, at) = (number * 10 + digit, at + length);
    }
    (100..600).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_becomes_frames_and_is_known_as_what_was_sent() {
        let text = b"HEADERS 1\r\n:method: POST\r\nx\\x3ay: a\\rb\r\nDATA 1 end |hi\\n\r\nHEADERS 3 end open\r\n:path: /\r\nRST 3\r\n";
        let script = script(text);
        let field = |name: &[u8], value: &[u8]| (name.to_vec(), value.to_vec());
        assert_eq!(script.streams[0].fields, [field(b":method", b"POST"), field(b"x:y", b"a\rb")]);
        assert_eq!((script.streams[0].data.as_slice(), script.streams[1].stream), (&b"hi\n"[..], 3));
        let block = b"\0\x07:method\x04POST\0\x03x:y\x03a\rb";
        assert!(script.bytes.starts_with(&frame((1, 4), 1, block)), "{:?}", script.bytes);
        assert!(script.bytes.ends_with(&frame((3, 0), 3, &[0, 0, 0, 8])), "{:?}", script.bytes);
    }

    #[test]
    fn answers_are_read_with_their_statuses_in_each_form() {
        let bytes = [
            frame((4, 0), 0, b""),
            frame((1, 5), 1, &[0x20, 0x88]),
            frame((1, 4), 3, &[0x48, 0x82, 0x68, 0x01]), // 400 is indexed; this is 401 in Huffman's code
            frame((3, 0), 5, &[0, 0, 0, 1]),
            frame((1, 4), 7, b"\x08\x03503"),
            frame((7, 0), 0, &[0, 0, 0, 0, 0, 0, 0, 11]),
        ];
        let answers = answers(&bytes.concat());
        assert_eq!(answers.streams[&1], Outcome { status: Some(200), is_over: true, reset: None });
        assert_eq!((answers.streams[&3].status, answers.streams[&3].is_over), (Some(401), false));
        assert_eq!(answers.streams[&5].reset, Some(1));
        assert_eq!((answers.streams[&7].status, answers.go_away, answers.dirt), (Some(503), Some(11), None));
    }
}
