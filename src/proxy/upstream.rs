//! The application's addresses, and connections to them.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::model::request::UpstreamFault;
use crate::proxy::config::Authority;

/// How often a name is looked up again.
pub(crate) const LOOKUP_PERIOD: Duration = Duration::from_secs(30);

/// A name that has no address yet is asked for sooner: the application's service may just be coming up.
pub(crate) const LOOKUP_RETRY: Duration = Duration::from_secs(1);

/// Where the application is, as last seen.
#[derive(Debug)]
pub(crate) struct Upstream {
    authority: Authority,
    /// As it stands in `Host`.
    pub(crate) text: String,
    addresses: RefCell<Vec<SocketAddr>>,
    /// The address that answered last, tried first.
    last: Cell<usize>,
    connect_timeout: Cell<Duration>,
}

impl Upstream {
    /// A literal address is known at once; a name has to be looked up.
    pub(crate) fn new(authority: Authority, connect_timeout: Duration) -> Self {
        let literal = authority.host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, authority.port));
        let text = authority.text();
        let addresses = RefCell::new(literal.into_iter().collect());
        Self { authority, text, addresses, last: Cell::new(0), connect_timeout: Cell::new(connect_timeout) }
    }

    /// Waits so long for a connection from now on.
    pub(crate) fn wait_for(&self, connect_timeout: Duration) {
        self.connect_timeout.set(connect_timeout);
    }

    /// Whether the application is given by name.
    pub(crate) fn is_named(&self) -> bool {
        self.authority.host.parse::<IpAddr>().is_err()
    }

    /// Whether an address is known.
    pub(crate) fn is_known(&self) -> bool {
        !self.addresses.borrow().is_empty()
    }

    /// Looks the name up, off the data path: in a thread of the runtime. Keeps what it knows on a failure.
    pub(crate) async fn look_up(&self) {
        let name = (self.authority.host.clone(), self.authority.port);
        match tokio::net::lookup_host(name).await {
            Ok(found) => {
                let found: Vec<SocketAddr> = found.collect();
                if !found.is_empty() && *self.addresses.borrow() != found {
                    *self.addresses.borrow_mut() = found;
                    self.last.set(0);
                }
            }
            Err(error) => tracing::warn!(name = self.authority.host, %error, "the application's name was not found"),
        }
    }

    /// How long a connection may take to be there: never without a limit.
    pub(crate) fn connect_limit(&self) -> Duration {
        let limit = self.connect_timeout.get();
        if limit.is_zero() { Duration::from_secs(5) } else { limit }
    }

    /// Connects to the first address that takes it, within the connect timeout.
    pub(crate) async fn connect(&self) -> Result<TcpStream, UpstreamFault> {
        let attempt = async {
            let mut fault = UpstreamFault::Unresolved;
            let count = self.addresses.borrow().len();
            for turn in 0..count {
                let index = (self.last.get() + turn) % count;
                let Some(address) = self.addresses.borrow().get(index).copied() else { break };
                match TcpStream::connect(address).await {
                    Ok(stream) => {
                        self.last.set(index);
                        return Ok(stream);
                    }
                    Err(error) => fault = fault_of(&error),
                }
            }
            Err(fault)
        };
        // one timer per new connection, not per request
        let stream =
            tokio::time::timeout(self.connect_limit(), attempt).await.unwrap_or(Err(UpstreamFault::ConnectTimeout))?;
        let _ = stream.set_nodelay(true); // a socket that refuses it is slower, not wrong
        Ok(stream)
    }
}

fn fault_of(error: &io::Error) -> UpstreamFault {
    match error.kind() {
        io::ErrorKind::TimedOut => UpstreamFault::ConnectTimeout,
        _ => UpstreamFault::Refused,
    }
}
