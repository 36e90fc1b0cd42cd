//! What a client says about where it comes from: the first byte says whether it is trusted, each line is one field, its
//! first byte says which.

use std::net::IpAddr;
use std::sync::{LazyLock, Mutex};

use crate::grammar::values;
use crate::requests::Request;
use crate::targets::Fate;
use crate::targets::world::World;

static STRANGER: LazyLock<Mutex<World>> = LazyLock::new(|| World::start(&[]));
static TRUSTED: LazyLock<Mutex<World>> = LazyLock::new(|| World::start(&["127.0.0.0/8", "10.0.0.0/8"]));

const FIELDS: [&str; 6] =
    ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-IP", "Forwarded", "traceparent"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Stranger,
    Trusted,
}

/// A stranger's claims do not arrive, and a trusted proxy's are continued: the last hop is always the socket's.
pub(crate) fn check(data: &[u8]) -> Fate {
    let (peer, claims) = match data.split_first() {
        Some((first, claims)) if first % 2 == 1 => (Peer::Trusted, claims),
        Some((_, claims)) => (Peer::Stranger, claims),
        None => (Peer::Stranger, data),
    };
    let mut bytes = b"GET /forwarded HTTP/1.1\r\nHost: h.example\r\n".to_vec();
    for claim in claims.split(|&byte| byte == b'\n') {
        let Some((which, value)) = claim.split_first() else { continue };
        bytes.extend_from_slice(FIELDS[usize::from(*which) % FIELDS.len()].as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    let arrived = World::judge(if peer == Peer::Trusted { &TRUSTED } else { &STRANGER }, &bytes).arrived;
    for request in &arrived {
        holds(request, peer);
    }
    if arrived.is_empty() { Fate::Refused } else { Fate::Accepted }
}

fn holds(request: &Request, peer: Peer) {
    let all = |field: &str| values(&request.fields, field);
    let said =
        || request.fields.iter().map(|(name, value)| [name, &b": "[..], value].concat().escape_ascii().to_string());
    let said = || said().collect::<Vec<_>>().join("\n");
    let (chains, clients) = (all("x-forwarded-for"), all("x-real-ip"));
    let ([chain], [client]) = (chains.as_slice(), clients.as_slice()) else {
        panic!("not one of each:\n{}", said());
    };
    let last = chain.rsplit(|&byte| byte == b',').next().unwrap_or_default();
    assert_eq!(last.trim_ascii(), b"127.0.0.1", "{}", said());
    let client = std::str::from_utf8(client).ok().and_then(|text| text.parse::<IpAddr>().ok());
    assert!(client.is_some(), "{}", said());
    assert_eq!(all("traceparent").len(), 1, "{}", said());
    if peer == Peer::Trusted {
        let forwarded = all("forwarded");
        assert!(forwarded.iter().all(|value| value.ends_with(b"for=127.0.0.1;proto=http")), "{}", said());
        return;
    }
    assert_eq!(*chain, b"127.0.0.1", "{}", said());
    assert_eq!((all("x-forwarded-proto"), all("x-forwarded-host")), (vec![&b"http"[..]], vec![&b"h.example"[..]]));
    assert!(all("forwarded").is_empty(), "{}", said());
}
