//! What a Redis says to a subscriber: answers of RESP, and in them events and results of Celery and messages that wait.

use std::sync::{Arc, LazyLock};

use content_factory_sidecar::redact::Redactor;
use content_factory_sidecar::settings::{Place, Settings, Tree};
use content_factory_sidecar::tasks::celery::config::Config;
use content_factory_sidecar::tasks::celery::replay::replay;
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

use crate::targets::Fate;

const SECRET: &str = "hunter2-hunter2";
/// Names that are told apart, besides two that stand for all others.
const MOST_NAMES: usize = 200 + 2;
const MOST_WORKERS: usize = 1_000;
/// Of a name that is cut, in bytes; a secret in it is shown by a word that may be longer.
const LONGEST_NAME: usize = 4 * 120;

static REDACTOR: LazyLock<Arc<Redactor>> = LazyLock::new(|| Arc::new(Redactor::new([SECRET])));
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));

/// Whatever is said: what is kept is bounded, shows no secret, and each message is counted once.
pub(crate) fn check(data: &[u8]) -> Fate {
    let mut settings = Settings::new(tree(), |_: &str| Err("no files".to_owned()));
    let config = Config::read(&mut settings.section(""), None);
    let heard = RUNTIME.block_on(replay(data, &config, Arc::clone(&REDACTOR)));
    let state = &heard.state;
    let refused: u64 = state.refused.iter().map(|(_, count)| count).sum();
    assert!(refused <= state.messages && state.messages <= heard.answers, "{state:?}");
    assert!(state.workers.len() <= MOST_WORKERS && state.tasks.len() <= 500, "{state:?}");
    let names: std::collections::BTreeSet<&str> = state.tasks.iter().map(|task| task.name.as_str()).collect();
    assert!(names.len() <= MOST_NAMES && names.iter().all(|name| name.len() <= LONGEST_NAME), "{state:?}");
    assert!(!format!("{state:?}").contains(SECRET), "{state:?}");
    for task in &state.tasks {
        let started = task.steps.iter().find(|(step, _)| *step == "started").map_or(0, |(_, count)| *count);
        let given_up = task.outcomes.iter().filter(|(outcome, _)| ["lost", "unseen"].contains(outcome));
        let given_up: u64 = given_up.map(|(_, count)| count).sum();
        assert!(given_up <= started, "what never ran is given up: {state:?}");
    }
    if heard.is_whole && refused == 0 && state.messages > 0 { Fate::Accepted } else { Fate::Refused }
}

fn tree() -> Tree {
    let mut tree = Tree::default();
    tree.merge(json!({}), &Place("target".to_owned()));
    tree
}
