//! Names that become labels: as many as there is room for, each cleaned once; all further ones are one.

use std::collections::HashMap;
use std::sync::Arc;

use crate::redact::{Clean, Outlet, Redactor};

/// The number of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NameId(u16);

impl NameId {
    /// Of all that came when there was no room any more.
    pub(super) const OTHER: Self = Self(0);
    /// Of what nobody has named.
    pub(super) const UNKNOWN: Self = Self(1);
}

/// A bounded set of names.
#[derive(Debug)]
pub(super) struct Names {
    numbers: HashMap<String, NameId>,
    shown: Vec<Clean<'static>>,
    limit: usize,
    redactor: Arc<Redactor>,
}

impl Names {
    /// A set of at most `limit` names besides the two that are always there.
    pub(super) fn new(limit: u16, redactor: &Arc<Redactor>) -> Self {
        let shown = vec![Clean::literal("(other)"), Clean::literal("(unknown)")];
        Self { numbers: HashMap::new(), limit: usize::from(limit) + shown.len(), shown, redactor: Arc::clone(redactor) }
    }

    /// The number of a name, which is taken in if there is room.
    pub(super) fn id(&mut self, name: &str) -> NameId {
        if let Some(id) = self.numbers.get(name) {
            return *id;
        }
        let Some(id) = u16::try_from(self.shown.len()).ok().filter(|_| self.shown.len() < self.limit) else {
            return NameId::OTHER;
        };
        self.shown.push(self.redactor.text(Outlet::Telemetry, name.as_bytes()).into_owned());
        self.numbers.insert(name.to_owned(), NameId(id));
        NameId(id)
    }

    /// The name of a number.
    pub(super) fn shown(&self, id: NameId) -> Clean<'static> {
        self.shown.get(usize::from(id.0)).cloned().unwrap_or(Clean::literal("(other)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many_names_and_secrets_are_taken_out() {
        let redactor = Arc::new(Redactor::new(["hunter2-hunter2"]));
        let mut names = Names::new(2, &redactor);
        let ids = ["a", "hunter2-hunter2", "c", "a"].map(|name| names.id(name));
        assert_eq!((ids[2], ids[0]), (NameId::OTHER, ids[3]));
        assert_eq!(ids.map(|id| names.shown(id).as_str().to_owned()), ["a", "[REDACTED:secret]", "(other)", "a"]);
        assert_eq!(names.shown(NameId::UNKNOWN).as_str(), "(unknown)");
    }
}
