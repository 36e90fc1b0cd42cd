//! The proxy's port: bound first, served later, so that a taken port fails the start at once.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::proxy::config::Config;

/// Why the port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process has it.
    #[error(
        "{0} is in use, expected a free port; choose another by proxy.listen (--listen), or join it by proxy.reuse_port"
    )]
    InUse(SocketAddr),
    /// The kernel refused.
    #[error("proxy.listen: cannot listen on {address}: {source}")]
    Refused {
        /// The address asked for.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Connections that wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4_096;

/// One listener per worker, all on the same port.
///
/// # Errors
/// The port is taken, or not ours to take.
pub(crate) fn bind(config: &Config) -> Result<Vec<TcpListener>, BindError> {
    let open = |address, mode| open(address, mode).map_err(|error| fault(address, error));
    // Linux lets any process of the same user join a port with SO_REUSEPORT: only a plain bind finds a stranger
    let first = open(config.listen, if config.reuse_port { Mode::Shared } else { Mode::Alone })?;
    let address = first.local_addr().map_err(|error| fault(config.listen, error))?;
    if config.workers == 1 {
        return Ok(vec![first]);
    }
    let mut listeners = Vec::with_capacity(config.workers);
    if config.reuse_port {
        listeners.push(first);
    } else {
        drop(first);
    }
    while listeners.len() < config.workers {
        listeners.push(open(address, Mode::Shared)?);
    }
    Ok(listeners)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Alone,
    Shared,
}

fn open(address: SocketAddr, mode: Mode) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?; // connections in TIME_WAIT shall not stop a restart
    if mode == Mode::Shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn fault(address: SocketAddr, error: io::Error) -> BindError {
    match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(address),
        _ => BindError::Refused { address, source: error },
    }
}
