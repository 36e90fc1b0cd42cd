//! The strict reader: what every message has in common (lines, fields, framing, chunks, trailers).
//!
//! Written from RFC 9112 and nothing else; shares no code with the proxy, so that one mistake is not made twice.
//! It is unforgiving on purpose: what it does not read, no other reader may ever be asked to guess.

/// How much is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grammar {
    /// What a sender may lawfully write: chunk extensions, blanks around values, any case of `chunked`.
    Lawful,
    /// What a strict proxy writes: one form for each thing.
    Canonical,
}

/// Why reading stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// At the end of the bytes and of a message.
    Clean,
    /// The bytes end inside a message.
    Short(&'static str),
    /// Not HTTP, with the reason.
    Bad(String),
}

/// A field line: name and value, as written.
pub(crate) type Field = (Vec<u8>, Vec<u8>);

/// How a body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// No body.
    None,
    /// By Content-Length.
    Length(u64),
    /// By chunks.
    Chunked,
    /// By the end of the connection; responses only.
    UntilClose,
}

/// A body and its trailer fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Body {
    /// The content, without chunk framing.
    pub(crate) bytes: Vec<u8>,
    /// Trailer fields.
    pub(crate) trailers: Vec<Field>,
}

/// A place in the bytes.
pub(crate) struct Cursor<'a> {
    /// All bytes.
    pub(crate) bytes: &'a [u8],
    /// The next one to read.
    pub(crate) at: usize,
}

const FORBIDDEN_TRAILERS: [&str; 16] = [
    "transfer-encoding",
    "content-length",
    "host",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "authorization",
    "proxy-authorization",
    "content-type",
    "content-encoding",
    "content-range",
    "cookie",
    "set-cookie",
    "expect",
    "max-forwards",
];

/// `Stop::Bad` with a reason.
pub(crate) fn bad<T>(why: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Bad(why.into()))
}

/// Bytes as people read them, cut to a line's length.
pub(crate) fn show(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string();
    if text.len() > 120 { format!("{}… ({} bytes)", &text[..120], bytes.len()) } else { text }
}

impl<'a> Cursor<'a> {
    /// A line without its CR LF.
    pub(crate) fn line(&mut self) -> Result<&'a [u8], Stop> {
        let rest = &self.bytes[self.at..];
        let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
            return Err(Stop::Short("inside a line"));
        };
        let Some(line) = rest[..end].strip_suffix(b"\r") else {
            return bad(format!("a bare LF after {:?}", show(&rest[..end])));
        };
        if line.contains(&b'\r') {
            return bad(format!("a bare CR in {:?}", show(line)));
        }
        self.at += end + 1;
        Ok(line)
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], Stop> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(count).ok().and_then(|count| rest.get(..count));
        let Some(taken) = taken else {
            return Err(Stop::Short("inside a body"));
        };
        self.at += taken.len();
        Ok(taken)
    }

    /// Field lines up to and including the empty one.
    pub(crate) fn fields(&mut self) -> Result<Vec<Field>, Stop> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            fields.push(field(line)?);
        }
    }

    /// A body by its framing; for `UntilClose` all that is left.
    pub(crate) fn body(&mut self, framing: Framing, grammar: Grammar) -> Result<Body, Stop> {
        match framing {
            Framing::None => Ok(Body::default()),
            Framing::Length(count) => Ok(Body { bytes: self.take(count)?.to_vec(), trailers: Vec::new() }),
            Framing::Chunked => self.chunks(grammar),
            Framing::UntilClose => {
                let left = self.bytes[self.at..].to_vec();
                self.at = self.bytes.len();
                Ok(Body { bytes: left, trailers: Vec::new() })
            }
        }
    }

    fn chunks(&mut self, grammar: Grammar) -> Result<Body, Stop> {
        let mut body = Body::default();
        loop {
            let size = chunk_size(self.line()?, grammar)?;
            if size == 0 {
                break;
            }
            body.bytes.extend_from_slice(self.take(size)?);
            match self.take(2) {
                Ok(b"\r\n") => {}
                Ok(other) => return bad(format!("{:?} after the data of a chunk", show(other))),
                Err(short) => return Err(short),
            }
        }
        body.trailers = self.fields()?;
        let forbidden = body.trailers.iter().find(|(name, _)| FORBIDDEN_TRAILERS.iter().any(|no| is(name, no)));
        match forbidden {
            Some((name, _)) if grammar == Grammar::Canonical => bad(format!("the trailer {:?}", show(name))),
            _ => Ok(body),
        }
    }
}

