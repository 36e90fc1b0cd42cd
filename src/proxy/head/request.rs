//! A request's head, validated: what is not understood is refused here, and nothing behind has to doubt it.

use std::mem::MaybeUninit;

use httparse::Header;

use crate::model::request::{Method, Protocol, Refusal};
use crate::proxy::config::MAX_FIELDS;
use crate::proxy::framing::Framing;
use crate::proxy::grpc;
use crate::proxy::head::authority::is_valid_authority;
use crate::proxy::head::fields::{ConnectionOptions, Field, parse_content_length};

/// Room for the fields of one head and their classes, on the stack of whoever parses it: a head that owned them would be
/// copied wherever it goes.
#[derive(Debug)]
pub(crate) struct Storage<'b> {
    pub(crate) fields: [MaybeUninit<Header<'b>>; MAX_FIELDS],
    pub(crate) classes: [Field; MAX_FIELDS],
}

/// Empty room.
pub(crate) const fn storage<'b>() -> Storage<'b> {
    Storage { fields: [const { MaybeUninit::uninit() }; MAX_FIELDS], classes: [Field::Other; MAX_FIELDS] }
}

/// A valid head. Borrows the bytes that it was read from.
#[derive(Debug)]
pub(crate) struct Request<'h, 'b> {
    /// All of it.
    pub(crate) bytes: &'b [u8],
    pub(crate) method: Method,
    pub(crate) method_text: &'b [u8],
    /// Path and query, or `*`; without the authority of the absolute form. `missing_slash` belongs in front.
    pub(crate) target: &'b [u8],
    pub(crate) protocol: Protocol,
    pub(crate) framing: Framing,
    pub(crate) options: ConnectionOptions<'b>,
    /// The authority of an absolute target, else the value of `Host`; `None` only in HTTP/1.0.
    pub(crate) host: Option<&'b [u8]>,
    /// The protocols of the `Upgrade` field, when `Connection` names it too.
    pub(crate) upgrade: Option<&'b [u8]>,
    pub(crate) expects_continue: bool,
    pub(crate) traceparent: TraceField<'b>,
    pub(crate) user_agent: Option<&'b [u8]>,
    /// Only of OPTIONS, the one method for which it means something to us.
    pub(crate) max_forwards: Option<u64>,
    fields: &'h [Header<'b>],
    classes: &'h mut [Field],
    transfer_encoding: Option<()>,
    content_length: Option<u64>,
    has_host: bool,
}

/// The `traceparent` fields of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TraceField<'b> {
    /// None.
    Absent,
    /// One, not yet parsed.
    One(&'b [u8]),
    /// Several, which is as good as none.
    Several,
}

/// Why the bytes of a head are no request: the reason, and the target as far as it is known.
pub(crate) fn parse<'h, 'b>(bytes: &'b [u8], storage: &'h mut Storage<'b>) -> Result<Request<'h, 'b>, Refusal> {
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(bytes, &mut storage.fields) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return Err(Refusal::Malformed),
        Err(error) => return Err(refusal_of(error, bytes)),
    }
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Refusal::Malformed);
    };
    let mut request = Request {
        bytes,
        method: Method::parse(method.as_bytes()),
        method_text: method.as_bytes(),
        target: target.as_bytes(),
        protocol: if minor == 0 { Protocol::Http10 } else { Protocol::Http11 },
        framing: Framing::Empty,
        options: ConnectionOptions::default(),
        host: None,
        upgrade: None,
        expects_continue: false,
        traceparent: TraceField::Absent,
        user_agent: None,
        max_forwards: None,
        classes: &mut storage.classes[..parsed.headers.len()],
        fields: parsed.headers,
        transfer_encoding: None,
        content_length: None,
        has_host: false,
    };
    request.judge()?;
    Ok(request)
}

