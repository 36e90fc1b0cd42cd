#!/usr/bin/env bash
# Builds the OpenTelemetry Collector of otel-collector/builder/ from Go modules and prints the path of the binary.
#
# The result is kept by version and by the hash of its inputs, outside the tree, so a second run costs nothing.
# First build: about 13 minutes on one core, 6 to 7 on two, 3.3 GB of memory at its peak.
#
# `builder` alone would run `go mod tidy`, which also fetches modules that only tests of dependencies need and which
# some mirrors do not carry. So it only generates the sources, and go.mod and go.sum are the ones committed here.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
inputs=$root/otel-collector/builder
cache=${XDG_CACHE_HOME:-$HOME/.cache}/content-factory-sidecar

version=$(sed -n 's/^dist:.* version: \([0-9.]*\).*/\1/p' "$inputs/builder.yaml")
key=$(cat "$inputs/builder.yaml" "$inputs/go.mod" "$inputs/go.sum" | sha256sum | cut -c1-12)
kept=$cache/otelcol-$version-$key

if [ -x "$kept/otelcol" ]; then
    echo "$kept/otelcol"
    exit 0
fi

if ! command -v go >/dev/null; then
    echo "collector.sh: the command go was not found, expected Go 1.26 or newer to build the collector: install it from https://go.dev/dl/ and put it on PATH" >&2
    exit 1
fi

mkdir -p "$cache"
work=$(mktemp -d "$cache/.otelcol-build.XXXXXX")
trap 'rm -rf "$work"' EXIT

echo "collector.sh: building otelcol $version into $kept (once; minutes)" >&2
GOBIN=$work/bin go install "go.opentelemetry.io/collector/cmd/builder@v$version" >&2

cp "$inputs/builder.yaml" "$work/"
(
    cd "$work"
    bin/builder --skip-compilation --skip-get-modules --config=builder.yaml >&2
    cp "$inputs/go.mod" "$inputs/go.sum" _build/
    cd _build
    # readonly: a build never resolves a version of its own, it takes the committed ones or fails
    GOFLAGS=-mod=readonly go build -trimpath -tags grpcnotrace -ldflags "-s -w" -o "$work/result/otelcol" . >&2
)

"$work/result/otelcol" --version | grep -qF "$version" || {
    echo "collector.sh: the built binary says '$("$work/result/otelcol" --version)', expected version $version" >&2
    exit 1
}

# a rename is atomic: whoever finds the folder finds it whole; if another run was faster, its result stays
mv -T "$work/result" "$kept" 2>/dev/null || [ -x "$kept/otelcol" ]
echo "$kept/otelcol"
