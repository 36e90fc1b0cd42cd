#!/usr/bin/env bash
# Builds h2spec, the conformance suite of HTTP/2, from Go modules and prints the path of the binary on the last line.
#
# The version is the last one that the module proxy gives: one case fewer than its main branch. It has no go.mod of its
# own, so what it is built of is pinned here, in h2spec/go.mod and go.sum. Ten seconds, once.
set -euo pipefail

readonly inputs="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/h2spec"
readonly cache="${XDG_CACHE_HOME:-$HOME/.cache}/content-factory-sidecar"
readonly kept="$cache/h2spec-$(cat "$inputs/go.mod" "$inputs/go.sum" | sha256sum | cut -c1-12)"

if [ ! -x "$kept/h2spec" ]; then
    if ! command -v go >/dev/null; then
        echo "found no command go, expected Go 1.26 or later to build h2spec: https://go.dev/dl/" >&2
        exit 1
    fi
    mkdir -p "$cache"
    work="$(mktemp -d "$cache/.h2spec.XXXXXX")"
    trap 'rm -rf "$work"' EXIT
    echo "h2spec: building into $kept" >&2
    # readonly: a build never resolves a version of its own, it takes the committed ones or fails
    (cd "$inputs" && GOFLAGS=-mod=readonly go build -trimpath -o "$work/result/h2spec" github.com/summerwind/h2spec/cmd/h2spec) >&2
    # a rename is atomic; if another run was faster, its result stays
    mv -T "$work/result" "$kept" 2>/dev/null || [ -x "$kept/h2spec" ]
fi
echo "$kept/h2spec"
