//! Own checks: those that the configuration adds to the built-in ones, each a section of a kind.

use std::collections::BTreeSet;

use crate::checks::kinds::KINDS;
use crate::checks::plan::{Commands, Kind, Plan, Reading, Surroundings};
use crate::checks::service::Service;
use crate::model::health::Criticality;
use crate::settings::{Key, Section, Settings, Tree, show_duration};

/// A check that the configuration adds.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) service: Service,
    pub(super) kind: &'static str,
    pub(super) plan: Plan,
}

/// More would be a monitoring system of its own.
const MOST: usize = 100;
const LONGEST_NAME: usize = 64;

/// Reads those of the names below `checks` that are not built in.
pub(super) fn read(checks: &mut Section<'_>, built_in: &[&str], surroundings: &Surroundings<'_>) -> Vec<Own> {
    let names = surroundings.names.iter().filter(|name| !built_in.contains(&name.as_str()));
    let mut own = Vec::new();
    for (index, name) in names.enumerate() {
        let refused = match () {
            () if !is_name(name) => Some("a name of letters, digits, _ and - that begins with a letter, at most 64"),
            () if index >= MOST => Some("at most 100 checks besides the built-in ones"),
            () => None,
        };
        match refused {
            Some(expected) => {
                checks.problem(name, name, expected);
                checks.section(name).pass_over();
            }
            None => own.extend(read_one(&mut checks.section(name), name, surroundings)),
        }
    }
    own
}

fn is_name(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    name.len() <= LONGEST_NAME && name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(is_part)
}

fn read_one(section: &mut Section<'_>, name: &str, surroundings: &Surroundings<'_>) -> Option<Own> {
    let Some(kind) = read_kind(section) else {
        section.pass_over();
        return None;
    };
    let default = Service::new(name.to_owned().into(), Criticality::Optional, kind.pace);
    let service = Service::read(section, default, surroundings.names);
    let plan =
        (kind.read)(&mut Reading { name, period: service.period, timeout: service.timeout, section, surroundings })?;
    Some(Own { service, kind: kind.word, plan })
}

fn read_kind(section: &mut Section<'_>) -> Option<&'static Kind> {
    let word = section.optional_text("kind", "What kind of check it is.");
    let kind = word.as_ref().and_then(|word| KINDS.iter().find(|kind| kind.word == *word));
    if kind.is_none() {
        let words: Vec<&str> = KINDS.iter().map(|kind| kind.word).collect();
        section.problem("kind", word.unwrap_or("nothing".into()), &format!("one of {}", words.join(", ")));
    }
    kind.copied()
}

/// Tells of checks that wait for each other, which none of them would survive.
pub(super) fn refuse_circles(checks: &mut Section<'_>, services: &[Service], own: &[Own]) {
    let built_in = services.iter().map(|service| (&service.name, &service.depends_on, &[][..]));
    let added = own.iter().map(|own| (&own.service.name, &own.service.depends_on, &own.plan.needs[..]));
    let mut left: Vec<(&str, Vec<&str>)> = built_in
        .chain(added)
        .map(|(name, depends_on, needs)| (&**name, depends_on.iter().chain(needs).map(String::as_str).collect()))
        .collect();
    loop {
        let names: BTreeSet<&str> = left.iter().map(|(name, _)| *name).collect();
        let before = left.len();
        left.retain(|(_, needs)| needs.iter().any(|need| names.contains(need)));
        if left.len() == before {
            break;
        }
    }
    if let Some((name, needs)) = left.first() {
        checks.section(name).problem("depends_on", needs.join(","), "checks that do not wait for each other");
    }
}

/// The keys of each kind, read from a section that says nothing: for the documentation.
#[must_use]
pub fn documentation() -> Vec<(String, Vec<Key>)> {
    let common = keys(|section| {
        let _ = section.optional_text("kind", "What kind of check it is; the tables below tell of each.");
        let default = Service::new("<name>".into(), Criticality::Optional, KINDS[0].pace);
        let _ = Service::read(section, default, &[]);
    });
    let kinds = KINDS.iter().map(|kind| {
        let pace = &kind.pace;
        let shown = [pace.period, pace.timeout].map(show_duration);
        let title = format!(
            "`{}`: {}. `period` {}, `timeout` {}, `failure_threshold` {}, `success_threshold` {}.",
            kind.word, kind.about, shown[0], shown[1], pace.thresholds.failure, pace.thresholds.success,
        );
        let read = |section: &mut Section<'_>| {
            let surroundings = Surroundings { names: &[], in_environment: &|_| false, commands: Commands::Allowed };
            let _ = (kind.read)(&mut Reading {
                name: "<name>",
                period: pace.period,
                timeout: pace.timeout,
                section,
                surroundings: &surroundings,
            });
        };
        (title, keys(read))
    });
    [(String::new(), common)].into_iter().chain(kinds).collect()
}

fn keys(read: impl Fn(&mut Section<'_>)) -> Vec<Key> {
    let mut settings = Settings::new(Tree::default(), |_: &str| Err(String::new()));
    read(&mut settings.section("checks.<name>"));
    settings.finish().0
}
