//! The token that a request presents: `Authorization: Bearer` of a program, or `Basic` of a browser, which knows no other way.
//!
//! What it is good for, the rules say.

use std::borrow::Cow;

use axum::http::{HeaderMap, header};

use crate::model::base64;

/// A token as it was presented.
pub(super) struct Presented<'r> {
    pub(super) token: Cow<'r, [u8]>,
    pub(super) scheme: Scheme,
}

/// How it was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// RFC 6750, section 2.1: by somebody who meant this request.
    Bearer,
    /// The password of RFC 7617, whatever the name: a browser goes on sending it by itself, also for a page of another site.
    Basic,
}

/// The token of a request; `None` without one, with several, or by a scheme that is neither.
pub(super) fn presented(headers: &HeaderMap) -> Option<Presented<'_>> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().filter(|_| values.next().is_none())?.as_bytes();
    let (scheme, rest) = value.split_at(value.iter().position(|byte| *byte == b' ')?);
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"Bearer") {
        return Some(Presented { token: Cow::Borrowed(rest), scheme: Scheme::Bearer });
    }
    // what cannot be read is a password that nobody gave out
    let token = Cow::Owned(password(rest).unwrap_or_default());
    scheme.eq_ignore_ascii_case(b"Basic").then_some(Presented { token, scheme: Scheme::Basic })
}

/// What stands behind the first colon of a name and a password.
fn password(encoded: &[u8]) -> Option<Vec<u8>> {
    let mut pair = base64::decode(std::str::from_utf8(encoded).ok()?)?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(pair.split_off(colon + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn a_token_is_read_by_its_scheme_and_two_are_none() {
        for (values, expected) in [
            (&["Bearer abc"][..], Some((&b"abc"[..], Scheme::Bearer))),
            (&["bearer  abc "], Some((b"abc", Scheme::Bearer))),
            (&["Bearer "], Some((b"", Scheme::Bearer))),
            (&["Basic bmFtZTphYmM="], Some((b"abc", Scheme::Basic))),
            (&["basic OmE6Yg=="], Some((b"a:b", Scheme::Basic))),
            (&["Basic YWJj"], Some((b"", Scheme::Basic))),
            (&["Basic n:abc"], Some((b"", Scheme::Basic))),
            (&["Digest abc"], None),
            (&["Bearer"], None),
            (&["Bearer abc", "Bearer abc"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
            }
            let found = presented(&headers);
            let found = found.as_ref().map(|found| (&*found.token, found.scheme));
            assert_eq!(found, expected, "{values:?}");
        }
    }
}
