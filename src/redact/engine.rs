//! The redactor: knows the exact secrets of the configuration, and applies the rules of place.
//!
//! Immutable once built; shared by `Arc`. Its counters are relaxed atomics.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

use aho_corasick::{AhoCorasick, MatchKind};

use crate::redact::{Clean, rules};

/// Where a text is going; redactions are counted by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outlet {
    /// Attributes and names of spans, labels of metrics.
    Telemetry,
    /// Answers of the admin port.
    Endpoint,
    /// The sidecar's own log.
    OwnLog,
}

impl Outlet {
    /// All outlets, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Telemetry, Self::Endpoint, Self::OwnLog];

    /// The value of the label `outlet`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Telemetry => "telemetry",
            Self::Endpoint => "endpoint",
            Self::OwnLog => "own_log",
        }
    }
}

/// Cleans text. The only maker of `Clean` besides literals.
#[derive(Debug)]
pub struct Redactor {
    /// The exact secrets in all their written forms; `None` without any.
    exact: Option<AhoCorasick>,
    redactions: [AtomicU64; Outlet::ALL.len()],
}

/// A secret shorter than this would hit ordinary words.
const SHORTEST_SECRET: usize = 6;
const EXACT: &str = "[REDACTED:secret]";

impl Redactor {
    /// Knows these secrets, each also percent-encoded, in base64 and escaped as in JSON.
    #[must_use]
    pub fn new<'s>(secrets: impl IntoIterator<Item = &'s str>) -> Self {
        let forms: Vec<String> =
            secrets.into_iter().filter(|secret| secret.len() >= SHORTEST_SECRET).flat_map(written_forms).collect();
        let exact = (!forms.is_empty()).then(|| {
            AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .build(&forms)
                .expect("the secrets of a configuration fit an automaton")
        });
        Self { exact, redactions: Default::default() }
    }

    /// Cleans free text: exact secrets and user info in URLs. Bytes that are no UTF-8 become U+FFFD.
    #[must_use]
    pub fn text<'a>(&self, outlet: Outlet, raw: &'a [u8]) -> Clean<'a> {
        let text = String::from_utf8_lossy(raw);
        let cleaned = map(self.without_exact(text), rules::user_info);
        self.made(outlet, raw, cleaned)
    }

    /// Cleans the value of a named field: all of it when the key is secret-like, else as text.
    #[must_use]
    pub fn field<'a>(&self, outlet: Outlet, key: &str, raw: &'a [u8]) -> Clean<'a> {
        if rules::is_secret_key(key) {
            return self.made(outlet, raw, Cow::Borrowed("[REDACTED:key]"));
        }
        self.text(outlet, raw)
    }

    /// Cleans a path and query: exact secrets, and the values of secret-like parameters.
    #[must_use]
    pub fn target<'a>(&self, outlet: Outlet, raw: &'a [u8]) -> Clean<'a> {
        let text = self.without_exact(String::from_utf8_lossy(raw));
        let cleaned = map(text, |text| match text.split_once('?') {
            Some((path, query)) => match rules::query(query) {
                Cow::Borrowed(_) => Cow::Borrowed(text),
                Cow::Owned(query) => Cow::Owned(format!("{path}?{query}")),
            },
            None => Cow::Borrowed(text),
        });
        self.made(outlet, raw, cleaned)
    }

    /// Whether a text of the request path needs no change: plain ASCII without an exact secret.
    ///
    /// Does not allocate; for ordinary paths the only cost of redaction.
    #[must_use]
    pub fn is_clean_path(&self, path: &[u8]) -> bool {
        path.is_ascii() && self.exact.as_ref().is_none_or(|exact| !exact.is_match(path))
    }

    /// How many texts were changed on their way to an outlet.
    #[must_use]
    pub fn redactions(&self, outlet: Outlet) -> u64 {
        self.redactions[outlet as usize].load(Ordering::Relaxed)
    }

    fn without_exact<'a>(&self, text: Cow<'a, str>) -> Cow<'a, str> {
        match &self.exact {
            Some(exact) if exact.is_match(&*text) => {
                let mut out = String::with_capacity(text.len());
                exact.replace_all_with(&text, &mut out, |_, _, out| {
                    out.push_str(EXACT);
                    true
                });
                Cow::Owned(out)
            }
            _ => text,
        }
    }

    fn made<'a>(&self, outlet: Outlet, raw: &[u8], cleaned: Cow<'a, str>) -> Clean<'a> {
        if cleaned.as_bytes() != raw {
            self.redactions[outlet as usize].fetch_add(1, Ordering::Relaxed);
        }
        Clean::made(cleaned)
    }
}

