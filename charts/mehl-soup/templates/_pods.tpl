{{/* Parts that all pods share. Users, groups and paths are those of the images (docker/). */}}

{{/* The pod's security context: .Values.worker or .Values.scheduler */}}
{{- define "mehl-soup.podSecurity" -}}
{{- $context := deepCopy .podSecurityContext -}}
{{- with .supplementalGroups -}}
{{- $_ := set $context "supplementalGroups" . -}}
{{- end -}}
{{- toYaml $context -}}
{{- end -}}

{{/* Mode of the files of Secrets: .Values.worker or .Values.scheduler. The files belong to root, and to fsGroup if the pod has one.
Without fsGroup, others must be able to read them. The volume is in memory and is mounted into this pod only. */}}
{{- define "mehl-soup.secretMode" -}}
{{- ternary "0440" "0444" (hasKey .podSecurityContext "fsGroup") -}}
{{- end -}}

{{/* The first fields of a pod's specification. No service links: the programs would read such variables as settings. */}}
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

{{/* Where pods run: dict "root" $ "part" "worker" "values" .Values.worker "tolerations" (list ...) for those that the chart adds */}}
{{- define "mehl-soup.placement" -}}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
tolerations:
  {{- include "mehl-soup.tolerations" . | nindent 2 }}
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

{{/* Tolerations of the values and of the chart. A pod on an unreachable node is evicted after lostNodeSeconds, instead of the
300 s of Kubernetes. No replacement starts before. A toleration of the values for the same taint replaces the chart's. */}}
{{- define "mehl-soup.tolerations" -}}
{{- $all := concat .values.tolerations (default list .tolerations) -}}
{{- range $taint := list "node.kubernetes.io/unreachable" "node.kubernetes.io/not-ready" -}}
{{- $given := false -}}
{{- range $.values.tolerations -}}
{{- if and (has (default "" .key) (list $taint "")) (has (default "" .effect) (list "NoExecute" "")) -}}
{{- $given = true -}}
{{- end -}}
{{- end -}}
{{- if not $given -}}
{{- $all = append $all (dict "key" $taint "operator" "Exists" "effect" "NoExecute" "tolerationSeconds" (int $.values.lostNodeSeconds)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $all -}}
{{- end -}}

{{/* Annotations that change with the shared settings, so that pods restart after a change. Settings of one part are in the environment of
its pods, so a change restarts only that part. */}}
{{- define "mehl-soup.checksums" -}}
checksum/settings: {{ include "mehl-soup.sharedSettings" . | sha256sum }}
{{- if .Values.quickstart.enabled }}
checksum/quickstart: {{ include "mehl-soup.quickstartMark" . }}
{{- end }}
{{- end -}}

{{/* Settings that scheduler and workers share, as environment variables. */}}
{{- define "mehl-soup.sharedSettings" -}}
MEHL_SOUP__INSTALLATION: {{ include "mehl-soup.installation" . | quote }}
MEHL_SOUP__REDIS__URL_FILE: /etc/mehl-soup/servers/redis-url
MEHL_SOUP__AMQP__URL_FILE: /etc/mehl-soup/servers/amqp-url
{{- if .Values.redis.caSecret }}
MEHL_SOUP__REDIS__CA_FILE: /etc/mehl-soup/servers/redis-ca.pem
{{- end }}
{{- if .Values.amqp.caSecret }}
MEHL_SOUP__AMQP__CA_FILE: /etc/mehl-soup/servers/amqp-ca.pem
{{- end }}
{{- range $section := list "log" "redis" "amqp" }}
{{- range $key, $value := index $.Values.settings $section }}
MEHL_SOUP__{{ upper $section }}__{{ upper $key }}: {{ include "mehl-soup.settingValue" $value }}
{{- end }}
{{- end }}
{{- with .Values.rustLog }}
RUST_LOG: {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "mehl-soup.settingValue" -}}
{{ ternary . (int64 .) (kindIs "string" .) | quote }}
{{- end -}}

