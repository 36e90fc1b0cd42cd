//! Redaction: the types of secrets and of cleaned text, and the redactor that alone makes the latter.
//!
//! Every outlet (span attributes, endpoint messages, own logs) takes `Clean` text, so an outlet that forgot to
//! redact does not compile. Removes exact values of the configured secrets, user info in URLs, and values
//! behind secret-like keys; fails closed on what is no UTF-8 only by replacing the broken bytes.

mod clean;
mod engine;
mod rules;
mod secret;
mod url;

pub use clean::Clean;
pub use engine::{Outlet, Redactor};
pub use rules::is_secret_key;
pub use secret::Secret;
pub use url::secret_parts;
