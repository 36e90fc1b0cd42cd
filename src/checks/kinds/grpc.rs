//! The check of a gRPC server by its own word: `grpc.health.v1.Health/Check`.

use async_trait::async_trait;
use bytes::{Buf, BufMut};
use prost::Message;
use tonic::client::Grpc as Caller;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use crate::checks::check::{Check, Finding};
use crate::checks::failure::{Class, Failure};
use crate::checks::plan::{Kind, Plan, Reading};
use crate::checks::service::Pace;
use crate::fetch::{USER_AGENT, provide_cryptography};
use crate::model::trouble::Trouble;
use crate::trust;

/// Calls, on a new connection each time: it is the way there that is checked.
struct Grpc {
    endpoint: Endpoint,
    service: String,
}

pub(super) const KIND: Kind =
    Kind { word: "grpc", about: "a gRPC server that says SERVING by grpc.health.v1", pace: Pace::seconds(10, 2), read };

fn read(reading: &mut Reading<'_, '_>) -> Option<Plan> {
    const EXPECTED: &str = "a URL such as http://127.0.0.1:50051";
    let about = "The server, as http://host:port, or https:// with TLS.";
    let url = reading.required("url", about, EXPECTED);
    let about = "The service that is asked for; without it the server as a whole.";
    let service = reading.section.optional_text("service", about).unwrap_or_default();
    let authorities = trust::read(reading.section);
    let url = url?;
    let endpoint = Endpoint::from_shared(url.clone()).ok().and_then(|endpoint| {
        let is_whole = endpoint.uri().host().is_some();
        let endpoint = endpoint.user_agent(USER_AGENT).ok()?;
        match endpoint.uri().scheme_str().filter(|_| is_whole)? {
            "http" => Some(endpoint),
            "https" => {
                provide_cryptography();
                let tls = match &authorities {
                    Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem.expose())),
                    None => ClientTlsConfig::new().with_native_roots(),
                };
                endpoint.tls_config(tls).ok()
            }
            _ => None,
        }
    });
    let Some(endpoint) = endpoint else {
        reading.section.problem("url", url, EXPECTED);
        return None;
    };
    Some(Plan::new(move |_| Grpc { endpoint: endpoint.clone(), service: service.clone() }))
}

#[async_trait]
impl Check for Grpc {
    async fn run(&self) -> Result<Finding, Failure> {
        let channel = self.endpoint.connect().await.map_err(|error| Failure::of(&error))?;
        let mut caller = Caller::new(channel).max_decoding_message_size(LARGEST);
        caller.ready().await.map_err(|error| Failure::of(&error))?;
        let request = Request::new(Question { service: self.service.clone() });
        let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        let answer = caller.unary(request, path, Health).await.map_err(|status| failure(&status))?;
        match answer.into_inner().status {
            SERVING => Ok(Finding::Works),
            _ => Err(Failure::plain(Class::Condition("not_serving"))),
        }
    }
}

/// What is longer is no answer.
const LARGEST: usize = 1_024;
/// `ServingStatus` of grpc.health.v1.
const SERVING: i32 = 1;

/// `HealthCheckRequest`.
#[derive(Clone, PartialEq, Message)]
struct Question {
    #[prost(string, tag = "1")]
    service: String,
}

/// `HealthCheckResponse`.
#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(int32, tag = "1")]
    status: i32,
}

fn failure(status: &Status) -> Failure {
    let class = match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => Some(Trouble::Auth),
        Code::ResourceExhausted => Some(Trouble::Quota),
        Code::DeadlineExceeded => Some(Trouble::Timeout),
        // the service, or the whole protocol of health
        Code::NotFound | Code::Unimplemented => Some(Trouble::NotFound),
        _ => None,
    };
    Failure::known(class, status)
}

/// The two messages as bytes.
#[derive(Clone, Copy, Debug)]
struct Health;

impl Codec for Health {
    type Encode = Question;
    type Decode = Answer;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Health {
    type Item = Question;
    type Error = Status;

    fn encode(&mut self, question: Question, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&question.encode_to_vec());
        Ok(())
    }
}

impl Decoder for Health {
    type Item = Answer;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Answer>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        Answer::decode(bytes).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
