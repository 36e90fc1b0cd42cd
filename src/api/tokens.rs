//! Bearer tokens of the admin port: one a line, for reading or for writing too. Pure: text in, roles out.
//!
//! Kept as keyed hashes alone, so that nothing that prints could tell one, and compared as hashes, so that time tells nothing.

use ring::hmac::{self, HMAC_SHA256, Key};
use ring::rand::SystemRandom;

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Reads everything.
    Read,
    /// Also runs checks, tells of tasks and hands heartbeats in.
    Write,
}

/// The tokens in force.
#[derive(Debug)]
pub(super) struct Tokens {
    key: Key,
    known: Vec<(hmac::Tag, Role)>,
}

/// More are a mistake: each is compared with whatever is presented.
const MOST: usize = 64;
/// Shorter ones are guessed; `openssl rand -hex 32` makes 64.
const SHORTEST: usize = 16;
/// Longer ones are no tokens.
const LONGEST: usize = 512;

impl Tokens {
    /// Reads `TOKEN [read|write] [# a remark]` from each line, or from each part between commas; empty ones and remarks tell nothing.
    ///
    /// # Errors
    /// What completes the sentence "…, expected …": it names the line, never its text.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let key = Key::generate(HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| "random bytes of the system, to keep tokens by".to_owned())?;
        let mut known: Vec<(hmac::Tag, Role)> = Vec::new();
        for (number, token, role) in entries(text) {
            let role = role_of(role).ok_or_else(|| format!("read or write behind the token of line {number}"))?;
            if !is_token(token) {
                let form = "letters, digits and -._~+/ with = at the end (RFC 6750)";
                return Err(format!("{SHORTEST} to {LONGEST} {form} in line {number}"));
            }
            let tag = hmac::sign(&key, token.as_bytes());
            if known.iter().any(|(other, _)| is_same(other, &tag)) {
                return Err(format!("each token once, and not again in line {number}"));
            }
            known.push((tag, role));
        }
        match known.len() {
            0 => Err("at least one token, each on a line of its own".to_owned()),
            count if count > MOST => Err(format!("at most {MOST} tokens (found {count})")),
            _ => Ok(Self { key, known }),
        }
    }

    /// What this token is good for; `None` when nobody gave it out. All tokens are looked at, whichever fits.
    pub(super) fn role(&self, presented: &[u8]) -> Option<Role> {
        let tag = hmac::sign(&self.key, presented);
        let fitting = |found, (known, role): &(hmac::Tag, Role)| if is_same(known, &tag) { Some(*role) } else { found };
        self.known.iter().fold(None, fitting)
    }
}

/// The tokens of a text, as they stand there: for the redactor, which has to know them.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    entries(text).map(|(_, token, _)| token)
}

/// Number of the line, token, and what stands behind it.
fn entries(text: &str) -> impl Iterator<Item = (usize, &str, &str)> {
    let lines = text.lines().enumerate().flat_map(|(index, line)| {
        let told = line.split('#').next().unwrap_or_default();
        told.split(',').map(move |entry| (index + 1, entry.trim()))
    });
    lines.filter(|(_, entry)| !entry.is_empty()).map(|(number, entry)| {
        let (token, behind) = entry.split_once(char::is_whitespace).unwrap_or((entry, ""));
        (number, token, behind.trim())
    })
}

/// A token that does not say it reads: what is given out by mistake does least harm.
fn role_of(word: &str) -> Option<Role> {
    match word {
        "" | "read" => Some(Role::Read),
        "write" => Some(Role::Write),
        _ => None,
    }
}

fn is_token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let is_of_tokens = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    (SHORTEST..=LONGEST).contains(&text.len()) && !body.is_empty() && body.bytes().all(is_of_tokens)
}

/// Compares to the end, wherever they differ first.
fn is_same(left: &hmac::Tag, right: &hmac::Tag) -> bool {
    let differing = left.as_ref().iter().zip(right.as_ref()).fold(0, |differing, (a, b)| differing | (a ^ b));
    differing == 0 && left.as_ref().len() == right.as_ref().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const READER: &str = "reader-0123456789abcdef";
    const WRITER: &str = "writer+0123456789/abcdef==";

    #[test]
    fn each_line_is_a_token_that_reads_unless_it_says_that_it_writes() {
        let text =
            format!("# who may ask\n\n{READER}   # the scraper\r\n  {WRITER} write # cron\nthird-0123456789abc read\n");
        let tokens = Tokens::parse(&text).unwrap();
        for (token, role) in [
            (READER, Some(Role::Read)),
            (WRITER, Some(Role::Write)),
            ("third-0123456789abc", Some(Role::Read)),
            ("", None),
            ("reader-0123456789abcde", None),
            ("reader-0123456789abcdef0", None),
            ("# who may ask", None),
        ] {
            assert_eq!(tokens.role(token.as_bytes()), role, "{token}");
        }
        assert_eq!(words(&text).collect::<Vec<_>>(), [READER, WRITER, "third-0123456789abc"]);
        let listed = Tokens::parse(&format!("{READER}, {WRITER} write")).unwrap();
        assert_eq!(listed.role(WRITER.as_bytes()), Some(Role::Write));
    }

    #[test]
    fn a_mistake_names_its_line_and_never_the_token() {
        for (text, expected) in [
            ("\n# nobody\n".to_owned(), "at least one token, each on a line of its own"),
            (format!("{READER}\n{WRITER} admin"), "read or write behind the token of line 2"),
            (format!("{READER} write cron"), "read or write behind the token of line 1"),
            (format!("\n{READER}\n{READER} write"), "each token once, and not again in line 3"),
            ("hunter2-hunter2".into(), "16 to 512 letters, digits and -._~+/ with = at the end (RFC 6750) in line 1"),
            ("================".into(), "16 to 512 letters, digits and -._~+/ with = at the end (RFC 6750) in line 1"),
            (format!("{READER}é"), "16 to 512 letters, digits and -._~+/ with = at the end (RFC 6750) in line 1"),
            ("x".repeat(513), "16 to 512 letters, digits and -._~+/ with = at the end (RFC 6750) in line 1"),
        ] {
            assert_eq!(Tokens::parse(&text).map(|_| ()), Err(expected.to_owned()), "{text}");
        }
        let many = (0..65).map(|number| format!("token-0123456789-{number}\n")).collect::<String>();
        assert_eq!(Tokens::parse(&many).map(|_| ()), Err("at most 64 tokens (found 65)".to_owned()));
    }

    #[test]
    fn what_holds_tokens_prints_none() {
        let printed = format!("{:?}", Tokens::parse(READER).unwrap());
        assert!(!printed.contains("0123456789abcdef"), "{printed}");
    }
}
