//! Server-sent events while they stream by: the data of each is one document. Keeps none of it.
//!
//! Source: HTML, section 9.2 (event streams).

use memchr::memchr2;

use crate::egress::scan::{Found, Scan};

/// A reader of an answer: one document, or one in each event.
#[derive(Debug, Default)]
pub struct Answer {
    scan: Scan,
    /// `None` when the answer is one document.
    events: Option<Line>,
}

/// What is known of the line that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// So many bytes of `data:` have been seen.
    Start(usize),
    /// A carriage return has ended a line, and a line feed may belong to it.
    Return,
    Data,
    /// A comment, or a field that is no data.
    Other,
}

const DATA: &[u8] = b"data:";

impl Answer {
    /// For an answer that is a stream of events.
    #[must_use]
    pub fn of_events() -> Self {
        Self { scan: Scan::default(), events: Some(Line::Start(0)) }
    }

    /// Reads on.
    pub fn feed(&mut self, bytes: &[u8]) {
        let Some(mut line) = self.events else { return self.scan.feed(bytes) };
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            match line {
                Line::Start(0) if matches!(byte, b'\r' | b'\n') => {
                    self.scan.end(); // an empty line ends an event
                    line = after(byte);
                    rest = &rest[1..];
                }
                Line::Start(seen) if byte == DATA[seen] => {
                    line = if seen + 1 == DATA.len() { Line::Data } else { Line::Start(seen + 1) };
                    rest = &rest[1..];
                }
                Line::Start(_) => line = Line::Other,
                Line::Return => {
                    line = Line::Start(0);
                    rest = if byte == b'\n' { &rest[1..] } else { rest };
                }
                Line::Data | Line::Other => {
                    let end = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
                    if line == Line::Data {
                        self.scan.feed(&rest[..end]);
                    }
                    line = rest.get(end).map_or(line, |byte| after(*byte));
                    rest = rest.get(end + 1..).unwrap_or_default();
                }
            }
        }
        self.events = Some(line);
    }

    /// Ends the answer, and gives what it said.
    pub fn end(&mut self) -> &Found {
        self.scan.end();
        self.scan.found()
    }
}

fn after(end_of_line: u8) -> Line {
    if end_of_line == b'\r' { Line::Return } else { Line::Start(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = concat!(
        ": keep-alive\n\n",
        "event: chunk\ndata: {\"model\":\"gpt\",\"choices\":[{\"delta\":{\"content\":\"data: {\"}}]}\n\n",
        "dat: {\"model\":\"no\"}\n\n",
        "data:{\"model\":\"gpt\",\n\n",
        "data: {\"usage\":{\"prompt_tokens\":3,\ndata: \"completion_tokens\":4}}\n\n",
        "data: [DONE]\n\n",
    );

    fn expected() -> Found {
        Found { model: Some("gpt".into()), stream: false, input: Some(3), output: Some(4) }
    }

    #[test]
    fn it_does_not_matter_where_a_stream_is_cut_or_how_its_lines_end() {
        for stream in [STREAM.to_owned(), STREAM.replace('\n', "\r\n")] {
            for size in 1..stream.len() {
                let mut answer = Answer::of_events();
                stream.as_bytes().chunks(size).for_each(|piece| answer.feed(piece));
                assert_eq!(*answer.end(), expected(), "in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_document_is_read_without_lines() {
        let mut answer = Answer::default();
        answer.feed(b"{\n \"model\": \"gpt\",\n\n \"usage\": {\"prompt_tokens\": 3, \"completion_tokens\": 4}\n}");
        assert_eq!(*answer.end(), expected());
    }
}
