//! The metrics as text, in the form that a scraper asks for.

use axum::http::{HeaderMap, header};
use axum::response::Response;

use crate::api::reply::respond_in_pieces;
use crate::model::exposition::{Format, Pieces};
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

/// The page, of the media type of its form.
pub(super) fn answer(format: Format, samples: Vec<Sample>) -> Response {
    respond_in_pieces(format.content_type(), Pieces::new(samples, format))
}
