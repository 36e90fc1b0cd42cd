//! Client and server of tonic with the sidecar between them: calls as a program makes them, deadlines, and messages of
//! all sizes. Messages are bytes, so nothing has to be generated.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use futures_util::{Stream, StreamExt, stream};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::Service;
use tonic::metadata::MetadataValue;
use tonic::server::{NamedService, StreamingService, UnaryService};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::h2_requests::counted;
use crate::proxy_world::spawn;
use crate::rig::Sidecar;

/// Messages as they are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

pub(crate) type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The application: `Say` answers one message, `Chat` each of many.
#[derive(Clone, Copy, Debug)]
struct Factory;

impl NamedService for Factory {
    const NAME: &'static str = "try.Factory";
}

impl UnaryService<Bytes> for Factory {
    type Response = Bytes;
    type Future = Later<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        Box::pin(async move {
            match request.get_ref().as_ref() {
                b"fail" => {
                    let details = Bytes::from_static(b"\x08\x09 details");
                    let mut status = Status::with_details(Code::FailedPrecondition, "no: \u{263a} 100%\n", details);
                    status.metadata_mut().insert("x-own", MetadataValue::from_static("behind"));
                    Err(status)
                }
                b"sleep" => std::future::pending().await,
                _ => Ok(Response::new(request.into_inner())),
            }
        })
    }
}

impl StreamingService<Bytes> for Factory {
    type Response = Bytes;
    type ResponseStream = Streaming<Bytes>;
    type Future = Later<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        Box::pin(async move { Ok(Response::new(request.into_inner())) })
    }
}

impl Service<http::Request<Body>> for Factory {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Later<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Plain).max_decoding_message_size(usize::MAX);
            Ok(match request.uri().path() {
                "/try.Factory/Say" => grpc.unary(Factory, request).await,
                _ => grpc.streaming(Factory, request).await,
            })
        })
    }
}

/// How many calls a page of metrics counts as streams.
fn streams(page: &str) -> u64 {
    let series =
        page.lines().filter(|line| line.starts_with("content_factory_http_server_stream_duration_seconds_count"));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

struct Pair {
    sidecar: Sidecar,
    client: tonic::client::Grpc<Channel>,
}

async fn pair() -> Pair {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address: SocketAddr = listener.local_addr().expect("bound");
    spawn(async move {
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        Server::builder().add_service(Factory).serve_with_incoming(incoming).await.expect("it serves");
    });
    let sidecar = Sidecar::start(address, &[], &[]).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", sidecar.proxy)).expect("a URL");
    let channel = endpoint.connect().await.expect("the sidecar accepts");
    Pair { sidecar, client: tonic::client::Grpc::new(channel).max_decoding_message_size(usize::MAX) }
}

impl Pair {
    async fn say(&self, message: &'static [u8], deadline: Option<Duration>) -> Result<Bytes, Status> {
        let mut client = self.client.clone();
        client.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let mut request = Request::new(Bytes::from_static(message));
        if let Some(deadline) = deadline {
            request.set_timeout(deadline);
        }
        let path = http::uri::PathAndQuery::from_static("/try.Factory/Say");
        client.unary(request, path, Plain).await.map(Response::into_inner)
    }

    async fn chat(&self, messages: impl Stream<Item = Bytes> + Send + 'static) -> Result<Streaming<Bytes>, Status> {
        let mut client = self.client.clone();
        client.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let path = http::uri::PathAndQuery::from_static("/try.Factory/Chat");
        client.streaming(Request::new(messages), path, Plain).await.map(Response::into_inner)
    }
}

#[tokio::test]
async fn a_call_ends_with_the_applications_status() {
    let pair = pair().await;
    assert_eq!(pair.say(b"hello", None).await.unwrap(), "hello");
    assert_eq!(pair.say(b"", None).await.unwrap(), "");
    let status = pair.say(b"fail", None).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "no: \u{263a} 100%\n"));
    assert_eq!(status.details(), b"\x08\x09 details");
    assert_eq!(status.metadata().get("x-own").unwrap(), "behind");
    assert_eq!(counted(&pair.sidecar.metrics().await, &[r#"network_protocol_version="2""#]), 3);
}

#[tokio::test]
async fn a_deadline_ends_the_call_at_both_ends() {
    let pair = pair().await;
    // one that is over before the call is on its way ends nothing
    let status = pair.say(b"sleep", Some(Duration::from_secs(2))).await.unwrap_err();
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
    let none_is_under_way = |_, page: &str| {
        let mut levels = page.lines().filter(|line| line.starts_with("http_server_active_requests{"));
        levels.all(|line| line.ends_with(" 0")) && counted(page, &[]) == 1
    };
    pair.sidecar.eventually("/metrics", none_is_under_way).await;
}

#[tokio::test]
async fn messages_of_any_size_pass_in_order() {
    let pair = pair().await;
    let sizes = [0, 1, 4, 16_379, 16_384, 65_535, 65_536, 1 << 20, 3, 5 << 20];
    let message = |size: usize| Bytes::from((0..size).map(|index| (index * 31 + size) as u8).collect::<Vec<u8>>());
    let mut answers = pair.chat(stream::iter(sizes.map(message))).await.unwrap();
    for size in sizes {
        let found = answers.next().await.expect("a message").expect("no status yet");
        assert!(found == message(size), "{} bytes in place of {size}", found.len());
    }
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn many_calls_at_once_share_a_channel() {
    let pair = pair().await;
    let chats = (0..60_u8).map(|number| {
        let pair = &pair;
        async move {
            let messages = stream::iter((0..50_u8).map(move |round| Bytes::from(vec![number, round])));
            let answers = pair.chat(messages).await.expect("an answer");
            let answers: Vec<Bytes> = answers.map(|answer| answer.expect("a message")).collect().await;
            assert_eq!(answers, (0..50_u8).map(|round| Bytes::from(vec![number, round])).collect::<Vec<_>>());
        }
    });
    futures_util::future::join_all(chats).await;
    // of several messages each: how long they take is no latency
    let page = pair.sidecar.metrics().await;
    assert_eq!((counted(&page, &[]), streams(&page)), (0, 60));
    assert_eq!(pair.say(b"hello", None).await.unwrap(), "hello");
    let page = pair.sidecar.metrics().await;
    assert_eq!((counted(&page, &[]), streams(&page)), (1, 60));
}
