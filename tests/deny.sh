#!/usr/bin/env bash
# Holds the crates that Cargo.lock names against deny.toml: licences, bans, sources, advisories. Further arguments go
# to `cargo deny check`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

{
    read -r cargo_deny
    read -r ADVISORY_DB
} < <(tests/setup/deny.sh)
export ADVISORY_DB

# The crates of every platform, which metadata without a network needs; does nothing when they are there.
cargo fetch --locked --quiet

# the proof that this can fail: a policy that bans what is surely here must be broken
policy="$(mktemp)"
trap 'rm -f "$policy"' EXIT
echo 'bans.deny = ["tokio"]' >"$policy"
said="$("$cargo_deny" --locked --offline --config "$policy" check bans 2>&1)" && broken=0 || broken=$?
if [ "$broken" -eq 0 ] || [[ "$said" != *"crate 'tokio = "*banned* ]]; then
    printf '%s\ndeny.sh: a policy that bans tokio was not broken, so the check below would prove nothing\n' "$said" >&2
    exit 1
fi

# an exception that nothing needs any more is a mistake of the policy
"$cargo_deny" --locked --offline --log-level warn check --hide-inclusion-graph --deny unmatched-skip "$@"

# The fuzz targets have a lock file of their own. Nothing of it is shipped, so its licences do not matter; that it is up to date does.
cargo fetch --locked --quiet --manifest-path fuzz/Cargo.toml || {
    echo "deny.sh: fuzz/Cargo.lock is not what fuzz/Cargo.toml and Cargo.toml ask for: cargo fetch --manifest-path fuzz/Cargo.toml" >&2
    exit 1
}
"$cargo_deny" --locked --offline --log-level warn --manifest-path fuzz/Cargo.toml --config deny.toml check --hide-inclusion-graph \
    advisories sources
