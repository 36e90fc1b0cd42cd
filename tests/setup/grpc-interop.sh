#!/usr/bin/env bash
# Builds the client and the server by which gRPC's implementations are tried against each other, from Go modules, and prints
# the path of their folder on the last line.
#
# What they are built of is pinned in grpc-interop/go.mod and go.sum. Two minutes on two cores, once.
set -euo pipefail

readonly inputs="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/grpc-interop"
readonly cache="${XDG_CACHE_HOME:-$HOME/.cache}/content-factory-sidecar"
readonly kept="$cache/grpc-interop-$(cat "$inputs/go.mod" "$inputs/go.sum" | sha256sum | cut -c1-12)"

if [ ! -x "$kept/client" ] || [ ! -x "$kept/server" ]; then
    if ! command -v go >/dev/null; then
        echo "found no command go, expected Go 1.26 or later to build the interop tests of gRPC: https://go.dev/dl/" >&2
        exit 1
    fi
    mkdir -p "$cache"
    work="$(mktemp -d "$cache/.grpc-interop.XXXXXX")"
    trap 'rm -rf "$work"' EXIT
    echo "grpc-interop: building into $kept" >&2
    mkdir "$work/result"
    # readonly: a build never resolves a version of its own, it takes the committed ones or fails; -s -w: nobody debugs them
    (cd "$inputs" && GOFLAGS=-mod=readonly go build -trimpath -ldflags '-s -w' -o "$work/result/" \
        google.golang.org/grpc/interop/client google.golang.org/grpc/interop/server) >&2
    # a rename is atomic; if another run was faster, its result stays
    mv -T "$work/result" "$kept" 2>/dev/null || [ -x "$kept/client" ]
fi
echo "$kept"
