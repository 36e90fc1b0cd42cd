//! What the proxy knows of gRPC: how to tell it, what may stand behind an answer, and how to say no in its words.
//!
//! Source: `PROTOCOL-HTTP2.md` and `http-grpc-status-mapping.md` of the gRPC project. Of messages only the lengths are read.

use crate::proxy::head::fields::{Field, is_allowed_trailer};

/// The code by which a client of gRPC sees a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    Unknown = 2,
    DeadlineExceeded = 4,
    ResourceExhausted = 8,
    Internal = 13,
    Unavailable = 14,
}

impl Code {
    /// Of an answer of ours that has this status in HTTP.
    ///
    /// Nearer to the reason than what clients make of a bare status, to whom all of 502, 503 and 504 are `UNAVAILABLE`.
    pub(crate) fn of(status: u16) -> Self {
        match status {
            502 | 503 => Self::Unavailable,
            408 | 504 => Self::DeadlineExceeded,
            413 | 414 | 431 => Self::ResourceExhausted,
            400 => Self::Internal,
            _ => Self::Unknown,
        }
    }
}

/// Whether a value of `Content-Type` is of gRPC: alone, or with the coding of its messages behind `+` or `;`.
///
/// `application/grpc-web` is another protocol: it is made for HTTP/1.1.
pub(crate) fn is_content_type(value: &[u8]) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    let is_prefixed = value.len() >= TYPE.len() && value[..TYPE.len()].eq_ignore_ascii_case(TYPE);
    is_prefixed && matches!(value.get(TYPE.len()), None | Some(b'+' | b';' | b' ' | b'\t'))
}

/// Whether a head that was translated from HTTP/2 is of gRPC, though perhaps of no valid request.
pub(crate) fn is_head(text: &[u8]) -> bool {
    const NAME: &[u8] = b"\r\ncontent-type: ";
    let end = memchr::memmem::find(text, b"\r\n\r\n").unwrap_or(text.len());
    memchr::memmem::find(&text[..end], NAME).is_some_and(|at| {
        let value = &text[at + NAME.len()..end];
        is_content_type(&value[..memchr::memchr(b'\r', value).unwrap_or(value.len())])
    })
}

/// Whether a field may stand behind an answer of gRPC, where the application puts metadata of its own.
///
/// Never what frames, routes, authenticates, caches or describes content: nobody behind us may take such a field for
/// a header (RFC 9110, section 6.5.1).
pub(crate) fn is_metadata(name: &[u8]) -> bool {
    const STEERING: [&[u8]; 18] = [
        b"accept-ranges",
        b"age",
        b"alt-svc",
        b"authorization",
        b"cache-control",
        b"clear-site-data",
        b"cookie",
        b"date",
        b"expires",
        b"location",
        b"pragma",
        b"range",
        b"refresh",
        b"retry-after",
        b"set-cookie",
        b"strict-transport-security",
        b"vary",
        b"www-authenticate",
    ];
    const FAMILIES: [&[u8]; 6] = [b"access-control-", b"content-", b"if-", b"proxy-", b"sec-", b"x-forwarded-"];
    let is_steering = Field::of(name) != Field::Other
        || STEERING.iter().any(|steering| steering.eq_ignore_ascii_case(name))
        || FAMILIES
            .iter()
            .any(|family| name.len() >= family.len() && name[..family.len()].eq_ignore_ascii_case(family));
    is_allowed_trailer(name) || !is_steering
}

/// The messages of a body, by their prefixes: a flag, and a length of four bytes.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    begun: u8,
    /// Bytes of the prefix that have come.
    prefix: u8,
    /// What is to come of the message; of a prefix that is not whole, what of its length has come.
    rest: u32,
}

impl Messages {
    const PREFIX: u8 = 5;

    /// Whether more than one has begun: then it is known, and nothing is looked at any more.
    pub(crate) fn are_several(&self) -> bool {
        self.begun > 1
    }

    /// Reads the next piece.
    pub(crate) fn pass(&mut self, mut piece: &[u8]) {
        while !self.are_several()
            && let Some((first, behind)) = piece.split_first()
        {
            if self.prefix < Self::PREFIX {
                self.begun += u8::from(self.prefix == 0);
                // the flag is shifted out again
                self.rest = self.rest << 8 | u32::from(*first);
                self.prefix += 1;
                piece = behind;
            } else {
                let count = usize::try_from(self.rest).unwrap_or(usize::MAX).min(piece.len());
                self.rest -= count as u32;
                piece = &piece[count..];
            }
            if self.prefix == Self::PREFIX && self.rest == 0 {
                self.prefix = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_from_what_only_begins_like_it() {
        for yes in ["application/grpc", "Application/gRPC+proto", "application/grpc;charset=x", "application/grpc ;a"] {
            assert!(is_content_type(yes.as_bytes()), "{yes}");
        }
        for no in ["", "application/grp", "application/grpc-web", "application/grpc-web+proto", "application/grpcx"] {
            assert!(!is_content_type(no.as_bytes()), "{no}");
        }
        assert!(is_head(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\n\r\n"));
        for no in [
            "POST / HTTP/1.1\r\nhost: a\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-type: application/grpc-web\r\n\r\n",
            "POST / HTTP/1.1\r\na: b\r\n\r\n\r\ncontent-type: application/grpc\r\n\r\n",
            "",
        ] {
            assert!(!is_head(no.as_bytes()), "{no:?}");
        }
    }

    #[test]
    fn messages_are_told_apart_however_they_are_cut() {
        let message =
            |length: usize| [&[1], u32::try_from(length).unwrap().to_be_bytes().as_slice(), &vec![0; length]].concat();
        for (body, several) in [
            (vec![], false),
            (message(0), false),
            (message(3), false),
            (message(70_000), false),
            ([message(0), message(0)].concat(), true),
            ([message(300), vec![0]].concat(), true),
            ([message(5), message(9)].concat(), true),
        ] {
            for size in [1, 2, 4, 5, 7, 100_000] {
                let mut messages = Messages::default();
                body.chunks(size).for_each(|piece| messages.pass(piece));
                assert_eq!(messages.are_several(), several, "{} bytes by {size}", body.len());
            }
        }
    }

    #[test]
    fn metadata_of_the_application_passes_behind_an_answer_and_what_steers_does_not() {
        for yes in
            ["grpc-status", "grpc-status-details-bin", "x-grpc-test-echo-trailing-bin", "my_own", "content-digest"]
        {
            assert!(is_metadata(yes.as_bytes()), "{yes}");
        }
        for no in [
            "content-length",
            "Transfer-Encoding",
            "transfer_encoding",
            "host",
            "te",
            "trailer",
            "connection",
            "authorization",
            "Set-Cookie",
            "proxy-authenticate",
            "x-forwarded-for",
            "x-forwarded-port",
            "forwarded",
            "traceparent",
            "content-type",
            "content-encoding",
            "cache-control",
            "if-match",
            "via",
        ] {
            assert!(!is_metadata(no.as_bytes()), "{no}");
        }
    }
}
