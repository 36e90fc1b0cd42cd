//! What is secret by its place: keys, query parameters, and user info of URLs. Pure.

use std::borrow::Cow;

/// What stands in place of a secret in a URL, as the semantic conventions ask.
pub(super) const REDACTED: &str = "REDACTED";

/// Parts of a key that make its value a secret, lower case, without dashes and underscores.
const SECRET_PARTS: &[&str] = &[
    "password",
    "passwd",
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

/// Whole keys whose value is a secret.
const SECRET_KEYS: &[&str] =
    &["auth", "key", "sig", "otp", "code", "awsaccesskeyid", "xgoogsignature", "xamzcredential"];

/// Keys that look secret and are not.
const HARMLESS_KEYS: &[&str] = &["author", "tokencount", "maxtokens", "tokens", "primarykey", "publickey", "tokentype"];

/// Whether the value behind this key is a secret. Case, dashes and underscores do not matter.
#[must_use]
pub fn is_secret_key(key: &str) -> bool {
    let plain: String =
        key.chars().filter(char::is_ascii_alphanumeric).map(|character| character.to_ascii_lowercase()).collect();
    if HARMLESS_KEYS.contains(&plain.as_str()) {
        return false;
    }
    SECRET_KEYS.contains(&plain.as_str()) || SECRET_PARTS.iter().any(|part| plain.contains(part))
}

/// Replaces the values of secret-like parameters of a query string (without its `?`).
pub(super) fn query(raw: &str) -> Cow<'_, str> {
    let secret = |pair: &str| {
        let key = pair.split_once('=').map_or(pair, |(key, _)| key);
        let decoded = percent_encoding::percent_decode_str(key).decode_utf8_lossy();
        pair.contains('=') && is_secret_key(&decoded)
    };
    if !raw.split(['&', ';']).any(secret) {
        return Cow::Borrowed(raw);
    }
    let mut out = String::with_capacity(raw.len());
    for pair in raw.split_inclusive(['&', ';']) {
        let body = pair.trim_end_matches(['&', ';']);
        match body.split_once('=') {
            Some((key, _)) if secret(body) => {
                out.push_str(key);
                out.push('=');
                out.push_str(REDACTED);
                out.push_str(&pair[body.len()..]);
            }
            _ => out.push_str(pair),
        }
    }
    Cow::Owned(out)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_keys_are_known_in_every_spelling() {
        for key in
            ["password", "DB_PASSWORD", "api-key", "apiKey", "X-Amz-Signature", "refresh_token", "SENTRY_DSN", "sig"]
        {
            assert!(is_secret_key(key), "{key}");
        }
        for key in ["author", "token_count", "max_tokens", "primary_key", "page", "keyword", "status_code"] {
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
}
