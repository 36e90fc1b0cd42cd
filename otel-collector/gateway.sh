#!/bin/sh
# Runs the gateway with the overlay of each vendor whose key is set, and of no other.
#
#   gateway.sh [validate] [more collector flags, for example --config extra.yaml]
#
# The collector's binary: $OTELCOL, else `otelcol-contrib` or `otelcol` on PATH. Environment: README.md beside this file.
set -eu

here=$(cd "$(dirname "$0")" && pwd)

fail() {
    echo "gateway.sh: $1" >&2
    exit 64
}

collector=${OTELCOL:-}
if [ -z "$collector" ]; then
    collector=$(command -v otelcol-contrib || command -v otelcol) ||
        fail "no collector found, expected otelcol-contrib or otelcol on PATH or its path in OTELCOL (\`make collector\` builds one)"
fi

[ -n "${OTLP_TOKEN_FILE:-}" ] || fail "OTLP_TOKEN_FILE is not set, expected a file with the bearer token that senders must show"
[ -r "$OTLP_TOKEN_FILE" ] || fail "OTLP_TOKEN_FILE: $OTLP_TOKEN_FILE cannot be read, expected a file with a bearer token"

action=
if [ "${1:-}" = validate ]; then
    action=validate
    shift
fi

# flags of the caller come last, because the last file wins
[ -z "${OTLP_TLS_CERT_FILE:-}" ] || {
    for file in "$OTLP_TLS_CERT_FILE" "${OTLP_TLS_KEY_FILE:-}"; do
        [ -r "$file" ] || fail "OTLP_TLS_CERT_FILE or OTLP_TLS_KEY_FILE: '$file' cannot be read, expected a certificate and its key in PEM"
    done
    set -- --config "$here/tls.yaml" "$@"
}
vendors=
[ -z "${SENTRY_PUBLIC_KEY:-}" ] || {
    [ -n "${SENTRY_OTLP_URL:-}" ] || fail "SENTRY_PUBLIC_KEY is set without SENTRY_OTLP_URL, expected https://oORG.ingest.sentry.io/api/PROJECT/integration/otlp"
    set -- --config "$here/vendors/sentry.yaml" "$@"
    vendors="sentry $vendors"
}
[ -z "${NEW_RELIC_LICENSE_KEY:-}" ] || {
    set -- --config "$here/vendors/newrelic.yaml" "$@"
    vendors="newrelic $vendors"
}
[ -z "${DD_API_KEY:-}" ] || {
    set -- --config "$here/vendors/datadog.yaml" "$@"
    vendors="datadog $vendors"
}

echo "gateway.sh: vendors: ${vendors:-none, everything received is dropped}" >&2
exec "$collector" $action --config "$here/gateway.yaml" "$@"