/// Whether a field name is this one, in any case.
pub(crate) fn is(name: &[u8], wanted: &str) -> bool {
    name.eq_ignore_ascii_case(wanted.as_bytes())
}

/// The values of all fields of this name.
pub(crate) fn values<'f>(fields: &'f [Field], wanted: &str) -> Vec<&'f [u8]> {
    fields.iter().filter(|(name, _)| is(name, wanted)).map(|(_, value)| value.as_slice()).collect()
}

/// Whether a comma-separated field has this member, in any case.
pub(crate) fn lists(fields: &[Field], field: &str, member: &str) -> bool {
    members(fields, field).iter().any(|found| is(found, member))
}

/// The members of a comma-separated field.
pub(crate) fn members(fields: &[Field], field: &str) -> Vec<Vec<u8>> {
    let all = values(fields, field);
    let parts = all.iter().flat_map(|value| value.split(|&byte| byte == b','));
    parts.map(|part| part.trim_ascii().to_vec()).filter(|part| !part.is_empty()).collect()
}

/// Whether these bytes are a token (9110 §5.6.2).
pub(crate) fn token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn field(line: &[u8]) -> Result<Field, Stop> {
    if line[0] == b' ' || line[0] == b'\t' {
        return bad(format!("a line that starts with a blank: {:?}", show(line)));
    }
    let Some(colon) = line.iter().position(|&byte| byte == b':') else {
        return bad(format!("a field line without a colon: {:?}", show(line)));
    };
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    if !token(name) {
        return bad(format!("the field name {:?}", show(name)));
    }
    if line[colon..].iter().any(|&byte| (byte < 0x20 && byte != b'\t') || byte == 0x7f) {
        return bad(format!("a control character in the value of {:?}", show(name)));
    }
    Ok((name.to_vec(), value.to_vec()))
}

fn chunk_size(line: &[u8], grammar: Grammar) -> Result<u64, Stop> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let rest = &line[digits..];
    let extension =
        rest.trim_ascii_start().first() == Some(&b';') && !rest.iter().any(|&byte| byte < 0x20 && byte != 9);
    let allowed = rest.is_empty() || (grammar == Grammar::Lawful && extension);
    if !(1..=16).contains(&digits) || !allowed {
        return bad(format!("the chunk-size line {:?}", show(line)));
    }
    let text = std::str::from_utf8(&line[..digits]).expect("hex digits are text");
    Ok(u64::from_str_radix(text, 16).expect("at most 16 hex digits"))
}

/// The framing that these fields declare; `None` when they declare nothing.
///
/// # Errors
/// Content-Length beside Transfer-Encoding, either of them twice, or one that does not say one thing only.
pub(crate) fn framing(fields: &[Field], minor: u8, grammar: Grammar) -> Result<Framing, Stop> {
    let (codings, lengths) = (values(fields, "transfer-encoding"), values(fields, "content-length"));
    match (codings.as_slice(), lengths.as_slice()) {
        ([], []) => Ok(Framing::None),
        ([_, ..], [_, ..]) => bad("Content-Length beside Transfer-Encoding"),
        ([_, _, ..], _) => bad("Transfer-Encoding twice"),
        (_, [_, _, ..]) => bad("Content-Length twice"),
        ([_], []) if minor == 0 => bad("Transfer-Encoding in HTTP/1.0"),
        ([coding], []) => {
            let exact = *coding == b"chunked" || (grammar == Grammar::Lawful && is(coding, "chunked"));
            if exact { Ok(Framing::Chunked) } else { bad(format!("Transfer-Encoding {:?}", show(coding))) }
        }
        ([], [length]) => {
            let number = std::str::from_utf8(length).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            match number.and_then(|text| text.parse().ok()) {
                Some(count) => Ok(Framing::Length(count)),
                None => bad(format!("Content-Length {:?}", show(length))),
            }
        }
    }
}
