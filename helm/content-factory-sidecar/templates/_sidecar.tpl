{{/* The sidecar's container: the one place where it is written. */}}
{{- define "content-factory-sidecar.container" -}}
name: content-factory-sidecar
image: {{ include "content-factory-sidecar.image" (dict "image" .Values.image "tag" .Chart.AppVersion) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- if .Values.sidecar.native }}
restartPolicy: Always
{{- end }}
{{- if .Values.sidecar.config }}
args: ["run", "--config", "/etc/content-factory-sidecar/sidecar.yaml"]
{{- else }}
args: ["run"]
{{- end }}
env:
{{- include "content-factory-sidecar.env" . | nindent 2 }}
{{- with .Values.sidecar.existingSecret }}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
ports:
  - {name: sidecar-http, containerPort: {{ .Values.sidecar.ports.proxy }}, protocol: TCP}
  - {name: sidecar-admin, containerPort: {{ .Values.sidecar.ports.admin }}, protocol: TCP}
startupProbe:
  httpGet: {path: /startupz, port: {{ .Values.sidecar.ports.admin }}{{ include "content-factory-sidecar.admin.scheme" . }}}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /livez, port: {{ .Values.sidecar.ports.admin }}{{ include "content-factory-sidecar.admin.scheme" . }}}
  periodSeconds: 10
  timeoutSeconds: 2
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: {{ .Values.sidecar.ports.admin }}{{ include "content-factory-sidecar.admin.scheme" . }}}
  periodSeconds: 5
  timeoutSeconds: 2
  failureThreshold: 2
