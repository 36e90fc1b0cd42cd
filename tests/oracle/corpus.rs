//! The corpus: raw messages as readable text, each with what the RFCs demand of it.
//!
//! One file is one class. `#` starts a comment; an entry is a head line, then its bytes:
//!
//! ```text
//! == must-refuse | 9112 §3.2 | HTTP/1.1 without Host | status=400
//! > GET / HTTP/1.1          these characters, then CR LF
//! | hello                   these characters, nothing added
//! ~ wait                    send what stands above, then wait for an answer (any byte)
//! ```
//!
//! Escapes: `\r` `\n` `\t` `\0` `\\` `\s` (a blank at the end of a line), `\x7f`, and `\{ab*3}` for `ababab`.
//! Kinds: `lawful` must be forwarded unharmed, `must-refuse` must never arrive, `may` leaves both open.

use std::fs;
use std::path::Path;

/// What the RFCs, or the proxy's own stated policy, demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Must be forwarded, with nothing changed that is not the proxy's to change.
    Lawful,
    /// Must not be forwarded.
    MustRefuse,
    /// Forwarded in canonical form, or refused: both are right.
    May,
}

/// How the sender of an entry ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Requests: one more request follows, which shows where the proxy believes that the entry ended.
    /// Responses: the connection stays open.
    Follow,
    /// The sender closes its side.
    Close,
    /// Nothing follows, and the sender waits for the other side to close.
    Wait,
}

/// One thing that the sender does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Writes these bytes.
    Send(Vec<u8>),
    /// Waits until the other side has sent something new, or a second has passed.
    Wait,
}

/// One raw message, or several, and what is right to do with it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The class, from the first line of the file.
    pub(crate) class: String,
    /// A sentence that names the fact.
    pub(crate) name: String,
    /// RFC and section, for example `9112 §6.3`.
    pub(crate) rfc: String,
    /// What is demanded.
    pub(crate) kind: Kind,
    /// The statuses that are right; empty: 400 where it must be refused, 200 where it is lawful.
    pub(crate) statuses: Vec<u16>,
    /// Responses only: the request that provokes it.
    pub(crate) ask: String,
    /// What follows.
    pub(crate) end: End,
    /// The bytes.
    pub(crate) steps: Vec<Step>,
}

impl Entry {
    /// All bytes of the entry, without what follows.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let sent = self.steps.iter().filter_map(|step| match step {
            Step::Send(bytes) => Some(bytes.as_slice()),
            Step::Wait => None,
        });
        sent.flatten().copied().collect()
    }

    /// The entry as a file of the corpus has it, to be read, kept and run again.
    pub(crate) fn text(&self) -> String {
        let kind = match self.kind {
            Kind::Lawful => "lawful",
            Kind::MustRefuse => "must-refuse",
            Kind::May => "may",
        };
        let end = match self.end {
            End::Follow => "",
            End::Close => " | end=close",
            End::Wait => " | end=wait",
        };
        let mut text = format!("== {kind} | {} | {} | ask={}{end}\n", self.rfc, self.name, self.ask);
        for step in &self.steps {
            match step {
                Step::Send(bytes) => lines(&mut text, bytes),
                Step::Wait => text += "~ wait\n",
            }
        }
        text
    }
}

/// One line of text for each line of the message, so that it can be read.
fn lines(text: &mut String, bytes: &[u8]) {
    let mut rest = bytes;
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        *text += format!("> {}", escape(&rest[..end])).trim_end();
        text.push('\n');
        rest = &rest[end + 2..];
    }
    if !rest.is_empty() || bytes.is_empty() {
        *text += &format!("| {}\n", escape(rest));
    }
}

fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'\r' => text += "\\r",
            b'\n' => text += "\\n",
            b'\t' => text += "\\t",
            b'\\' => text += "\\\\",
            // editors take blanks off the ends of lines
            b' ' if at + 1 == bytes.len() => text += "\\s",
            0x20..0x7f => text.push(char::from(byte)),
            _ => text += &format!("\\x{byte:02x}"),
        }
    }
    text
}

/// Reads every `.txt` of a folder under `tests/oracle/corpus`, in order of names.
pub(crate) fn load(folder: &str) -> Vec<Entry> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/corpus").join(folder);
    let listing = fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut files: Vec<_> = listing.map(|file| file.expect("a readable folder").path()).collect();
    files.sort();
    files.iter().flat_map(|file| parse(&fs::read_to_string(file).expect("the corpus is UTF-8"))).collect()
}

/// Parses one file; a mistake in the corpus is a panic that names the line.
pub(crate) fn parse(text: &str) -> Vec<Entry> {
    let mut class = String::new();
    let mut entries: Vec<Entry> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let place = number + 1;
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("class: ") {
            class = name.to_owned();
        } else if let Some(head) = line.strip_prefix("== ") {
            entries.push(entry(&class, head, place));
        } else {
            let entry = entries.last_mut().unwrap_or_else(|| panic!("line {place}: bytes before the first entry"));
            step(entry, line, place);
        }
    }
    entries
}

fn entry(class: &str, head: &str, place: usize) -> Entry {
    let parts: Vec<&str> = head.split(" | ").map(str::trim).collect();
    let [kind, rfc, name, options @ ..] = parts.as_slice() else {
        panic!("line {place}: {head:?}, expected `== kind | rfc | name [| option]…`");
    };
    let kind = match *kind {
        "lawful" => Kind::Lawful,
        "must-refuse" => Kind::MustRefuse,
        "may" => Kind::May,
        other => panic!("line {place}: kind {other:?}, expected lawful, must-refuse or may"),
    };
    let mut made = Entry {
        class: class.to_owned(),
        name: (*name).to_owned(),
        rfc: (*rfc).to_owned(),
        kind,
        statuses: Vec::new(),
        ask: "get".to_owned(),
        end: End::Follow,
        steps: Vec::new(),
    };
    for option in options {
        set(&mut made, option, place);
    }
    made
}

