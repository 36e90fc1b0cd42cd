//! The client's side of a connection: what whoever serves it works on, be it an exchange or a tunnel.
//!
//! How a connection is served stands in `connection`. Its owner is the connection's task; others borrow it.

use std::rc::Rc;

use tokio::net::TcpStream;

use crate::model::request::RequestSink;
use crate::proxy::buffers::{Inbox, Outbox};
use crate::proxy::forwarded::Peer;
use crate::proxy::timers::Deadline;
use crate::proxy::worker::Worker;

/// The client's side.
pub(crate) struct ClientSide<S: RequestSink, W = TcpStream> {
    pub(crate) worker: Rc<Worker<S>>,
    pub(crate) stream: W,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    pub(crate) deadline: Deadline,
    pub(crate) peer: Peer,
}

impl<S: RequestSink, W> ClientSide<S, W> {
    /// A client that has just come, without buffers until it sends.
    pub(crate) fn new(worker: Rc<Worker<S>>, stream: W, peer: Peer) -> Self {
        let deadline = Deadline::new(&worker.timers);
        Self { worker, stream, inbox: Inbox::default(), outbox: Outbox::default(), deadline, peer }
    }
}
