//! `Clean`: text that may leave. Made by the redactor, or from a literal of our own source.

use std::borrow::Cow;
use std::fmt;

/// Text that may leave the process. Borrowed when nothing was redacted.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Clean<'a>(Cow<'a, str>);

impl<'a> Clean<'a> {
    /// Only the redactor calls it.
    pub(super) fn made(text: Cow<'a, str>) -> Self {
        Self(text)
    }

    /// A text of our own source, which holds no secret.
    #[must_use]
    pub const fn literal(text: &'static str) -> Clean<'static> {
        Clean(Cow::Borrowed(text))
    }

    /// The text of a number.
    #[must_use]
    pub fn number(number: u64) -> Clean<'static> {
        Clean(Cow::Owned(number.to_string()))
    }

    /// Puts clean texts together.
    #[must_use]
    pub fn concat(parts: &[Clean<'_>]) -> Clean<'static> {
        Clean(Cow::Owned(parts.iter().map(Clean::as_str).collect()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same text, owned.
    #[must_use]
    pub fn into_owned(self) -> Clean<'static> {
        Clean(Cow::Owned(self.0.into_owned()))
    }

    /// At most `limit` bytes, cut on a character's border.
    #[must_use]
    pub fn cut(self, limit: usize) -> Self {
        if self.0.len() <= limit {
            return self;
        }
        let end = self.0.floor_char_boundary(limit);
        match self.0 {
            Cow::Borrowed(text) => Self(Cow::Borrowed(&text[..end])),
            Cow::Owned(mut text) => {
                text.truncate(end);
                Self(Cow::Owned(text))
            }
        }
    }
}

impl fmt::Display for Clean<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Clean<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_on_a_border() {
        assert_eq!(Clean::literal("größe").cut(3).as_str(), "gr");
        assert_eq!(Clean::literal("größe").cut(4).as_str(), "grö");
        assert_eq!(Clean::literal("größe").into_owned().cut(99).as_str(), "größe");
    }
}
