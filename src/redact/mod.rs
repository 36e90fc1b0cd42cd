//! Redaction: the types of secrets and of cleaned text, and the redactor that alone makes the latter.
//!
//! Every outlet (span attributes, endpoint messages, own logs) takes `Clean` text, so an outlet that forgot to
//! redact does not compile. Removes exact values of the configured secrets and of the environment's, user info in
//! URLs, values behind secret-like keys, and credentials of a known shape; bytes that are no UTF-8 are replaced.

mod clean;
mod engine;
mod environment;
mod exact;
mod rules;
mod secret;
mod tokens;
mod url;

pub use clean::Clean;
pub use engine::{Outlet, Redactor};
pub use environment::environment_secrets;
pub use rules::is_secret_key;
pub use secret::Secret;
pub use url::secret_parts;
