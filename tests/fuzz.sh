#!/usr/bin/env bash
# One fuzz target under libFuzzer: tests/fuzz.sh TARGET [-- OPTIONS OF LIBFUZZER...]
#
# Begins with the committed corpus; what it finds on its way stays in fuzz/corpus, and what fails in fuzz/artifacts. An
# input that failed belongs into tests/fuzz/corpus/TARGET, where `make test` tries it from then on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly target="${1:-}"
if [ ! -f "fuzz/fuzz_targets/$target.rs" ]; then
    echo "found the target '$target', expected one of:" $(cd fuzz/fuzz_targets && ls | sed 's/\.rs$//') >&2
    exit 1
fi
shift
if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    echo "found no cargo-fuzz with a nightly compiler: rustup toolchain install nightly && cargo install --locked cargo-fuzz" >&2
    exit 1
fi
mkdir -p "fuzz/corpus/$target"
# Without the sanitizer of addresses: the crate forbids unsafe code. In the profile of the tests, which looks for
# overflows and builds in minutes: most of a run is sockets.
exec cargo +nightly fuzz run --dev --sanitizer none "$target" "fuzz/corpus/$target" "tests/fuzz/corpus/$target" "$@"
