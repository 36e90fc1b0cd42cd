//! The strict reader of requests.

use crate::grammar::{Body, Cursor, Field, Framing, Grammar, Stop, bad, framing, is, lists, show, token, values};

/// A request, read strictly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// The method.
    pub(crate) method: Vec<u8>,
    /// The target, byte for byte.
    pub(crate) target: Vec<u8>,
    /// 0 for HTTP/1.0, else 1.
    pub(crate) minor: u8,
    /// Field lines in order.
    pub(crate) fields: Vec<Field>,
    /// How the body is delimited.
    pub(crate) framing: Framing,
    /// Body and trailers.
    pub(crate) body: Body,
}

/// What a strict reader finds in a stream of bytes.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    /// Complete requests.
    pub(crate) requests: Vec<Request>,
    /// The head of the one whose body is not complete.
    pub(crate) partial: Option<Request>,
    /// Why it ended.
    pub(crate) stop: Stop,
    /// Bytes up to the end of the last complete request.
    pub(crate) used: usize,
}

impl Request {
    /// Whether the connection goes on after this request (9112 §9.3).
    pub(crate) fn persists(&self) -> bool {
        let close = lists(&self.fields, "connection", "close");
        !close && (self.minor == 1 || lists(&self.fields, "connection", "keep-alive"))
    }

    /// Whether it asks for another protocol (9110 §7.8).
    pub(crate) fn upgrades(&self) -> bool {
        self.minor == 1 && lists(&self.fields, "connection", "upgrade") && !values(&self.fields, "upgrade").is_empty()
    }

    /// The target without scheme and authority: what an origin sees of an absolute-form.
    pub(crate) fn origin_form(&self) -> Vec<u8> {
        let Some(start) = self.target.windows(3).position(|part| part == b"://") else {
            return self.target.clone();
        };
        if self.target[0] == b'/' {
            return self.target.clone();
        }
        let after = &self.target[start + 3..];
        match after.iter().position(|byte| b"/?".contains(byte)) {
            Some(at) if after[at] == b'?' => [b"/", &after[at..]].concat(),
            Some(at) => after[at..].to_vec(),
            None if self.method == b"OPTIONS" => b"*".to_vec(),
            None => b"/".to_vec(),
        }
    }
}

/// Reads as many requests as there are.
pub(crate) fn read(bytes: &[u8], grammar: Grammar) -> Reading {
    let mut reading = Reading { requests: Vec::new(), partial: None, stop: Stop::Clean, used: 0 };
    let mut cursor = Cursor { bytes, at: 0 };
    while cursor.at < bytes.len() {
        // One empty line before a request is what old clients send after a body (9112 §2.2).
        if grammar == Grammar::Lawful && bytes[cursor.at..].starts_with(b"\r\n") {
            cursor.at += 2;
            if cursor.at == bytes.len() {
                break;
            }
        }
        match head(&mut cursor, grammar) {
            Err(stop) => {
                reading.stop = stop;
                return reading;
            }
            Ok(mut request) => match cursor.body(request.framing, grammar) {
                Ok(body) => {
                    request.body = body;
                    reading.requests.push(request);
                    reading.used = cursor.at;
                }
                Err(stop) => {
                    reading.partial = Some(request);
                    reading.stop = stop;
                    return reading;
                }
            },
        }
    }
    reading
}

fn head(cursor: &mut Cursor<'_>, grammar: Grammar) -> Result<Request, Stop> {
    let line = cursor.line()?;
    let parts: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let [method, uri, version] = parts.as_slice() else {
        return bad(format!("the request line {:?}", show(line)));
    };
    if !token(method) {
        return bad(format!("the method {:?}", show(method)));
    }
    let minor = match *version {
        b"HTTP/1.1" => 1,
        b"HTTP/1.0" => 0,
        other => return bad(format!("the version {:?}", show(other))),
    };
    target(method, uri)?;
    let fields = cursor.fields()?;
    host(&fields, minor)?;
    let framing = framing(&fields, minor, grammar)?;
    let (method, uri) = (method.to_vec(), uri.to_vec());
    Ok(Request { method, target: uri, minor, fields, framing, body: Body::default() })
}

