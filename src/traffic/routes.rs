//! Route templates: the keys of `paths` in the application's OpenAPI document.
//!
//! A document that is absent, too large or not what it should be keeps the templates that are known. Of the
//! document only the keys are kept; a template that holds a secret is left out, so no two share a cleaned text.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::fetch::{self, NoDocument};
use crate::lifecycle::Drain;
use crate::model::reload::Retune;
use crate::model::route::{MAX_ROUTES, RouteTable};
use crate::redact::{Outlet, Redactor};
use crate::traffic::config::Routes;

/// For one fetch, all told: an application that needs longer is busy with its users.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Far more than the document of any application; one that sends more is not read to its end.
const MAX_BODY: usize = 4 * 1024 * 1024;
/// A longer template is no template; labels are cut at that length elsewhere.
const MAX_TEMPLATE: usize = 255;
/// How soon an application that does not answer yet is asked again; doubles up to one of the two below.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// For one that cannot be reached: trying costs it nothing, and its first requests have no route until it is read.
const LONGEST_WAIT_AWAY: Duration = Duration::from_millis(500);
/// For one that takes the question and does not answer it.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Reads the templates again and again, and publishes a table when they have changed.
#[derive(Clone, Debug)]
pub struct Templates {
    /// The application, without a slash at the end.
    upstream: String,
    settings: Tuner,
    /// How many lives of the application have begun: a new one may have new routes.
    lives: watch::Receiver<u64>,
    redactor: Arc<Redactor>,
    table: watch::Sender<Arc<RouteTable>>,
}

/// Takes other settings while templates are read.
#[derive(Clone, Debug)]
pub struct Tuner(watch::Sender<Routes>);

impl Retune for Tuner {
    type Config = Routes;
    const LIVE: &'static [&'static str] = &["traffic.routes."];

    fn retune(&self, config: &Routes) -> Result<(), String> {
        self.0.send_replace(config.clone());
        Ok(())
    }
}

/// Why the templates could not be read.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    /// No connection, or no whole answer in time.
    #[error("no answer from the application ({0})")]
    NoAnswer(#[source] reqwest::Error),
    /// It answers, but not with the document.
    #[error("status {0}, expected 200")]
    Status(u16),
    /// More than is read.
    #[error("a document of more than 4 MiB")]
    TooLarge,
    /// Not JSON, or without `paths`.
    #[error("no OpenAPI document ({0})")]
    Malformed(#[source] serde_json::Error),
    /// It names no path.
    #[error("an OpenAPI document without paths")]
    Empty,
}

/// What was last logged, so that each change is logged once.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    Known(usize),
    Failed(String),
}

impl Templates {
    /// Of the application at `upstream`, such as `http://127.0.0.1:8000`.
    ///
    /// `lives` tells how many lives of it have begun; in each the document is read at once.
    #[must_use]
    pub fn new(
        config: &Routes,
        upstream: &str,
        lives: watch::Receiver<u64>,
        redactor: Arc<Redactor>,
        table: watch::Sender<Arc<RouteTable>>,
    ) -> Self {
        let settings = Tuner(watch::Sender::new(config.clone()));
        Self { upstream: upstream.trim_end_matches('/').to_owned(), settings, lives, redactor, table }
    }

    /// Takes other settings.
    #[must_use]
    pub fn tuner(&self) -> Tuner {
        self.settings.clone()
    }

    /// Reads until the process ends, while the settings say so; may be started again.
    pub async fn run(self, mut drain: Drain) {
        tokio::select! {
            () = self.read_for_ever() => {}
            _ = drain.begun() => {}
        }
    }

    async fn read_for_ever(&self) {
        let mut settings = self.settings.0.subscribe();
        let mut used = self.wanted(&mut settings).await;
        let client = match fetch::client(TIMEOUT) {
            Ok(client) => client,
            Err(error) => {
                tracing::error!(%error, "route templates cannot be read: no HTTP client");
                return std::future::pending().await;
            }
        };
        let mut said = Said::Nothing;
        let mut lives = self.lives.clone();
        let mut wait = FIRST_WAIT;
        loop {
            let begun = *lives.borrow_and_update();
            let url = format!("{}{}", self.upstream, used.path);
            let result = paths(&client, &url).await.map(|paths| self.publish(&paths));
            self.say(&mut said, &url, &result);
            let longest = result.as_ref().err().and_then(FetchError::longest_wait);
            let pause = longest.map_or(used.refresh, |longest| wait.min(longest).min(used.refresh));
            wait = longest.map_or(FIRST_WAIT, |longest| (wait * 2).min(longest));
            // an answer is a sign of life too: the first one may be told of later
            let known = if result.is_ok() { begun.max(1) } else { begun };
            let is_retuned = tokio::select! {
                () = sleep(pause) => false,
                Ok(_) = lives.wait_for(|begun| *begun > known) => false,
                Ok(()) = settings.changed() => true,
            };
            if is_retuned {
                used = self.wanted(&mut settings).await;
                (said, wait) = (Said::Nothing, FIRST_WAIT);
            }
        }
    }

