//! The check of other checks: all of them, or any of them. Reads their reports, and asks nobody.

use async_trait::async_trait;
use tokio::time::Instant;

use crate::checks::check::{Check, Finding, Reader};
use crate::checks::failure::Failure;
use crate::checks::plan::{Kind, Plan, Reading};
use crate::checks::service::Pace;
use crate::model::health::HealthStatus;
use crate::redact::{Clean, Outlet, Redactor};

/// Puts the statuses of other checks together.
struct Composite {
    members: Vec<(String, Clean<'static>)>,
    rule: Rule,
    reports: Reader,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// As healthy as the worst.
    All,
    /// As healthy as the best.
    Any,
}

pub(super) const KIND: Kind = Kind {
    word: "composite",
    about: "other checks put together: as healthy as the worst of `all`, or as the best of `any`",
    pace: Pace::seconds(5, 1).at_once(),
    read,
};

fn read(reading: &mut Reading<'_, '_>) -> Option<Plan> {
    let about = "Checks that must all be well: it is as healthy as the worst that is known.";
    let all = reading.section.list("all", &[], about);
    let about = "Checks of which one must be well: it is as healthy as the best.";
    let any = reading.section.list("any", &[], about);
    let (rule, key, members) = if any.is_empty() { (Rule::All, "all", all.clone()) } else { (Rule::Any, "any", any) };
    if members.is_empty() || (rule == Rule::Any && !all.is_empty()) {
        reading.section.problem(key, members.join(","), "names of checks, in one of all and any");
        return None;
    }
    let is_other = |name: &String| *name != reading.name && reading.surroundings.names.contains(name);
    let strangers: Vec<&String> = members.iter().filter(|name| !is_other(name)).collect();
    for name in strangers {
        reading.section.problem(key, name, "names of other checks");
    }
    let needs = members.clone();
    let mut plan = Plan::new(move |means| Composite {
        members: members.iter().map(|name| (name.clone(), told(name, &means.redactor))).collect(),
        rule,
        reports: means.reports.clone(),
    });
    plan.needs = needs;
    Some(plan)
}

fn told(name: &str, redactor: &Redactor) -> Clean<'static> {
    redactor.text(Outlet::Endpoint, name.as_bytes()).into_owned()
}

#[async_trait]
impl Check for Composite {
    async fn run(&self) -> Result<Finding, Failure> {
        let (reports, now) = (self.reports.borrow(), Instant::now());
        let status_of = |name: &str| {
            let report = reports.iter().find(|report| report.name == name);
            report.map_or(HealthStatus::Unknown, |report| report.as_of(now).status)
        };
        let found: Vec<(&Clean<'_>, HealthStatus)> =
            self.members.iter().map(|(name, told)| (told, status_of(name))).collect();
        let known = found.iter().map(|(_, status)| *status).filter(|status| *status != HealthStatus::Unknown);
        let status = match self.rule {
            Rule::All => known.max(),
            Rule::Any => known.min(),
        };
        let words = found.iter().enumerate().flat_map(|(turn, (name, status))| {
            let comma = Clean::literal(if turn == 0 { "" } else { ", " });
            [comma, (*name).clone(), Clean::literal(" "), Clean::literal(status.label())]
        });
        let words = Clean::concat(&words.collect::<Vec<_>>());
        Ok(Finding::Told(status.unwrap_or_default(), words))
    }
}
