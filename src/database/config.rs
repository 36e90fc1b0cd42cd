//! The settings of the database room.

use std::time::Duration;

use crate::model::dsn::DatabaseAddress;
use crate::settings::Section;

/// Which database is read, and how often.
#[derive(Clone, Debug)]
pub struct Config {
    /// The application's database; the check of it uses the same.
    pub address: Option<DatabaseAddress>,
    /// Time between two counts.
    pub period: Duration,
}

/// A count reads a whole index; the numbers move slowly.
const PERIOD: Duration = Duration::from_secs(60);
const SHORTEST: Duration = Duration::from_secs(1);

impl Config {
    /// Reads `database.*` below the root of the settings.
    pub fn read(root: &mut Section<'_>) -> Self {
        let mut section = root.section("database");
        let about = "The application's database, as postgresql://user:password@host/name or sqlite:///file.db.";
        let url = section.secret_url("url", about);
        let address = url.and_then(|url| match DatabaseAddress::parse(url.expose()) {
            Ok(address) => Some(address),
            Err(_) => {
                section.problem(
                    "url",
                    &url,
                    "a URL such as postgresql://user:password@host:5432/name or sqlite:///file.db",
                );
                None
            }
        });
        let period = section.duration("period", PERIOD, "Time between two counts of the business tables.");
        if period < SHORTEST {
            section.problem("period", crate::settings::show_duration(period), "at least 1s");
        }
        Self { address, period: period.max(SHORTEST) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::redact::{Outlet, Redactor};
    use crate::settings::{Place, Settings, Tree};

    #[test]
    fn the_password_of_the_database_alone_is_known_to_the_redactor() {
        let mut tree = Tree::default();
        let url = "postgresql+asyncpg://factory:hunter%402@db/factory";
        tree.merge(json!({"database": {"url": url}}), &Place("DATABASE_URL".into()));
        let mut settings = Settings::new(tree, |_: &str| Err("no file".into()));
        let _ = Config::read(&mut settings.section(""));
        let (_, _, secrets) = settings.finish();
        let redactor = Redactor::new(secrets.iter().map(String::as_str));
        let told = redactor.text(Outlet::OwnLog, b"hunter@2 was refused for factory at db").into_owned();
        assert_eq!(told.as_str(), "[REDACTED:secret] was refused for factory at db");
    }
}
