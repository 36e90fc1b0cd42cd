//! The proxy's own answers: refusals, and an application that cannot be reached.

use crate::model::request::{Method, Refusal, UpstreamFault};
use crate::proxy::grpc::Code;

/// An answer of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The value of `error.type`, also in the body.
    pub(crate) kind: &'static str,
    message: &'static str,
    /// In seconds, where asking again helps.
    retry_after: Option<u8>,
    /// The status in the words of gRPC, for its clients.
    code: Option<Code>,
}

/// What happens to the connection behind an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// The next request may come.
    KeepAlive,
    /// It is closed.
    Close,
}

impl Answer {
    /// To a request that the application never sees.
    pub(crate) fn refusal(refusal: Refusal) -> Self {
        let message = match refusal {
            Refusal::Malformed => "the request is not valid HTTP",
            Refusal::MethodNotAllowed => "CONNECT and TRACE are not served here",
            Refusal::HeaderTimeout => "the head of the request did not arrive in time",
            Refusal::BodyTimeout => "the body of the request stopped for longer than proxy.timeouts.body_idle",
            Refusal::BodyTooLarge => "the body is larger than proxy.limits.body allows",
            Refusal::TargetTooLong => "the request line is longer than proxy.limits.request_line allows",
            Refusal::ExpectationFailed => "no expectation is known but 100-continue",
            Refusal::HeadTooLarge => {
                "the header section is larger than proxy.limits.head allows, or has over 100 fields"
            }
            Refusal::UnknownCoding => "no transfer coding is known but chunked",
            Refusal::Loop => "the request has come through this proxy before",
            Refusal::Overload => "too many connections or requests at once",
            Refusal::Memory => "as much is held for clients as proxy.limits.memory allows",
            Refusal::VersionNotSupported => "this port speaks HTTP/1.0, HTTP/1.1, and HTTP/2 by prior knowledge",
        };
        let retry_after = matches!(refusal, Refusal::Overload | Refusal::Memory).then_some(1);
        Self { status: refusal.status(), kind: refusal.label(), message, retry_after, code: None }
    }

    /// In place of an application that failed over a request with this method.
    pub(crate) fn fault(fault: UpstreamFault, method: Method) -> Self {
        let message = match fault {
            UpstreamFault::Refused => "nothing listens at proxy.upstream",
            UpstreamFault::ConnectTimeout => "the application took no connection in time",
            UpstreamFault::Unresolved => "the name in proxy.upstream has no address",
            UpstreamFault::Broken => "the application closed the connection before it had answered",
            UpstreamFault::BadAnswer => "the application's answer is not valid HTTP",
            UpstreamFault::Timeout => "the application did not answer in time",
            UpstreamFault::NotHttp2 => {
                "the application does not speak HTTP/2 in clear text, see proxy.upstream_protocol"
            }
        };
        // an application that vanished is most likely being restarted; but who may have had an effect is not told to repeat
        let is_safe = matches!(method, Method::Get | Method::Head | Method::Options);
        let helps = fault.status() == 503 || (fault == UpstreamFault::Broken && is_safe);
        let retry_after = helps.then_some(1);
        Self { status: fault.status(), kind: fault.label(), message, retry_after, code: None }
    }

    /// To an OPTIONS request that may not go further (RFC 9110, section 7.6.2).
    pub(crate) fn last_hop() -> Self {
        Self { status: 200, kind: "", message: "", retry_after: None, code: None }
    }

    /// The same for a client of gRPC, which reads no body and whose status is not that of HTTP.
    ///
    /// With 200: some clients look no further than another status, and would lose code and message.
    pub(crate) fn in_grpc(self) -> Self {
        Self { status: 200, code: Some(Code::of(self.status)), ..self }
    }