resources: {{- toYaml .Values.sidecar.resources | nindent 2 }}
securityContext: {{- toYaml .Values.sidecar.securityContext | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
{{- if or .Values.dataDir.enabled .Values.sidecar.config .Values.sidecar.admin.tokens.existingSecret .Values.sidecar.admin.tls.existingSecret }}
volumeMounts:
{{- if .Values.dataDir.enabled }}
  - {name: sidecar-data, mountPath: /var/lib/content-factory-sidecar}
{{- end }}
{{- if .Values.sidecar.config }}
  - {name: sidecar-config, mountPath: /etc/content-factory-sidecar, readOnly: true}
{{- end }}
{{- if .Values.sidecar.admin.tokens.existingSecret }}
  - {name: sidecar-tokens, mountPath: /var/run/secrets/content-factory-sidecar/tokens, readOnly: true}
{{- end }}
{{- if .Values.sidecar.admin.tls.existingSecret }}
  - {name: sidecar-tls, mountPath: /var/run/secrets/content-factory-sidecar/tls, readOnly: true}
{{- end }}
{{- end }}
{{- end }}

{{/* The kubelet shows no certificate and looks at none: the probes are exempt from both. */}}
{{- define "content-factory-sidecar.admin.scheme" -}}
{{- if .Values.sidecar.admin.tls.existingSecret }}, scheme: HTTPS{{ end -}}
{{- end }}

{{/* Files, because they are read again when the Secret changes. */}}
{{- define "content-factory-sidecar.admin.env" -}}
{{- with .Values.sidecar.admin.tokens.existingSecret }}
- {name: SIDECAR_ADMIN__TOKENS_FILE, value: /var/run/secrets/content-factory-sidecar/tokens/tokens}
{{- end }}
{{- if .Values.sidecar.admin.tls.existingSecret }}
- {name: SIDECAR_ADMIN__TLS__CERTIFICATE_FILE, value: /var/run/secrets/content-factory-sidecar/tls/tls.crt}
- {name: SIDECAR_ADMIN__TLS__KEY_FILE, value: /var/run/secrets/content-factory-sidecar/tls/tls.key}
{{- with .Values.sidecar.admin.tls.clientCaKey }}
- {name: SIDECAR_ADMIN__TLS__CLIENT_CA_FILE, value: /var/run/secrets/content-factory-sidecar/tls/{{ . }}}
{{- end }}
{{- end }}
{{- end }}

{{/* An ordinary container is told to end together with the application, so it takes new connections for as long as that one
     answers. A native sidecar is told when the application has ended. sidecar.config decides if it says something. */}}
{{- define "content-factory-sidecar.drainDelay" -}}
{{- $alongside := ternary "0s" (printf "%ds" (int .Values.web.preStopSleepSeconds)) .Values.sidecar.native -}}
{{- dig "proxy" "drain_delay" $alongside .Values.sidecar.config -}}
{{- end }}

{{- define "content-factory-sidecar.env" -}}
- {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
- {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
- {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
# the application's container, which telemetry is of; with pod and namespace it is service.instance.id
- {name: CONTAINER_NAME, value: web}
- {name: SIDECAR_PROXY__UPSTREAM, value: "http://127.0.0.1:{{ .Values.web.port }}"}
- {name: SIDECAR_PROXY__LISTEN, value: "0.0.0.0:{{ .Values.sidecar.ports.proxy }}"}
- {name: SIDECAR_ADMIN__LISTEN, value: "0.0.0.0:{{ .Values.sidecar.ports.admin }}"}
{{- include "content-factory-sidecar.admin.env" . }}
{{- if .Values.sidecar.egress.enabled }}
- {name: SIDECAR_EGRESS__ENABLED, value: "true"}
# containers of a pod share loopback, and nobody else is to call the service from here
- {name: SIDECAR_EGRESS__LISTEN, value: "127.0.0.1:{{ .Values.sidecar.ports.egress }}"}
{{- end }}
{{- if ne (include "content-factory-sidecar.drainDelay" .) "0s" }}
- {name: SIDECAR_PROXY__DRAIN_DELAY, value: {{ include "content-factory-sidecar.drainDelay" . | quote }}}
{{- end }}
{{- if .Values.dataDir.enabled }}
- {name: SIDECAR_DATA_DIR, value: /var/lib/content-factory-sidecar}
{{- end }}
- {name: OTEL_SERVICE_NAME, value: {{ .Values.sidecar.serviceName | quote }}}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: "k8s.pod.name=$(POD_NAME),k8s.pod.uid=$(POD_UID),k8s.pod.ip=$(POD_IP),k8s.namespace.name=$(POD_NAMESPACE),k8s.node.name=$(NODE_NAME)"
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ include "content-factory-sidecar.otlpEndpoint" . | quote }}}
- {name: OTEL_EXPORTER_OTLP_PROTOCOL, value: {{ .Values.sidecar.otlp.protocol | quote }}}
{{- if .Values.sidecar.otlp.existingSecret }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  valueFrom: {secretKeyRef: {name: {{ .Values.sidecar.otlp.existingSecret }}, key: {{ .Values.sidecar.otlp.secretKey }}}}
{{- else if and .Values.collector.enabled (not .Values.sidecar.otlp.endpoint) }}
- name: COLLECTOR_TOKEN
  valueFrom: {secretKeyRef: {name: {{ .Values.collector.existingSecret }}, key: {{ .Values.collector.tokenKey }}}}
# the kubelet puts the token in, so no object of the chart holds it
- {name: OTEL_EXPORTER_OTLP_HEADERS, value: "authorization=Bearer%20$(COLLECTOR_TOKEN)"}
{{- end }}
{{- with .Values.sidecar.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "content-factory-sidecar.volumes" -}}
{{- if .Values.dataDir.enabled }}
- {name: sidecar-data, emptyDir: {sizeLimit: {{ .Values.dataDir.sizeLimit }}}}
{{- end }}
{{- if .Values.sidecar.config }}
- {name: sidecar-config, configMap: {name: {{ include "content-factory-sidecar.fullname" . }}}}
{{- end }}
{{- with .Values.sidecar.admin.tokens }}
{{- if .existingSecret }}
- {name: sidecar-tokens, secret: {secretName: {{ .existingSecret }}, items: [{key: {{ .key }}, path: tokens}]}}
{{- end }}
{{- end }}
{{- with .Values.sidecar.admin.tls.existingSecret }}
- {name: sidecar-tls, secret: {secretName: {{ . }}}}
{{- end }}
{{- end }}
