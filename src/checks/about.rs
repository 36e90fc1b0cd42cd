//! What the application says of itself on its `/status`: asked once in each of its lives.
//!
//! Never on a schedule: the application answers by holding its event loop for a second. A page of other settings is asked at
//! once. Whatever comes is bounded in bytes and time, and of it only three short texts are kept. What it does not say stays
//! unknown, also what an earlier life said: a restart may be a new version. Judges nothing: whether it is healthy is the
//! checks' concern.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::checks::config::Config;
use crate::fetch::{self, NoDocument};
use crate::lifecycle::Drain;
use crate::model::application::About;
use crate::model::reload::Retune;
use crate::redact::{Clean, Outlet, Redactor};

/// For one answer, all told: the second that it takes, and time for its worker to be free.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Before each further try, for an application that accepts while its workers still start. Few: each may cost it
/// the second, also when nobody waits for the answer any more.
const WAITS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// A hundred times what the application sends.
const MAX_BODY: usize = 64 * 1024;
/// No version is longer, and no platform by much.
const MAX_TEXT: usize = 200;

/// Asks the application, and keeps its answer.
pub struct Introduction {
    page: Page,
    /// How many lives of the application have begun.
    lives: watch::Receiver<u64>,
    redactor: Arc<Redactor>,
    about: watch::Sender<About>,
}

/// Where the application is asked; takes other settings.
#[derive(Clone)]
pub struct Page {
    /// The application.
    upstream: String,
    /// `None`: it is not asked.
    url: watch::Sender<Option<String>>,
}

impl Page {
    /// Of the application at `upstream`, such as `http://127.0.0.1:8000`.
    #[must_use]
    pub fn new(config: &Config, upstream: String) -> Self {
        let url = watch::Sender::new(config.status_url(&upstream));
        Self { upstream, url }
    }
}

impl Retune for Page {
    type Config = Config;
    const LIVE: &'static [&'static str] = &["application.status."];

    fn retune(&self, config: &Config) -> Result<(), String> {
        self.url.send_replace(config.status_url(&self.upstream));
        Ok(())
    }
}

