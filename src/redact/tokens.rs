//! Credentials that are known by their shape: a vendor's prefix and enough of the right letters behind it. Pure.

use std::borrow::Cow;

use aho_corasick::{AhoCorasick, MatchKind};

/// How a kind of credential begins, and what must follow.
struct Shape {
    prefix: &'static str,
    /// At least so many letters follow.
    least: usize,
    letters: Letters,
}

/// What a credential is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Letters {
    /// Letters, digits, `-`, `_` and `.`.
    Word,
    /// The same with a dot among them: the parts of a JWT.
    Dotted,
    /// Capitals and digits.
    Capitals,
    /// As a word, with slashes: the rest of a URL.
    Path,
    /// Behind the name of an authentication scheme: base64 with a digit or padding, or it is a word of prose.
    Scheme,
    /// All up to the end of the key.
    Pem,
}

const fn shape(prefix: &'static str, least: usize, letters: Letters) -> Shape {
    Shape { prefix, least, letters }
}

/// The shapes that vendors document; a prefix alone is never enough.
const SHAPES: &[Shape] = &[
    shape("eyJ", 20, Letters::Dotted),
    shape("Bearer ", 8, Letters::Scheme),
    shape("bearer ", 8, Letters::Scheme),
    shape("Basic ", 8, Letters::Scheme),
    shape("basic ", 8, Letters::Scheme),
    shape("-----BEGIN ", 0, Letters::Pem),
    shape("sk-", 20, Letters::Word),
    shape("AKIA", 16, Letters::Capitals),
    shape("ASIA", 16, Letters::Capitals),
    shape("AIza", 35, Letters::Word),
    shape("ya29.", 20, Letters::Word),
    shape("GOCSPX-", 20, Letters::Word),
    shape("ghp_", 30, Letters::Word),
    shape("gho_", 30, Letters::Word),
    shape("ghu_", 30, Letters::Word),
    shape("ghs_", 30, Letters::Word),
    shape("ghr_", 30, Letters::Word),
    shape("github_pat_", 30, Letters::Word),
    shape("glpat-", 20, Letters::Word),
    shape("npm_", 30, Letters::Word),
    shape("pypi-", 30, Letters::Word),
    shape("sk_live_", 16, Letters::Word),
    shape("sk_test_", 16, Letters::Word),
    shape("rk_live_", 16, Letters::Word),
    shape("rk_test_", 16, Letters::Word),
    shape("whsec_", 16, Letters::Word),
    shape("shpat_", 20, Letters::Word),
    shape("shpca_", 20, Letters::Word),
    shape("shppa_", 20, Letters::Word),
    shape("shpss_", 20, Letters::Word),
    shape("EAA", 60, Letters::Word),
    shape("IGQ", 60, Letters::Word),
    shape("xoxb-", 16, Letters::Word),
    shape("xoxp-", 16, Letters::Word),
    shape("xoxa-", 16, Letters::Word),
    shape("xoxr-", 16, Letters::Word),
    shape("xoxs-", 16, Letters::Word),
    shape("SG.", 40, Letters::Word),
    shape("sbp_", 30, Letters::Word),
    shape("NRAK-", 20, Letters::Word),
    shape("hooks.slack.com/services/", 20, Letters::Path),
    shape("discord.com/api/webhooks/", 20, Letters::Path),
];

/// No shape is shorter, but for those with a blank in them; and none has a slash in it, but for those with a host's name.
const SHORTEST: usize = 19;

/// Finds credentials by their shape.
#[derive(Debug)]
pub(super) struct Tokens(AhoCorasick);

impl Tokens {
    pub(super) fn new() -> Self {
        let prefixes = SHAPES.iter().map(|shape| shape.prefix);
        let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(prefixes);
        Self(automaton.expect("a few dozen short prefixes fit an automaton"))
    }

    /// Whether a path may hold one; for ordinary paths, whose segments are short, without a search.
    pub(super) fn may_be_in(&self, path: &[u8]) -> bool {
        path.len() >= SHORTEST
            && (path.contains(&b'.') || path.split(|byte| *byte == b'/').any(|part| part.len() >= SHORTEST))
            && self.0.is_match(path)
    }

    /// The text without them.
    pub(super) fn without<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut out = String::new();
        let mut copied = 0;
        for found in self.0.find_iter(text) {
            let is_word_before = text[..found.start()].ends_with(|c: char| c.is_ascii_alphanumeric());
            if found.start() < copied || is_word_before {
                continue;
            }
            let shape = &SHAPES[found.pattern().as_usize()];
            let Some(length) = length_of(shape, &text[found.end()..]) else { continue };
            out.push_str(&text[copied..found.start()]);
            out.push_str(mark(shape));
            copied = found.end() + length;
        }
        if copied == 0 {
            return Cow::Borrowed(text);
        }
        out.push_str(&text[copied..]);
        Cow::Owned(out)
    }
}

