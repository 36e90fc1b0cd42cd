//! The metrics as text, in the form that a scraper asks for.

use axum::http::{HeaderMap, header};

use crate::model::exposition::{self, Format};
use crate::model::sample::Sample;

/// The form that this request names; `None` when it names none, as a browser.
pub(super) fn asked_for(headers: &HeaderMap) -> Option<Format> {
    Format::asked_for(accept(headers)?)
}

/// The form that a scraper names where JSON is the rule: clients that name JSON as well, as axios does, get JSON.
pub(super) fn asked_for_instead_of_json(headers: &HeaderMap) -> Option<Format> {
    let accept = accept(headers)?;
    if accept.contains("application/json") { None } else { Format::asked_for(accept) }
}

fn accept(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::ACCEPT).and_then(|value| value.to_str().ok())
}

/// The media type and the page.
pub(super) fn render(format: Format, samples: &[Sample]) -> (&'static str, String) {
    (format.content_type(), exposition::render(samples, format))
}
