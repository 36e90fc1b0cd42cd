//! The check of the application's event loop: the kernel accepts a connection, but a cheap answer takes long; or the medians of
//! all routes jump at once while the cores have time.
//!
//! Asks the application itself, not through the proxy: it is no traffic, and is not counted. Judges by the median of the last
//! answers, so that one slow answer changes nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Client;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::checks::check::{Check, Finding};
use crate::checks::failure::Failure;
use crate::checks::kinds::medians::{Answers, Routes};
use crate::checks::plan::{Kind, Plan, Reading};
use crate::checks::service::Pace;
use crate::fetch;
use crate::model::health::HealthStatus;
use crate::model::traffic::RouteTraffic;
use crate::redact::Clean;
use crate::settings::show_duration;

/// Connects, then asks, and looks at the traffic.
struct LoopLag {
    /// Host and port.
    target: String,
    url: String,
    client: Client,
    above: Duration,
    routes: Arc<dyn Fn() -> Vec<RouteTraffic> + Send + Sync>,
    cpu: Arc<dyn Fn() -> Option<f64> + Send + Sync>,
    seen: Mutex<Seen>,
}

/// What the last runs saw.
#[derive(Default)]
struct Seen {
    answers: Answers,
    routes: Routes,
}

/// What all that was seen says. Later is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Turns.
    Turns,
    /// This answer was slow, and most were not.
    OneSlow,
    /// This answer was slow, and there are too few to tell.
    TooFew,
    /// All routes take longer than they usually do.
    Jumped,
    /// Most answers are slow.
    Slow,
}

/// Above it, whoever waits may wait for a core.
const BUSY_RATIO: f64 = 0.5;
/// Pages of the application that hold its loop up while they are answered.
const SUSPECTS: [&str; 2] = ["/status", "/health"];

pub(super) const KIND: Kind = Kind {
    word: "loop_lag",
    about: "the application's event loop: connections are accepted, but the median of the last five cheap answers takes long, or the medians \
            of all routes jump at once while the cores have time",
    pace: Pace::seconds(15, 5),
    read,
};

fn read(reading: &mut Reading<'_, '_>) -> Option<Plan> {
    let about = "A page that costs the application nothing; whatever it answers counts as an answer.";
    let path = reading.section.text("path", "/", about);
    if !path.starts_with('/') {
        reading.section.problem("path", &path, "a path that begins with a slash, such as /");
    }
    let about = "An answer that takes longer is slow; when most of the last five are, the event loop is held up. Below the timeout.";
    let above = reading.section.duration("above", Duration::from_secs(1), about);
    if above >= reading.timeout || above.is_zero() {
        reading.section.problem("above", show_duration(above), "a duration above 0 and below the timeout");
    }
    Some(Plan::perhaps(move |means| {
        let target = means.application.clone()?;
        let url = format!("http://{target}{path}");
        let client = fetch::client(above).ok()?;
        let (routes, cpu, seen) = (means.routes.clone(), means.cpu.clone(), Mutex::default());
        Some(LoopLag { client, url, target, above, routes, cpu, seen })
    }))
}

#[async_trait]
impl Check for LoopLag {
    async fn run(&self) -> Result<Finding, Failure> {
        // the kernel accepts for a process whose loop stands still; who is not there at all is the other check's concern
        TcpStream::connect(&self.target).await.map_err(|error| Failure::of(&error))?;
        let asked = Instant::now();
        let took = match timeout(self.above, self.client.get(&self.url).send()).await {
            Ok(Ok(_)) => asked.elapsed(),
            Ok(Err(error)) if !error.is_timeout() => return Err(Failure::of(&error.without_url())),
            _ => Duration::MAX,
        };
        let (routes, cpu) = ((self.routes)(), (self.cpu)());
        let verdict = self.seen().judge(took, self.above, (&routes, cpu));
        Ok(finding(verdict, &routes, cpu))
    }
}

impl LoopLag {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Takes an answer, and the traffic beside it.
    fn judge(&mut self, took: Duration, above: Duration, (routes, cpu): (&[RouteTraffic], Option<f64>)) -> Verdict {
        self.answers.take(took);
        let have_jumped = self.routes.take(routes);
        match self.answers.median() {
            Some(median) if median > above => Verdict::Slow,
            _ if have_jumped && cpu.is_some_and(|ratio| ratio < BUSY_RATIO) => Verdict::Jumped,
            Some(_) if took > above => Verdict::OneSlow,
            None if took > above => Verdict::TooFew,
            _ => Verdict::Turns,
        }
    }
}

