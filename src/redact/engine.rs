//! The redactor: knows the exact secrets of the configuration, and applies the rules of place.
//!
//! Shared by `Arc`. It only learns: a reload may bring secrets, and those of before stay secrets. Its counters are relaxed atomics.

use std::borrow::Cow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::redact::exact::Exact;
use crate::redact::tokens::Tokens;
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

/// Times that secrets can be learned: each costs a look at every text.
const LEARNINGS: usize = 32;

/// Cleans text. The only maker of `Clean` besides literals.
#[derive(Debug)]
pub struct Redactor {
    exact: Exact,
    /// Secrets that were learned later, in their turn; a look at the first costs one load while there are none.
    learned: [OnceLock<Exact>; LEARNINGS],
    tokens: Tokens,
    redactions: [AtomicU64; Outlet::ALL.len()],
}

/// The bytes of a path of which what rules look for has at least one.
const ODD: [bool; 256] = {
    let mut odd = [false; 256];
    let mut byte = 0x80;
    while byte < odd.len() {
        odd[byte] = true;
        byte += 1;
    }
    (odd[b'%' as usize], odd[b'=' as usize], odd[b':' as usize], odd[b' ' as usize]) = (true, true, true, true);
    odd
};

impl Redactor {
    /// Knows these secrets, in each form in which they are usually written.
    #[must_use]
    pub fn new<'s>(secrets: impl IntoIterator<Item = &'s str>) -> Self {
        Self {
            exact: Exact::new(secrets),
            learned: Default::default(),
            tokens: Tokens::new(),
            redactions: Default::default(),
        }
    }

    /// Knows these secrets, too, from now on; `false` when it has learned too often, and then it knows none of them.
    #[must_use]
    pub fn learn<'s>(&self, secrets: impl IntoIterator<Item = &'s str>) -> bool {
        let mut more = Exact::new(secrets);
        for place in &self.learned {
            match place.set(more) {
                Ok(()) => return true,
                Err(back) => more = back,
            }
        }
        false
    }

    /// Cleans free text, and paths and URLs: exact secrets, user info in URLs, what is assigned to a secret-like key, and
    /// credentials of a known shape. Bytes that are no UTF-8 become U+FFFD.
    #[must_use]
    pub fn text<'a>(&self, outlet: Outlet, raw: &'a [u8]) -> Clean<'a> {
        let cleaned = self.ruled(self.without_exact(raw));
        let cleaned = map(cleaned, |text| rules::encoded_queries(text, |text| self.is_ruled_clean(text)));
        self.made(outlet, raw, cleaned)
    }

    /// Cleans the value of a named field: all of it when the key is secret-like, as a query when the key says so, else as
    /// text.
    #[must_use]
    pub fn field<'a>(&self, outlet: Outlet, key: &str, raw: &'a [u8]) -> Clean<'a> {
        if key.ends_with("query") && !key.starts_with("db.") {
            return self.query(outlet, raw);
        }
        if rules::is_secret_key(key) {
            return self.made(outlet, raw, Cow::Borrowed("[REDACTED:key]"));
        }
        self.text(outlet, raw)
    }

    /// Cleans a query string, without its `?`: the values of secret-like parameters, and what is secret in any text.
    #[must_use]
    pub fn query<'a>(&self, outlet: Outlet, raw: &'a [u8]) -> Clean<'a> {
        let text = self.without_exact(raw);
        let text = map(map(text, rules::query), rules::user_info);
        let text = map(text, |text| self.tokens.without(text));
        let cleaned = map(text, |text| rules::encoded_parameters(text, |text| self.is_ruled_clean(text)));
        self.made(outlet, raw, cleaned)
    }

    /// Whether a path needs no change: plain ASCII without an exact secret, and nothing that a rule could find.
    ///
    /// Does not allocate; for ordinary paths the only cost of redaction.
    #[must_use]
    pub fn is_clean_path(&self, path: &[u8]) -> bool {
        // looks at all of them, which is quicker than to stop at the first
        let is_plain = !path.iter().fold(false, |found, byte| found | ODD[usize::from(*byte)]);
        is_plain && !self.exacts().any(|exact| exact.is_in(path)) && !self.tokens.may_be_in(path)
    }

    /// Whether a `tracestate` may leave as it is: no member has a secret-like key, and no rule finds anything in it.
    ///
    /// It is the caller's, and means nothing once it is changed: what is not clean is left out whole.
    #[must_use]
    pub fn is_clean_state(&self, outlet: Outlet, state: &[u8]) -> bool {
        let is_clean = state.is_ascii() && self.text(outlet, state).as_str().as_bytes() == state;
        let keys = state.split(|byte| *byte == b',').filter_map(|member| member.split(|byte| *byte == b'=').next());
        is_clean && !keys.map(String::from_utf8_lossy).any(|key| rules::is_secret_key(&key))
    }

    /// How many texts were changed on their way to an outlet.
    #[must_use]
    pub fn redactions(&self, outlet: Outlet) -> u64 {
        self.redactions[outlet as usize].load(Ordering::Relaxed)
    }

    fn exacts(&self) -> impl Iterator<Item = &Exact> {
        [&self.exact].into_iter().chain(self.learned.iter().map_while(OnceLock::get))
    }

    fn without_exact<'a>(&self, raw: &'a [u8]) -> Cow<'a, str> {
        self.exacts().fold(String::from_utf8_lossy(raw), |text, exact| exact.without(text))
    }

    /// Whether no rule but the exact secrets finds anything; exact ones are known encoded.
    fn is_ruled_clean(&self, text: &str) -> bool {
        matches!(self.ruled(Cow::Borrowed(text)), Cow::Borrowed(_))
    }

    /// All rules but the exact secrets.
    fn ruled<'a>(&self, text: Cow<'a, str>) -> Cow<'a, str> {
        // credentials first: with some of them a blank goes, at which a URL ends
        let text = map(text, |text| self.tokens.without(text));
        map(map(text, rules::user_info), rules::assignments)
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
    fn secrets_that_are_learned_later_are_found_beside_those_of_before() {
        let redactor = redactor();
        let text = b"hunter2/secret then rotated-once then rotated-twice";
        assert!(redactor.learn(["rotated-once"]) && redactor.learn(["rotated-twice"]));
        let clean = redactor.text(Outlet::OwnLog, text);
        assert_eq!(clean.as_str(), "[REDACTED:secret] then [REDACTED:secret] then [REDACTED:secret]");
        assert!(!redactor.is_clean_path(b"/rotated-twice") && redactor.is_clean_path(b"/rotated"));
    }

    #[test]
    fn it_says_when_it_has_learned_too_often() {
        let redactor = redactor();
        let learned = (0..2 * LEARNINGS).filter(|number| redactor.learn([format!("secret-{number:03}").as_str()]));
        assert_eq!(learned.count(), LEARNINGS);
    }

    #[test]
    fn secret_like_keys_and_parameters_lose_their_values() {
        let redactor = redactor();
        assert_eq!(redactor.field(Outlet::OwnLog, "password", b"x").as_str(), "[REDACTED:key]");
        assert_eq!(redactor.field(Outlet::OwnLog, "path", b"x").as_str(), "x");
        assert_eq!(redactor.text(Outlet::Telemetry, b"/a?token=1&b=2").as_str(), "/a?token=REDACTED&b=2");
        for (text, expected) in [
            ("GET /a?next=http%3A%2F%2Fu%3Ap%40h%2F&b=2 200", "GET /a?next=REDACTED&b=2 200"),
            ("'/a?b=%20&c=%3Ftoken%3D1' of /b?c=%2F", "'/a?b=%20&c=REDACTED' of /b?c=%2F"),
            ("100%25 of? it, a%20b?", "100%25 of? it, a%20b?"),
        ] {
            assert_eq!(redactor.text(Outlet::Telemetry, text.as_bytes()).as_str(), expected);
        }
        for (query, expected) in [
            ("token=1&b=2", "token=REDACTED&b=2"),
            ("next=http://u:p@h/?sig=1;code=2&b=3", "next=http://REDACTED:REDACTED@h/?sig=REDACTED;code=REDACTED&b=3"),
            ("next=http%3A%2F%2Fh%2F%3Ftoken%3D1&b=%20", "next=REDACTED&b=%20"),
            ("%3Fpassword%3D1", "REDACTED"),
        ] {
            let clean = redactor.field(Outlet::Telemetry, "url.query", query.as_bytes());
            assert_eq!(clean.as_str(), expected, "{query}");
        }
        assert_eq!(
            redactor.field(Outlet::Telemetry, "url.query", b"u=x://a:b@h").as_str(),
            "u=x://REDACTED:REDACTED@h"
        );
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
        for path in ["/größe", "/x;token=1", "/x/%68unter2", "/http://u:p@h", "/bot:1"] {
            assert!(!redactor.is_clean_path(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn a_tracestate_with_a_secret_in_it_is_not_clean() {
        let redactor = redactor();
        for state in ["", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "dd=s:1;t.dm:-0", "33@nr=0-0-33-1-a-b-1-1.5-1"] {
            assert!(redactor.is_clean_state(Outlet::Telemetry, state.as_bytes()), "{state}");
        }
        for state in ["a=hunter2/secret", "a=1,api_key=x", "session=x", "a=dd:password:x", "größe=1"] {
            assert!(!redactor.is_clean_state(Outlet::Telemetry, state.as_bytes()), "{state}");
        }
    }

    proptest! {
        #[test]
        fn no_secret_survives_wherever_it_stands(before in ".{0,20}", after in ".{0,20}") {
            let text = format!("{before}hunter2/secret{after}");
            let redactor = redactor();
            prop_assert!(!redactor.text(Outlet::Endpoint, text.as_bytes()).as_str().contains("hunter2/secret"));
            prop_assert!(!redactor.query(Outlet::Endpoint, text.as_bytes()).as_str().contains("hunter2/secret"));
            prop_assert!(!redactor.is_clean_path(text.as_bytes()));
        }

        #[test]
        fn cleaning_twice_changes_nothing_more(text in "([a-z\"' =:&?%@/\\\\;,é]|token|password|://|Bearer |eyJ|hunter2/secret){0,30}") {
            let redactor = redactor();
            let once = redactor.text(Outlet::Endpoint, text.as_bytes()).into_owned();
            let twice = redactor.text(Outlet::Endpoint, once.as_str().as_bytes());
            prop_assert_eq!(twice.as_str(), once.as_str());
            // a secret of six bytes becomes a mark of 22
            prop_assert!(once.as_str().len() <= 4 * text.len() + 32);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let redactor = redactor();
            let _ = redactor.text(Outlet::Endpoint, &bytes);
            let _ = redactor.query(Outlet::Endpoint, &bytes);
            let _ = redactor.is_clean_state(Outlet::Endpoint, &bytes);
        }
    }
}
