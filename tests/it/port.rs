//! A port that stays a test's own while nobody listens on it.

use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

/// An address to listen on, to leave, and to listen on again.
///
/// A bound socket that does not listen holds it: the kernel gives the port to nobody who wants any free one, but lets
/// in who asks for it by number with `SO_REUSEADDR`, as every server here does.
#[derive(Debug)]
pub(crate) struct Port {
    held: Socket,
}

impl Port {
    /// A free one on loopback.
    pub(crate) fn reserve() -> Self {
        let held = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        held.set_reuse_address(true).expect("a socket takes it");
        held.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
        Self { held }
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.held.local_addr().ok().and_then(|address| address.as_socket()).expect("bound")
    }
}
