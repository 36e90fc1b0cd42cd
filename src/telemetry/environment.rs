//! OpenTelemetry's standard variables as settings: a table from names to paths, applied to a map and a tree.
//!
//! Pure: whoever starts the sidecar reads the environment. Other programs in the pod share these variables, so
//! what is not ours is left alone, and what we do not support is said aloud.

use std::collections::BTreeMap;

/// Reads `key=value,key=value`, both percent-encoded, as W3C Baggage has it; `None` when a pair has no `=`.
#[must_use]
pub fn pairs(text: &str) -> Option<BTreeMap<String, String>> {
    let decode = |text: &str| Some(percent_encoding::percent_decode_str(text.trim()).decode_utf8().ok()?.into_owned());
    text.split(',')
        .filter(|pair| !pair.trim().is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=')?;
            Some((decode(key).filter(|key| !key.is_empty())?, decode(value)?))
        })
        .collect()
}
