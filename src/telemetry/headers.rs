//! The headers of each request to a receiver, as settings and files write them.

use http::{HeaderName, HeaderValue};

use crate::telemetry::environment;

/// Names and values, which usually hold a key.
pub(crate) type Headers = Vec<(HeaderName, HeaderValue)>;

/// Reads `key=value,key=value`, percent-encoded; each value is marked as sensitive.
///
/// # Errors
/// What is expected, to complete the sentence "…, expected …".
pub(crate) fn parse(text: &str) -> Result<Headers, &'static str> {
    let pairs = environment::pairs(text.trim()).ok_or("key=value pairs with commas between them")?;
    pairs.into_iter().map(|(name, value)| header(&name, value).ok_or("names and values that HTTP allows")).collect()
}

fn header(name: &str, value: String) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::try_from(name.to_ascii_lowercase()).ok()?;
    let mut value = HeaderValue::try_from(value).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}
