//! A connection to a server of PostgreSQL that takes a bounded answer to each question, whatever the server says.
//!
//! The driver (`sqlx`) reserves what the head of a message claims, up to 4 GiB, and holds as many parameters and columns as it is told.
//! So it never speaks to the server itself: it has a socket of its own in this process, and between that and the server
//! a relay looks at the head of each message before the driver does. Sets no deadlines: whoever asks has one.

mod door;
pub(crate) mod frames;
mod lane;
pub(crate) mod relay;
mod server;
mod tls;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{Connection, PgConnection};

use crate::postgres_link::door::Door;
use crate::postgres_link::relay::Relay;

/// Of a login: some twenty parameters of the server, and the password's exchange. The driver keeps each parameter.
const LOGIN: u64 = 64 << 10;

/// An open connection.
pub(crate) struct Link {
    connection: PgConnection,
    relay: Relay,
}

impl Link {
    /// Connects and logs in.
    ///
    /// # Errors
    /// The server is not there, refuses, or says more than a login has.
    pub(crate) async fn open(to: &PgConnectOptions) -> Result<Self, sqlx::Error> {
        let server = server::connect(to).await?;
        let door = Door::open(to.get_port())?;
        let through = to.clone().socket(door.path()).ssl_mode(PgSslMode::Disable);
        let mut login = Box::pin(PgConnection::connect_with(&through));
        let driver = tokio::select! {
            driver = door.accept() => driver?,
            connected = &mut login => {
                connected?;
                return Err(sqlx::Error::Protocol("a login that nobody answered".into()));
            }
        };
        let mut relay = Relay::new(server, driver);
        let connection = relay.carry(LOGIN, login).await?;
        Ok(Self { connection, relay })
    }

    /// The connection, and the relay to which what is asked over it must be handed: `relay.answer(query.execute(connection))`.
    pub(crate) fn parts(&mut self) -> (&mut PgConnection, &mut Relay) {
        (&mut self.connection, &mut self.relay)
    }
}
