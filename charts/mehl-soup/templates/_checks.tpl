{{/* What no schema can say: values that contradict each other, and what is missing. Included once, by the ConfigMap of settings. */}}
{{- define "mehl-soup.checks" -}}
{{- $v := .Values -}}
{{- if gt (int $v.worker.gpu.count) 1 -}}
{{- fail (printf "worker.gpu.count is %d: a worker has one device, so ask for 1 and raise worker.replicas (or autoscaling.maxReplicas) instead" (int $v.worker.gpu.count)) -}}
{{- end -}}
{{- range $kind, $amounts := $v.worker.resources -}}
{{- range $resource, $_ := $amounts -}}
{{- if or (eq $resource $v.worker.gpu.resourceName) (regexMatch "/(gpu|mig-)" $resource) -}}
{{- fail (printf "worker.resources.%s asks for %s: a worker's one device is named by worker.gpu" $kind $resource) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq (int $v.worker.gpu.count) 0) (hasPrefix "cuda" $v.worker.device) -}}
{{- fail (printf "worker.device is %s, but worker.gpu.count is 0" $v.worker.device) -}}
{{- end -}}
{{- if not $v.worker.inputs -}}
{{- fail "worker.inputs is empty: a worker reads nothing but the folders in it, so name at least the volume of the zoo and the data" -}}
{{- end -}}
{{- $names := dict -}}
{{- range $v.worker.inputs -}}
{{- if hasKey $names .name -}}
{{- fail (printf "worker.inputs: two are called %s" .name) -}}
{{- end -}}
{{- if contains "," .mountPath -}}
{{- fail (printf "worker.inputs: %s has a comma in its mountPath, which separates folders" .name) -}}
{{- end -}}
{{- if has .mountPath (values $names) -}}
{{- fail (printf "worker.inputs: two are mounted at %s" .mountPath) -}}
{{- end -}}
{{- $_ := set $names .name .mountPath -}}
{{- end -}}
{{- range $section := list "redis" "amqp" -}}
{{- $secret := (index $v $section).existingSecret -}}
{{- if and (not $secret) (not $v.quickstart.enabled) -}}
{{- fail (printf "%s.existingSecret is empty: name the Secret that holds the address (key %s), or set quickstart.enabled to try things out" $section (index $v $section).urlKey) -}}
{{- end -}}
{{- if and $secret $v.quickstart.enabled -}}
{{- fail (printf "%s.existingSecret and quickstart.enabled are both set: quickstart brings servers of its own" $section) -}}
{{- end -}}
{{- end -}}
{{- if gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas) -}}
{{- fail (printf "autoscaling.minReplicas (%d) is above autoscaling.maxReplicas (%d)" (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if and (eq $v.autoscaling.kind "scaledJob") (gt (int $v.autoscaling.minReplicas) 0) -}}
{{- fail (printf "autoscaling.minReplicas is %d with autoscaling.kind scaledJob: a worker of a Job ends when there is no task, so KEDA would start Jobs without end. Use 0, or kind scaledObject for workers that stay" (int $v.autoscaling.minReplicas)) -}}
{{- end -}}
{{- $lease := int (default 30 $v.settings.worker.lease_seconds) -}}
{{- with $v.settings.worker.orphan_seconds -}}
{{- if lt (int .) $lease -}}
{{- fail (printf "settings.worker.orphan_seconds (%d) is below the lease (%d)" (int .) $lease) -}}
{{- end -}}
{{- end -}}
{{- $sweeps := dict -}}
{{- range $v.sweeps -}}
{{- if hasKey $sweeps .name -}}
{{- fail (printf "sweeps: two are called %s" .name) -}}
{{- end -}}
{{- $_ := set $sweeps .name true -}}
{{- end -}}
{{- end -}}
