#!/usr/bin/env bash
# Validates every collector file with the real collector: the gateway alone, with each set of vendors, the balancer, the
# agent, and the files of the tests. First argument: the collector's binary; without it, collector.sh gives the path.
#
# A file that validates but uses a name on its way out fails too: the next collector would refuse it.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
files=$root/otel-collector
collector=${1:-$("$root/tests/setup/collector.sh" | tail -n 1)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "a-token" >"$work/token"
validated=0

# validate NAME [VARIABLE=VALUE ...] -- COMMAND...: the environment holds nothing else
validate() {
    local name=$1 variables=()
    shift
    while [ "$1" != -- ]; do
        variables+=("$1")
        shift
    done
    shift
    if ! env -i PATH="$PATH" OTELCOL="$collector" "${variables[@]}" "$@" >"$work/said" 2>&1; then
        echo "collector-validate.sh: $name: the collector refuses it, expected a valid configuration:" >&2
        cat "$work/said" >&2
        exit 1
    fi
    if grep -iE 'deprecat|unset environment variable' "$work/said" >&2; then
        echo "collector-validate.sh: $name: the warning above, expected none" >&2
        exit 1
    fi
    validated=$((validated + 1))
    echo "valid: $name"
}

datadog=(DD_API_KEY=a-key)
newrelic=(NEW_RELIC_LICENSE_KEY=a-key)
sentry=(SENTRY_PUBLIC_KEY=a-key SENTRY_OTLP_URL=http://127.0.0.1:9/api/1/integration/otlp)
gateway=(OTLP_TOKEN_FILE="$work/token" OTELCOL_DATA="$work/data")

for subset in "" datadog newrelic sentry "datadog newrelic" "datadog sentry" "newrelic sentry" "datadog newrelic sentry"; do
    keys=()
    for vendor in $subset; do
        declare -n vendor_keys=$vendor
        keys+=("${vendor_keys[@]}")
    done
    validate "gateway.yaml with ${subset:-no vendor}" "${gateway[@]}" "${keys[@]}" -- "$files/gateway.sh" validate
done
validate "gateway.yaml with the tests' overrides" "${gateway[@]}" MY_POD_IP=127.0.0.1 -- \
    "$files/gateway.sh" validate --config "$root/tests/e2e/gateway-overrides.yaml"
validate balancer.yaml OTLP_TOKEN=a-token OTLP_TOKEN_FILE="$work/token" -- "$collector" validate --config "$files/balancer.yaml"
# with TLS the collector reads certificate and key while it validates
if ! command -v openssl >/dev/null; then
    echo "collector-validate.sh: the command openssl was not found, expected it to make a certificate: apt-get install openssl" >&2
    exit 1
fi
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=otel-collector -days 1 \
    -keyout "$work/key.pem" -out "$work/certificate.pem" 2>/dev/null
tls=(OTLP_TLS_CERT_FILE="$work/certificate.pem" OTLP_TLS_KEY_FILE="$work/key.pem")
validate "gateway.yaml with TLS" "${gateway[@]}" "${tls[@]}" -- "$files/gateway.sh" validate
validate "balancer.yaml with TLS" OTLP_TOKEN=a-token OTLP_TOKEN_FILE="$work/token" GATEWAY_INSECURE=false "${tls[@]}" -- \
    "$collector" validate --config "$files/balancer.yaml" --config "$files/tls.yaml"
validate agent.yaml OTLP_TOKEN=a-token OTELCOL_DATA="$work/data" -- "$collector" validate --config "$files/agent.yaml"
validate "the tests' collector-file.yaml" OTLP_GRPC_ADDRESS=127.0.0.1:4317 OTLP_HTTP_ADDRESS=127.0.0.1:4318 \
    HEALTH_ADDRESS=127.0.0.1:13133 OUT="$work" -- "$collector" validate --config "$root/tests/e2e/collector-file.yaml"

# the proof that this script can fail: a misspelt key must be refused
printf 'exporters: {nop: {endpiont: "127.0.0.1:4317"}}\n' >"$work/misspelt.yaml"
if env -i "${gateway[@]}" "$collector" validate --config "$files/gateway.yaml" --config "$work/misspelt.yaml" >"$work/said" 2>&1; then
    echo "collector-validate.sh: a misspelt key was accepted, so the validation above proves nothing" >&2
    exit 1
fi

echo "collector-validate.sh: $validated configurations are valid"
