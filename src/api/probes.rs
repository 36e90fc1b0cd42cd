//! `/livez`, `/readyz` and `/startupz`, in the text form of Kubernetes' own probes.
//!
//! Never asks a database or Redis: a restart heals no remote outage. Tells names and words, no reasons.

use std::time::Duration;

use crate::lifecycle::{Drain, Latch, Phase, Pulse};
use crate::model::health::{CheckReport, Criticality, HealthStatus};

/// A loop that has not beaten for this long is stuck: loops beat at least every 5 s, and three beats may be missed.
const STUCK_AFTER: Duration = Duration::from_secs(15);

/// One line of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    name: String,
    passes: bool,
}

/// How a probe is asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Ask {
    /// `?verbose`: the lines also when all is well.
    verbose: bool,
    /// `?exclude=name`, repeatable.
    exclude: Vec<String>,
}

/// A rendered probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    /// Whether it passes.
    pub(super) passes: bool,
    /// Plain text.
    pub(super) text: String,
}

impl Ask {
    /// Reads the query of a probe's URL; what is unknown is ignored, as Kubernetes does.
    pub(super) fn parse(query: Option<&str>) -> Self {
        let mut ask = Self::default();
        for pair in query.unwrap_or_default().split('&') {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("exclude", name) => ask.exclude.push(name.to_owned()),
                ("verbose", _) => ask.verbose = true,
                _ => {}
            }
        }
        ask
    }
}

/// Whether the loops turn. Once the process drains, loops end as they should.
pub(super) fn liveness(pulses: &[Pulse], drain: &Drain) -> Vec<Item> {
    let ends = drain.phase() != Phase::Running;
    let passes = |pulse: &Pulse| ends || pulse.age() < STUCK_AFTER;
    pulses.iter().map(|pulse| Item { name: pulse.name().into(), passes: passes(pulse) }).collect()
}

/// Whether the start is done.
pub(super) fn startup(latches: &[Latch]) -> Vec<Item> {
    latches.iter().map(|latch| Item { name: latch.name().into(), passes: latch.is_open() }).collect()
}

/// Whether traffic is welcome: the start is done, the process is not draining, and these checks do not fail.
pub(super) fn readiness(latches: &[Latch], drain: &Drain, reports: &[CheckReport]) -> Vec<Item> {
    let mut items = startup(latches);
    items.push(Item { name: "shutdown".into(), passes: drain.phase() == Phase::Running });
    let critical = reports.iter().filter(|report| report.criticality == Criticality::Critical);
    items.extend(
        critical.map(|report| Item { name: report.name.clone(), passes: report.status != HealthStatus::Unhealthy }),
    );
    items
}

/// Renders a whole probe.
pub(super) fn render(probe: &str, items: &[Item], ask: &Ask) -> Probe {
    let excluded = |item: &Item| ask.exclude.contains(&item.name);
    let passes = items.iter().all(|item| item.passes || excluded(item));
    if passes && !ask.verbose {
        return Probe { passes, text: "ok".into() };
    }
    let mut text = String::new();
    for item in items {
        text += &match (excluded(item), item.passes) {
            (true, _) => format!("[+]{} excluded: ok\n", item.name),
            (false, true) => format!("[+]{} ok\n", item.name),
            (false, false) => format!("[-]{} failed: reason withheld\n", item.name),
        };
    }
    let unknown: Vec<String> = ask
        .exclude
        .iter()
        .filter(|name| !items.iter().any(|item| item.name == **name))
        .map(|name| format!("{name:?}"))
        .collect();
    if !unknown.is_empty() {
        text += &format!("warn: some health checks cannot be excluded: no matches for {}\n", unknown.join(","));
    }
    text += &format!("{probe} check {}\n", if passes { "passed" } else { "failed" });
    Probe { passes, text }
}