fn set(entry: &mut Entry, option: &str, place: usize) {
    match option.split_once('=') {
        Some(("status", list)) => {
            entry.statuses = list.split(',').map(|code| code.parse().expect("a status code")).collect();
        }
        Some(("ask", what)) => entry.ask = what.to_owned(),
        Some(("end", "close")) => entry.end = End::Close,
        Some(("end", "wait")) => entry.end = End::Wait,
        _ => panic!("line {place}: option {option:?}, expected status=, ask= or end="),
    }
}

fn step(entry: &mut Entry, line: &str, place: usize) {
    if line == "~ wait" {
        entry.steps.push(Step::Wait);
        return;
    }
    let (mark, rest) = line.split_at(1);
    let mut bytes = unescape(rest.strip_prefix(' ').unwrap_or(rest), place);
    match mark {
        ">" => bytes.extend_from_slice(b"\r\n"),
        "|" => {}
        _ => panic!("line {place}: {line:?}, expected it to start with `==`, `>`, `|`, `~` or `#`"),
    }
    match entry.steps.last_mut() {
        Some(Step::Send(sent)) => sent.extend_from_slice(&bytes),
        _ => entry.steps.push(Step::Send(bytes)),
    }
}

fn unescape(text: &str, place: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = &rest[at + 1..];
        let used = match escape.as_bytes().first() {
            Some(b'r') => one(&mut bytes, b'\r'),
            Some(b'n') => one(&mut bytes, b'\n'),
            Some(b't') => one(&mut bytes, b'\t'),
            Some(b's') => one(&mut bytes, b' '),
            Some(b'0') => one(&mut bytes, 0),
            Some(b'\\') => one(&mut bytes, b'\\'),
            Some(b'x') => {
                bytes.push(u8::from_str_radix(&escape[1..3], 16).expect("two hex digits"));
                3
            }
            Some(b'{') => repeated(&mut bytes, escape, place),
            _ => panic!("line {place}: unknown escape in {text:?}"),
        };
        rest = &escape[used..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

fn one(bytes: &mut Vec<u8>, byte: u8) -> usize {
    bytes.push(byte);
    1
}

/// `{text*count}`: the text may itself hold escapes, but no star and no brace.
fn repeated(bytes: &mut Vec<u8>, escape: &str, place: usize) -> usize {
    let end = escape.find('}').unwrap_or_else(|| panic!("line {place}: a repetition without its brace"));
    let (text, count) = escape[1..end].split_once('*').unwrap_or_else(|| panic!("line {place}: expected text*count"));
    let text = unescape(text, place);
    for _ in 0..count.parse::<usize>().expect("a count") {
        bytes.extend_from_slice(&text);
    }
    end + 1
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn an_entry_is_read_with_its_options_and_escapes() {
        let text = "class: x\n# note\n== must-refuse | 9112 §5 | a name | status=400,431 | end=close\n\
                    > A\\t\\{b\\x01*2}\n>\n~ wait\n| c\\s\n";
        let entries = parse(text);
        assert_eq!(entries.len(), 1);
        let entry = &entries[0];
        assert_eq!((entry.class.as_str(), entry.name.as_str(), entry.rfc.as_str()), ("x", "a name", "9112 §5"));
        assert_eq!((entry.kind, entry.end), (Kind::MustRefuse, End::Close));
        assert_eq!(entry.statuses, [400, 431]);
        let expected = [Step::Send(b"A\tb\x01b\x01\r\n\r\n".to_vec()), Step::Wait, Step::Send(b"c ".to_vec())];
        assert_eq!(entry.steps, expected);
        assert_eq!(entry.bytes(), b"A\tb\x01b\x01\r\n\r\nc ");
    }

    #[test]
    fn an_entry_is_written_as_it_is_read() {
        for folder in ["requests", "http2", "responses"] {
            for entry in load(folder) {
                let again = &parse(&entry.text())[0];
                assert_eq!(
                    (&again.steps, again.end, &again.ask),
                    (&entry.steps, entry.end, &entry.ask),
                    "{}",
                    entry.text()
                );
            }
        }
    }

    #[test]
    fn the_corpus_is_as_large_as_promised_and_says_nothing_twice() {
        for (folder, least, lawful) in [("requests", 600, 250), ("http2", 250, 60), ("responses", 150, 80)] {
            let entries = load(folder);
            assert!(entries.len() >= least, "{folder}: {}, expected at least {least}", entries.len());
            let forwarded = entries.iter().filter(|entry| entry.kind == Kind::Lawful).count();
            assert!(forwarded >= lawful, "{folder}: {forwarded} lawful, expected at least {lawful}");
            let mut names = BTreeSet::new();
            let mut exchanges = BTreeMap::new();
            for entry in &entries {
                assert!(!entry.rfc.is_empty(), "{folder}: {} has no section", entry.name);
                assert!(names.insert((&entry.class, &entry.name)), "{folder}: {} twice in its class", entry.name);
                let bytes = format!("{:?} {:?} {}", entry.steps, entry.end, entry.ask);
                let other = exchanges.insert(bytes, &entry.name);
                assert!(other.is_none(), "{folder}: {} is {} again", entry.name, other.unwrap_or(&entry.name));
            }
        }
    }
}
