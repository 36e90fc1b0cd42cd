//! Reads a few scalars of a JSON document while it streams by: the model, whether a stream is asked for, and the tokens used.
//!
//! Keeps nothing else: of prompts and answers each byte is looked at once and forgotten, so memory does not grow with a
//! document, however long or deep. Does not validate: of what is no JSON, nothing is found.

use std::mem;

use memchr::memchr2;
use url::form_urlencoded;

/// What was found so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The name of the model; at most `LONGEST` bytes, as it was written.
    pub model: Option<String>,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// Tokens of the input, as the service counts them.
    pub input: Option<u64>,
    /// Tokens of the output.
    pub output: Option<u64>,
}

/// A reader of one document after another.
#[derive(Debug, Default)]
pub(super) struct Scan {
    found: Found,
    depth: usize,
    /// Of the outer levels: what kind each is, and which of its members is being read.
    levels: [Level; LEVELS],
    /// Whether the next text names a member.
    expects_name: bool,
    at: At,
    /// The text or number that is being read, when it may be wanted.
    kept: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Level {
    is_object: bool,
    member: Member,
}

/// Where in the document the next byte stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// Between two values, or at their punctuation.
    #[default]
    Between,
    Text,
    /// Behind a backslash.
    Escape,
    /// In a number, or in `true`, `false` or `null`.
    Bare,
}

/// The names that lead to what is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Member {
    #[default]
    Other,
    Model,
    Stream,
    Usage,
    Input,
    Output,
    /// Of an event, what the answer itself would have been.
    Whole,
}

/// As deep as `response.usage.input_tokens`.
const LEVELS: usize = 3;
/// Longer is no name that is wanted.
const LONGEST: usize = 100;

impl Member {
    fn of(name: &[u8]) -> Self {
        match name {
            b"model" => Self::Model,
            b"stream" => Self::Stream,
            b"usage" => Self::Usage,
            b"prompt_tokens" | b"input_tokens" => Self::Input,
            b"completion_tokens" | b"output_tokens" => Self::Output,
            b"response" | b"message" => Self::Whole,
            _ => Self::Other,
        }
    }
}

impl Scan {
    /// Begins with what a query says: of a WebSocket the model stands there, and nowhere else before the first word.
    pub(super) fn of_query(query: Option<&str>) -> Self {
        let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let model = pairs.find(|(name, value)| name == "model" && value.len() <= LONGEST);
        Self {
            found: Found { model: model.map(|(_, value)| value.into_owned()), ..Found::default() },
            ..Self::default()
        }
    }

    /// Reads on.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.at == At::Text && self.kept.is_none() {
                // most of a document is texts that nobody wants
                let Some(end) = memchr2(b'"', b'\\', bytes) else { return };
                self.step(bytes[end]);
                bytes = &bytes[end + 1..];
                continue;
            }
            self.step(byte);
            bytes = rest;
        }
    }

    /// Ends the document; another one may follow, and what it says outdoes what this one said.
    pub(super) fn end(&mut self) {
        if self.at == At::Bare {
            self.take();
        }
        *self = Self { found: mem::take(&mut self.found), ..Self::default() };
    }

    /// What was found so far.
    pub(super) fn found(&self) -> &Found {
        &self.found
    }

    fn step(&mut self, byte: u8) {
        match self.at {
            At::Text => self.in_text(byte),
            At::Escape => {
                self.at = At::Text;
                match byte {
                    b'/' | b'"' | b'\\' => self.keep(byte),
                    _ => self.kept = None,
                }
            }
            At::Bare if is_bare(byte) => self.keep(byte),
            At::Bare => {
                self.take();
                self.between(byte);
            }
            At::Between => self.between(byte),
        }
    }

    fn between(&mut self, byte: u8) {
        self.at = At::Between;
        match byte {
            b'{' | b'[' => self.open(byte),
            b'}' | b']' => self.close(),
            b',' => {
                self.expects_name = self.level().is_some_and(|level| level.is_object);
                if let Some(level) = self.level_mut() {
                    level.member = Member::Other;
                }
            }
            b'"' => {
                self.at = At::Text;
                self.kept = (self.expects_name || self.is_wanted()).then(Vec::new);
            }
            byte if is_bare(byte) => {
                self.at = At::Bare;
                self.kept = self.is_wanted().then(|| vec![byte]);
            }
            _ => {}
        }
    }

    fn in_text(&mut self, byte: u8) {
        match byte {
            b'\\' => self.at = At::Escape,
            b'"' if self.expects_name => {
                let name = self.kept.take().unwrap_or_default();
                self.at = At::Between;
                self.expects_name = false;
                if let Some(level) = self.level_mut() {
                    level.member = Member::of(&name);
                }
            }
            b'"' => self.take(),
            other => self.keep(other),
        }
    }

    fn keep(&mut self, byte: u8) {
        match &mut self.kept {
            Some(kept) if kept.len() < LONGEST => kept.push(byte),
            _ => self.kept = None,
        }
    }

    fn open(&mut self, bracket: u8) {
        let is_object = bracket == b'{';
        if let Some(level) = self.levels.get_mut(self.depth) {
            *level = Level { is_object, member: Member::Other };
        }
        self.depth = self.depth.saturating_add(1);
        self.expects_name = is_object && self.depth <= LEVELS;
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.expects_name = false;
    }

    /// The innermost level, when it is one of the outer ones.
    fn level(&self) -> Option<&Level> {
        self.levels.get(self.depth.checked_sub(1)?)
    }

    fn level_mut(&mut self) -> Option<&mut Level> {
        self.levels.get_mut(self.depth.checked_sub(1)?)
    }

    /// The way to the value that is being read, without what an event wraps around an answer.
    fn way(&self) -> &[Level] {
        let way = self.levels.get(..self.depth).unwrap_or_default();
        match way {
            [Level { member: Member::Whole, .. }, inner @ ..] => inner,
            whole => whole,
        }
    }

    fn wanted(&self) -> Option<Member> {
        let members: [Option<Member>; LEVELS] = std::array::from_fn(|at| self.way().get(at).map(|level| level.member));
        match members {
            [Some(found @ (Member::Model | Member::Stream)), None, None]
            | [Some(Member::Usage), Some(found @ (Member::Input | Member::Output)), None] => Some(found),
            _ => None,
        }
    }

    fn is_wanted(&self) -> bool {
        self.wanted().is_some()
    }

    /// Takes the value that has just ended.
    fn take(&mut self) {
        let is_text = mem::take(&mut self.at) == At::Text;
        let Some((member, value)) = self.wanted().zip(self.kept.take()) else { return };
        let Ok(text) = String::from_utf8(value) else { return };
        match member {
            Member::Model if is_text => self.found.model = Some(text),
            Member::Stream if !is_text => self.found.stream = text == "true",
            Member::Input if !is_text => self.found.input = text.parse().ok().or(self.found.input),
            Member::Output if !is_text => self.found.output = text.parse().ok().or(self.found.output),
            _ => {}
        }
    }
}

