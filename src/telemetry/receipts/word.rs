//! One look at the collector's metrics, bounded in bytes; in words, why there is nothing to see.

use reqwest::Client;

use crate::fetch::{self, NoDocument};
use crate::telemetry::receipts::page::Page;

/// A collector's page has some 20 KiB.
const PAGE_BYTES: usize = 4 << 20;

/// Reads the page, within the client's timeout.
///
/// # Errors
/// It cannot be read: the text says why, and is not clean.
pub(super) async fn read_page(client: &Client, url: &str) -> Result<Page, String> {
    let bytes = fetch::document(client, url, PAGE_BYTES).await.map_err(|error| why(&error))?;
    Ok(Page::read(&String::from_utf8_lossy(&bytes)))
}

fn why(error: &NoDocument) -> String {
    match error {
        NoDocument::Status(status) => format!("found status {status}, expected 200 with the collector's metrics"),
        NoDocument::TooLarge => format!("found more than {PAGE_BYTES} bytes, expected a collector's page of metrics"),
        NoDocument::NoAnswer(error) => {
            let mut cause: &dyn std::error::Error = error;
            while let Some(next) = cause.source() {
                cause = next;
            }
            format!("no answer: {cause}; expected the collector's metrics at telemetry.receipts.url")
        }
    }
}
