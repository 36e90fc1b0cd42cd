//! Bytes of a client, end to end: whatever they are, nothing dirty reaches the application or the client.

use std::sync::{LazyLock, Mutex};

use crate::targets::Fate;
use crate::targets::world::World;
use crate::verdict::Verdict;

static WORLD: LazyLock<Mutex<World>> = LazyLock::new(|| World::start(&[]));

/// The oracle's verdict: what comes out parses strictly, and the origin sees no request that a strict reader does not.
pub(crate) fn check(data: &[u8]) -> Fate {
    match World::judge(&WORLD, data).verdict {
        Verdict::Clean | Verdict::Truncated | Verdict::Dirty => Fate::Accepted,
        Verdict::Refused | Verdict::Closed => Fate::Refused,
    }
}
