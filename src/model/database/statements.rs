//! The statements that took most of the server's time, as its extension `pg_stat_statements` counts them.
//!
//! For the endpoint alone: a text or a number of a statement is no label of a metric, because there is no bound to them.

use crate::redact::Clean;

/// What the extension told of the last interval.
#[derive(Clone, Debug, PartialEq)]
pub struct Statements {
    /// Whether there is anything to read.
    pub source: StatementSource,
    /// The interval; `None` before there were two readings.
    pub seconds: Option<f64>,
    /// By the time that they took in it, most first.
    pub top: Vec<Statement>,
}

/// Why there are statements, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatementSource {
    /// They can be read.
    Readable,
    /// The extension is not in the database that we are connected to.
    Absent,
    /// It is, but the server does not load its library.
    NotLoaded,
    /// Our role may not read it.
    Refused,
    /// `database.statements` is off.
    Off,
}

/// One statement in one interval.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// The server's number for all statements of this form.
    pub query_id: i64,
    /// Who ran it.
    pub role: Clean<'static>,
    /// Whether it was asked for by a client, and not inside a function.
    pub is_top_level: bool,
    /// Its text without literals; `None` when the server gave none.
    pub text: Option<Clean<'static>>,
    /// How often it ended.
    pub calls: u64,
    /// The time that all of them took.
    pub total_seconds: f64,
    /// The longest of them since the server's last reset.
    pub max_seconds: f64,
    /// Rows given or changed.
    pub rows: u64,
    /// Blocks that were in the server's cache.
    pub blocks_hit: u64,
    /// Blocks that were not.
    pub blocks_read: u64,
    /// Blocks written to temporary files.
    pub temp_blocks: u64,
}

impl StatementSource {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Readable => "readable",
            Self::Absent => "absent",
            Self::NotLoaded => "not_loaded",
            Self::Refused => "refused",
            Self::Off => "off",
        }
    }

    /// What would bring statements; `None` when nothing is missing.
    #[must_use]
    pub fn hint(self) -> Option<&'static str> {
        match self {
            Self::Readable | Self::Off => None,
            Self::Absent => Some("CREATE EXTENSION pg_stat_statements in this database"),
            Self::NotLoaded => {
                Some("shared_preload_libraries must name pg_stat_statements, and the server be restarted")
            }
            Self::Refused => Some("GRANT pg_monitor to the role, and USAGE of the schema that the extension is in"),
        }
    }
}
