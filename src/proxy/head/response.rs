//! The head of an answer, validated: a hostile or broken application gets 502 in front of it.

use httparse::{Header, ParserConfig};

use crate::model::request::Method;
use crate::proxy::framing::Framing;
use crate::proxy::grpc;
use crate::proxy::head::fields::{ConnectionOptions, Field, parse_content_length};
use crate::proxy::head::request::Storage;

/// A valid head. Borrows the bytes that it was read from.
#[derive(Debug)]
pub(crate) struct Response<'h, 'b> {
    /// All of it.
    pub(crate) bytes: &'b [u8],
    pub(crate) status: u16,
    pub(crate) reason: &'b str,
    /// How the body is delimited, `Empty` where the status or the method forbids one.
    pub(crate) framing: Framing,
    pub(crate) options: ConnectionOptions<'b>,
    /// Whether it is `text/event-stream`.
    pub(crate) is_event_stream: bool,
    /// The protocol that it names to change to; empty when it names several.
    pub(crate) upgrade: Option<&'b [u8]>,
    minor: u8,
    fields: &'h [Header<'b>],
    classes: &'h mut [Field],
    chunked: Option<()>,
    content_length: Option<u64>,
}

/// The bytes are no answer that could be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadAnswer;

/// Reads a head; the method decides whether a body follows.
pub(crate) fn parse<'h, 'b>(
    bytes: &'b [u8],
    method: Method,
    storage: &'h mut Storage<'b>,
) -> Result<Response<'h, 'b>, BadAnswer> {
    let mut parsed = httparse::Response::new(&mut []);
    // RFC 9112, section 5.1: a proxy removes a blank before the colon from an answer
    let mut config = ParserConfig::default();
    config.allow_spaces_after_header_name_in_responses(true);
    match config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut storage.fields) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        _ => return Err(BadAnswer),
    }
    let (Some(minor), Some(status)) = (parsed.version, parsed.code) else { return Err(BadAnswer) };
    let mut response = Response {
        bytes,
        status,
        reason: parsed.reason.unwrap_or_default(),
        framing: Framing::Empty,
        options: ConnectionOptions::default(),
        is_event_stream: false,
        upgrade: None,
        minor,
        classes: &mut storage.classes[..parsed.headers.len()],
        fields: parsed.headers,
        chunked: None,
        content_length: None,
    };
    response.judge()?;
    response.framing = response.judge_framing(method)?;
    Ok(response)
}

impl<'b> Response<'_, 'b> {
    fn judge(&mut self) -> Result<(), BadAnswer> {
        if self.status < 100 {
            return Err(BadAnswer);
        }
        for index in 0..self.fields.len() {
            let Header { name, value } = self.fields[index];
            self.classes[index] = Field::of(name.as_bytes());
            self.judge_field(self.classes[index], value)?;
        }
        Ok(())
    }

    fn judge_field(&mut self, class: Field, value: &'b [u8]) -> Result<(), BadAnswer> {
        match class {
            Field::Connection => self.options.add(value).map_err(|_| BadAnswer)?,
            Field::ContentLength => {
                let length = parse_content_length(value).ok_or(BadAnswer)?;
                if self.content_length.replace(length).is_some_and(|before| before != length) {
                    return Err(BadAnswer);
                }
            }
            Field::TransferEncoding
                if !value.eq_ignore_ascii_case(b"chunked") || self.chunked.replace(()).is_some() =>
            {
                return Err(BadAnswer);
            }
            Field::ContentType => {
                const STREAM: &[u8] = b"text/event-stream";
                self.is_event_stream =
                    value.len() >= STREAM.len() && value[..STREAM.len()].eq_ignore_ascii_case(STREAM);
            }
            Field::Upgrade => self.upgrade = Some(if self.upgrade.is_none() { value } else { b"" }),
            _ => {}
        }
        Ok(())
    }

    fn judge_framing(&self, method: Method) -> Result<Framing, BadAnswer> {
        match (self.chunked, self.content_length) {
            (Some(()), Some(_)) => Err(BadAnswer),
            // HTTP/1.0 knows no such coding: what it means is a guess (RFC 9112, section 6.1)
            (Some(()), None) if self.minor == 0 => Err(BadAnswer),
            _ if self.is_bodiless(method) => Ok(Framing::Empty),
            (Some(()), None) => Ok(Framing::Chunked),
            (None, Some(0)) => Ok(Framing::Empty),
            (None, Some(length)) => Ok(Framing::Length(length)),
            (None, None) => Ok(Framing::UntilClose),
        }
    }

    /// Whether it is of gRPC.
    pub(crate) fn is_grpc(&self) -> bool {
        self.fields().any(|(class, _, value)| class == Field::ContentType && grpc::is_content_type(value))
    }

    /// RFC 9112, section 6.3: these have no body, whatever their fields say.
    pub(crate) fn is_bodiless(&self, method: Method) -> bool {
        method == Method::Head || self.status < 200 || self.status == 204 || self.status == 304
    }

    /// The length as the application gave it, for answers that tell one without a body.
    pub(crate) fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// Whether the connection may carry another request once the body is read.
    pub(crate) fn keeps_alive(&self) -> bool {
        let open = if self.minor == 0 { self.options.keep_alive } else { true };
        open && !self.options.close && self.framing != Framing::UntilClose
    }

    /// The fields that do not end at this hop, with their classes.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (Field, &'b [u8], &'b [u8])> {
        let all = self.fields.iter().zip(self.classes.iter().copied());
        all.filter(|(field, _)| !self.options.names(field.name.as_bytes()))
            .map(|(field, class)| (class, field.name.as_bytes(), field.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::head::request::storage;
    use proptest::prelude::*;

    fn framing(method: Method, text: &str) -> Result<Framing, BadAnswer> {
        parse(text.as_bytes(), method, &mut storage()).map(|response| response.framing)
    }

    #[test]
    fn the_body_is_found_by_status_method_and_fields() {
        for (method, text, expected) in [
            (Method::Get, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Ok(Framing::Length(5))),
            (Method::Get, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", Ok(Framing::Length(5))),
            (Method::Head, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Ok(Framing::Empty)),
            (Method::Get, "HTTP/1.1 304 \r\nContent-Length: 5\r\n\r\n", Ok(Framing::Empty)),
            (Method::Get, "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", Ok(Framing::Empty)),
            (Method::Get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Ok(Framing::Chunked)),
            (Method::Get, "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n", Ok(Framing::Chunked)),
            (Method::Get, "HTTP/1.0 200 OK\r\n\r\n", Ok(Framing::UntilClose)),
            (Method::Get, "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Err(BadAnswer)),
            (Method::Get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Err(BadAnswer)),
            (
                Method::Get,
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
                Err(BadAnswer),
            ),
            (Method::Get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", Err(BadAnswer)),
            (Method::Get, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", Err(BadAnswer)),
            (Method::Get, "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Err(BadAnswer)),
            (Method::Get, "HTTP/2 200 OK\r\n\r\n", Err(BadAnswer)),
            (Method::Get, "HTTP/1.1 099 X\r\n\r\n", Err(BadAnswer)),
            (Method::Get, "HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n", Err(BadAnswer)),
            (Method::Get, "HTTP/1.1 200 OK\r\nConnection: content-length\r\n\r\n", Err(BadAnswer)),
        ] {
            assert_eq!(framing(method, text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes, Method::Get, &mut storage());
        }
    }
}
