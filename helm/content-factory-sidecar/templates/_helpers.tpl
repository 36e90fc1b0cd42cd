{{- define "content-factory-sidecar.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "content-factory-sidecar.fullname" -}}
{{- $name := include "content-factory-sidecar.name" . -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "content-factory-sidecar.collector.fullname" -}}
{{ include "content-factory-sidecar.fullname" . }}-collector
{{- end }}

{{/* Argument: (dict "root" . "component" "web") */}}
{{- define "content-factory-sidecar.selectorLabels" -}}
app.kubernetes.io/name: {{ include "content-factory-sidecar.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "content-factory-sidecar.labels" -}}
{{ include "content-factory-sidecar.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* An image as a reference. Argument: (dict "image" … "tag" "used when the image has none"); a digest wins over a tag. */}}
{{- define "content-factory-sidecar.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .tag .image.tag }}
{{- end -}}
{{- end }}

{{/* A quantity of memory in whole MiB. Argument: (dict "path" "its key" "value" "512Mi"). */}}
{{- define "content-factory-sidecar.mebibytes" -}}
{{- $value := toString .value -}}
{{- if regexMatch "^[0-9]+Mi$" $value -}}
{{ trimSuffix "Mi" $value }}
{{- else if regexMatch "^[0-9]+Gi$" $value -}}
{{ mul 1024 (trimSuffix "Gi" $value | int) }}
{{- else -}}
{{ fail (printf "%s: %s, expected a whole number of Mi or Gi, for example 512Mi" .path $value) }}
{{- end -}}
{{- end }}

{{/* Whole seconds of a duration as sidecar.yaml has it, rounded up. Argument: (dict "path" … "value" …) */}}
{{- define "content-factory-sidecar.seconds" -}}
{{- $value := toString .value -}}
{{- if regexMatch "^[0-9.]+ms$" $value -}}
{{ divf (trimSuffix "ms" $value) 1000 | ceil }}
{{- else if regexMatch "^[0-9.]+s$" $value -}}
{{ trimSuffix "s" $value | float64 | ceil }}
{{- else if regexMatch "^[0-9.]+m$" $value -}}
{{ mulf (trimSuffix "m" $value) 60 | ceil }}
{{- else if regexMatch "^[0-9.]+h$" $value -}}
{{ mulf (trimSuffix "h" $value) 3600 | ceil }}
{{- else if eq "0" $value -}}
0
{{- else -}}
{{ fail (printf "%s: %s, expected a duration such as 250ms, 2s or 5m" .path $value) }}
{{- end -}}
{{- end }}

{{/* Where the sidecars send telemetry. */}}
{{- define "content-factory-sidecar.otlpEndpoint" -}}
{{- if .Values.sidecar.otlp.endpoint -}}
{{ .Values.sidecar.otlp.endpoint }}
{{- else if .Values.collector.enabled -}}
http://{{ include "content-factory-sidecar.collector.fullname" . }}:{{ eq .Values.sidecar.otlp.protocol "grpc" | ternary 4317 4318 }}
{{- else -}}
http://otel-collector:{{ eq .Values.sidecar.otlp.protocol "grpc" | ternary 4317 4318 }}
{{- end -}}
{{- end }}