fn target(method: &[u8], target: &[u8]) -> Result<(), Stop> {
    if target.is_empty() || target.iter().any(|&byte| byte <= 0x20 || byte == 0x7f || byte == b'#') {
        return bad(format!("the target {:?}", show(target)));
    }
    let lower = target.to_ascii_lowercase();
    let absolute = lower.starts_with(b"http://") || lower.starts_with(b"https://");
    let star = target == b"*" && method == b"OPTIONS";
    if target[0] == b'/' || absolute || star || method == b"CONNECT" {
        return Ok(());
    }
    bad(format!("the target {:?} of {:?}", show(target), show(method)))
}

fn host(fields: &[Field], minor: u8) -> Result<(), Stop> {
    match values(fields, "host").as_slice() {
        [] if minor == 0 => Ok(()),
        [] => bad("no Host"),
        [value] if authority(value) => Ok(()),
        [value] => bad(format!("the Host {:?}", show(value))),
        _ => bad("Host twice"),
    }
}

/// `uri-host [":" port]` (9110 §7.2), or nothing.
fn authority(value: &[u8]) -> bool {
    let (host, port) = match value.iter().rposition(|&byte| byte == b':') {
        Some(colon) if !value[colon..].contains(&b']') => (&value[..colon], &value[colon + 1..]),
        _ => (value, &b""[..]),
    };
    let literal = host.strip_prefix(b"[").and_then(|inner| inner.strip_suffix(b"]"));
    let named = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte);
    let host_fits = match literal {
        Some(inner) => !inner.is_empty() && inner.iter().all(|byte| named(byte) || *byte == b':'),
        None => host.iter().all(named),
    };
    host_fits && port.iter().all(u8::is_ascii_digit) && port.len() <= 5
}

/// Whether the sidecar itself asked: such requests carry its own agent and belong to no entry.
pub(crate) fn is_own(request: &Request) -> bool {
    request.fields.iter().any(|(name, value)| is(name, "user-agent") && value.starts_with(b"content-factory-sidecar/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stop(bytes: &[u8]) -> Stop {
        read(bytes, Grammar::Canonical).stop
    }

    #[test]
    fn two_requests_are_read_with_their_bodies() {
        let wire =
            b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n\
                     PUT http://h:1/b?c HTTP/1.0\r\nContent-Length: 2\r\n\r\nde";
        let reading = read(wire, Grammar::Canonical);
        assert_eq!(reading.stop, Stop::Clean);
        let bodies: Vec<_> = reading.requests.iter().map(|request| request.body.bytes.as_slice()).collect();
        assert_eq!(bodies, [&b"abc"[..], b"de"]);
        assert_eq!(reading.requests[1].origin_form(), b"/b?c");
        assert_eq!(reading.used, wire.len());
    }

    #[test]
    fn what_no_proxy_may_send_is_bad() {
        let dirty: [&[u8]; 22] = [
            b"GET / HTTP/1.1\nHost: h\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: h\n\r\n",
            b"GET / HTTP/1.1\r\nHost: h\r\nA: b\rc\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: h\r\nA: b\0\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET / HTTP/1.10\r\nHost: h\r\n\r\n",
            b"GET /#a HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET * HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: h@i\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\na",
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            b"POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\na\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nHost: h\r\n\r\n",
        ];
        for wire in dirty {
            assert!(matches!(stop(wire), Stop::Bad(_)), "{}: {:?}", show(wire), stop(wire));
        }
    }

    #[test]
    fn bytes_after_a_message_are_read_as_the_next_one() {
        let wire = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nabcd\r\n";
        assert!(matches!(stop(wire), Stop::Bad(_)));
        let wire = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n\r\n";
        assert!(matches!(stop(wire), Stop::Bad(_)));
    }

    #[test]
    fn a_message_that_stops_in_the_middle_is_short_and_its_head_is_known() {
        let reading = read(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab", Grammar::Canonical);
        assert!(matches!(reading.stop, Stop::Short(_)));
        assert_eq!(reading.partial.expect("a head").target, b"/a");
        assert!(matches!(stop(b"GET / HTT"), Stop::Short(_)));
    }

    #[test]
    fn senders_have_more_freedom_than_the_proxy() {
        let wire = b"\r\nPOST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n1 ; a=b\r\nx\r\n0\r\n\r\n";
        assert_eq!(read(wire, Grammar::Lawful).requests.len(), 1);
        assert!(matches!(stop(wire), Stop::Bad(_)));
    }
}
