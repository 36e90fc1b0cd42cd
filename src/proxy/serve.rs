//! A client's connection, from its first byte to its end: one task.

use std::rc::Rc;

use tokio::net::TcpStream;

use crate::model::request::RequestSink;
use crate::proxy::client::ClientSide;
use crate::proxy::connection::{Next, Pace};
use crate::proxy::forwarded::Peer;
use crate::proxy::http2;
use crate::proxy::wire::Wire;
use crate::proxy::worker::Worker;

/// Serves a connection to its end.
pub(crate) async fn serve<S: RequestSink + 'static>(worker: Rc<Worker<S>>, stream: TcpStream, peer: Peer) {
    let _ = stream.set_nodelay(true); // a socket that refuses it is slower, not wrong
    let mut client = ClientSide::new(worker, stream, peer);
    let mut head = client.next_head().await;
    // only the first head can be the preface of HTTP/2, so no other one is looked at for it
    if client.worker.config.http2 && matches!(head, Ok(Some(_))) {
        match http2::preface::is_next(&mut client).await {
            Ok(true) => {
                // on the heap: a connection of HTTP/1.1 shall not hold room for it
                let pace = Box::pin(http2::connection::serve(&mut client)).await;
                return client.linger(pace).await;
            }
            Ok(false) => {}
            Err(refusal) => head = Err(refusal),
        }
    }
    loop {
        let next = match head {
            Ok(Some(length)) => client.request(length).await,
            Ok(None) => return,
            Err(refusal) => client.refuse(refusal).await,
        };
        match next {
            Next::Request => head = client.next_head().await,
            Next::Close => return,
            Next::Linger => return client.linger(Pace::Swift).await,
            Next::Break => return client.stream.break_off(),
        }
    }
}