{{/* Environment variables of one part; the extraEnv of the values come last: dict "root" $ "part" "worker" "own" (YAML of the list that the chart sets). */}}
{{- define "mehl-soup.environment" -}}
{{- $values := index .root.Values .part -}}
{{- $taken := keys (include "mehl-soup.sharedSettings" .root | fromYaml) -}}
{{- range .own | fromYamlArray -}}
{{- $taken = append $taken .name -}}
{{- end -}}
{{ .own }}
{{- range $key, $value := index .root.Values.settings .part }}
- name: MEHL_SOUP__{{ upper $.part }}__{{ upper $key }}
  value: {{ include "mehl-soup.settingValue" $value }}
{{- $taken = append $taken (printf "MEHL_SOUP__%s__%s" (upper $.part) (upper $key)) -}}
{{- end }}
{{- range $values.extraEnv }}
{{- if has .name $taken }}
{{- fail (printf "%s.extraEnv has %s, which the chart sets itself. Use the chart's value instead (settings, rustLog, or a key of %s)" $.part .name $.part) }}
{{- end }}
{{- $taken = append $taken .name }}
- {{ toYaml . | nindent 2 | trim }}
{{- end }}
{{- end -}}

{{/* Addresses of the servers, as files: dict "root" $ "values" .Values.worker. If a Secret or key is missing, the pod does not start, and one of its events names the Secret. */}}
{{- define "mehl-soup.serverVolumes" -}}
{{- $v := .root.Values }}
- name: servers
  projected:
    defaultMode: {{ include "mehl-soup.secretMode" .values }}
    sources:
      {{- if $v.quickstart.enabled }}
      - secret:
          name: {{ include "mehl-soup.quickstartSecret" .root }}
          items:
            - {key: redis-url, path: redis-url}
            - {key: amqp-url, path: amqp-url}
      {{- else }}
      - secret:
          name: {{ $v.redis.existingSecret }}
          items:
            - {key: {{ $v.redis.urlKey | quote }}, path: redis-url}
      - secret:
          name: {{ $v.amqp.existingSecret }}
          items:
            - {key: {{ $v.amqp.urlKey | quote }}, path: amqp-url}
      {{- end }}
      {{- with $v.redis.caSecret }}
      - secret:
          name: {{ . }}
          items:
            - {key: {{ $v.redis.caKey | quote }}, path: redis-ca.pem}
      {{- end }}
      {{- with $v.amqp.caSecret }}
      - secret:
          name: {{ . }}
          items:
            - {key: {{ $v.amqp.caKey | quote }}, path: amqp-ca.pem}
      {{- end }}
{{- end -}}

{{- define "mehl-soup.tokenVolume" -}}
{{- $v := .root.Values }}
- name: token
  secret:
    secretName: {{ include "mehl-soup.tokenSecret" .root }}
    defaultMode: {{ include "mehl-soup.secretMode" .values }}
    items:
      - {key: {{ $v.token.key | quote }}, path: token}
{{- end -}}

{{/* A pod that submits a sweep to the scheduler: dict "root" $ "arguments" (list ...) "volume" "name of a ConfigMap" "restart" "Never" */}}
{{- define "mehl-soup.clientPod" -}}
{{- include "mehl-soup.podStart" .root }}
restartPolicy: {{ .restart }}
securityContext:
  {{- include "mehl-soup.podSecurity" .root.Values.scheduler | nindent 2 }}
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
      requests: {cpu: 50m, memory: 64Mi, ephemeral-storage: 16Mi}
      limits: {cpu: 500m, memory: 256Mi}
    securityContext:
      {{- toYaml .root.Values.scheduler.securityContext | nindent 6 }}
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
  {{- include "mehl-soup.tokenVolume" (dict "root" .root "values" .root.Values.scheduler) | nindent 2 }}
  - name: sweeps
    configMap:
      name: {{ .volume }}
{{- end -}}
