//! The tree of values as written, and where each was set.

use std::collections::BTreeMap;

use serde_json::Value;

/// Where a value was set; shown with a mistake, so that one knows where to change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(pub String);

/// Values by path, merged from several sources; a later source wins.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    values: BTreeMap<String, (Value, Place)>,
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
            value => {
                self.values.insert(path.to_owned(), (value, place.clone()));
            }
        }
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
}
