{{/* The collector's files, each under its name: the gateway, the balancer before several, the overlay of every vendor with a
     key, and the user's own. */}}
{{- define "content-factory-sidecar.collector.files" -}}
gateway.yaml: |
  {{- .Files.Get "files/gateway.yaml" | trim | nindent 2 }}
{{- if gt (int .Values.collector.replicas) 1 }}
balancer.yaml: |
  {{- .Files.Get "files/balancer.yaml" | trim | nindent 2 }}
{{- end }}
{{- range $vendor, $settings := .Values.collector.vendors }}
{{- if $settings.secretKey }}
{{ $vendor }}.yaml: |
  {{- $.Files.Get (printf "files/vendors/%s.yaml" $vendor) | trim | nindent 2 }}
{{- end }}
{{- end }}
{{- with .Values.collector.config }}
own.yaml: |
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Key and address of each vendor with a key, under the names that its overlay reads. */}}
{{- define "content-factory-sidecar.collector.vendorEnv" -}}
{{- $names := dict
    "datadog" (list "DD_API_KEY" "DD_OTLP_URL")
    "newrelic" (list "NEW_RELIC_LICENSE_KEY" "NR_OTLP_URL")
    "sentry" (list "SENTRY_PUBLIC_KEY" "SENTRY_OTLP_URL") -}}
{{- range $vendor, $settings := .Values.collector.vendors }}
{{- if $settings.secretKey }}
{{- $name := get $names $vendor }}
- name: {{ index $name 0 }}
  valueFrom: {secretKeyRef: {name: {{ $.Values.collector.existingSecret }}, key: {{ $settings.secretKey }}}}
{{- with $settings.url }}
- {name: {{ index $name 1 }}, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
