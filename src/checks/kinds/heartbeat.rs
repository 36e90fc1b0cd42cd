//! The check of somebody who must show that they live: a dead man's switch, reset by a POST.
//!
//! Beats are kept in memory, so after a start of the sidecar nothing is known until one comes, or the silence is too long.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::checks::beats::Beats;
use crate::checks::check::{Check, Finding};
use crate::checks::failure::{Class, Failure};
use crate::checks::plan::{Kind, Plan, Reading};
use crate::checks::service::Pace;
use crate::model::health::HealthStatus;
use crate::redact::Clean;
use crate::settings::parse_duration;

/// Looks how long the silence is.
struct Heartbeat {
    name: String,
    max_silence: Duration,
    beats: Beats,
    /// Silence before the first beat is counted from here.
    since: Instant,
}

pub(super) const KIND: Kind = Kind {
    word: "heartbeat",
    about: "a job that tells by POST /api/v1/monitoring/heartbeat/<name> that it lives",
    pace: Pace::seconds(10, 2).at_once(),
    read,
};

fn read(reading: &mut Reading<'_, '_>) -> Option<Plan> {
    const EXPECTED: &str = "a duration such as 25h";
    let about = "The longest time between two beats, with room for a job that is late, such as 25h for a daily one.";
    let text = reading.required("max_silence", about, EXPECTED)?;
    let Some(max_silence) = parse_duration(&text).filter(|silence| !silence.is_zero()) else {
        reading.section.problem("max_silence", text, EXPECTED);
        return None;
    };
    Some(Plan::new(move |means| Heartbeat {
        name: means.name.clone(),
        max_silence,
        beats: means.beats.clone(),
        since: Instant::now(),
    }))
}

#[async_trait]
impl Check for Heartbeat {
    async fn run(&self) -> Result<Finding, Failure> {
        let last = self.beats.last(&self.name);
        match last {
            _ if last.unwrap_or(self.since).elapsed() > self.max_silence => {
                Err(Failure::plain(Class::Condition("silent")))
            }
            Some(_) => Ok(Finding::Works),
            None => Ok(Finding::Told(HealthStatus::Unknown, Clean::literal("no heartbeat yet"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn silence_is_unknown_then_too_long_and_each_beat_ends_it() {
        let beats = Beats::default().renamed(["import".to_owned()].into_iter());
        let hour = Duration::from_secs(3_600);
        let check = Heartbeat { name: "import".into(), max_silence: hour, beats: beats.clone(), since: Instant::now() };
        let class = async |check: &Heartbeat| check.run().await.map_err(|failure| failure.class);
        assert!(matches!(class(&check).await, Ok(Finding::Told(HealthStatus::Unknown, _))));
        advance(hour + Duration::from_secs(1)).await;
        assert_eq!(class(&check).await, Err(Class::Condition("silent")));
        assert!(beats.take("import") && !beats.take("export"));
        assert_eq!(class(&check).await, Ok(Finding::Works));
        advance(hour).await;
        assert_eq!(class(&check).await, Ok(Finding::Works));
        advance(Duration::from_secs(1)).await;
        assert_eq!(class(&check).await, Err(Class::Condition("silent")));
    }
}
