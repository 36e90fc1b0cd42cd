//! The strict reader of responses. What a response means depends on the request that it answers, so the
//! methods come along.

use crate::grammar::{Body, Cursor, Field, Framing, Grammar, Stop, bad, framing, show};

/// A response, read strictly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    /// The status code.
    pub(crate) status: u16,
    /// Field lines in order.
    pub(crate) fields: Vec<Field>,
    /// How the body is delimited.
    pub(crate) framing: Framing,
    /// Body and trailers.
    pub(crate) body: Body,
}

/// How a stream ended, as its reader saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closing {
    /// It is still open.
    Open,
    /// By FIN.
    Finished,
    /// By RST, or another error.
    Broken,
}

/// What a strict reader finds in a stream of bytes.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    /// Interim responses (1xx without 101), each with the number of final ones before it.
    pub(crate) interim: Vec<(usize, Response)>,
    /// Complete final responses, 101 included.
    pub(crate) finals: Vec<Response>,
    /// The head of the one whose body is not complete.
    pub(crate) partial: Option<Response>,
    /// Where the first final response ends.
    pub(crate) first_end: usize,
    /// Bytes after a 101.
    pub(crate) tunnel: Vec<u8>,
    /// Why it ended.
    pub(crate) stop: Stop,
}

/// Reads the responses to requests with these methods.
pub(crate) fn read(bytes: &[u8], methods: &[Vec<u8>], closing: Closing, grammar: Grammar) -> Reading {
    let mut reading = Reading {
        interim: Vec::new(),
        finals: Vec::new(),
        partial: None,
        first_end: 0,
        tunnel: Vec::new(),
        stop: Stop::Clean,
    };
    let mut cursor = Cursor { bytes, at: 0 };
    while cursor.at < bytes.len() {
        let method = methods.get(reading.finals.len()).map_or(&b"GET"[..], Vec::as_slice);
        if let Err(stop) = next(&mut cursor, method, closing, (grammar, &mut reading)) {
            reading.stop = stop;
            break;
        }
        if reading.finals.len() == 1 && reading.first_end == 0 {
            reading.first_end = cursor.at;
        }
        if reading.finals.last().is_some_and(|last| last.status == 101) {
            reading.tunnel = bytes[cursor.at..].to_vec();
            break;
        }
    }
    reading
}

fn next(
    cursor: &mut Cursor<'_>,
    method: &[u8],
    closing: Closing,
    (grammar, reading): (Grammar, &mut Reading),
) -> Result<(), Stop> {
    let mut response = head(cursor, method, grammar)?;
    if response.status < 200 && response.status != 101 {
        reading.interim.push((reading.finals.len(), response));
        return Ok(());
    }
    let body = cursor.body(response.framing, grammar);
    match body {
        // The end of such a body is the end of the connection, so only a FIN makes it complete (9112 §8).
        Ok(_) if response.framing == Framing::UntilClose && closing != Closing::Finished => {
            reading.partial = Some(response);
            Err(Stop::Short("inside a body that ends with the connection"))
        }
        Ok(body) => {
            response.body = body;
            reading.finals.push(response);
            Ok(())
        }
        Err(stop) => {
            reading.partial = Some(response);
            Err(stop)
        }
    }
}

fn head(cursor: &mut Cursor<'_>, method: &[u8], grammar: Grammar) -> Result<Response, Stop> {
    let line = cursor.line()?;
    let (status, minor) = status_line(line)?;
    let fields = cursor.fields()?;
    let declared = framing(&fields, minor, grammar)?;
    let no_framing_fields = status < 200 || status == 204;
    if no_framing_fields && declared != Framing::None && grammar == Grammar::Canonical {
        return bad(format!("framing fields in a {status}"));
    }
    let framing = match declared {
        _ if method == b"HEAD" || no_framing_fields || status == 304 => Framing::None,
        Framing::None => Framing::UntilClose,
        declared => declared,
    };
    Ok(Response { status, fields, framing, body: Body::default() })
}

/// Status and minor version; the reason is text without control characters.
fn status_line(line: &[u8]) -> Result<(u16, u8), Stop> {
    let fault = || Stop::Bad(format!("the status line {:?}", show(line)));
    let minor = match line.get(..9) {
        Some(b"HTTP/1.1 ") => 1,
        Some(b"HTTP/1.0 ") => 0,
        _ => return Err(fault()),
    };
    let digits = line.get(9..12).filter(|code| code.iter().all(u8::is_ascii_digit)).ok_or_else(fault)?;
    let reason_fits = match line.get(12) {
        None => true,
        Some(b' ') => line[12..].iter().all(|&byte| (byte >= 0x20 && byte != 0x7f) || byte == b'\t'),
        Some(_) => false,
    };
    let status = digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    if reason_fits && status >= 100 { Ok((status, minor)) } else { Err(fault()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(bytes: &[u8], methods: &[&str], closing: Closing) -> Reading {
        let methods: Vec<_> = methods.iter().map(|method| method.as_bytes().to_vec()).collect();
        read(bytes, &methods, closing, Grammar::Canonical)
    }

    #[test]
    fn interim_and_bodiless_answers_are_told_apart() {
        let wire = b"HTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n\
                     HTTP/1.1 304 \r\nContent-Length: 9\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        let reading = canonical(wire, &["HEAD", "GET", "GET"], Closing::Open);
        assert_eq!(reading.stop, Stop::Clean);
        assert_eq!(reading.finals.len(), 3);
        assert_eq!((reading.interim[0].0, reading.interim[0].1.status), (0, 103));
    }

    #[test]
    fn a_body_until_close_is_complete_only_by_fin() {
        let wire = b"HTTP/1.1 200 OK\r\n\r\nabc";
        assert_eq!(canonical(wire, &["GET"], Closing::Finished).finals[0].body.bytes, b"abc");
        for closing in [Closing::Broken, Closing::Open] {
            assert!(matches!(canonical(wire, &["GET"], closing).stop, Stop::Short(_)));
        }
    }

    #[test]
    fn what_no_proxy_may_answer_is_bad() {
        let dirty: [&[u8]; 9] = [
            b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 a\x01b\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 204 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabcdefghijklmnopq\r\n",
        ];
        for wire in dirty {
            let reading = canonical(wire, &["GET"], Closing::Finished);
            assert!(matches!(reading.stop, Stop::Bad(_)), "{}: {:?}", show(wire), reading.stop);
        }
    }

    #[test]
    fn after_101_all_bytes_are_a_tunnel() {
        let wire = b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x00";
        let reading = canonical(wire, &["GET"], Closing::Finished);
        assert_eq!((reading.finals[0].status, reading.tunnel.as_slice()), (101, &b"\x81\x00"[..]));
    }
}
