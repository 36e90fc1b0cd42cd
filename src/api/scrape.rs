//! The metrics as text, in the form that a scraper asks for.

use axum::http::{HeaderMap, header};

use crate::api::routes::text;
use crate::model::exposition::{self, Format};
use crate::model::sample::Sample;

/// The form that this request names; `None` when it names none, as a browser.
pub(super) fn asked_for(headers: &HeaderMap) -> Option<Format> {
    Format::asked_for(text(headers, header::ACCEPT)?)
}

/// The form that a scraper names where JSON is the rule: clients that name JSON as well, as axios does, get JSON.
pub(super) fn asked_for_instead_of_json(headers: &HeaderMap) -> Option<Format> {
    let accept = text(headers, header::ACCEPT)?;
    if accept.contains("application/json") { None } else { Format::asked_for(accept) }
}

/// The media type and the page.
pub(super) fn render(format: Format, samples: &[Sample]) -> (&'static str, String) {
    (format.content_type(), exposition::render(samples, format))
}