fn mark(shape: &Shape) -> &'static str {
    match shape.letters {
        Letters::Pem => "[REDACTED:private_key]",
        _ => "[REDACTED:token]",
    }
}

/// How much of what follows the prefix belongs to the credential; `None` when it is none.
fn length_of(shape: &Shape, rest: &str) -> Option<usize> {
    if shape.letters == Letters::Pem {
        let (kind, _) = rest.split_once("-----")?;
        let is_private = kind.ends_with("PRIVATE KEY") && !kind.contains('\n');
        let end = |mark: usize| rest[mark..].find("-----").map_or(rest.len(), |tail| mark + tail + "-----".len());
        // one that is cut off is as secret as a whole one
        return is_private.then(|| rest.find("-----END ").map_or(rest.len(), |mark| end(mark + "-----END ".len())));
    }
    let belongs = |c: char| match shape.letters {
        Letters::Capitals => c.is_ascii_uppercase() || c.is_ascii_digit(),
        Letters::Path => c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'),
        Letters::Scheme => c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+' | '=' | '~'),
        Letters::Word | Letters::Dotted | Letters::Pem => c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'),
    };
    let length = rest.find(|c: char| !belongs(c)).unwrap_or(rest.len());
    let found = &rest[..length];
    let is_credential = match shape.letters {
        Letters::Dotted => found.trim_end_matches('.').contains('.'),
        Letters::Capitals => length == shape.least,
        Letters::Scheme => found.contains(|c: char| c.is_ascii_digit() || c == '='),
        // words with dashes between them are no random letters
        Letters::Word | Letters::Path => found.contains(|c: char| c.is_ascii_digit() || c.is_ascii_uppercase()),
        Letters::Pem => true,
    };
    (length >= shape.least && is_credential).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Assembled here, so that nobody's scanner takes the file for a leak.
    fn credential(prefix: &str, length: usize) -> String {
        let letters = "A1B2C3D4E5F6G7H8I9J0K1L2M3N4O5P6Q7R8S9T0U1V2W3X4Y5Z6A7B8C9D0E1F2";
        format!("{prefix}{}", &letters[..length])
    }

    #[test]
    fn every_shape_is_found_whole_and_too_little_of_it_is_none() {
        let tokens = Tokens::new();
        for shape in SHAPES.iter().filter(|shape| !matches!(shape.letters, Letters::Pem | Letters::Dotted)) {
            let whole = format!("got <{}> back", credential(shape.prefix, shape.least));
            assert_eq!(tokens.without(&whole), "got <[REDACTED:token]> back", "{whole}");
            for harmless in [credential(shape.prefix, shape.least - 1), format!("x{whole}").replace('<', "x")] {
                assert_eq!(tokens.without(&harmless), harmless);
            }
        }
        let jwt = format!("{}.{}.{}", credential("eyJ", 20), credential("", 20), credential("", 20));
        assert_eq!(tokens.without(&format!("/reset/{jwt}/now")), "/reset/[REDACTED:token]/now");
    }

    #[test]
    fn a_private_key_goes_whole_and_also_cut_off() {
        let tokens = Tokens::new();
        let begin = ["-----BEGIN RSA PRIVATE", " KEY-----"].concat();
        let end = ["-----END RSA PRIVATE", " KEY-----"].concat();
        assert_eq!(tokens.without(&format!("a {begin}\nMIIE\n{end} b")), "a [REDACTED:private_key] b");
        assert_eq!(tokens.without(&format!("a {begin}\nMIIE")), "a [REDACTED:private_key]");
        let certificate = "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----";
        assert_eq!(tokens.without(certificate), certificate);
    }

    #[test]
    fn ordinary_words_and_ids_stay() {
        let tokens = Tokens::new();
        for text in [
            "/task-list-of-all-those-things-to-do/12",
            "risk-assessment-for-the-next-quarter",
            "basic authentication is not enough",
            "Bearer of good news, whoever that is",
            "4bf92f3577b34da6a3ce929d0e0e4736 9b2e4c1a-6f0d-4c3b-9a57-1f2e3d4c5b6a",
            "https://hooks.slack.com/services/",
        ] {
            assert_eq!(tokens.without(text), text);
        }
        assert!(!tokens.may_be_in(b"/api/v1/products/17/reviews/sk-1"));
        assert!(tokens.may_be_in(b"/hooks.slack.com/services/T1/B2/abcdefghijkl"));
        assert!(tokens.may_be_in(format!("/x/{}", credential("AKIA", 16)).as_bytes()));
    }
}