fn finding(verdict: Verdict, routes: &[RouteTraffic], cpu: Option<f64>) -> Finding {
    let (status, words) = match verdict {
        Verdict::Turns => return Finding::Works,
        Verdict::OneSlow => (HealthStatus::Healthy, "one cheap answer took too long, most did not"),
        Verdict::TooFew => (HealthStatus::Unknown, "a cheap answer took too long, and there are too few to tell"),
        Verdict::Jumped => {
            let words = "all routes take much longer than usual, and the cores have time: its event loop is held up";
            (HealthStatus::Degraded, words)
        }
        Verdict::Slow if cpu.is_some_and(|ratio| ratio >= BUSY_RATIO) => {
            (HealthStatus::Degraded, "application accepts, but a cheap answer takes too long: the cores are busy")
        }
        Verdict::Slow => {
            let words = "application accepts, but a cheap answer takes too long: its event loop is held up";
            (HealthStatus::Degraded, words)
        }
    };
    let asked = routes.iter().filter_map(|route| route.route.as_ref());
    let is_suspect =
        status == HealthStatus::Degraded && asked.into_iter().any(|route| SUSPECTS.contains(&route.as_str()));
    let suspects = if is_suspect { "; somebody asks it for /status or /health" } else { "" };
    Finding::Told(status, Clean::concat(&[Clean::literal(words), Clean::literal(suspects)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::traffic::Window;

    const ABOVE: Duration = Duration::from_secs(1);
    const QUICK: Duration = Duration::from_millis(5);

    fn traffic(seconds: f64) -> Vec<RouteTraffic> {
        let window = Window {
            length: Duration::from_secs(300),
            requests: 60,
            errors: 0,
            p50_seconds: Some(seconds),
            p95_seconds: None,
            p99_seconds: None,
        };
        ["/status", "/products"].map(|name| RouteTraffic { route: Some(Clean::literal(name)), window }).into()
    }

    #[test]
    fn one_slow_answer_is_told_of_and_changes_nothing() {
        let mut seen = Seen::default();
        let mut judge = |took| seen.judge(took, ABOVE, (&[], None));
        assert_eq!(judge(Duration::MAX), Verdict::TooFew);
        assert_eq!([QUICK; 4].map(&mut judge), [Verdict::Turns; 4]);
        assert_eq!(judge(Duration::MAX), Verdict::OneSlow);
        assert_eq!([Duration::MAX; 2].map(&mut judge), [Verdict::OneSlow, Verdict::Slow]);
        assert_eq!([QUICK; 3].map(&mut judge), [Verdict::Slow, Verdict::Slow, Verdict::Turns]);
    }

    #[test]
    fn a_jump_of_all_medians_is_the_loop_only_while_the_cores_have_time() {
        for (cpu, expected) in [(Some(0.2), Verdict::Jumped), (Some(0.7), Verdict::Turns), (None, Verdict::Turns)] {
            let mut seen = Seen::default();
            for _ in 0..10 {
                assert_eq!(seen.judge(QUICK, ABOVE, (&traffic(0.02), cpu)), Verdict::Turns);
            }
            assert_eq!(seen.judge(QUICK, ABOVE, (&traffic(2.0), cpu)), expected, "{cpu:?}");
        }
    }

    #[test]
    fn the_words_name_what_holds_it_up_and_who_may_have_asked() {
        for (verdict, cpu, routes, status, words) in [
            (
                Verdict::Slow,
                Some(0.1),
                traffic(1.0),
                HealthStatus::Degraded,
                "application accepts, but a cheap answer takes too long: its event loop is held up; somebody asks it for /status or /health",
            ),
            (
                Verdict::Slow,
                Some(0.9),
                Vec::new(),
                HealthStatus::Degraded,
                "application accepts, but a cheap answer takes too long: the cores are busy",
            ),
            (
                Verdict::OneSlow,
                None,
                traffic(1.0),
                HealthStatus::Healthy,
                "one cheap answer took too long, most did not",
            ),
        ] {
            assert_eq!(finding(verdict, &routes, cpu), Finding::Told(status, Clean::concat(&[Clean::literal(words)])));
        }
    }
}
