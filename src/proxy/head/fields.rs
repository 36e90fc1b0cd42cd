//! Header fields: their classes, and the list that `Connection` names.

/// What a field means to the proxy. `Other` passes untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Other,
    Host,
    Connection,
    ContentLength,
    TransferEncoding,
    Te,
    Trailer,
    Upgrade,
    /// Keep-Alive and Proxy-Connection: of one hop, and of no use to us.
    HopByHop,
    /// Proxy-Authorization and Proxy-Authenticate: meant for a proxy, so they stop here.
    ProxyAuth,
    Expect,
    Traceparent,
    Tracestate,
    Baggage,
    /// The trace context that Sentry's SDKs read.
    SentryTrace,
    ForwardedFor,
    ForwardedProto,
    ForwardedHost,
    ForwardedPort,
    Forwarded,
    RealIp,
    Via,
    UserAgent,
    MaxForwards,
    ContentType,
    /// Spelled with `_` where a name that we trust has `-`: a gateway behind us may take one for the other.
    LookAlike,
}

impl Field {
    /// The class of a name, which is case-insensitive.
    pub(crate) fn of(name: &[u8]) -> Self {
        let candidates: &[(&[u8], Self)] = match name.len() {
            2 => &[(b"te", Self::Te)],
            3 => &[(b"via", Self::Via)],
            4 => &[(b"host", Self::Host)],
            6 => &[(b"expect", Self::Expect)],
            7 => &[(b"upgrade", Self::Upgrade), (b"trailer", Self::Trailer), (b"baggage", Self::Baggage)],
            9 => &[(b"x-real-ip", Self::RealIp), (b"forwarded", Self::Forwarded)],
            10 => &[
                (b"connection", Self::Connection),
                (b"user-agent", Self::UserAgent),
                (b"keep-alive", Self::HopByHop),
                (b"tracestate", Self::Tracestate),
            ],
            11 => &[(b"traceparent", Self::Traceparent)],
            12 => &[
                (b"content-type", Self::ContentType),
                (b"max-forwards", Self::MaxForwards),
                (b"sentry-trace", Self::SentryTrace),
            ],
            14 => &[(b"content-length", Self::ContentLength)],
            15 => &[(b"x-forwarded-for", Self::ForwardedFor)],
            16 => &[
                (b"x-forwarded-host", Self::ForwardedHost),
                (b"x-forwarded-port", Self::ForwardedPort),
                (b"proxy-connection", Self::HopByHop),
            ],
            17 => &[(b"transfer-encoding", Self::TransferEncoding), (b"x-forwarded-proto", Self::ForwardedProto)],
            18 => &[(b"proxy-authenticate", Self::ProxyAuth)],
            19 => &[(b"proxy-authorization", Self::ProxyAuth)],
            _ => return Self::Other,
        };
        for (known, field) in candidates {
            match compare(name, known) {
                Likeness::Same => return *field,
                Likeness::Folded => return Self::LookAlike,
                Likeness::Different => {}
            }
        }
        Self::Other
    }
}

enum Likeness {
    Same,
    Folded,
    Different,
}

fn compare(name: &[u8], known: &[u8]) -> Likeness {
    let mut folded = false;
    for (byte, expected) in name.iter().zip(known) {
        if byte | 0x20 == *expected {
            continue;
        }
        if *byte == b'_' && *expected == b'-' {
            folded = true;
        } else {
            return Likeness::Different;
        }
    }
    if folded { Likeness::Folded } else { Likeness::Same }
}

/// What the `Connection` fields of a message say.
#[derive(Debug, Default)]
pub(crate) struct ConnectionOptions<'b> {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
    /// Fields that are meant for this hop only. Hardly any message names one, so this hardly ever allocates.
    named: Vec<&'b [u8]>,
}

/// More names than any lawful message has.
const MAX_NAMED: usize = 16;

/// A `Connection` field that may not be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadConnection;

impl<'b> ConnectionOptions<'b> {
    /// Adds the tokens of one field.
    pub(crate) fn add(&mut self, value: &'b [u8]) -> Result<(), BadConnection> {
        for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty()) {
            if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if token.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else {
                self.name(token)?;
            }
        }
        Ok(())
    }

    fn name(&mut self, token: &'b [u8]) -> Result<(), BadConnection> {
        // without these the message would mean something else to the next hop
        let vital = matches!(Field::of(token), Field::Host | Field::ContentLength | Field::TransferEncoding);
        if vital || self.named.len() == MAX_NAMED || !token.iter().all(|byte| is_token(*byte)) {
            return Err(BadConnection);
        }
        self.named.push(token);
        Ok(())
    }

    /// Whether a field of this name ends at this hop.
    pub(crate) fn names(&self, name: &[u8]) -> bool {
        self.named.iter().any(|named| named.eq_ignore_ascii_case(name))
    }
}

/// Whether a byte may stand in a token (RFC 9110, section 5.6.2).
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Trailer fields that may pass; nobody behind us may take another one for a header (RFC 9110, section 6.5.1).
pub(crate) fn is_allowed_trailer(name: &[u8]) -> bool {
    const ALLOWED: [&[u8]; 9] = [
        b"content-digest",
        b"repr-digest",
        b"digest",
        b"content-md5",
        b"etag",
        b"server-timing",
        b"grpc-status",
        b"grpc-message",
        b"grpc-status-details-bin",
    ];
    let checksum = name.len() > 11 && name[..11].eq_ignore_ascii_case(b"x-checksum-");
    checksum || ALLOWED.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
}

/// Reads a Content-Length: digits only, within 64 bits (RFC 9110, section 8.6).
pub(crate) fn parse_content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |length, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case_and_their_look_alikes_too() {
        for (name, field) in [
            ("Host", Field::Host),
            ("TRANSFER-encoding", Field::TransferEncoding),
            ("Transfer_Encoding", Field::LookAlike),
            ("X_Forwarded-For", Field::LookAlike),
            ("x_real_ip", Field::LookAlike),
            ("X-Forwarded-For", Field::ForwardedFor),
            ("Keep-Alive", Field::HopByHop),
            ("Hosts", Field::Other),
            ("Hest", Field::Other),
            ("my_field", Field::Other),
            ("", Field::Other),
        ] {
            assert_eq!(Field::of(name.as_bytes()), field, "{name}");
        }
    }

    #[test]
    fn connection_names_its_fields_but_not_the_framing() {
        let mut options = ConnectionOptions::default();
        options.add(b"Keep-Alive, X-Secret ,, traceparent").unwrap();
        assert!(options.keep_alive && !options.close);
        assert!(options.names(b"x-secret") && options.names(b"Traceparent") && !options.names(b"x-other"));
        for bad in ["host", "Content-Length", "close, transfer-encoding", "a b", "content_length, @"] {
            assert!(ConnectionOptions::default().add(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_content_length_is_digits_within_64_bits() {
        for (text, length) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("+1", None),
            ("-1", None),
            ("1 ", None),
            ("1,1", None),
            ("0x1", None),
            ("1_0", None),
        ] {
            assert_eq!(parse_content_length(text.as_bytes()), length, "{text}");
        }
    }

    #[test]
    fn trailers_that_steer_do_not_pass() {
        assert!(is_allowed_trailer(b"Content-Digest") && is_allowed_trailer(b"X-Checksum-Crc32"));
        for bad in ["content-length", "transfer-encoding", "host", "authorization", "content-type", "x-forwarded-for"] {
            assert!(!is_allowed_trailer(bad.as_bytes()), "{bad}");
        }
    }
}