fn is_bare(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn scanned(document: &str) -> Found {
        let mut scan = Scan::default();
        scan.feed(document.as_bytes());
        scan.end();
        scan.found().clone()
    }

    fn found(model: &str, input: impl Into<Option<u64>>, output: impl Into<Option<u64>>) -> Found {
        Found { model: Some(model.to_owned()), stream: false, input: input.into(), output: output.into() }
    }

    #[test]
    fn the_services_of_the_day_are_read() {
        for (document, expected) in [
            (
                r#"{"messages":[{"role":"user","content":"a \"model\": {"}],"model":"gpt-5-mini","stream":true}"#,
                Found { stream: true, ..found("gpt-5-mini", None, None) },
            ),
            (
                r#"{"id":"x","model":"gpt-5","choices":[{"usage":{"prompt_tokens":1}}],"usage":{"prompt_tokens":12,"completion_tokens":34,"prompt_tokens_details":{"prompt_tokens":9}}}"#,
                found("gpt-5", 12, 34),
            ),
            (
                r#"{"type":"response.completed","response":{"model":"gpt-5","usage":{"input_tokens": 5 ,"output_tokens":6}}}"#,
                found("gpt-5", 5, 6),
            ),
            (
                r#"{"type":"message_start","message":{"model":"claude","usage":{"input_tokens":7,"output_tokens":1}}}"#,
                found("claude", 7, 1),
            ),
            (r#"{"model":"a\/b","usage":null}"#, found("a/b", None, None)),
        ] {
            assert_eq!(scanned(document), expected, "{document}");
        }
    }

    #[test]
    fn of_what_is_strange_nothing_is_found_and_nothing_is_kept() {
        let long = format!(r#"{{"model":"{}"}}"#, "x".repeat(LONGEST + 1));
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        let wrong = [
            "",
            "}}}}]]",
            "nonsense",
            r#""model":"x""#,
            r#"["model","x"]"#,
            r#"{"model":{"model":"x"}}"#,
            r#"{"a":{"model":"x"}}"#,
            r#"{"usage":[{"prompt_tokens":1}]}"#,
            r#"{"usage":{"prompt_tokens":-1,"completion_tokens":"many"}}"#,
            r#"{"model":"\u0061"}"#,
            r#"{"model":null}"#,
            &long,
            &deep,
        ];
        for document in wrong {
            assert_eq!(scanned(document), Found::default(), "{:.60}", document);
        }
    }

    #[test]
    fn a_later_document_outdoes_an_earlier_one_and_one_that_says_nothing_takes_nothing_away() {
        let mut scan = Scan::default();
        for document in [
            r#"{"model":"a","usage":{"prompt_tokens":1,"completion_tokens":1}}"#,
            r#"{"usage":{"completion_tokens":5}}"#,
            r#"{"model":"#,
            r#"{"choices":[],"usage":null}"#,
        ] {
            scan.feed(document.as_bytes());
            scan.end();
        }
        assert_eq!(*scan.found(), found("a", 1, 5));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_a_document_is_cut(
            content in ".*", model in "[a-z0-9./:-]{1,40}", numbers in prop::array::uniform2(0_u64..1 << 40), pieces in 1_usize..9,
        ) {
            let document = json!({"messages": [{"content": &content, "model": &content}], "model": &model, "stream": true,
                "usage": {"prompt_tokens": numbers[0], "completion_tokens": numbers[1]}}).to_string();
            let mut scan = Scan::default();
            document.as_bytes().chunks(pieces).for_each(|piece| scan.feed(piece));
            scan.end();
            prop_assert_eq!(scan.found().clone(), Found { stream: true, ..found(&model, numbers[0], numbers[1]) });
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut scan = Scan::default();
            scan.feed(&bytes);
            scan.end();
        }
    }
}