/// Renders one item of a probe, as `/readyz/<check>` does; `None` when it has no such item.
pub(super) fn render_one(items: &[Item], name: &str) -> Option<Probe> {
    let item = items.iter().find(|item| item.name == name)?;
    let text = if item.passes { "ok".into() } else { format!("[-]{name} failed: reason withheld\n") };
    Some(Probe { passes: item.passes, text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::drain;
    use crate::model::health::CheckHistory;
    use crate::redact::Clean;

    fn items() -> Vec<Item> {
        vec![
            Item { name: "listener".into(), passes: true },
            Item { name: "database".into(), passes: false },
            Item { name: "redis".into(), passes: false },
        ]
    }

    #[test]
    fn the_text_has_kubernetes_form() {
        let probe = render("readyz", &items(), &Ask::parse(Some("verbose&exclude=redis")));
        let expected = concat!(
            "[+]listener ok\n",
            "[-]database failed: reason withheld\n",
            "[+]redis excluded: ok\n",
            "readyz check failed\n"
        );
        assert_eq!(probe, Probe { passes: false, text: expected.into() });
    }

    #[test]
    fn a_failed_probe_always_tells_which_and_a_good_one_is_short() {
        assert!(render("readyz", &items(), &Ask::default()).text.starts_with("[+]listener ok\n[-]database failed"));
        let good = render("livez", &items()[..1], &Ask::default());
        assert_eq!(good, Probe { passes: true, text: "ok".into() });
        let verbose = render("livez", &items()[..1], &Ask::parse(Some("verbose=1")));
        assert_eq!(verbose.text, "[+]listener ok\nlivez check passed\n");
    }

    #[test]
    fn what_is_excluded_does_not_fail_and_what_is_unknown_is_said() {
        let ask = Ask::parse(Some("exclude=redis&exclude=database&exclude=mars&verbose"));
        let probe = render("readyz", &items(), &ask);
        assert!(probe.passes);
        assert!(probe.text.contains("no matches for \"mars\"\nreadyz check passed\n"), "{}", probe.text);
    }

    #[test]
    fn one_item_is_found_by_its_name() {
        assert_eq!(render_one(&items(), "listener"), Some(Probe { passes: true, text: "ok".into() }));
        assert!(!render_one(&items(), "database").unwrap().passes);
        assert_eq!(render_one(&items(), "mars"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_stops_beating_fails_liveness_and_beats_it_back() {
        let (conductor, drain) = drain();
        let pulses = [Pulse::new("proxy")];
        assert!(liveness(&pulses, &drain)[0].passes);
        tokio::time::advance(STUCK_AFTER).await;
        assert!(!liveness(&pulses, &drain)[0].passes);
        pulses[0].beat();
        assert!(liveness(&pulses, &drain)[0].passes);
        tokio::time::advance(STUCK_AFTER).await;
        conductor.drain_within(STUCK_AFTER);
        assert!(liveness(&pulses, &drain)[0].passes, "a loop that ended with the drain is not stuck");
    }

    #[test]
    fn readiness_waits_for_latches_ends_with_the_drain_and_minds_critical_checks_only() {
        let (conductor, drain) = drain();
        let latch = Latch::new("proxy");
        let report = |name: &str, status, criticality| CheckReport {
            name: name.into(),
            status,
            message: Clean::literal("x"),
            criticality,
            latency: None,
            checked_at: None,
            expires_at: None,
            kind: "tcp",
            period: Duration::from_secs(10),
            history: CheckHistory::default(),
        };
        let passes = |reports: &[CheckReport]| {
            render("readyz", &readiness(std::slice::from_ref(&latch), &drain, reports), &Ask::default()).passes
        };
        assert!(!passes(&[]));
        latch.open();
        assert!(passes(&[]));
        assert!(passes(&[report("external_api", HealthStatus::Unhealthy, Criticality::Optional)]));
        assert!(passes(&[report("database", HealthStatus::Unknown, Criticality::Critical)]));
        assert!(!passes(&[report("database", HealthStatus::Unhealthy, Criticality::Critical)]));
        conductor.abort();
        assert!(!passes(&[]));
    }
}
