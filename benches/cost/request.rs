//! What is asked, and in which language: the dimensions of every load.

/// What is spoken to the proxy; behind it all is HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 by prior knowledge.
    H2c,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// 1 KiB.
    Small,
    /// 64 KiB.
    Large,
}

impl Protocol {
    /// What the tables call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::H2c => "h2c",
        }
    }
}

impl Body {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Small, Self::Large];

    /// Where it is found.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Small => "/api/v1/products",
            Self::Large => "/api/v1/archive",
        }
    }

    /// How many bytes it has.
    pub(crate) fn length(self) -> usize {
        match self {
            Self::Small => 1 << 10,
            Self::Large => 64 << 10,
        }
    }

    /// What the tables call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Small => "1 KiB",
            Self::Large => "64 KiB",
        }
    }
}
