{{/* The pod of a worker, for a Deployment and for a Job: dict "root" $ "once" true */}}
{{- define "mehl-soup.workerPod" -}}
{{- $ := .root -}}
{{- $values := $.Values.worker -}}
metadata:
  labels:
    {{- include "mehl-soup.podLabels" (dict "root" $ "part" "worker" "extra" $values.podLabels) | nindent 4 }}
  annotations:
    {{- include "mehl-soup.checksums" $ | nindent 4 }}
    {{- with $values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "mehl-soup.podStart" $ | nindent 2 }}
  {{- if .once }}
  restartPolicy: Never
  {{- end }}
  {{- with $values.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  # On SIGTERM a worker saves a checkpoint, returns its task and exits with 0, within seconds.
  terminationGracePeriodSeconds: {{ int $values.terminationGracePeriodSeconds }}
  securityContext:
    {{- include "mehl-soup.podSecurity" $values | nindent 4 }}
  {{- with $values.initContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: worker
      image: {{ include "mehl-soup.workerImage" $ }}
      imagePullPolicy: {{ $.Values.image.pullPolicy }}
      args: [serve{{ if .once }}, --once{{ end }}]
      envFrom:
        - configMapRef:
            name: {{ include "mehl-soup.fullname" $ }}-settings
      env:
        {{- include "mehl-soup.environment" (dict "root" $ "part" "worker" "own" (include "mehl-soup.workerEnv" $)) | trim | nindent 8 }}
      ports:
        - {name: metrics, containerPort: 9464, protocol: TCP}
      # Succeeds once the device is initialised (slow with CUDA) and Redis is reached. If the device cannot be used, the worker exits.
      startupProbe:
        httpGet: {path: /healthz, port: metrics}
        periodSeconds: {{ int $values.startup.periodSeconds }}
        timeoutSeconds: 5
        failureThreshold: {{ int $values.startup.failureThreshold }}
      # Checks the age of the heartbeat. If a task makes no progress, the process exits by itself (settings.worker.stall_seconds).
      livenessProbe:
        httpGet: {path: /healthz, port: metrics}
        periodSeconds: 20
        timeoutSeconds: 10
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: metrics}
        periodSeconds: 10
        timeoutSeconds: 10
        failureThreshold: 2
      resources:
        {{- include "mehl-soup.workerResources" $ | nindent 8 }}
      securityContext:
        {{- toYaml $values.securityContext | nindent 8 }}
      volumeMounts:
        - {name: servers, mountPath: /etc/mehl-soup/servers, readOnly: true}
        - {name: cache, mountPath: /var/cache/mehl-soup}
        - {name: shm, mountPath: /dev/shm}
        - {name: tmp, mountPath: /tmp}
        {{- range $values.inputs }}
        - name: input-{{ .name }}
          mountPath: {{ .mountPath | quote }}
          readOnly: true
          {{- with .subPath }}
          subPath: {{ . | quote }}
          {{- end }}
        {{- end }}
        {{- with $values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  {{- include "mehl-soup.placement" (dict "root" $ "part" "worker" "values" $values "tolerations" (ternary $values.gpu.tolerations list (gt (int $values.gpu.count) 0))) | nindent 2 }}
  volumes:
    {{- include "mehl-soup.serverVolumes" (dict "root" $ "values" $values) | nindent 4 }}
    - name: cache
      {{- if $values.cache.volume }}
      {{- toYaml $values.cache.volume | nindent 6 }}
      {{- else }}
      emptyDir: {sizeLimit: {{ $values.cache.sizeLimit }}}
      {{- end }}
    - name: shm
      emptyDir: {medium: Memory, sizeLimit: {{ $values.shmSize }}}
    - name: tmp
      emptyDir: {sizeLimit: 1Gi}
    {{- range $values.inputs }}
    - name: input-{{ .name }}
      {{- toYaml .volume | nindent 6 }}
    {{- end }}
    {{- with $values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "mehl-soup.workerEnv" -}}
- name: MEHL_SOUP__WORKER__DEVICE
  value: {{ include "mehl-soup.device" . | quote }}
- name: MEHL_SOUP__WORKER__INPUT_ROOTS
  value: {{ include "mehl-soup.inputRoots" . | quote }}
{{- with .Values.worker.torchscriptAllow }}
- name: MEHL_SOUP__WORKER__TORCHSCRIPT_ALLOW
  value: {{ join "," . | quote }}
{{- end }}
{{- if not (hasKey .Values.settings.worker "threads") }}
# The number of requested cores: by default it would use all cores of the node.
- name: MEHL_SOUP__WORKER__THREADS
  valueFrom:
    resourceFieldRef: {containerName: worker, resource: requests.cpu, divisor: "1"}
{{- end }}
# All addresses of the pod, IPv6 and IPv4.
- name: MEHL_SOUP__WORKER__LISTEN
  value: "[::]:9464"
- name: MEHL_SOUP_CACHE_DIR
  value: /var/cache/mehl-soup
{{- end -}}

{{/* The input folders, and the digits zoo in the worker image if `helm test` uses it. */}}
{{- define "mehl-soup.inputRoots" -}}
{{- $roots := list -}}
{{- range .Values.worker.inputs -}}
{{- $roots = append $roots .mountPath -}}
{{- end -}}
{{- if .Values.test.enabled -}}
{{- $roots = append $roots "/usr/share/mehl-soup/demo" -}}
{{- end -}}
{{- join "," $roots -}}
{{- end -}}

{{/* Kubernetes derives the request of an extended resource from its limit. Both are written for readers. */}}
{{- define "mehl-soup.workerResources" -}}
{{- $resources := deepCopy .Values.worker.resources -}}
{{- $count := int .Values.worker.gpu.count -}}
{{- if gt $count 0 -}}
{{- range $kind := list "requests" "limits" -}}
{{- $_ := set $resources $kind (merge (dict $.Values.worker.gpu.resourceName $count) (default dict (index $resources $kind))) -}}
{{- end -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}