/// Applies a rule that borrows from its input, whoever owns that.
fn map<'a>(text: Cow<'a, str>, rule: impl for<'t> Fn(&'t str) -> Cow<'t, str>) -> Cow<'a, str> {
    match text {
        Cow::Borrowed(text) => rule(text),
        Cow::Owned(text) => match rule(&text) {
            Cow::Borrowed(_) => Cow::Owned(text),
            Cow::Owned(changed) => Cow::Owned(changed),
        },
    }
}

fn written_forms(secret: &str) -> Vec<String> {
    let encoded = percent_encoding::utf8_percent_encode(secret, percent_encoding::NON_ALPHANUMERIC).to_string();
    let json = serde_json::Value::from(secret).to_string();
    let mut forms = vec![secret.to_owned(), encoded, base64(secret.as_bytes()), json[1..json.len() - 1].to_owned()];
    forms.sort();
    forms.dedup();
    forms
}

/// Base64 without padding, so that it also matches within a longer, padded text.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for position in 0..=chunk.len() {
            let digit = (bits >> (18 - 6 * position)) & 63;
            out.push(char::from(DIGITS[digit as usize]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn redactor() -> Redactor {
        Redactor::new(["hunter2/secret", "short"])
    }

    #[test]
    fn an_exact_secret_is_found_in_each_of_its_forms() {
        let redactor = redactor();
        for text in ["x hunter2/secret y", "x hunter2%2Fsecret y", "x aHVudGVyMi9zZWNyZXQ= y"] {
            let clean = redactor.text(Outlet::Endpoint, text.as_bytes());
            assert!(clean.as_str().contains("[REDACTED:secret]"), "{clean}");
            assert!(!clean.as_str().contains("secret y"), "{clean}");
        }
        assert_eq!(redactor.text(Outlet::Endpoint, b"a short word").as_str(), "a short word");
    }

    #[test]
    fn secret_like_keys_and_parameters_lose_their_values() {
        let redactor = redactor();
        assert_eq!(redactor.field(Outlet::OwnLog, "password", b"x").as_str(), "[REDACTED:key]");
        assert_eq!(redactor.field(Outlet::OwnLog, "path", b"x").as_str(), "x");
        assert_eq!(redactor.target(Outlet::Telemetry, b"/a?token=1&b=2").as_str(), "/a?token=REDACTED&b=2");
    }

    #[test]
    fn redactions_are_counted_by_outlet() {
        let redactor = redactor();
        let _ = redactor.text(Outlet::OwnLog, b"plain");
        let _ = redactor.text(Outlet::OwnLog, b"redis://:pw@h/0");
        assert_eq!(redactor.redactions(Outlet::OwnLog), 1);
        assert_eq!(redactor.redactions(Outlet::Endpoint), 0);
    }

    #[test]
    fn a_path_with_a_secret_is_not_clean() {
        let redactor = redactor();
        assert!(redactor.is_clean_path(b"/products/1"));
        assert!(!redactor.is_clean_path(b"/x/hunter2/secret"));
        assert!(!redactor.is_clean_path("/größe".as_bytes()));
    }

    proptest! {
        #[test]
        fn no_secret_survives_wherever_it_stands(before in ".{0,20}", after in ".{0,20}") {
            let text = format!("{before}hunter2/secret{after}");
            let redactor = redactor();
            prop_assert!(!redactor.text(Outlet::Endpoint, text.as_bytes()).as_str().contains("hunter2/secret"));
            prop_assert!(!redactor.target(Outlet::Endpoint, text.as_bytes()).as_str().contains("hunter2/secret"));
        }
    }
}
