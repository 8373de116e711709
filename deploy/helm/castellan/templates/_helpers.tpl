{{- define "castellan.labels" -}}
app.kubernetes.io/component: operator
app.kubernetes.io/name: castellan
{{- end }}

{{- define "castellan.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "castellan.subjects" -}}
- kind: ServiceAccount
  name: castellan-operator
  namespace: {{ .Release.Namespace }}
{{- end }}
