{{/* Mistakes that a schema cannot see. Each message says what was found, what was expected and which key it is. */}}
{{- define "content-factory-sidecar.checks" -}}
{{- include "content-factory-sidecar.checks.ports" . -}}
{{- include "content-factory-sidecar.checks.config" . -}}
{{- include "content-factory-sidecar.checks.grace" . -}}
{{- if not .Values.web.image.repository -}}
{{- fail "web.image.repository: empty, expected the image of your application" -}}
{{- end -}}
{{- if .Values.dataDir.enabled -}}
{{- $limit := include "content-factory-sidecar.mebibytes" (dict "path" "dataDir.sizeLimit" "value" .Values.dataDir.sizeLimit) | int -}}
{{- if le $limit 320 -}}
{{- fail (printf "dataDir.sizeLimit: %s, expected more than 320Mi: the sidecar keeps up to 256 MiB of spool and 64 MiB of history there, and the kubelet evicts a pod above its limit" .Values.dataDir.sizeLimit) -}}
{{- end -}}
{{- end -}}
{{- if .Values.collector.enabled -}}
{{- if not .Values.collector.existingSecret -}}
{{- fail "collector.existingSecret: empty, expected the name of a Secret with the bearer token (collector.tokenKey) and the vendors' keys" -}}
{{- end -}}
{{- if and .Values.collector.vendors.sentry.secretKey (not .Values.collector.vendors.sentry.url) -}}
{{- fail "collector.vendors.sentry.url: empty, expected https://oORG.ingest.sentry.io/api/PROJECT/integration/otlp" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "content-factory-sidecar.checks.ports" -}}
{{- $taken := dict -}}
{{- $ports := list
    (list "web.port" .Values.web.port)
    (list "sidecar.ports.proxy" .Values.sidecar.ports.proxy)
    (list "sidecar.ports.admin" .Values.sidecar.ports.admin) -}}
{{- $config := .Values.sidecar.config -}}
{{- if .Values.sidecar.egress.enabled -}}
{{- $ports = append $ports (list "sidecar.ports.egress" .Values.sidecar.ports.egress) -}}
{{- else if dig "egress" "enabled" false $config -}}
{{- $ports = append $ports (list "sidecar.config.egress.listen" (dig "egress" "listen" "127.0.0.1:18001" $config | splitList ":" | last)) -}}
{{- end -}}
{{- if dig "telemetry" "intake" "enabled" false $config -}}
{{- $ports = append $ports (list "sidecar.config.telemetry.intake.grpc" (dig "telemetry" "intake" "grpc" "127.0.0.1:4317" $config | splitList ":" | last)) -}}
{{- $ports = append $ports (list "sidecar.config.telemetry.intake.http" (dig "telemetry" "intake" "http" "127.0.0.1:4318" $config | splitList ":" | last)) -}}
{{- end -}}
{{- range $ports -}}
{{- $path := index . 0 -}}
{{- $port := index . 1 | toString -}}
{{- if hasKey $taken $port -}}
{{- fail (printf "%s: %s, expected another port than %s: containers of a pod share their ports" $path $port (get $taken $port)) -}}
{{- end -}}
{{- $_ := set $taken $port $path -}}
{{- end -}}
{{- end }}

{{/* The sidecar takes new connections for a while, drains, then delivers what is left, then its parts have a second to end; later the kubelet kills it.
     Where sidecar.config says nothing the sidecar's own defaults hold. */}}
{{- define "content-factory-sidecar.checks.grace" -}}
{{- $delay := include "content-factory-sidecar.drainDelay" . -}}
{{- $drain := dig "proxy" "drain_timeout" "20s" .Values.sidecar.config -}}
{{- $deliver := dig "telemetry" "shutdown" "3s" .Values.sidecar.config -}}
{{- $needed := add 1
    (include "content-factory-sidecar.seconds" (dict "path" "sidecar.config.proxy.drain_delay" "value" $delay) | int)
    (include "content-factory-sidecar.seconds" (dict "path" "sidecar.config.proxy.drain_timeout" "value" $drain) | int)
    (include "content-factory-sidecar.seconds" (dict "path" "sidecar.config.telemetry.shutdown" "value" $deliver) | int) -}}
{{- if le (int .Values.terminationGracePeriodSeconds) (int $needed) -}}
{{- fail (printf "terminationGracePeriodSeconds: %d, expected more than %d: proxy.drain_delay (%s), proxy.drain_timeout (%s) and telemetry.shutdown (%s) of the sidecar, and a second" (int .Values.terminationGracePeriodSeconds) (int $needed) $delay $drain $deliver) -}}
{{- end -}}
{{- end }}

{{/* Settings that the chart makes from its own values reach the sidecar as environment, which wins over its file. */}}
{{- define "content-factory-sidecar.checks.config" -}}
{{- $owned := dict
    "proxy.listen" "sidecar.ports.proxy"
    "proxy.upstream" "web.port"
    "admin.listen" "sidecar.ports.admin"
    "telemetry.endpoint" "sidecar.otlp.endpoint"
    "telemetry.protocol" "sidecar.otlp.protocol" -}}
{{- if .Values.sidecar.admin.tokens.existingSecret -}}
{{- $_ := set $owned "admin.tokens_file" "sidecar.admin.tokens" -}}
{{- $_ := set $owned "admin.tokens" "sidecar.admin.tokens" -}}
{{- end -}}
{{- if .Values.sidecar.admin.tls.existingSecret -}}
{{- $_ := set $owned "admin.tls" "sidecar.admin.tls" -}}
{{- end -}}
{{- if .Values.sidecar.egress.enabled -}}
{{- $_ := set $owned "egress.enabled" "sidecar.egress.enabled" -}}
{{- $_ := set $owned "egress.listen" "sidecar.ports.egress" -}}
{{- end -}}
{{- if and .Values.sidecar.admin.tls.clientCaKey (not .Values.sidecar.admin.tls.existingSecret) -}}
{{- fail "sidecar.admin.tls.existingSecret: empty, expected the Secret that has clientCaKey" -}}
{{- end -}}
{{- range $path, $value := $owned -}}
{{- $parts := splitList "." $path -}}
{{- $section := get $.Values.sidecar.config (first $parts) -}}
{{- if and (kindIs "map" $section) (hasKey $section (last $parts)) -}}
{{- fail (printf "sidecar.config.%s: set, but the chart sets it by the environment, which wins: expected the value under %s instead" $path $value) -}}
{{- end -}}
{{- end -}}
{{- end }}
