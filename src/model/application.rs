//! What is known of the application behind the proxy by its own words.

use crate::redact::Clean;

/// What the application says of itself; `None` what it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The system under it, such as `Linux-6.1.0-x86_64-with-glibc2.36`.
    pub platform: Option<Clean<'static>>,
    /// Its interpreter, such as `3.11.7`.
    pub python_version: Option<Clean<'static>>,
    /// Its own version.
    pub version: Option<Clean<'static>>,
}
