#!/usr/bin/env bash
# Builds cargo-deny, unpacks the advisory database, and prints the paths of both: the binary, then the database.
#
# Both are kept outside the tree, by version and by hash, so a second run costs nothing. The first takes about 90
# seconds of one core: the tool runs for two, so it is built without optimisation.
#
# To renew the database: `git archive --format=tar.gz -o tests/data/advisory-db.tar.gz main` in a clone of
# https://github.com/RustSec/advisory-db.
set -euo pipefail

readonly root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
readonly cache="${XDG_CACHE_HOME:-$HOME/.cache}/content-factory-sidecar"
readonly version=0.20.2
readonly database="$root/tests/data/advisory-db.tar.gz"
# cargo-deny's own name for a checkout of https://github.com/RustSec/advisory-db: the hash is that of the address
readonly checkout=advisory-db-3157b0e258782691

readonly kept="$cache/cargo-deny-$version"
readonly unpacked="$cache/advisory-db-$(sha256sum "$database" | cut -c1-12)"
mkdir -p "$cache"

# keep FROM TO: a rename is atomic; if another run was faster, its result stays
keep() {
    mv -T "$1" "$2" 2>/dev/null || [ -d "$2" ]
}

work=
trap '[ -z "$work" ] || rm -rf "$work"' EXIT

if [ ! -x "$kept/bin/cargo-deny" ]; then
    work="$(mktemp -d "$cache/.cargo-deny.XXXXXX")"
    echo "cargo-deny $version: building into $kept (once)" >&2
    # The tree's target folder may belong to a running cargo, so this build has one of its own.
    CARGO_TARGET_DIR="$work/target" CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --profile dev \
        --no-default-features --root "$work/result" --version "$version" cargo-deny >&2
    "$work/result/bin/cargo-deny" --version | grep -qF "$version" || {
        echo "deny.sh: the built binary says '$("$work/result/bin/cargo-deny" --version)', expected version $version" >&2
        exit 1
    }
    keep "$work/result" "$kept"
    rm -rf "$work"
fi

if [ ! -d "$unpacked" ]; then
    work="$(mktemp -d "$cache/.advisory-db.XXXXXX")"
    mkdir -p "$work/result/$checkout"
    tar -xzf "$database" -C "$work/result/$checkout"
    # cargo-deny reads a database out of a git repository only
    git -C "$work/result/$checkout" init --quiet --initial-branch=main
    git -C "$work/result/$checkout" add --all
    git -C "$work/result/$checkout" -c user.name=tests -c user.email=tests@example.invalid -c commit.gpgsign=false \
        commit --quiet --no-verify --message "The copy of the tree"
    keep "$work/result" "$unpacked"
fi

echo "$kept/bin/cargo-deny"
echo "$unpacked"
