//! What is secret by its place: keys, query parameters, and user info of URLs. Pure.

use std::borrow::Cow;
use std::ops::Range;

/// What stands in place of a secret in a URL, as the semantic conventions ask.
pub(super) const REDACTED: &str = "REDACTED";

/// Parts of a key that make its value a secret, lower case, without dashes and underscores.
const SECRET_PARTS: &[&str] = &[
    "passw",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "credential",
    "signature",
    "session",
    "cookie",
    "authorization",
    "dsn",
    "jwt",
];

/// Whole keys whose value is a secret where keys are few: in a URL, or as the name of a field.
const SECRET_KEYS: &[&str] = &["auth", "key", "sig", "otp", "code", "awsaccesskeyid", "xgoogsignature"];

/// How keys end that look secret and are not.
const HARMLESS_ENDINGS: &[&str] = &[
    "author",
    "tokencount",
    "tokentype",
    "maxtokens",
    "inputtokens",
    "outputtokens",
    "prompttokens",
    "completiontokens",
    "totaltokens",
    "primarykey",
    "publickey",
];

/// Keys that look secret and are not.
const HARMLESS_KEYS: &[&str] = &["tokens"];

/// Keys whose value is all that follows, blanks included: `Bearer …`, several cookies.
const WHOLE_LINE: &[&str] = &["authorization", "cookie"];

/// Values that are no secret, or no longer.
const HARMLESS_VALUES: &[&str] = &["null", "none", "true", "false", "REDACTED", "[REDACTED"];

/// Whether the value behind this key is a secret. Case, dashes and underscores do not matter.
#[must_use]
pub fn is_secret_key(key: &str) -> bool {
    let plain = plain(key);
    SECRET_KEYS.contains(&plain.as_str()) || is_secret_word(&plain)
}

/// Without what spellings differ in.
fn plain(key: &str) -> String {
    key.chars().filter(char::is_ascii_alphanumeric).map(|character| character.to_ascii_lowercase()).collect()
}

/// Whether a key is secret also in free text, where `key` and `code` are words.
fn is_secret_word(plain: &str) -> bool {
    let is_harmless = HARMLESS_KEYS.contains(&plain) || HARMLESS_ENDINGS.iter().any(|ending| plain.ends_with(ending));
    !is_harmless && SECRET_PARTS.iter().any(|part| plain.contains(part))
}

/// Replaces the values of secret-like parameters of a query string (without its `?`), and of a URL within it.
pub(super) fn query(raw: &str) -> Cow<'_, str> {
    match assignments(&format!("?{raw}")) {
        Cow::Borrowed(_) => Cow::Borrowed(raw),
        Cow::Owned(cleaned) => Cow::Owned(cleaned[1..].to_owned()),
    }
}

/// Replaces the values of parameters in which something is only to be seen once they are decoded, as a URL in one of them.
pub(super) fn encoded_parameters<'q>(query: &'q str, is_clean: impl Fn(&str) -> bool) -> Cow<'q, str> {
    let secret = |pair: &str| {
        let value = pair.split_once('=').map_or(pair, |(_, value)| value);
        let decoded = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
        decoded != value && !is_clean(&decoded)
    };
    if !query.contains('%') || !query.split('&').any(secret) {
        return Cow::Borrowed(query);
    }
    let cleaned = query.split('&').map(|pair| match pair.split_once('=') {
        Some((key, _)) if secret(pair) => format!("{key}={REDACTED}"),
        None if secret(pair) => REDACTED.to_owned(),
        _ => pair.to_owned(),
    });
    Cow::Owned(cleaned.collect::<Vec<_>>().join("&"))
}

/// The same in every query that stands in a text.
pub(super) fn encoded_queries(text: &str, is_clean: impl Fn(&str) -> bool) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some(mark) = rest.find('?') {
        let (before, query) = rest.split_at(mark + 1);
        let end = query.find(|c: char| c.is_whitespace() || matches!(c, '?' | '"' | '\'' | '<' | '>'));
        let (query, after) = query.split_at(end.unwrap_or(query.len()));
        out.push_str(before);
        out.push_str(&encoded_parameters(query, &is_clean));
        rest = after;
    }
    out.push_str(rest);
    if out == text { Cow::Borrowed(text) } else { Cow::Owned(out) }
}