    /// Waits until templates are wanted, and knows none meanwhile; gives the settings by which they are read.
    async fn wanted(&self, settings: &mut watch::Receiver<Routes>) -> Routes {
        loop {
            let used = settings.borrow_and_update().clone();
            if used.enabled {
                return used;
            }
            self.publish(&BTreeSet::new());
            let _ = settings.changed().await; // it has no end: this room holds its sender
        }
    }

    /// Publishes a table when it differs; gives the number of templates that it matches.
    fn publish(&self, paths: &BTreeSet<String>) -> usize {
        let usable = |path: &&str| self.is_usable(path);
        let table = self.table.borrow().with_templates(paths.iter().map(String::as_str).filter(usable));
        let count = table.len();
        self.table.send_if_modified(|current| {
            let is_new = **current != table;
            if is_new {
                *current = Arc::new(table);
            }
            is_new
        });
        count
    }

    fn is_usable(&self, path: &str) -> bool {
        path.starts_with('/')
            && path.len() <= MAX_TEMPLATE
            && !path.contains(char::is_control)
            && self.redactor.text(Outlet::Telemetry, path.as_bytes()).as_str() == path
    }

    fn say(&self, said: &mut Said, url: &str, result: &Result<usize, FetchError>) {
        let now = match result {
            Ok(count) => Said::Known(*count),
            Err(error) => Said::Failed(error.to_string()),
        };
        if *said == now {
            return;
        }
        match result {
            Ok(templates) => tracing::info!(templates, url, "route templates read"),
            Err(error) => tracing::warn!(
                url,
                found = %error,
                known = self.table.borrow().len(),
                "route templates not read; those known stay, other requests have no route \
                 (traffic.routes.path names the document, traffic.routes.enabled: false does without)"
            ),
        }
        *said = now;
    }
}

impl FetchError {
    /// For an application that may merely not be up yet, how long it may be left alone.
    fn longest_wait(&self) -> Option<Duration> {
        match self {
            Self::NoAnswer(error) if error.is_connect() => Some(LONGEST_WAIT_AWAY),
            Self::NoAnswer(_) | Self::Status(500..) => Some(LONGEST_WAIT),
            _ => None,
        }
    }
}

impl From<NoDocument> for FetchError {
    fn from(none: NoDocument) -> Self {
        match none {
            NoDocument::NoAnswer(error) => Self::NoAnswer(error),
            NoDocument::Status(status) => Self::Status(status),
            NoDocument::TooLarge => Self::TooLarge,
        }
    }
}

/// Reads the document and gives its paths, at most `MAX_ROUTES`.
async fn paths(client: &Client, url: &str) -> Result<BTreeSet<String>, FetchError> {
    let body = fetch::document(client, url, MAX_BODY).await?;
    let document: Document = serde_json::from_slice(&body).map_err(FetchError::Malformed)?;
    if document.paths.0.is_empty() { Err(FetchError::Empty) } else { Ok(document.paths.0) }
}

/// An OpenAPI document, as far as it matters here.
#[derive(Deserialize)]
struct Document {
    paths: Paths,
}

/// The keys of a map, in order; the values are skipped unread.
struct Paths(BTreeSet<String>);

impl<'de> Deserialize<'de> for Paths {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Keys).map(Paths)
    }
}

struct Keys;