    /// Writes it whole; a HEAD request gets no body.
    pub(crate) fn write(&self, method: Method, after: After, out: &mut Vec<u8>) -> u64 {
        if let Some(code) = self.code {
            self.write_status(code, out);
            return 0;
        }
        let body = if self.kind.is_empty() {
            String::new()
        } else {
            format!("{{\"error\":{{\"type\":\"{}\",\"message\":\"{}\"}}}}\n", self.kind, self.message)
        };
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        if !body.is_empty() {
            head.push_str("Content-Type: application/json\r\n");
        }
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        if self.status == 405 {
            head.push_str("Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n");
        }
        if let Some(seconds) = self.retry_after {
            head.push_str(&format!("Retry-After: {seconds}\r\n"));
        }
        head.push_str(if after == After::Close { "Connection: close\r\n\r\n" } else { "\r\n" });
        out.extend_from_slice(head.as_bytes());
        if method == Method::Head {
            return 0;
        }
        out.extend_from_slice(body.as_bytes());
        body.len() as u64
    }
}

impl Answer {
    /// An answer of nothing but its status, which gRPC calls Trailers-Only.
    fn write_status(&self, code: Code, out: &mut Vec<u8>) {
        let (code, kind, message) = (code as u8, self.kind, self.message);
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: {code}\r\n\
             grpc-message: {kind}: {message}\r\ncontent-length: 0\r\n\r\n"
        );
        out.extend_from_slice(head.as_bytes());
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_valid_and_says_why() {
        let refusals = Refusal::ALL.map(Answer::refusal);
        let faults = UpstreamFault::ALL.map(|fault| Answer::fault(fault, Method::Get));
        for answer in refusals.iter().chain(&faults) {
            let mut out = Vec::new();
            let sent = answer.write(Method::Get, After::Close, &mut out);
            let text = String::from_utf8(out).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {} ", answer.status)) && !reason(answer.status).is_empty());
            assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
            assert_eq!(sent, body.len() as u64);
            let json: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(json["error"]["type"], answer.kind);
        }
    }

    #[test]
    fn a_client_of_grpc_gets_each_answer_as_a_status() {
        let refusals = Refusal::ALL.map(Answer::refusal);
        let faults = UpstreamFault::ALL.map(|fault| Answer::fault(fault, Method::Post));
        for answer in refusals.iter().chain(&faults) {
            let mut out = Vec::new();
            let sent = answer.in_grpc().write(Method::Post, After::KeepAlive, &mut out);
            let text = String::from_utf8(out).unwrap();
            assert!(sent == 0 && text.starts_with("HTTP/1.1 200 ") && text.ends_with("\r\ncontent-length: 0\r\n\r\n"));
            let message = text.split("\r\ngrpc-message: ").nth(1).unwrap().lines().next().unwrap();
            // what gRPC writes as it is, so that nothing of it has to be encoded
            assert!(message.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'%'), "{message}");
            assert!(message.starts_with(answer.kind));
        }
        for (status, code) in [(502, "14"), (503, "14"), (504, "4"), (413, "8"), (400, "13"), (417, "2")] {
            let answer = Answer { status, kind: "k", message: "m", retry_after: None, code: None };
            let mut out = Vec::new();
            answer.in_grpc().write(Method::Post, After::KeepAlive, &mut out);
            assert!(String::from_utf8(out).unwrap().contains(&format!("\r\ngrpc-status: {code}\r\n")), "{status}");
        }
    }

    #[test]
    fn to_ask_again_is_advised_where_it_helps_and_harms_nobody() {
        let broken = |method| Answer::fault(UpstreamFault::Broken, method);
        let bad = Answer::fault(UpstreamFault::BadAnswer, Method::Get);
        for (answer, advised) in [
            (Answer::fault(UpstreamFault::Refused, Method::Post), true), // it has not been sent
            (Answer::refusal(Refusal::Overload), true),
            (broken(Method::Get), true),
            (broken(Method::Post), false),
            (bad, false),
            (Answer::refusal(Refusal::Malformed), false),
        ] {
            let mut out = Vec::new();
            answer.write(Method::Get, After::Close, &mut out);
            assert_eq!(String::from_utf8(out).unwrap().contains("Retry-After: 1\r\n"), advised, "{answer:?}");
        }
    }
}
