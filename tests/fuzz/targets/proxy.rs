//! Bytes of a client, end to end: whatever they are, nothing dirty reaches the application or the client.

use std::sync::{LazyLock, Mutex};

use crate::targets::Fate;
use crate::targets::world::World;
use crate::verdict::Verdict;

static WORLD: LazyLock<Mutex<World>> = LazyLock::new(|| World::start(&[]));

/// What a client of HTTP/2 by prior knowledge begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The oracle's verdict: what comes out parses strictly, and the origin sees no request that a strict reader does not.
/// Of HTTP/2 only the first is asked, as the oracle does not read it.
pub(crate) fn check(data: &[u8]) -> Fate {
    if data.starts_with(PREFACE) {
        let arrived = World::translate(&WORLD, data);
        return if arrived.is_empty() { Fate::Refused } else { Fate::Accepted };
    }
    match World::judge(&WORLD, data).verdict {
        Verdict::Clean | Verdict::Truncated | Verdict::Dirty => Fate::Accepted,
        Verdict::Refused | Verdict::Closed => Fate::Refused,
    }
}
