//! The settings of the reading of Celery.

use std::time::Duration;

use redis::{Client, ConnectionInfo};

use crate::redact::Secret;
use crate::settings::{Described, Section, show_duration};

/// What is read of Celery, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// The Redis of the application; `None` when there is none, or Celery is not to be read.
    pub(super) server: Option<Secret<ConnectionInfo>>,
    pub(super) enable_events: bool,
    pub(super) ask_consumers: bool,
    /// Queues that are looked at even if nobody ever used them.
    pub(super) queues: Vec<String>,
    pub(super) priority_steps: Vec<u8>,
    pub(super) key_prefix: String,
    pub(super) event_exchange: String,
    pub(super) control_exchange: String,
    pub(super) period: Duration,
    pub(super) consumers_period: Duration,
    pub(super) lost_after: Duration,
    pub(super) spans: Making,
    /// Names of the tasks that publish.
    pub(super) publish_tasks: Vec<String>,
}

/// Whether tasks become spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Making {
    /// Unless the intake sees that an SDK in the workers makes them.
    Auto,
    Always,
    Never,
}

const MAKING: [(&str, Making); 3] = [("auto", Making::Auto), ("always", Making::Always), ("never", Making::Never)];

/// The application's queues; one that nothing was ever sent to cannot be found.
const QUEUES: [&str; 4] = ["celery", "main-queue", "video-queue", "publish-queue"];
/// The application's tasks that publish.
const PUBLISH_TASKS: [&str; 2] = ["publish_video", "publish_video_task"];
/// kombu's own steps.
const STEPS: [u8; 4] = [0, 3, 6, 9];
/// Two dozen commands in one pipeline: nothing for Redis, and finer than any queue's fate.
const PERIOD: Duration = Duration::from_secs(10);
/// Each question makes every worker write an answer into Redis.
const CONSUMERS_PERIOD: Duration = Duration::from_secs(60);
/// Longer than a worker is silent while it restarts its connection.
const LOST_AFTER: Duration = Duration::from_secs(30);
const SHORTEST: Duration = Duration::from_secs(1);

impl Config {
    /// Takes over what is read and asked, and how often; not whom, nor what is heard.
    pub(super) fn take_questions(&mut self, other: &Self) {
        self.queues.clone_from(&other.queues);
        (self.period, self.consumers_period) = (other.period, other.consumers_period);
        (self.enable_events, self.ask_consumers) = (other.enable_events, other.ask_consumers);
    }

    /// Reads `celery.*` below the root of the settings; `redis` is the server of `redis.url`.
    pub fn read(root: &mut Section<'_>, redis: Option<&Secret<Client>>) -> Self {
        let mut section = root.section("celery");
        let about = "Whether Celery is watched through redis.url: events, results, queues. Where there is no Celery, nothing is found.";
        let is_watched = section.flag("enabled", true, about);
        let about = "Whether workers are told to send the events of tasks (`enable_events`, as `celery -A app control` does), because \
                     by default they send none; without, only results are counted.";
        let enable_events = section.flag("enable_events", true, about);
        let about = "Whether workers are asked what they consume, which writes a short list into Redis and removes it; without, a \
                     queue without consumer is not found.";
        let ask_consumers = section.flag("ask_consumers", true, about);
        let about = "Queues that are shown even if nothing was ever sent to them; all others are found.";
        let queues = section.list("queues", &QUEUES, about);
        let key = Described {
            name: "priority_steps",
            default: STEPS.to_vec(),
            default_text: STEPS.map(|step| step.to_string()).join(","),
            about: "The priorities of which each queue has a list of its own, as `broker_transport_options` sets them.",
        };
        let priority_steps = section.parsed(key, "up to 10 numbers from 0 to 255", steps);
        let about = "What stands before every key and channel (`global_keyprefix`).";
        let key_prefix = section.optional_text("key_prefix", about).unwrap_or_default();
        let event_exchange = section.text("event_exchange", "celeryev", "The exchange of events (`event_exchange`).");
        let about = "The exchange of commands to workers (`control_exchange`).";
        let control_exchange = section.text("control_exchange", "celery", about);
        let mut duration = |name, default, about| {
            let found = section.duration(name, default, about);
            if found < SHORTEST {
                section.problem(name, show_duration(found), "at least 1s");
            }
            found.max(SHORTEST)
        };
        let period = duration("period", PERIOD, "Time between two readings of the queues.");
        let about = "Time between two questions to the workers what they consume.";
        let consumers_period = duration("consumers_period", CONSUMERS_PERIOD, about);
        let about = "A task is lost when its worker has been silent for so long beyond two of its heartbeats. A worker of the pool \
                     `solo` is silent while it works.";
        let lost_after = duration("lost_after", LOST_AFTER, about);
        let about = "Whether each task that has run becomes a span. `auto`: unless the intake sees that an SDK in the workers makes \
                     them; `never`: where one does that sends past the intake; `always`: where only some workers have one.";
        let spans = section.choice("spans", Making::Auto, &MAKING, about);
        let about = "Names of the tasks that publish, whole or their last part: how they end is one source of the rate of publishes.";
        let publish_tasks = section.list("publish_tasks", &PUBLISH_TASKS, about);
        let server =
            redis.filter(|_| is_watched).map(|client| Secret::new(client.expose().get_connection_info().clone()));
        Self {
            server,
            enable_events,
            ask_consumers,
            queues,
            priority_steps,
            key_prefix,
            event_exchange,
            control_exchange,
            period,
            consumers_period,
            lost_after,
            spans,
            publish_tasks,
        }
    }
}

fn steps(text: &str) -> Option<Vec<u8>> {
    let steps: Option<Vec<u8>> = text.split(',').map(|step| step.trim().parse().ok()).collect();
    steps.filter(|steps| (1..=10).contains(&steps.len()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::settings::{Place, Settings, Tree};

    fn read(document: Value) -> (Config, Vec<String>) {
        let mut tree = Tree::default();
        tree.merge(document, &Place("sidecar.yaml".into()));
        let mut settings = Settings::new(tree, |_: &str| Err("no file".into()));
        let redis = Secret::new(Client::open("redis://:hunter2@h:6379/3").unwrap());
        let config = Config::read(&mut settings.section(""), Some(&redis));
        let (_, problems, _) = settings.finish();
        (config, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn celery_is_watched_where_redis_is_unless_it_is_switched_off() {
        let (config, problems) = read(json!({}));
        assert!(config.server.is_some() && problems.is_empty(), "{problems:?}");
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(read(json!({"celery": {"enabled": false}})).0.server.is_none());
    }

    #[test]
    fn mistakes_are_told() {
        let wrong = json!({"celery": {"priority_steps": "0,x", "period": "10ms", "lost_after": "0s"}});
        assert_eq!(
            read(wrong).1,
            [
                "celery.priority_steps: 0,x, expected up to 10 numbers from 0 to 255 (set in sidecar.yaml)",
                "celery.period: 10ms, expected at least 1s (set in sidecar.yaml)",
                "celery.lost_after: 0, expected at least 1s (set in sidecar.yaml)",
            ]
        );
        assert_eq!(read(json!({"celery": {"priority_steps": [0, 5]}})).0.priority_steps, [0, 5]);
    }
}
