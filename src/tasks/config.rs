//! The settings of the tasks room.

use std::time::Duration;

use crate::settings::{Section, show_duration};

/// How much is kept of tasks, and for how long.
#[derive(Clone, Debug)]
pub struct Config {
    /// After it, a task whose end nobody told is lost.
    pub max_runtime: Duration,
    /// Tasks that may be open at once.
    pub max_open: usize,
    /// Names that are counted apart.
    pub max_names: usize,
    /// Ended tasks that are kept for people.
    pub recent: usize,
}

/// As long as Celery waits before it gives a task to another worker.
const MAX_RUNTIME: Duration = Duration::from_secs(3_600);
const SHORTEST: Duration = Duration::from_secs(1);

impl Config {
    /// Reads the keys below `tasks`.
    pub fn read(section: &mut Section<'_>) -> Self {
        let about = "how long a task may run: one whose end nobody has told by then counts as lost. As long as Celery waits \
                     before it gives a task to another worker";
        let max_runtime = section.duration("max_runtime", MAX_RUNTIME, about);
        if max_runtime < SHORTEST {
            section.problem("max_runtime", show_duration(max_runtime), "at least 1s");
        }
        let about =
            "tasks that may be open at once; further ones are refused, and counted. About 0.5 KiB of memory each";
        let max_open = section.number("max_open", 1_000, 1..=10_000, about);
        let about = "names of tasks that are counted apart; further ones are counted together (`otel.metric.overflow`). A \
                     program has few, unless it puts an id into them";
        let max_names = section.number("max_names", 100, 1..=1_000, about);
        let about = "ended tasks that are kept for people; their end may be told again without harm while they are";
        let recent = section.number("recent", 200, 1..=1_000, about);
        Self {
            max_runtime: max_runtime.max(SHORTEST),
            max_open: max_open as usize,
            max_names: max_names as usize,
            recent: recent as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::settings::{Place, Settings, Tree};

    #[test]
    fn wrong_values_are_named_with_what_would_be_right() {
        let mut tree = Tree::default();
        tree.merge(
            json!({"tasks": {"max_runtime": "10ms", "max_open": 0, "max_names": 0, "recent": "all"}}),
            &Place("sidecar.yaml".into()),
        );
        let mut settings = Settings::new(tree, |_: &str| Err(String::new()));
        let _ = Config::read(&mut settings.section("tasks"));
        let (_, problems, _) = settings.finish();
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "tasks.max_runtime: 10ms, expected at least 1s (set in sidecar.yaml)",
                "tasks.max_open: 0, expected a whole number from 1 to 10000 (set in sidecar.yaml)",
                "tasks.max_names: 0, expected a whole number from 1 to 1000 (set in sidecar.yaml)",
                "tasks.recent: all, expected a whole number from 1 to 1000 (set in sidecar.yaml)",
            ]
        );
    }
}
