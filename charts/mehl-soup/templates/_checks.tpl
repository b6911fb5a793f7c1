{{/* Checks that the schema cannot express: contradicting and missing values. Included once, by the ConfigMap of settings. */}}
{{- define "mehl-soup.checks" -}}
{{- $v := .Values -}}
{{- if gt (int $v.worker.gpu.count) 1 -}}
{{- fail (printf "worker.gpu.count is %d: a worker has one device. Set it to 1 and raise worker.replicas (or autoscaling.maxReplicas)" (int $v.worker.gpu.count)) -}}
{{- end -}}
{{- range $kind, $amounts := $v.worker.resources -}}
{{- range $resource, $_ := $amounts -}}
{{- if or (eq $resource $v.worker.gpu.resourceName) (regexMatch "/(gpu|mig-)" $resource) -}}
{{- fail (printf "worker.resources.%s contains %s: configure the worker's GPU in worker.gpu instead" $kind $resource) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq (int $v.worker.gpu.count) 0) (hasPrefix "cuda" $v.worker.device) -}}
{{- fail (printf "worker.device is %s, but worker.gpu.count is 0. Set one of them to match the other" $v.worker.device) -}}
{{- end -}}
{{- if not $v.worker.inputs -}}
{{- fail "worker.inputs is empty: workers can only read these folders. Add at least the volume with the zoo and the data" -}}
{{- end -}}
{{- $names := dict -}}
{{- range $v.worker.inputs -}}
{{- if hasKey $names .name -}}
{{- fail (printf "worker.inputs: two entries have the name %s" .name) -}}
{{- end -}}
{{- if contains "," .mountPath -}}
{{- fail (printf "worker.inputs: the mountPath of %s contains a comma, which is the separator of folders. Choose another path" .name) -}}
{{- end -}}
{{- if has .mountPath (values $names) -}}
{{- fail (printf "worker.inputs: two entries have the mountPath %s" .mountPath) -}}
{{- end -}}
{{- $_ := set $names .name .mountPath -}}
{{- end -}}
{{- range $section := list "redis" "amqp" -}}
{{- $secret := (index $v $section).existingSecret -}}
{{- if and (not $secret) (not $v.quickstart.enabled) -}}
{{- fail (printf "%s.existingSecret is empty: set it to the Secret with the server's address (key %s), or set quickstart.enabled to try things out" $section (index $v $section).urlKey) -}}
{{- end -}}
{{- if and $secret $v.quickstart.enabled -}}
{{- fail (printf "%s.existingSecret and quickstart.enabled are both set: quickstart starts its own servers. Remove one of the two" $section) -}}
{{- end -}}
{{- end -}}
{{- if gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas) -}}
{{- fail (printf "autoscaling.minReplicas (%d) is above autoscaling.maxReplicas (%d)" (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if and (eq $v.autoscaling.kind "scaledJob") (gt (int $v.autoscaling.minReplicas) 0) -}}
{{- fail (printf "autoscaling.minReplicas is %d with autoscaling.kind scaledJob: the worker in a Job ends when there is no task, so KEDA would start Jobs without end. Use 0, or kind scaledObject to keep workers running" (int $v.autoscaling.minReplicas)) -}}
{{- end -}}
{{- $lease := int (default 30 $v.settings.worker.lease_seconds) -}}
{{- with $v.settings.worker.orphan_seconds -}}
{{- if lt (int .) $lease -}}
{{- fail (printf "settings.worker.orphan_seconds (%d) is below settings.worker.lease_seconds (%d)" (int .) $lease) -}}
{{- end -}}
{{- end -}}
{{- $sweeps := dict -}}
{{- range $v.sweeps -}}
{{- if hasKey $sweeps .name -}}
{{- fail (printf "sweeps: two entries have the name %s" .name) -}}
{{- end -}}
{{- $_ := set $sweeps .name true -}}
{{- end -}}
{{- end -}}