/// What the parser's error means to the client.
fn refusal_of(error: httparse::Error, bytes: &[u8]) -> Refusal {
    if error == httparse::Error::TooManyHeaders {
        return Refusal::HeadTooLarge;
    }
    let line = &bytes[..memchr::memchr(b'\r', bytes).unwrap_or(bytes.len())];
    let version = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    match version {
        // a version of the right shape that is not ours, such as HTTP/2.0
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() && *major != b'1' =>
        {
            Refusal::VersionNotSupported
        }
        _ => Refusal::Malformed,
    }
}

impl<'b> Request<'_, 'b> {
    fn judge(&mut self) -> Result<(), Refusal> {
        if matches!(self.method, Method::Connect | Method::Trace) {
            return Err(Refusal::MethodNotAllowed);
        }
        self.classify()?;
        for index in 0..self.fields.len() {
            let Header { name, value } = self.fields[index];
            if self.classes[index] != Field::Other && !self.options.names(name.as_bytes()) {
                self.judge_field(self.classes[index], value)?;
            }
        }
        self.judge_target()?;
        if self.protocol == Protocol::Http11 && !self.has_host {
            return Err(Refusal::Malformed);
        }
        self.framing = self.judge_framing()?;
        if !self.options.upgrade || self.protocol == Protocol::Http10 || self.framing != Framing::Empty {
            self.upgrade = None;
        }
        self.expects_continue &= self.protocol == Protocol::Http11;
        Ok(())
    }

    /// `Connection` may stand behind the fields that it names, so it is read first.
    fn classify(&mut self) -> Result<(), Refusal> {
        for (field, class) in self.fields.iter().zip(self.classes.iter_mut()) {
            *class = Field::of(field.name.as_bytes());
            if *class == Field::Connection {
                self.options.add(field.value).map_err(|_| Refusal::Malformed)?;
            }
        }
        Ok(())
    }

    fn judge_field(&mut self, class: Field, value: &'b [u8]) -> Result<(), Refusal> {
        match class {
            Field::Host if self.has_host || !is_valid_authority(value) => return Err(Refusal::Malformed),
            Field::Host => (self.has_host, self.host) = (true, Some(value)),
            Field::ContentLength => {
                let length = parse_content_length(value).ok_or(Refusal::Malformed)?;
                if self.content_length.replace(length).is_some() {
                    return Err(Refusal::Malformed);
                }
            }
            Field::TransferEncoding => {
                judge_coding(value)?;
                if self.transfer_encoding.replace(()).is_some() {
                    return Err(Refusal::Malformed);
                }
            }
            Field::Expect if value.eq_ignore_ascii_case(b"100-continue") => self.expects_continue = true,
            Field::Expect => return Err(Refusal::ExpectationFailed),
            Field::Upgrade => self.upgrade = Some(value),
            Field::UserAgent => self.user_agent = self.user_agent.or(Some(value)),
            Field::Traceparent => {
                let first = self.traceparent == TraceField::Absent;
                self.traceparent = if first { TraceField::One(value) } else { TraceField::Several };
            }
            Field::MaxForwards if self.method == Method::Options => {
                let left = parse_content_length(value).ok_or(Refusal::Malformed)?;
                if self.max_forwards.replace(left).is_some() {
                    return Err(Refusal::Malformed);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn judge_target(&mut self) -> Result<(), Refusal> {
        // a fragment is never sent; what is not ASCII was never lawful, and servers differ about it
        if !self.target.is_ascii() || memchr::memchr(b'#', self.target).is_some() {
            return Err(Refusal::Malformed);
        }
        match self.target {
            [b'/', ..] => Ok(()),
            b"*" if self.method == Method::Options => Ok(()),
            _ => self.judge_absolute(),
        }
    }

    /// RFC 9112, section 3.2.2: the authority of the target replaces `Host`.
    fn judge_absolute(&mut self) -> Result<(), Refusal> {
        let target = self.target;
        let rest = match target.get(..8) {
            Some(start) if start.eq_ignore_ascii_case(b"https://") => &target[8..],
            Some(start) if start[..7].eq_ignore_ascii_case(b"http://") => &target[7..],
            _ => return Err(Refusal::Malformed),
        };
        let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.is_empty() || !is_valid_authority(authority) {
            return Err(Refusal::Malformed);
        }
        self.host = Some(authority);
        self.target = match path {
            b"" if self.method == Method::Options => b"*",
            b"" => b"/",
            path => path,
        };
        Ok(())
    }

    fn judge_framing(&self) -> Result<Framing, Refusal> {
        match (self.transfer_encoding, self.content_length) {
            // both: two readers could see two bodies (RFC 9112, section 6.1)
            (Some(()), Some(_)) => Err(Refusal::Malformed),
            (Some(()), None) if self.protocol == Protocol::Http10 => Err(Refusal::Malformed),
            (Some(()), None) => Ok(Framing::Chunked),
            (None, Some(0) | None) => Ok(Framing::Empty),
            (None, Some(length)) => Ok(Framing::Length(length)),
        }
    }

    /// Whether it is of gRPC, if it came by HTTP/2.
    pub(crate) fn is_grpc(&self) -> bool {
        self.fields().any(|(class, _, value)| class == Field::ContentType && grpc::is_content_type(value))
    }

    /// Whether the client's connection may carry another request.
    pub(crate) fn keeps_alive(&self) -> bool {
        match self.protocol {
            Protocol::Http10 => self.options.keep_alive && !self.options.close,
            _ => !self.options.close,
        }
    }

    /// What the target lacks in front: `http://host?query` is lawful, but a path begins with a slash.
    pub(crate) fn missing_slash(&self) -> &'static [u8] {
        if self.target.first() == Some(&b'?') { b"/" } else { b"" }
    }

    /// The path without its query.
    pub(crate) fn path(&self) -> &'b [u8] {
        match memchr::memchr(b'?', self.target) {
            Some(0) => b"/",
            end => &self.target[..end.unwrap_or(self.target.len())],
        }
    }

    /// Whether it names its host in a field, not only in its target.
    pub(crate) fn has_host(&self) -> bool {
        self.has_host
    }

    /// The fields that do not end at this hop, with their classes.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (Field, &'b [u8], &'b [u8])> {
        let all = self.fields.iter().zip(self.classes.iter().copied());
        all.filter(|(field, _)| !self.options.names(field.name.as_bytes()))
            .map(|(field, class)| (class, field.name.as_bytes(), field.value))
    }
}

