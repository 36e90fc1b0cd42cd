//! The exact secrets: found in a text in each form in which they are usually written. Pure.

use std::borrow::Cow;
use std::fmt::Write;
use std::ops::Range;

use aho_corasick::AhoCorasick;
use percent_encoding::percent_decode;

/// A secret shorter than this would hit ordinary words.
const SHORTEST_SECRET: usize = 6;
/// A line of a longer secret, such as a key in PEM, that is told by itself.
const SHORTEST_LINE: usize = 16;
/// Of a secret in base64, what is sure whatever stands before and behind it.
const SHORTEST_CORE: usize = 7;
/// A URL in a parameter of a URL is percent-encoded twice.
const PERCENT_ROUNDS: usize = 2;
const MARK: &str = "[REDACTED:secret]";
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// All forms of all secrets; `None` without any.
#[derive(Debug)]
pub(super) struct Exact(Option<AhoCorasick>);

impl Exact {
    pub(super) fn new<'s>(secrets: impl IntoIterator<Item = &'s str>) -> Self {
        let long_enough = secrets.into_iter().filter(|secret| secret.len() >= SHORTEST_SECRET);
        let mut forms: Vec<String> = long_enough.flat_map(parts).flat_map(written_forms).collect();
        forms.sort_unstable();
        forms.dedup();
        let automaton = || AhoCorasick::new(&forms).expect("the secrets of a configuration fit an automaton");
        Self((!forms.is_empty()).then(automaton))
    }

    /// Whether one of them stands in these bytes as it is; does not look behind percent-encoding.
    pub(super) fn is_in(&self, bytes: &[u8]) -> bool {
        self.0.as_ref().is_some_and(|exact| exact.is_match(bytes))
    }

    /// The text without them, percent-encoded ones too.
    pub(super) fn without<'a>(&self, text: Cow<'a, str>) -> Cow<'a, str> {
        let Some(exact) = &self.0 else { return text };
        // overlapping: of two secrets that share some characters neither may leave its rest
        let mut found: Vec<Range<usize>> = exact.find_overlapping_iter(&*text).map(|found| found.range()).collect();
        let mut layer = Decoded::whole(&text);
        for _ in 0..PERCENT_ROUNDS {
            let Some(next) = layer.and_then(|layer| layer.peeled()) else { break };
            found.extend(exact.find_overlapping_iter(&next.bytes).map(|found| next.raw(found.range())));
            layer = Some(next);
        }
        if found.is_empty() { text } else { Cow::Owned(replaced(&text, found)) }
    }
}

fn replaced(text: &str, mut ranges: Vec<Range<usize>>) -> String {
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    let mut out = String::with_capacity(text.len() + MARK.len());
    let mut copied = 0;
    let mut marked = false;
    for range in ranges {
        let (start, end) = (text.floor_char_boundary(range.start), text.ceil_char_boundary(range.end));
        if start > copied || !marked {
            out.push_str(&text[copied..start.max(copied)]);
            out.push_str(MARK);
            marked = true;
        }
        copied = copied.max(end);
    }
    out.push_str(&text[copied..]);
    out
}

/// Percent-decoded bytes, and where each of them stood.
struct Decoded {
    bytes: Vec<u8>,
    /// One more than there are bytes: the last is the end.
    places: Vec<usize>,
}

impl Decoded {
    /// Not decoded yet; `None` when there is nothing to decode.
    fn whole(text: &str) -> Option<Self> {
        let has_percent = memchr::memchr(b'%', text.as_bytes()).is_some();
        has_percent.then(|| Self { bytes: text.as_bytes().to_vec(), places: (0..=text.len()).collect() })
    }

    /// Decoded once more; `None` when that changes nothing.
    fn peeled(&self) -> Option<Self> {
        let mut next = Self { bytes: Vec::with_capacity(self.bytes.len()), places: Vec::new() };
        let mut at = 0;
        while at < self.bytes.len() {
            next.places.push(self.places[at]);
            let three = &self.bytes[at..self.bytes.len().min(at + 3)];
            let mut decoded = percent_decode(three);
            let byte = decoded.next().unwrap_or(self.bytes[at]);
            let is_escape = three.len() == 3 && three[0] == b'%' && decoded.next().is_none();
            next.bytes.push(byte);
            at += if is_escape { 3 } else { 1 };
        }
        next.places.push(*self.places.last()?);
        (next.bytes.len() < self.bytes.len()).then_some(next)
    }

    fn raw(&self, range: Range<usize>) -> Range<usize> {
        self.places[range.start]..self.places[range.end]
    }
}

/// The secret, and its lines when it has several: a log may tell them one by one.
fn parts(secret: &str) -> Vec<&str> {
    let is_telling = |line: &&str| line.len() >= SHORTEST_LINE && !line.starts_with("-----");
    let lines = secret.lines().map(str::trim).filter(is_telling);
    std::iter::once(secret).chain(lines.filter(|line| *line != secret)).collect()
}