impl<'de> Visitor<'de> for Keys {
    type Value = BTreeSet<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of paths")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut keys = BTreeSet::new();
        while let Some((key, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
            if keys.len() < MAX_ROUTES {
                keys.insert(key);
            }
        }
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::Router;
    use axum::extract::State;
    use axum::http::{HeaderMap, StatusCode, header};
    use axum::response::IntoResponse;
    use axum::routing::get;
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;
    use crate::lifecycle;

    /// What the application answers, and how often and by whom it was asked.
    #[derive(Default)]
    struct Application {
        answer: Mutex<(u16, String)>,
        asked: watch::Sender<u64>,
        agent: Mutex<String>,
    }

    async fn answer(State(application): State<Arc<Application>>, headers: HeaderMap) -> impl IntoResponse {
        *application.agent.lock().unwrap() = headers[header::USER_AGENT].to_str().unwrap().to_owned();
        let (status, body) = application.answer.lock().unwrap().clone();
        application.asked.send_modify(|asked| *asked += 1);
        (StatusCode::from_u16(status).unwrap(), body)
    }

    struct Fixture {
        application: Arc<Application>,
        table: watch::Receiver<Arc<RouteTable>>,
        _tasks: JoinSet<()>,
    }

    impl Fixture {
        async fn start(status: u16, body: &str) -> Self {
            let application = Arc::new(Application::default());
            let fixture_answer = (status, body.to_owned());
            *application.answer.lock().unwrap() = fixture_answer;
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let upstream = format!("http://{}", listener.local_addr().unwrap());
            let router = Router::new().route("/openapi.json", get(answer)).with_state(application.clone());
            let (sender, table) = watch::channel(Arc::default());
            let config = Routes { enabled: true, path: "/openapi.json".into(), refresh: Duration::from_millis(5) };
            let redactor = Arc::new(Redactor::new(["hunter2-hunter2"]));
            let templates = Templates::new(&config, &upstream, watch::channel(0).1, redactor, sender);
            let mut tasks = JoinSet::new();
            tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
            tasks.spawn(async move {
                let (_conductor, drain) = lifecycle::drain();
                templates.run(drain).await;
            });
            Self { application, table, _tasks: tasks }
        }

        /// Answers so from now on, and waits until that answer was read: a second request tells that it was.
        async fn answers(&self, status: u16, body: &str) {
            *self.application.answer.lock().unwrap() = (status, body.to_owned());
            let mut asked = self.application.asked.subscribe();
            let twice_more = *asked.borrow() + 2;
            timeout(TIMEOUT, asked.wait_for(|asked| *asked > twice_more)).await.unwrap().unwrap();
        }

        async fn table_with(&mut self, path: &str) -> Arc<RouteTable> {
            let known = self.table.wait_for(|table| table.lookup(path.as_bytes()).is_some());
            timeout(TIMEOUT, known).await.unwrap().unwrap().clone()
        }
    }

    const DOCUMENT: &str = r#"{"openapi": "3.1.0", "paths": {"/videos/{id}": {"get": {"x": [1]}}, "/products": {}}}"#;

    #[tokio::test]
    async fn the_templates_are_read_by_name_and_refreshed() {
        let mut fixture = Fixture::start(200, DOCUMENT).await;
        let first = fixture.table_with("/videos/7").await;
        assert_eq!(first.len(), 2);
        assert_eq!(*fixture.application.agent.lock().unwrap(), fetch::USER_AGENT);
        fixture.answers(200, r#"{"paths": {"/videos/{id}": {}, "/posts": {}}}"#).await;
        let second = fixture.table_with("/posts").await;
        assert_eq!(second.lookup(b"/videos/1").map(|r| r.id), first.lookup(b"/videos/1").map(|r| r.id));
        assert!(second.lookup(b"/products").is_none());
    }

    #[tokio::test]
    async fn whatever_is_no_document_keeps_what_is_known() {
        let mut fixture = Fixture::start(503, "").await;
        fixture.answers(200, DOCUMENT).await;
        fixture.table_with("/products").await;
        let huge = format!(r#"{{"paths": {{"/huge": "{}"}}}}"#, "x".repeat(MAX_BODY));
        for (status, body) in [
            (500, DOCUMENT),
            (404, "{}"),
            (302, DOCUMENT),
            (200, "<html>"),
            (200, r#"{"paths": ["/list"]}"#),
            (200, r#"{"paths": {}}"#),
            (200, r#"{"paths": {"/cut": "#),
            (200, huge.as_str()),
        ] {
            fixture.answers(status, body).await;
            assert_eq!(fixture.table.borrow_and_update().len(), 2, "{status} {}", &body[..body.len().min(40)]);
        }
        fixture.answers(200, r#"{"paths": {"/again": {}}}"#).await;
        fixture.table_with("/again").await;
    }

    #[tokio::test]
    async fn a_template_that_is_none_is_left_out() {
        let body = r#"{"paths": {"/good": {}, "no-slash": {}, "/line\nbreak": {}, "/t/hunter2-hunter2": {}}}"#;
        let mut fixture = Fixture::start(200, body).await;
        assert_eq!(fixture.table_with("/good").await.len(), 1);
    }

    #[tokio::test]
    async fn a_document_of_endless_paths_is_bounded() {
        let paths: Vec<String> = (0..50_000).map(|i| format!(r#""/p{i}": {{}}"#)).collect();
        let mut fixture = Fixture::start(200, &format!(r#"{{"paths": {{{}}}}}"#, paths.join(","))).await;
        assert_eq!(fixture.table_with("/p0").await.len(), MAX_ROUTES);
    }
}
