//! Whether a message arrived as it was sent: body, target, and every end-to-end field in its order and case.

use crate::grammar::{Field, is, members, show};
use crate::requests::Request;
use crate::responses::Response;

/// Fields of one hop (9110 §7.6.1, §11.7), and framing, which each hop writes anew.
const HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "trailer",
    "proxy-authenticate",
    "proxy-authorization",
    "content-length",
];
/// Fields that a gateway owns: it adds, replaces or appends.
const OWNED: [&str; 13] = [
    "host",
    "via",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-real-ip",
    "traceparent",
    "tracestate",
    "baggage",
    "x-request-id",
    "expect",
    "max-forwards",
];

/// Whether these are the same request: method, target and body.
pub(crate) fn same_request(sent: &Request, found: &Request) -> bool {
    let target = found.target == sent.target || found.target == sent.origin_form();
    sent.method == found.method && target && sent.body.bytes == found.body.bytes
}

/// What was changed that is not a proxy's to change.
pub(crate) fn altered(sent: &Request, found: &Request) -> Option<String> {
    if let Some((name, _)) = found.fields.iter().find(|(name, _)| leaks(name, sent, found)) {
        return Some(format!("the hop-by-hop field {:?} went on", show(name)));
    }
    different(&end_to_end(&sent.fields), &end_to_end(&found.fields))
}

/// What a proxy changed in a response that is not its to change.
pub(crate) fn altered_response(sent: &Response, found: &Response) -> Option<String> {
    if sent.status != found.status {
        return Some(format!("status {}, the origin sent {}", found.status, sent.status));
    }
    if sent.body.bytes != found.body.bytes {
        return Some(format!("{} bytes of body, the origin sent {}", found.body.bytes.len(), sent.body.bytes.len()));
    }
    let (sent, found) = (end_to_end(&sent.fields), end_to_end(&found.fields));
    // A gateway with a clock adds a Date where there is none (9110 §6.6.1).
    let dated = sent.iter().any(|(name, _)| is(name, "date"));
    let found: Vec<Field> = found.into_iter().filter(|(name, _)| dated || !is(name, "date")).collect();
    different(&sent, &found)
}

fn leaks(name: &[u8], sent: &Request, found: &Request) -> bool {
    let switching = sent.upgrades() && found.upgrades();
    let single = ["keep-alive", "proxy-connection", "te", "proxy-authorization"];
    let named = members(&sent.fields, "connection");
    let nominated = named.iter().any(|named| {
        named.eq_ignore_ascii_case(name) && !OWNED.iter().any(|owned| is(name, owned)) && !is(name, "upgrade")
    });
    single.iter().any(|hop| is(name, hop)) || nominated || (is(name, "upgrade") && !switching)
}

fn end_to_end(fields: &[Field]) -> Vec<Field> {
    let named = members(fields, "connection");
    let stays = |name: &[u8]| {
        !HOP.iter().chain(&OWNED).any(|other| is(name, other))
            && !named.iter().any(|named| named.eq_ignore_ascii_case(name))
    };
    fields.iter().filter(|(name, _)| stays(name)).cloned().collect()
}

fn different(sent: &[Field], found: &[Field]) -> Option<String> {
    let line = |field: Option<&Field>| {
        field.map_or("nothing".to_owned(), |(name, value)| format!("{:?}: {:?}", show(name), show(value)))
    };
    let longest = sent.len().max(found.len());
    let at = (0..longest).find(|&at| sent.get(at) != found.get(at))?;
    Some(format!("field {at} is {}, sent was {}", line(found.get(at)), line(sent.get(at))))
}
