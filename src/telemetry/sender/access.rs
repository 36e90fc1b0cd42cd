//! How one receiver is spoken to: by which client, with which token and certificates. Owns them, and changes them when their
//! files change; `credentials` reads those.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::credentials::{LOOK, PATIENCE};
use crate::model::telemetry::Signal;
use crate::redact::{Outlet, Redactor};
use crate::telemetry::config::{Compression, ConnectionConfig, DestinationConfig, Transport};
use crate::telemetry::resolver::Resolver;
use crate::telemetry::sender::answer::Answer;
use crate::telemetry::sender::grpc::{self, Grpc};
use crate::telemetry::sender::http::Http;
use crate::telemetry::sender::{credentials, handshake};

/// Why a destination cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// For gRPC.
    #[error(
        "cannot set up OTLP over gRPC to {0}, expected authorities to trust in telemetry.tls.ca, or on the system (ca-certificates, or a file named by SSL_CERT_FILE)"
    )]
    Grpc(String, #[source] tonic::transport::Error),
    /// For HTTP.
    #[error(
        "cannot set up OTLP over HTTP to {0}, expected authorities to trust in telemetry.tls.ca, or on the system (ca-certificates, or a file named by SSL_CERT_FILE)"
    )]
    Http(String, #[source] rustls::Error),
    /// For Sentry.
    #[error(
        "cannot set up the way to Sentry at {0}, expected authorities to trust on the system (ca-certificates, or a file named by SSL_CERT_FILE)"
    )]
    Sentry(String, #[source] rustls::Error),
}

/// The way in to one receiver.
#[derive(Debug)]
pub(crate) struct Access {
    connection: ConnectionConfig,
    resolver: Resolver,
    state: Mutex<State>,
    /// Held while files are read, so that one reads them for all.
    looking: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    current: Arc<Current>,
    /// When the files were looked at last.
    looked: Instant,
    /// What was logged last of files that are wrong, so that a line is written once; empty while they are right.
    mistake: String,
}

/// What is in use as long as no file changes.
#[derive(Debug)]
pub(crate) struct Current {
    /// As the files have it.
    config: DestinationConfig,
    headers: HeaderMap,
    client: Arc<Client>,
    /// Knows the tokens that came in by a file since the start; `None` before that.
    redactor: Option<Redactor>,
}

#[derive(Debug)]
enum Client {
    Grpc(Box<Grpc>),
    Http(Box<Http>),
}

/// When to look at files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// If the last look is long ago.
    InTurn,
    /// At once.
    Now,
}

impl Access {
    /// # Errors
    /// When there is nobody to trust, neither in the settings nor on the system.
    pub(crate) fn new(
        config: DestinationConfig,
        connection: ConnectionConfig,
        resolver: Resolver,
    ) -> Result<Self, DestinationError> {
        let client = Arc::new(Client::new(&config, connection, &resolver)?);
        let current = Arc::new(Current::new(config, client));
        let state = Mutex::new(State { current, looked: Instant::now(), mistake: String::new() });
        Ok(Self { connection, resolver, state, looking: tokio::sync::Mutex::default() })
    }

    /// What to use for the next attempt.
    pub(crate) fn current(&self) -> Arc<Current> {
        Arc::clone(&self.state().current)
    }

    /// What is wrong with TLS to this receiver, if anything is.
    pub(crate) async fn fault(&self) -> Option<String> {
        handshake::fault(&self.current().config, &self.resolver).await
    }

    /// Reads files again, and says whether there is now another than what was used. What is wrong is not taken over.
    pub(crate) async fn look(&self, when: Look, used: &Arc<Current>) -> bool {
        if !credentials::are_in_files(&used.config) {
            return false;
        }
        let _one_at_a_time = self.looking.lock().await;
        {
            let mut state = self.state();
            if !Arc::ptr_eq(used, &state.current) {
                return true; // somebody else has found it
            }
            if when == Look::InTurn && state.looked.elapsed() < LOOK {
                return false;
            }
            state.looked = Instant::now();
        }
        let config = used.config.clone();
        let reading = tokio::task::spawn_blocking(move || credentials::reread(&config));
        let found = match timeout(PATIENCE, reading).await {
            Ok(Ok(Ok(config))) if config == used.config => Ok(None),
            Ok(Ok(Ok(config))) => self.renewed(used, config).map(Some).map_err(|error| error.to_string()),
            Ok(Ok(Err(mistake))) => Err(mistake),
            Ok(Err(_)) => return false, // the runtime ends
            Err(_) => Err(format!("no answer from the disk within {:?}", PATIENCE)),
        };
        self.take_over(found, &used.config.address())
    }