fn written_forms(secret: &str) -> Vec<String> {
    let json = serde_json::Value::from(secret).to_string();
    let debug = format!("{secret:?}");
    let mut forms = vec![
        secret.to_owned(),
        json[1..json.len() - 1].to_owned(),
        ascii_only(&json[1..json.len() - 1]),
        debug[1..debug.len() - 1].to_owned(),
        secret.replace(' ', "+"),
        html(secret),
    ];
    for offset in 0..3 {
        let core = base64_core(secret.as_bytes(), offset);
        if core.len() >= SHORTEST_CORE {
            forms.push(core.replace('+', "-").replace('/', "_"));
            forms.push(core);
        }
    }
    forms
}

/// JSON as Python writes it.
fn ascii_only(json: &str) -> String {
    let mut out = String::new();
    for character in json.chars() {
        if character.is_ascii() {
            out.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _ = write!(out, "\\u{unit:04x}"); // writing into a string cannot fail
        }
    }
    out
}

/// As a page shows it.
fn html(text: &str) -> String {
    let escapes = [('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;"), ('\'', "&#39;")];
    escapes.iter().fold(text.to_owned(), |text, (character, escape)| text.replace(*character, escape))
}

/// The digits of base64 that these bytes alone decide when they stand this far behind a border of three.
fn base64_core(bytes: &[u8], offset: usize) -> String {
    let bit = |position: usize| {
        let byte = bytes[position / 8 - offset];
        usize::from(byte >> (7 - position % 8) & 1)
    };
    let first = (offset * 8).div_ceil(6);
    let behind = (offset + bytes.len()) * 8 / 6;
    let digit = |number: usize| (0..6).fold(0, |digit, next| digit << 1 | bit(number * 6 + next));
    (first..behind).map(|number| char::from(BASE64[digit(number)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "hunter2/s\"crét & co";

    fn without(text: &str) -> String {
        Exact::new([SECRET, "short"]).without(Cow::Borrowed(text)).into_owned()
    }

    #[test]
    fn a_secret_is_found_in_each_form_in_which_it_is_written() {
        let forms = [
            SECRET,
            r#"hunter2/s\"crét & co"#,
            r#"hunter2/s\"cr\u00e9t & co"#,
            "hunter2/s\"crét+&+co",
            "hunter2/s&quot;crét &amp; co",
            "hunter2%2Fs%22cr%C3%A9t%20%26%20co",
            "hunter2%2fs%22cr%c3%a9t %26 co",
            "%68unter2/s\"crét & co",
            "hunter2%252Fs%2522cr%25C3%25A9t%2520%2526%2520co",
        ];
        for form in forms {
            assert_eq!(without(&format!("a {form} b")), "a [REDACTED:secret] b", "{form}");
        }
    }

    #[test]
    fn a_secret_is_found_in_base64_wherever_it_begins() {
        // whole texts, three bytes at a time: another way than the one that is tried
        let encode = |text: &str| {
            let mut out = String::new();
            for chunk in text.as_bytes().chunks(3) {
                let bits =
                    chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
                (0..=chunk.len()).for_each(|at| out.push(char::from(BASE64[(bits >> (18 - 6 * at)) as usize & 63])));
            }
            out
        };
        for user in ["", "a", "ab", "abc"] {
            let text = format!("Basic {}", encode(&format!("{user}{SECRET}!")));
            assert!(without(&text).contains(MARK), "{text}");
            let text = text.replace('+', "-").replace('/', "_");
            assert!(without(&text).contains(MARK), "{text}");
        }
    }

    #[test]
    fn what_is_short_or_broken_is_left_alone() {
        for text in ["a short word", "100 %", "%", "%2", "%zz é % %4", "", "huntër2"] {
            assert_eq!(without(text), text);
        }
    }

    #[test]
    fn secrets_that_overlap_leave_no_rest() {
        let exact = Exact::new(["abcdef", "defghi", "xyzxyz"]);
        assert_eq!(exact.without("1abcdefghi2".into()), "1[REDACTED:secret]2");
        assert_eq!(exact.without("xyzxyzxyz".into()), MARK);
        assert_eq!(exact.without("abcdef-abcdef".into()), format!("{MARK}-{MARK}"));
    }

    #[test]
    fn a_key_of_several_lines_is_known_by_each_of_them() {
        let pem = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG\n9w0BAQEFAASCBKcwggSj\nAg==\n-----END PRIVATE KEY-----\n";
        let exact = Exact::new([pem]);
        assert_eq!(exact.without("line 2: 9w0BAQEFAASCBKcwggSj".into()), format!("line 2: {MARK}"));
        assert_eq!(exact.without("-----BEGIN PRIVATE KEY-----".into()), "-----BEGIN PRIVATE KEY-----");
    }
}