/// Why it said nothing.
#[derive(Debug, thiserror::Error)]
enum AskError {
    /// No connection, or no whole answer in time.
    #[error("no answer ({0})")]
    NoAnswer(#[source] reqwest::Error),
    /// Another status; redirects are not followed.
    #[error("status {0}, expected 200")]
    Status(u16),
    /// More than is read.
    #[error("more than 64 KiB, expected a short JSON object")]
    TooLarge,
    /// Not JSON.
    #[error("no JSON ({0})")]
    Malformed(#[source] serde_json::Error),
    /// JSON about something else.
    #[error("no short text under system.platform, system.python_version or version")]
    Nothing,
}

impl Introduction {
    /// Asks this page in each life.
    #[must_use]
    pub fn new(page: Page, lives: watch::Receiver<u64>, redactor: Arc<Redactor>) -> (Self, watch::Receiver<About>) {
        let (about, reader) = watch::channel(About::default());
        (Self { page, lives, redactor, about }, reader)
    }

    /// Asks until the process drains. May be called again after a panic: the life of then is asked once more.
    pub async fn run(&self, mut drain: Drain) {
        let mut urls = self.page.url.subscribe();
        loop {
            let url = urls.borrow_and_update().clone();
            let asking = async {
                match &url {
                    Some(url) => self.ask_each_life(url).await,
                    // what it said when it was asked is not shown for ever
                    None => drop(self.about.send_replace(About::default())),
                }
                pending::<()>().await;
            };
            tokio::select! {
                () = asking => {}
                _ = urls.changed() => {}
                _ = drain.begun() => return,
            }
        }
    }

    async fn ask_each_life(&self, url: &str) {
        let (mut lives, mut next) = (self.lives.clone(), self.lives.clone());
        let mut asked = 0;
        while let Ok(life) = lives.wait_for(|begun| *begun > asked).await.map(|begun| *begun) {
            asked = life;
            tokio::select! {
                about = self.ask(url) => drop(self.about.send_replace(about)),
                // what this one would say is of the past
                _ = next.wait_for(|begun| *begun > asked) => {}
            }
        }
    }

    /// What it says, after a few tries; nothing when it does not say it.
    async fn ask(&self, url: &str) -> About {
        let mut waits = WAITS.into_iter();
        loop {
            let error = match ask_once(url).await.and_then(|document| self.read(&document)) {
                Ok(about) => {
                    tracing::info!(url, "the application told its platform and versions");
                    return about;
                }
                Err(error) => error,
            };
            let wait = waits.next().filter(|_| error.is_passing());
            let Some(wait) = wait else {
                tracing::info!(
                    url,
                    found = %error,
                    "the application does not tell its platform and versions; /status shows the sidecar's own \
                     (application.status.path names the page, application.status.enabled: false does not ask)"
                );
                return About::default();
            };
            sleep(wait).await;
        }
    }

    fn read(&self, document: &Value) -> Result<About, AskError> {
        let text = |path| document.pointer(path).and_then(Value::as_str).and_then(|text| self.accept(text));
        let about = About {
            platform: text("/system/platform"),
            python_version: text("/system/python_version"),
            version: text("/version"),
        };
        if about == About::default() { Err(AskError::Nothing) } else { Ok(about) }
    }

    /// A short text without what would disturb a terminal or a log; nothing else.
    fn accept(&self, text: &str) -> Option<Clean<'static>> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let text: String = text.chars().filter(|c| !c.is_control()).collect();
        let text = text.trim();
        (!text.is_empty()).then(|| self.redactor.text(Outlet::Endpoint, text.as_bytes()).into_owned())
    }
}

impl AskError {
    /// Whether the application may merely not be up yet.
    fn is_passing(&self) -> bool {
        matches!(self, Self::NoAnswer(_) | Self::Status(500..))
    }
}

impl From<NoDocument> for AskError {
    fn from(none: NoDocument) -> Self {
        match none {
            NoDocument::NoAnswer(error) => Self::NoAnswer(error),
            NoDocument::Status(status) => Self::Status(status),
            NoDocument::TooLarge => Self::TooLarge,
        }
    }
}

/// Asks once, by a client that ends with the answer: the next question may be months away.
async fn ask_once(url: &str) -> Result<Value, AskError> {
    let client = fetch::client(TIMEOUT).map_err(NoDocument::from)?;
    let body = fetch::document(&client, url, MAX_BODY).await?;
    serde_json::from_slice(&body).map_err(AskError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(document: Value) -> [Option<String>; 3] {
        let redactor = Arc::new(Redactor::new(["hunter2-hunter2"]));
        let page = Page { upstream: String::new(), url: watch::Sender::new(None) };
        let (introduction, _) = Introduction::new(page, watch::channel(0).1, redactor);
        let about = introduction.read(&document).unwrap_or_default();
        [about.platform, about.python_version, about.version].map(|text| text.map(|text| text.to_string()))
    }

    #[test]
    fn of_whatever_it_answers_only_short_texts_in_their_places_are_kept() {
        let long = "x".repeat(MAX_TEXT + 1);
        let some = |text: &str| Some(text.to_owned());
        for (document, expected) in [
            (
                json!({"system": {"platform": "Linux", "python_version": "3.11.7"}, "version": "1.0.0"}),
                [some("Linux"), some("3.11.7"), some("1.0.0")],
            ),
            (json!({"system": {"python_version": " 3.\u{1b}[31m12\r\n\u{9d}"}}), [None, some("3.[31m12"), None]),
            (json!({"system": {"platform": long}, "version": &long[1..]}), [None, None, some(&long[1..])]),
            (json!({"system": [{"platform": "x"}], "version": 1.0}), [None, None, None]),
            (json!({"system": {"platform": {}, "python_version": null}, "version": ""}), [None, None, None]),
            (json!({"version": "\u{0}\n "}), [None, None, None]),
            (json!({"version": "v-hunter2-hunter2"}), [None, None, some("v-[REDACTED:secret]")]),
            (json!(["version"]), [None, None, None]),
            (json!("version"), [None, None, None]),
        ] {
            assert_eq!(read(document.clone()), expected, "{document}");
        }
    }
}
