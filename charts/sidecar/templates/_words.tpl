{{/* Names, numbers read from the configuration, and the rules that the values must keep. No objects here. */}}

{{- define "sidecar.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "sidecar.fullname" -}}
{{- $name := include "sidecar.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "sidecar.selectorLabels" -}}
app.kubernetes.io/name: {{ include "sidecar.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "sidecar.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "sidecar.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "sidecar.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "sidecar.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* repository:tag, or repository@digest */}}
{{- define "sidecar.image" -}}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (required (printf "the image %s needs a tag or a digest" .repository) .tag) }}
{{- end }}
{{- end }}

{{- define "sidecar.sidecarImage" -}}
{{- $image := .Values.sidecar.image }}
{{- include "sidecar.image" (dict "repository" $image.repository "digest" $image.digest "tag" (default .Chart.AppVersion $image.tag)) }}
{{- end }}

{{- define "sidecar.appImage" -}}
{{- if .Values.app.image.repository }}
{{- include "sidecar.image" .Values.app.image }}
{{- else }}
{{- include "sidecar.sidecarImage" . }}
{{- end }}
{{- end }}

{{/* UPSTREAM_<NAME>_ADDR of a service's name */}}
{{- define "sidecar.upstreamVariable" -}}
{{- printf "UPSTREAM_%s_ADDR" (regexReplaceAll "[^A-Z0-9]" (upper .) "_") }}
{{- end }}

{{/* Milliseconds of 250ms, 1.5s, 2m, 1h or a plain number of seconds, rounded up */}}
{{- define "sidecar.milliseconds" -}}
{{- $text := toString . }}
{{- if not (regexMatch "^[0-9]+(\\.[0-9]+)?(ms|s|m|h)?$" $text) }}
{{- fail (printf "config.drain: %s must be a duration such as 5s, and no ${VARIABLE}: the chart reckons with it" $text) }}
{{- end }}
{{- $number := regexFind "^[0-9.]+" $text | float64 }}
{{- $unit := regexFind "[a-z]+$" $text | default "s" }}
{{- mulf $number (get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) $unit) | ceil | int64 }}
{{- end }}

{{/* Seconds between deregistration and the moment when callers have noticed, rounded up */}}
{{- define "sidecar.propagationSeconds" -}}
{{- div (add (include "sidecar.milliseconds" .Values.config.drain.propagation) 999) 1000 }}
{{- end }}

{{- define "sidecar.probePort" -}}
{{- regexFind "[0-9]+$" .Values.config.admin.probe_listen }}
{{- end }}

{{/* The rules that a schema cannot say. */}}
{{- define "sidecar.rules" -}}
{{- $admin := .Values.config.admin }}
{{- if not $admin.listen }}
{{- fail "config.admin.listen must be set: preStop drains the sidecar through it" }}
{{- end }}
{{- if or (not $admin.probe_listen) (regexMatch "^(127\\.|localhost:|\\[::1\\]|unix:)" (toString $admin.probe_listen)) }}
{{- fail "config.admin.probe_listen must be reachable from outside the pod, such as 0.0.0.0:19901: the kubelet's probes go there" }}
{{- end }}
{{- $drain := .Values.config.drain }}
{{- $needed := divf (addf (include "sidecar.milliseconds" $drain.propagation | float64) (mulf .Values.app.shutdownSeconds 1000) (include "sidecar.milliseconds" $drain.grace | float64)) 1000 }}
{{- if gt $needed (float64 .Values.terminationGracePeriodSeconds) }}
{{- fail (printf "terminationGracePeriodSeconds is %v, but config.drain.propagation (%v) + app.shutdownSeconds (%v) + config.drain.grace (%v) need %vs: raise it, or lower one of them" .Values.terminationGracePeriodSeconds $drain.propagation .Values.app.shutdownSeconds $drain.grace $needed) }}
{{- end }}
{{- with .Values.config.service }}
{{- if not (regexMatch "^[0-9]+$" (toString .port)) }}
{{- fail (printf "config.service.port is %v, but the pod needs a number" .port) }}
{{- end }}
{{- end }}
{{- $names := dict }}
{{- range .Values.config.upstreams }}
{{- if .listen }}
{{- $name := default .service .name }}
{{- if contains "${" .listen }}
{{- fail (printf "the upstream %s listens on %s, but the application is handed that address and cannot fill it in" $name .listen) }}
{{- end }}
{{- if hasPrefix "unix:" .listen }}
{{- fail (printf "the upstream %s listens on %s, but the application's container cannot see the sidecar's files: use a 127.0.0.1 address" $name .listen) }}
{{- end }}
{{- $variable := include "sidecar.upstreamVariable" $name }}
{{- if hasKey $names $variable }}
{{- fail (printf "the upstreams %s and %s would both be handed to the application as %s" (get $names $variable) $name $variable) }}
{{- end }}
{{- $_ := set $names $variable $name }}
{{- end }}
{{- end }}
{{- end }}
