//! A configuration file.

use std::collections::BTreeMap;

use content_factory_sidecar::config::{self, document};
use content_factory_sidecar::settings::{Key, Place, Tree};
use serde_json::Value;

use crate::targets::Fate;

/// What is in the file of every `_file` key: good for the database, wrong for others.
const FILE: &str = "postgres://app:canary-of-a-secret@db.example:5432/app";
/// What of it no output may hold.
const SECRET: &str = "canary-of-a-secret";

/// Each mistake says what was found and expected; a secret shows in nothing that is printed; and what `print-config`
/// prints is read as the same configuration.
pub(crate) fn check(data: &[u8]) -> Fate {
    let Some(document) = std::str::from_utf8(data).ok().and_then(parse) else { return Fate::Refused };
    let keys = match read(document) {
        Ok(keys) => keys,
        Err(config::ConfigError(problems)) => {
            assert!(!problems.is_empty(), "refused without a reason");
            for problem in &problems {
                assert!(!problem.path.is_empty() && !problem.expected.is_empty(), "{problem:?}");
                assert!(!problem.to_string().contains(SECRET), "{problem}");
            }
            return Fate::Refused;
        }
    };
    let printed = document::yaml(&keys);
    assert!(!printed.contains(SECRET), "{printed}");
    let masked = keys.iter().any(|key| key.value.contains("***"));
    if !masked {
        let Some(again) = parse(&printed) else { panic!("not read again:\n{printed}") };
        match read(again) {
            Ok(second) => assert_eq!(document::yaml(&second), printed),
            Err(error) => panic!("{error}\nin what was printed:\n{printed}"),
        }
    }
    Fate::Accepted
}

fn parse(text: &str) -> Option<Value> {
    serde_saphyr::from_str::<Value>(text).ok().filter(Value::is_object)
}

fn read(document: Value) -> Result<Vec<Key>, config::ConfigError> {
    let mut tree = Tree::default();
    tree.merge(document, &Place("sidecar.yaml".to_owned()));
    config::read(tree, &BTreeMap::new(), |_| Ok(FILE.to_owned())).map(|(_, keys)| keys)
}