/// Replaces the user info of every URL in a text: greedy to the last `@` before the path.
pub(super) fn user_info(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, authority) = rest.split_at(start + 3);
        out.push_str(before);
        let end = authority.find(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | '<' | '>'));
        let (authority, after) = authority.split_at(end.unwrap_or(authority.len()));
        match authority.rfind('@') {
            Some(at) => {
                out.push_str(REDACTED);
                out.push(':');
                out.push_str(REDACTED);
                out.push_str(&authority[at..]);
            }
            None => out.push_str(authority),
        }
        rest = after;
    }
    out.push_str(rest);
    if out == text { Cow::Borrowed(text) } else { Cow::Owned(out) }
}

/// Replaces what follows a secret-like key: a parameter of a URL, `key=value`, `key: value`, a field of JSON.
pub(super) fn assignments(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut copied = 0;
    for sign in memchr::memchr2_iter(b'=', b':', text.as_bytes()) {
        if sign < copied {
            continue;
        }
        let Some((value, mark)) = secret_value(text, sign) else { continue };
        out.push_str(&text[copied..value.start]);
        out.push_str(mark);
        copied = value.end;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// Where the secret behind this sign is, and what takes its place.
fn secret_value(text: &str, sign: usize) -> Option<(Range<usize>, &'static str)> {
    let (before, after) = (&text[..sign], &text[sign + 1..]);
    let named = before.strip_suffix(' ').unwrap_or(before).trim_end_matches(['"', '\'', '\\']);
    let in_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '%');
    let key = &named[named.trim_end_matches(in_key).len()..];
    let in_front = &named[..named.len() - key.len()];
    // a path of modules or the scheme of a URL, not a key
    if key.is_empty() || in_front.ends_with("::") || after.starts_with(':') || after.starts_with("//") {
        return None;
    }
    let is_parameter = text.as_bytes()[sign] == b'=' && in_front.ends_with(['?', '&', ';']);
    let decoded = percent_encoding::percent_decode_str(key).decode_utf8_lossy();
    let plain = plain(&decoded);
    let is_secret = is_secret_word(&plain) || is_parameter && SECRET_KEYS.contains(&plain.as_str());
    if !is_secret {
        return None;
    }
    if is_parameter {
        let is_in_path = !in_front.contains('?');
        let ends =
            |c: char| c.is_whitespace() || matches!(c, '&' | ';' | '#' | '"' | '\'' | '<') || c == '?' && is_in_path;
        let length = after.find(ends);
        return kept(after, 0..length.unwrap_or(after.len())).map(|value| (moved(value, sign + 1), REDACTED));
    }
    let value = free_value(after, WHOLE_LINE.iter().any(|word| plain.contains(word)).then_some(WholeLine));
    kept(after, value).map(|value| (moved(value, sign + 1), "[REDACTED:key]"))
}

/// The value is all that follows in its line.
struct WholeLine;

/// What is the value behind a sign in free text: what stands between quotes, else a word.
fn free_value(after: &str, whole: Option<WholeLine>) -> Range<usize> {
    let start = after.len() - after.trim_start_matches(['>', ' ', '\t']).len();
    let rest = &after[start..];
    let escape = usize::from(rest.starts_with("\\\"") || rest.starts_with("\\'"));
    if let Some(quote) = rest[escape..].chars().next().filter(|c| matches!(c, '"' | '\'')) {
        let open = escape + 1;
        let mut is_escaped = false;
        let end = rest[open..].char_indices().find(|(_, c)| {
            let ends = *c == quote && is_escaped == (escape == 1);
            is_escaped = *c == '\\' && !is_escaped;
            ends
        });
        let end = end.map_or(rest.len(), |(end, _)| open + end - escape);
        return start + open..start + end.max(open);
    }
    let ends = |c: char| match whole {
        Some(WholeLine) => matches!(c, '\n' | '\r' | '"' | '\''),
        None => c.is_whitespace() || matches!(c, '&' | '"' | '\'' | '<' | '>'),
    };
    let word = &rest[..rest.find(ends).unwrap_or(rest.len())];
    start..start + word.trim_end_matches([',', ';', ')', '}', ']']).len()
}

/// A value that is worth hiding.
fn kept(text: &str, value: Range<usize>) -> Option<Range<usize>> {
    let found = &text[value.clone()];
    let is_harmless = HARMLESS_VALUES.iter().any(|word| match word.strip_prefix('[') {
        Some(_) => found.starts_with(word),
        None => found.eq_ignore_ascii_case(word),
    });
    let is_placeholder = found.starts_with(['*', '$', '<', '{']);
    (!found.is_empty() && !is_harmless && !is_placeholder).then_some(value)
}

fn moved(range: Range<usize>, by: usize) -> Range<usize> {
    range.start + by..range.end + by
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_keys_are_known_in_every_spelling() {
        for key in
            // the lists of the semantic conventions, then what people write
            [
                "AWSAccessKeyId",
                "Signature",
                "sig",
                "X-Goog-Signature",
                "X-Amz-Signature",
                "X-Amz-Credential",
                "X-Amz-Security-Token",
                "password",
                "passwort",
                "DB_PASSWORD",
                "api-key",
                "apiKey",
                "private_key",
                "client_secret",
                "refresh_token",
                "id_token",
                "otp",
                "sessionid",
                "Set-Cookie",
                "http.request.header.authorization",
                "SENTRY_DSN",
            ]
        {
            assert!(is_secret_key(key), "{key}");
        }
        for key in [
            "author",
            "token_count",
            "max_tokens",
            "gen_ai.usage.input_tokens",
            "gen_ai.token.type",
            "primary_key",
            "page",
            "keyword",
            "status_code",
        ] {
            assert!(!is_secret_key(key), "{key}");
        }
    }

    #[test]
    fn secret_parameters_lose_their_values() {
        assert_eq!(query("page=2&api_key=abc;x=1&token"), "page=2&api_key=REDACTED;x=1&token");
        assert_eq!(query("a%70i_key=abc"), "a%70i_key=REDACTED");
        assert!(matches!(query("page=2&sort=asc"), Cow::Borrowed(_)));
    }

    #[test]
    fn user_info_is_replaced_in_every_url_of_a_text() {
        for (text, expected) in [
            ("postgresql://u:p@h:5432/db", "postgresql://REDACTED:REDACTED@h:5432/db"),
            ("redis://:p@ss@h/0 and http://x/@y", "redis://REDACTED:REDACTED@h/0 and http://x/@y"),
            ("no url, a@b", "no url, a@b"),
            ("://", "://"),
            ("http://a@b", "http://REDACTED:REDACTED@b"),
        ] {
            assert_eq!(user_info(text), expected);
        }
    }

    #[test]
    fn what_is_assigned_to_a_secret_key_is_replaced_in_any_text() {
        for (text, expected) in [
            ("GET /a?page=2&token=x1&b=3 200", "GET /a?page=2&token=REDACTED&b=3 200"),
            ("/a;jsessionid=x1?code=x2#top", "/a;jsessionid=REDACTED?code=REDACTED#top"),
            ("http://h/?a%70i_key=x1", "http://h/?a%70i_key=REDACTED"),
            ("/a?next=/b?sig=x1", "/a?next=/b?sig=REDACTED"),
            ("password=x1, user=y", "password=[REDACTED:key], user=y"),
            ("with (db_password = x1)", "with (db_password = [REDACTED:key])"),
            ("password: x1\nuser: y", "password: [REDACTED:key]\nuser: y"),
            ("secret=\"x 1\" y", "secret=\"[REDACTED:key]\" y"),
            (r#"secret="x\"1" y"#, r#"secret="[REDACTED:key]" y"#),
            (r#"{"api_key": "x1", "page": 2}"#, r#"{"api_key": "[REDACTED:key]", "page": 2}"#),
            (r#"{\"api_key\":\"x1\",\"page\":2}"#, r#"{\"api_key\":\"[REDACTED:key]\",\"page\":2}"#),
            ("{'client_secret': 'x1'}", "{'client_secret': '[REDACTED:key]'}"),
            ("{:refresh_token=>'x1'}", "{:refresh_token=>'[REDACTED:key]'}"),
            ("Authorization: Bearer x1 y2\nHost: h", "Authorization: [REDACTED:key]\nHost: h"),
            ("Cookie: a=1; b=2", "Cookie: [REDACTED:key]"),
            ("token=größe1 x", "token=[REDACTED:key] x"),
        ] {
            assert_eq!(assignments(text), expected, "{text}");
            assert_eq!(assignments(expected), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "code=200 key=a page: 3",
            "tokens=123 max_tokens: 7 author=me",
            "password=",
            "password: ",
            "password=null secret: *** token=<token> dsn=${DSN}",
            "content_factory_sidecar::redact::secret::token: a word",
            "token://host/path",
            "12:30:00 = noon",
            "=:=",
        ] {
            assert!(matches!(assignments(text), Cow::Borrowed(_)), "{text}: {}", assignments(text));
        }
    }
}
