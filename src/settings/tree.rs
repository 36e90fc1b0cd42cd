//! The tree of values as written, and where each was set.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::problem::Problem;

/// Where a value was set; shown with a mistake, so that one knows where to change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(pub String);

/// Values by path, merged from several sources; a later source wins.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    values: BTreeMap<String, (Value, Place)>,
    /// The turn in which each path was first written: the order of the file, which no later source changes.
    turns: BTreeMap<String, usize>,
}

impl Tree {
    /// Puts one value at a path such as `proxy.listen`; replaces what is there and below.
    pub fn set(&mut self, path: &str, value: Value, place: &Place) {
        let below = format!("{path}.");
        self.values.retain(|key, _| key != path && !key.starts_with(&below));
        match value {
            // an empty section says nothing: `proxy:` with all its keys commented out is no mistake
            Value::Object(map) => {
                for (key, value) in map {
                    self.set(&format!("{path}.{key}"), value, place);
                }
            }
            Value::Null => {}
            value => self.insert(path, value, place),
        }
    }

    fn insert(&mut self, path: &str, value: Value, place: &Place) {
        let turn = self.turns.len();
        self.turns.entry(path.to_owned()).or_insert(turn);
        self.values.insert(path.to_owned(), (value, place.clone()));
    }

    /// Puts a whole document over the tree, key by key.
    pub fn merge(&mut self, document: Value, place: &Place) {
        let Value::Object(map) = document else { return };
        for (key, value) in map {
            self.set(&key, value, place);
        }
    }

    /// The value at a path.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&(Value, Place)> {
        self.values.get(path)
    }

    /// All paths with a value.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// What stands below a path, as the rest of its path and its value.
    pub fn below<'t>(&'t self, path: &str) -> impl Iterator<Item = (&'t str, &'t (Value, Place))> {
        let prefix = format!("{path}.");
        let from = self.values.range(prefix.clone()..);
        from.map_while(move |(key, value)| Some((key.strip_prefix(prefix.as_str())?, value)))
    }

    /// The names of the sections below a path, in the order in which they were first written.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let mut names: Vec<(usize, &str)> = Vec::new();
        for (rest, (value, _)) in self.below(path) {
            // an entry of a list that says nothing but its name is a section, too
            let Some((name, _)) = rest.split_once('.').or(value.is_null().then_some((rest, ""))) else { continue };
            let turn = self.turns.get(&format!("{path}.{rest}")).copied().unwrap_or(usize::MAX);
            match names.iter_mut().find(|(_, known)| *known == name) {
                Some((first, _)) => *first = turn.min(*first),
                None => names.push((turn, name)),
            }
        }
        names.sort_by_key(|(turn, _)| *turn);
        names.into_iter().map(|(_, name)| name.to_owned()).collect()
    }

    /// Reads a list of maps that each have a `name` as a map by that name; what a later source has set there stays.
    ///
    /// Gives what is wrong with its entries.
    pub(super) fn spread(&mut self, path: &str) -> Vec<Problem> {
        let Some((Value::Array(_), _)) = self.values.get(path) else { return Vec::new() };
        let Some((Value::Array(entries), place)) = self.values.remove(path) else { return Vec::new() };
        let (mut names, mut problems) = (BTreeSet::new(), Vec::new());
        for (index, mut entry) in entries.into_iter().enumerate() {
            let name = entry.as_object_mut().and_then(|entry| entry.shift_remove("name"));
            let name = name.as_ref().and_then(Value::as_str).filter(|name| !name.is_empty() && !name.contains('.'));
            let mut refuse = |found: String, expected: &str| {
                let (path, expected, place) = (format!("{path}[{index}]"), expected.into(), place.0.clone());
                problems.push(Problem { path, found, expected, place });
            };
            match name {
                None => refuse("no name".into(), "a map with a name, such as {name: payments, kind: http}"),
                Some(name) if !names.insert(name.to_owned()) => refuse(name.into(), "a name that no other entry has"),
                Some(name) => self.put_below(&format!("{path}.{name}"), entry, &place),
            }
        }
        problems
    }

    fn put_below(&mut self, path: &str, section: Value, place: &Place) {
        let mut written = Self::default();
        written.set(path, section, place);
        written.insert(path, Value::Null, place);
        for (key, (value, place)) in written.values {
            if !self.values.contains_key(&key) {
                self.insert(&key, value, &place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tree(document: Value) -> Tree {
        let mut tree = Tree::default();
        tree.merge(document, &Place("sidecar.yaml".into()));
        tree
    }

    #[test]
    fn sections_come_in_the_order_of_the_file_whoever_sets_a_value_later() {
        let mut tree = tree(json!({"checks": {"z": {"kind": "tcp"}, "a": {"kind": "dns"}, "on": true}}));
        tree.set("checks.a.kind", json!("tcp"), &Place("SIDECAR_CHECKS__A__KIND".into()));
        tree.set("checks.b.kind", json!("tcp"), &Place("SIDECAR_CHECKS__B__KIND".into()));
        assert_eq!(tree.names("checks"), ["z", "a", "b"]);
    }

    #[test]
    fn a_list_of_named_maps_is_a_map_by_name_and_what_was_set_later_stays() {
        let mut tree = tree(json!({"checks": [{"name": "z", "kind": "tcp", "port": 1}, {"name": "a"}]}));
        tree.set("checks.z.port", json!("2"), &Place("SIDECAR_CHECKS__Z__PORT".into()));
        assert!(tree.spread("checks").is_empty());
        assert_eq!(tree.names("checks"), ["z", "a"]);
        let value = |path: &str| tree.get(path).map(|(value, _)| value.clone());
        assert_eq!((value("checks.z.kind"), value("checks.z.port")), (Some(json!("tcp")), Some(json!("2"))));
        assert_eq!((value("checks"), value("checks.z.name")), (None, None));
    }

    #[test]
    fn an_entry_without_a_name_or_with_that_of_another_is_refused() {
        let mut tree = tree(json!({"checks": [{"kind": "tcp"}, "x", {"name": "a"}, {"name": "a"}, {"name": "a.b"}]}));
        let told: Vec<String> = tree.spread("checks").iter().map(|problem| problem.path.clone()).collect();
        assert_eq!(told, ["checks[0]", "checks[1]", "checks[3]", "checks[4]"]);
        assert_eq!(tree.names("checks"), ["a"]);
    }
}
