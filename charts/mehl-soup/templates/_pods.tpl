{{/* What all pods of the chart share. Users, groups and paths are those of the images (docker/). */}}

{{- define "mehl-soup.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "mehl-soup.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* The beginning of a pod's specification. Names of services in the environment would be taken for settings, so they stay out. */}}
{{- define "mehl-soup.podStart" -}}
serviceAccountName: {{ include "mehl-soup.serviceAccountName" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Where pods run: dict "root" $ "part" "worker" "values" .Values.worker */}}
{{- define "mehl-soup.placement" -}}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- include "mehl-soup.topologySpread" (dict "root" $.root "part" $.part "constraints" .) | trim | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* Annotations that change with what a pod reads when it starts, so that it is started anew. */}}
{{- define "mehl-soup.checksums" -}}
checksum/settings: {{ include (print $.Template.BasePath "/config/settings.yaml") . | sha256sum }}
{{- if .Values.quickstart.enabled }}
checksum/quickstart: {{ .Values.quickstart.password | sha256sum }}
{{- end }}
{{- end -}}

{{/* Addresses of the servers, as files. A Secret or key that is missing keeps the pod from starting, and an event of the pod names it. */}}
{{- define "mehl-soup.serverVolumes" -}}
- name: servers
  projected:
    defaultMode: 0440
    sources:
      {{- if .Values.quickstart.enabled }}
      - secret:
          name: {{ include "mehl-soup.quickstartSecret" . }}
          items:
            - {key: redis-url, path: redis-url}
            - {key: amqp-url, path: amqp-url}
      {{- else }}
      - secret:
          name: {{ .Values.redis.existingSecret }}
          items:
            - {key: {{ .Values.redis.urlKey | quote }}, path: redis-url}
      - secret:
          name: {{ .Values.amqp.existingSecret }}
          items:
            - {key: {{ .Values.amqp.urlKey | quote }}, path: amqp-url}
      {{- end }}
      {{- with .Values.redis.caSecret }}
      - secret:
          name: {{ . }}
          items:
            - {key: {{ $.Values.redis.caKey | quote }}, path: redis-ca.pem}
      {{- end }}
      {{- with .Values.amqp.caSecret }}
      - secret:
          name: {{ . }}
          items:
            - {key: {{ $.Values.amqp.caKey | quote }}, path: amqp-ca.pem}
      {{- end }}
{{- end -}}

{{- define "mehl-soup.tokenVolume" -}}
- name: token
  secret:
    secretName: {{ include "mehl-soup.tokenSecret" . }}
    defaultMode: 0440
    items:
      - {key: {{ .Values.token.key | quote }}, path: token}
{{- end -}}

{{/* A pod that gives a sweep to the scheduler: dict "root" $ "arguments" (list ...) "volume" "name of a ConfigMap" "restart" "Never" */}}
{{- define "mehl-soup.clientPod" -}}
{{- include "mehl-soup.podStart" .root }}
restartPolicy: {{ .restart }}
securityContext:
  {{- include "mehl-soup.podSecurity" .root | nindent 2 }}
containers:
  - name: submit
    image: {{ include "mehl-soup.schedulerImage" .root }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    args:
      {{- toYaml .arguments | nindent 6 }}
    env:
      - name: MEHL_SOUP__CLIENT__SERVER
        value: {{ include "mehl-soup.schedulerUrl" .root | quote }}
      - name: MEHL_SOUP__CLIENT__TOKEN_FILE
        value: /etc/mehl-soup/token/token
    resources:
      requests: {cpu: 50m, memory: 64Mi}
      limits: {cpu: 500m, memory: 256Mi}
    securityContext:
      {{- include "mehl-soup.containerSecurity" .root | nindent 6 }}
    volumeMounts:
      - {name: token, mountPath: /etc/mehl-soup/token, readOnly: true}
      - {name: sweeps, mountPath: /etc/mehl-soup/sweeps, readOnly: true}
{{- with .root.Values.scheduler.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.scheduler.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  {{- include "mehl-soup.tokenVolume" .root | nindent 2 }}
  - name: sweeps
    configMap:
      name: {{ .volume }}
{{- end -}}