    /// The same with what the files hold now: the client stays as long as TLS does, and its connections with it.
    fn renewed(&self, used: &Current, config: DestinationConfig) -> Result<Current, DestinationError> {
        let client = if config.tls == used.config.tls {
            Arc::clone(&used.client)
        } else {
            Arc::new(Client::new(&config, self.connection, &self.resolver)?)
        };
        let headers = used.config.headers.expose().iter().chain(config.headers.expose());
        let redactor = Some(Redactor::new(headers.filter_map(|(_, value)| value.to_str().ok())));
        Ok(Current { redactor, ..Current::new(config, client) })
    }

    /// Uses what was found, and tells of it once.
    fn take_over(&self, found: Result<Option<Current>, String>, endpoint: &str) -> bool {
        let mut state = self.state();
        let (is_new, mistake) = match found {
            Ok(None) => (false, String::new()),
            Ok(Some(current)) => {
                state.current = Arc::new(current);
                (true, String::new())
            }
            Err(mistake) => (false, mistake),
        };
        let was = std::mem::replace(&mut state.mistake, mistake.clone());
        drop(state);
        if is_new {
            info!(endpoint, "the token or the certificates of the receiver have changed: the new ones are used");
        } else if was != mistake && !mistake.is_empty() {
            warn!(endpoint, %mistake, "a file of the receiver's token or certificates is wrong: what was in use stays");
        }
        is_new
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds what is in use")
    }
}

impl Current {
    fn new(config: DestinationConfig, client: Arc<Client>) -> Self {
        let headers = config.headers.expose().iter().cloned().collect();
        Self { config, headers, client, redactor: None }
    }

    /// Sends a framed request that is compressed in this way.
    pub(crate) async fn exchange(
        &self,
        signal: Signal,
        framed: &Bytes,
        compression: Compression,
        limit: Duration,
    ) -> Answer {
        match &*self.client {
            Client::Grpc(grpc) => {
                let headers = grpc::headers(&self.headers, compression);
                grpc.send(signal, framed, &headers, limit).await
            }
            Client::Http(http) => {
                let headers = http.headers(&self.headers, compression);
                http.send(self.config.url(signal), framed, &headers, limit).await
            }
        }
    }

    /// Until when the receiver, which took the last request, wants no other.
    pub(crate) fn held_until(&self) -> Option<Instant> {
        match &*self.client {
            Client::Grpc(_) => None,
            Client::Http(http) => http.held_until(),
        }
    }

    /// The text without tokens that came in by a file since the start.
    pub(crate) fn clean<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match &self.redactor {
            None => Cow::Borrowed(text),
            Some(redactor) => Cow::Owned(redactor.text(Outlet::OwnLog, text.as_bytes()).as_str().to_owned()),
        }
    }
}

impl Client {
    fn new(
        config: &DestinationConfig,
        connection: ConnectionConfig,
        resolver: &Resolver,
    ) -> Result<Self, DestinationError> {
        let (name, resolver) = (|| config.address(), resolver.clone());
        match config.transport {
            Transport::Grpc => {
                let grpc = Grpc::new(config, connection, resolver);
                Ok(Self::Grpc(Box::new(grpc.map_err(|error| DestinationError::Grpc(name(), error))?)))
            }
            Transport::HttpProtobuf => {
                let http = Http::new(config, connection, resolver);
                Ok(Self::Http(Box::new(http.map_err(|error| DestinationError::Http(name(), error))?)))
            }
            Transport::Envelopes => {
                let http = Http::new(config, connection, resolver);
                Ok(Self::Http(Box::new(http.map_err(|error| DestinationError::Sentry(name(), error))?)))
            }
        }
    }
}
