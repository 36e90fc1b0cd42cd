//! The room of the database as the tests run it: its turns follow quickly, and it ends with its test.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use content_factory_sidecar::database::config::{Config, Questions};
use content_factory_sidecar::database::{self, Reader};
use content_factory_sidecar::lifecycle::{Conductor, drain};
use content_factory_sidecar::model::database::{DatabaseState, Periods};
use content_factory_sidecar::model::dsn::DatabaseAddress;
use content_factory_sidecar::model::trouble::Trouble;
use content_factory_sidecar::redact::Redactor;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::checks_services::black_hole;
use crate::database_servers::says;

/// Longer than anything here takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Turns that a test need not wait for.
pub(crate) const QUICK: Periods = {
    let period = Duration::from_millis(200);
    Periods { activity: period, statistics: period, storage: period, rows: period }
};

/// A running room.
pub(crate) struct Room {
    pub(crate) reader: Reader,
    _conductor: Conductor,
    runner: JoinHandle<()>,
}

impl Room {
    /// Reads this database.
    pub(crate) fn start(url: &str) -> Self {
        Self::asking(url, Questions::default())
    }

    /// The same, and asks this of the business.
    pub(crate) fn asking(url: &str, questions: Questions) -> Self {
        let address = Some(DatabaseAddress::parse(url).expect("an address of a database"));
        let config = Config { address, periods: QUICK, statements: true, questions };
        let (room, reader) = database::build(config, Arc::new(Redactor::new([])));
        let (conductor, drain) = drain();
        #[expect(clippy::disallowed_methods, reason = "a test has no supervisor; the handle is aborted in drop")]
        let runner = tokio::spawn(async move { room.run(drain).await });
        Self { reader, _conductor: conductor, runner }
    }

    /// Waits until this can be found in what was read.
    pub(crate) async fn until<T: Debug>(&mut self, what: &str, find: impl Fn(&DatabaseState) -> Option<T>) -> T {
        let seen = timeout(PATIENCE, self.reader.wait_for(|state| find(state).is_some())).await;
        let seen = seen.map(|state| state.expect("the room lives").clone());
        let state = seen.unwrap_or_else(|_| panic!("{what} was never read: {:#?}", self.reader.borrow()));
        find(&state).expect("it was found")
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.runner.abort();
    }
}

/// What every part says of a server that gives nothing.
pub(crate) async fn troubles(url: &str) -> [Option<Trouble>; 7] {
    let mut room = Room::start(url);
    let all = |state: &DatabaseState| {
        [
            state.server.trouble(),
            state.activity.trouble(),
            state.statistics.trouble(),
            state.storage.trouble(),
            state.statements.trouble(),
            state.rows.trouble(),
            state.business.trouble(),
        ]
    };
    room.until("a failure of each part", |state| all(state).iter().all(Option::is_some).then(|| all(state))).await
}

#[tokio::test]
async fn a_server_that_accepts_and_never_answers_is_given_up_in_time() {
    let url = format!("postgresql://u:canary-canary@{}/x", black_hole());
    assert_eq!(troubles(&url).await, [Some(Trouble::Timeout); 7]);
}

#[tokio::test]
async fn where_nobody_listens_is_told_as_such() {
    let port = crate::port::Port::reserve();
    let url = format!("postgresql://u:canary-canary@{}/x", port.address());
    assert_eq!(troubles(&url).await, [Some(Trouble::Refused); 7]);
}

#[tokio::test]
async fn a_server_that_talks_nonsense_changes_nothing_but_the_readings() {
    // a head of HTTP and a length that no message has, which are more than any message; an error without its end; a demand for a password of no known kind
    for nonsense in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        &b"R\x7f\xff\xff\xff"[..],
        &b"E\x00\x00\x00\x10SFATAL\x00C08"[..],
        &b"R\x00\x00\x00\x08\x00\x00\x00\x63"[..],
    ] {
        let url = format!("postgresql://u:canary-canary@{}/x?sslmode=disable", says(nonsense));
        let troubles = troubles(&url).await;
        let is_told = |trouble: &Option<Trouble>| {
            matches!(trouble, Some(Trouble::Protocol | Trouble::TooLarge | Trouble::Timeout))
        };
        assert!(troubles.iter().all(is_told), "{nonsense:?}: {troubles:?}");
    }
}
