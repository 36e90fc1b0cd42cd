//! Field lines of a request whose other parts are in order.

use std::sync::{LazyLock, Mutex};

use crate::fidelity;
use crate::grammar::{Grammar, Stop};
use crate::requests;
use crate::targets::Fate;
use crate::targets::world::World;

static WORLD: LazyLock<Mutex<World>> = LazyLock::new(|| World::start(&[]));

/// Fields that are lawful arrive in their order and case; those of one hop, and what `Connection` names, do not.
pub(crate) fn check(data: &[u8]) -> Fate {
    let bytes = [b"GET /fields HTTP/1.1\r\nHost: h.example\r\n", data, b"\r\n\r\n"].concat();
    let arrived = World::judge(&WORLD, &bytes).arrived;
    let sent = requests::read(&bytes, Grammar::Lawful);
    let ([sent], [found], Stop::Clean) = (sent.requests.as_slice(), arrived.as_slice(), sent.stop) else {
        return if arrived.is_empty() { Fate::Refused } else { Fate::Accepted };
    };
    // A name with `_` that an application would take for a trusted one with `-` is left out.
    let ambiguous = sent.fields.iter().any(|(name, _)| name.contains(&b'_'));
    if !ambiguous && fidelity::same_request(sent, found) {
        assert_eq!(fidelity::altered(sent, found), None, "{}", bytes.escape_ascii());
    }
    Fate::Accepted
}
