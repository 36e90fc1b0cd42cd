//! Any text on its way out, and the texts that the kernel tells of containers.

use std::sync::LazyLock;

use content_factory_sidecar::redact::{Outlet, Redactor};
use content_factory_sidecar::telemetry::container::container_id;

use crate::targets::Fate;

const SECRET: &str = "hunter2/secret+\u{e9}";

/// Built once: it knows the shapes of dozens of credentials.
static REDACTOR: LazyLock<Redactor> = LazyLock::new(|| Redactor::new([SECRET]));

/// Cleaning twice changes nothing more, is bounded, and leaves no secret wherever that stands. Accepted is what is clean.
pub(crate) fn check(data: &[u8]) -> Fate {
    let once = REDACTOR.text(Outlet::Endpoint, data);
    let twice = REDACTOR.text(Outlet::Endpoint, once.as_str().as_bytes());
    assert_eq!(once.as_str(), twice.as_str(), "{}", data.escape_ascii());
    assert!(once.as_str().len() <= 8 * data.len() + 32, "{} of {}", once.as_str().len(), data.len());
    let middle = data.len() / 2;
    let planted = [&data[..middle], SECRET.as_bytes(), &data[middle..]].concat();
    for cleaned in [REDACTOR.text(Outlet::Endpoint, &planted), REDACTOR.query(Outlet::Endpoint, &planted)] {
        assert!(!cleaned.as_str().contains(SECRET), "{}", data.escape_ascii());
    }
    assert!(!REDACTOR.is_clean_path(&planted), "{}", data.escape_ascii());
    if REDACTOR.is_clean_path(data) {
        assert_eq!(once.as_str().as_bytes(), data, "{}", data.escape_ascii());
    }
    let text = String::from_utf8_lossy(data);
    for id in [container_id(&text, ""), container_id("", &text)].into_iter().flatten() {
        assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    }
    if once.as_str().as_bytes() == data { Fate::Accepted } else { Fate::Refused }
}
