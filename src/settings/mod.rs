//! Settings as written: one tree of values, read key by key by the rooms that own them.
//!
//! Reading is the only declaration of a key: what a room reads, with its default and its reason, is also what
//! `print-config` prints, what `docs/configuration.md` lists, and what makes every other key unknown.
//! Does not read files or the environment itself: whoever builds the tree does.

mod leaf;
mod read;
mod tree;

pub use leaf::{parse_bytes, parse_duration, show_bytes, show_duration};
pub use read::{Described, Key, Section, Settings};
pub use tree::{Place, Tree};
