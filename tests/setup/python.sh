#!/usr/bin/env bash
# Makes the virtual environment of the end-to-end tests and prints its path on the last line. First argument: other
# requirements, with hashes, than those of the tests.
#
# It lives outside the tree, under a name made from the pinned requirements and the version of Python, so a
# change of either makes a new one and a second run only looks. Safe to call from several shells at once.
set -euo pipefail

readonly here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
readonly requirements="${1:-$here/../e2e/requirements.txt}"
readonly cache="${XDG_CACHE_HOME:-$HOME/.cache}/content-factory-sidecar"

if ! command -v python3 >/dev/null || ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "found $(python3 --version 2>/dev/null || echo 'no python3'), expected Python 3.11 or later as python3 in PATH" >&2
    exit 1
fi

key="$({ cat "$requirements"; python3 -c 'import sys; print(sys.version, sys.base_prefix)'; } | sha256sum | cut -c1-16)"
readonly venv="$cache/python-$key"

mkdir -p "$cache"
exec 9>"$cache/python-$key.lock"
flock 9
# The mark is written last: an interrupted installation is not taken for a whole one.
if [ ! -e "$venv/.complete" ]; then
    echo "Python packages: installing into $venv" >&2
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$requirements" >&2
    touch "$venv/.complete"
fi
echo "$venv"