/// Only exactly `chunked` is understood (RFC 9112, section 6.1).
fn judge_coding(value: &[u8]) -> Result<(), Refusal> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let codings = || value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let chunked = codings().filter(|coding| coding.eq_ignore_ascii_case(b"chunked")).count();
    let last = codings().next_back().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
    let named = codings().all(|coding| !coding.is_empty());
    Err(if chunked == 1 && last && named { Refusal::UnknownCoding } else { Refusal::Malformed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refusal(text: &str) -> Option<Refusal> {
        parse(text.as_bytes(), &mut storage()).err()
    }

    fn with(fields: &str) -> String {
        format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n")
    }

    #[test]
    fn framing_that_two_readers_could_read_differently_is_refused() {
        for (fields, expected) in [
            ("Content-Length: 5", None),
            ("content-length:  5 ", None),
            ("Transfer-Encoding: Chunked", None),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked", Some(Refusal::Malformed)),
            ("Content-Length: 5\r\nContent-Length: 5", Some(Refusal::Malformed)),
            ("Content-Length: 5, 5", Some(Refusal::Malformed)),
            ("Content-Length: +5", Some(Refusal::Malformed)),
            ("Content-Length: 99999999999999999999", Some(Refusal::Malformed)),
            ("Content-Length: ", Some(Refusal::Malformed)),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Some(Refusal::Malformed)),
            ("Transfer-Encoding: chunked, chunked", Some(Refusal::Malformed)),
            ("Transfer-Encoding: chunked, gzip", Some(Refusal::Malformed)),
            ("Transfer-Encoding: gzip, chunked", Some(Refusal::UnknownCoding)),
            ("Transfer-Encoding: , chunked", Some(Refusal::Malformed)),
            ("Transfer-Encoding: identity", Some(Refusal::Malformed)),
            ("Transfer-Encoding: ", Some(Refusal::Malformed)),
            ("Transfer-Encoding : chunked", Some(Refusal::Malformed)),
            ("Connection: content-length\r\nContent-Length: 5", Some(Refusal::Malformed)),
            (" Folded: x", Some(Refusal::Malformed)),
            ("A: b\r\n c", Some(Refusal::Malformed)),
            ("A: b\0c", Some(Refusal::Malformed)),
            ("A: b\rc", Some(Refusal::Malformed)),
            (": empty", Some(Refusal::Malformed)),
            ("no colon", Some(Refusal::Malformed)),
            ("Expect: 100-Continue", None),
            ("Expect: more", Some(Refusal::ExpectationFailed)),
        ] {
            assert_eq!(refusal(&with(fields)), expected, "{fields:?}");
        }
        assert_eq!(
            refusal("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Some(Refusal::Malformed),
            "no such coding in HTTP/1.0"
        );
    }

    #[test]
    fn request_lines_and_hosts_are_judged() {
        let malformed = Some(Refusal::Malformed);
        for (text, expected) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", None),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", None),
            ("GET / HTTP/1.0\r\n\r\n", None),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", None),
            ("GET http://b/x?y HTTP/1.1\r\nHost: a\r\n\r\n", None),
            ("GET / HTTP/1.1\r\n\r\n", malformed),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", malformed),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", malformed),
            ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", malformed),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", malformed),
            ("GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", malformed),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", malformed),
            ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", malformed),
            ("GET /\tx HTTP/1.1\r\nHost: a\r\n\r\n", malformed),
            ("GET / HTTP/1.10\r\nHost: a\r\n\r\n", malformed),
            ("GET / http/1.1\r\nHost: a\r\n\r\n", malformed),
            ("GET /\r\n\r\n", malformed),
            ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", malformed),
            ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", malformed),
            ("GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", malformed),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Some(Refusal::VersionNotSupported)),
            ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", Some(Refusal::MethodNotAllowed)),
            ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", Some(Refusal::MethodNotAllowed)),
        ] {
            assert_eq!(refusal(text), expected, "{text:?}");
        }
        let many: String = (0..MAX_FIELDS).map(|i| format!("f{i}: x\r\n")).collect();
        assert_eq!(refusal(&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")), Some(Refusal::HeadTooLarge));
    }

    #[test]
    fn the_authority_of_the_target_replaces_the_host() {
        let mut room = storage();
        let request = parse(b"GET HTTP://b:1/x?y HTTP/1.1\r\nHost: a\r\n\r\n", &mut room).unwrap();
        assert_eq!((request.host, request.target, request.path()), (Some(&b"b:1"[..]), &b"/x?y"[..], &b"/x"[..]));
    }

    #[test]
    fn an_absolute_target_without_a_path_gets_one() {
        let mut room = storage();
        let request = parse(b"GET http://b?x HTTP/1.1\r\nHost: a\r\n\r\n", &mut room).unwrap();
        assert_eq!((request.missing_slash(), request.target, request.path()), (&b"/"[..], &b"?x"[..], &b"/"[..]));
        assert_eq!(refusal("GET ?x HTTP/1.1\r\nHost: a\r\n\r\n"), Some(Refusal::Malformed));
    }

    #[test]
    fn a_named_field_ends_here_even_if_it_is_named_later() {
        let mut room = storage();
        let text = b"GET / HTTP/1.1\r\nHost: a\r\nTraceparent: x\r\nX-Own: 1\r\nConnection: traceparent, x-own\r\n\r\n";
        let request = parse(text, &mut room).unwrap();
        assert_eq!(request.traceparent, TraceField::Absent);
        assert!(request.fields().all(|(class, ..)| matches!(class, Field::Host | Field::Connection)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes, &mut storage());
        }
    }
}
