{{/* Names, labels and images. */}}

{{- define "mehl-soup.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 40 characters: the longest suffix has 20, and Kubernetes allows 63. */}}
{{- define "mehl-soup.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "mehl-soup.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "mehl-soup.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "mehl-soup.installation" -}}
{{- default (printf "%s.%s" .Release.Namespace (include "mehl-soup.fullname" .)) .Values.installation -}}
{{- end -}}

{{/* Selector of the pods of a part: dict "root" $ "part" "worker". Never change it: the selector of a Deployment is immutable. */}}
{{- define "mehl-soup.selector" -}}
app.kubernetes.io/name: {{ include "mehl-soup.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{/* Labels of a pod: dict "root" $ "part" "worker" "extra" .Values.worker.podLabels. No version: a changed label would restart the pods.
The labels of the selector take precedence over those of the values. */}}
{{- define "mehl-soup.podLabels" -}}
{{- $own := include "mehl-soup.selector" . | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $_ := set $own "app.kubernetes.io/part-of" "mehl-soup" -}}
{{- toYaml (merge $own (deepCopy (default dict .extra)) (deepCopy .root.Values.commonLabels)) -}}
{{- end -}}

{{/* Labels of an object: the labels of a pod and the versions. */}}
{{- define "mehl-soup.labels" -}}
{{- $versions := dict "app.kubernetes.io/version" .root.Chart.AppVersion -}}
{{- $chart := printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- $_ := set $versions "helm.sh/chart" $chart -}}
{{- toYaml (merge $versions (include "mehl-soup.podLabels" . | fromYaml)) -}}
{{- end -}}

{{/* metadata of an object: dict "root" $ "part" "worker" "name" "x", and optionally more labels, "extra" .Values.worker.labels */}}
{{- define "mehl-soup.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "mehl-soup.labels" . | nindent 2 }}
{{- end -}}

{{/* dict "root" $ "image" .Values.x.image "suffix" "-cuda" */}}
{{- define "mehl-soup.image" -}}
{{- $repository := .image.repository -}}
{{- with .root.Values.image.registry -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) $repository -}}
{{- end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default (printf "%s%s" .root.Chart.AppVersion .suffix) .image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "mehl-soup.schedulerImage" -}}
{{- include "mehl-soup.image" (dict "root" . "image" .Values.scheduler.image "suffix" "") -}}
{{- end -}}

{{- define "mehl-soup.workerImage" -}}
{{- include "mehl-soup.image" (dict "root" . "image" .Values.worker.image "suffix" (ternary "-cpu" "-cuda" (eq (int .Values.worker.gpu.count) 0))) -}}
{{- end -}}

{{- define "mehl-soup.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "mehl-soup.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "mehl-soup.schedulerName" -}}
{{- printf "%s-scheduler" (include "mehl-soup.fullname" .) -}}
{{- end -}}

{{- define "mehl-soup.schedulerUrl" -}}
{{- printf "http://%s.%s.svc:%d" (include "mehl-soup.schedulerName" .) .Release.Namespace (int .Values.scheduler.service.port) -}}
{{- end -}}

{{- define "mehl-soup.workerName" -}}
{{- printf "%s-worker" (include "mehl-soup.fullname" .) -}}
{{- end -}}

{{- define "mehl-soup.tokenSecret" -}}
{{- default (printf "%s-token" (include "mehl-soup.fullname" .)) .Values.token.existingSecret -}}
{{- end -}}

{{- define "mehl-soup.quickstartSecret" -}}
{{- printf "%s-quickstart" (include "mehl-soup.fullname" .) -}}
{{- end -}}

{{- define "mehl-soup.device" -}}
{{- default (ternary "cpu" "cuda:0" (eq (int .Values.worker.gpu.count) 0)) .Values.worker.device -}}
{{- end -}}

{{- define "mehl-soup.topologySpread" -}}
{{- range .constraints }}
- {{ toYaml (merge (deepCopy .) (dict "labelSelector" (dict "matchLabels" (include "mehl-soup.selector" $ | fromYaml)))) | nindent 2 | trim }}
{{- end }}
{{- end -}}
