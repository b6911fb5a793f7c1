"""Objects: valid for several versions of Kubernetes, and what they say about GPUs, secrets, ends and scaling."""

import json
import shutil
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

import helm
from conftest import CI

SCHEMAS = {file.stem: json.loads(file.read_text()) for file in (Path(__file__).parent / "schemas").glob("*.json")}
# The oldest that the chart takes, one between, and the newest that is known to kubernetes-validate.
VERSIONS = ["1.29", "1.33", "1.37"]
INPUT = {"name": "zoo", "mountPath": "/data/zoo", "volume": {"persistentVolumeClaim": {"claimName": "zoo", "readOnly": True}}}


def worker(objects):
    found = [pod for name, pod in helm.pods(objects).items() if name.endswith("-worker")]
    assert len(found) == 1
    return found[0]["spec"]


def container(pod):
    assert len(pod["containers"]) == 1
    return pod["containers"][0]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", CI)
def test_kubernetes_takes_every_object(rendered, name, version):
    objects = list(helm.plain(rendered[name]))
    assert len(objects) >= 8
    for one in objects:
        try:
            used = kubernetes_validate.validate(one, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            pytest.fail(f"{one['kind']}/{one['metadata']['name']}: {'.'.join(map(str, error.path))}: {error.message}")
        assert used == version


@pytest.mark.parametrize("name", CI)
def test_custom_objects_have_known_fields_only(rendered, name):
    plain = {one["kind"] for one in helm.plain(rendered[name])}
    custom = [one for one in rendered[name] if one["kind"] not in plain]
    for one in custom:
        jsonschema.validate(one, SCHEMAS[one["kind"].lower()])
    expected = {
        "scaledobject": {"ScaledObject", "TriggerAuthentication"},
        "scaledjob": {"ScaledJob", "TriggerAuthentication"},
        "gpu": {"PodMonitor", "ServiceMonitor", "PrometheusRule"},
    }
    assert {one["kind"] for one in custom} == expected.get(name, set())


@pytest.mark.parametrize("name", CI)
def test_names_are_unique_and_everything_is_in_the_namespace(rendered, name):
    # A test's ConfigMap and pod, and a sweep's, are of different kinds.
    names = [(one["kind"], one["metadata"]["name"]) for one in rendered[name]]
    assert len(names) == len(set(names))
    assert {one["metadata"]["namespace"] for one in rendered[name]} == {helm.NAMESPACE}
    assert all(len(name) <= 63 for _, name in names)


def test_a_long_release_name_leaves_room_for_every_end(minimal):
    minimal["fullnameOverride"] = "a" * 100
    minimal["sweeps"] = [{"name": "b" * 19, "spec": "x"}]
    objects = helm.render(minimal)
    assert max(len(one["metadata"]["name"]) for one in objects) <= 63


@pytest.mark.parametrize("name", CI)
def test_pods_are_restricted(rendered, name):
    """What the pod security standard "restricted" asks for, and more: no token of Kubernetes, read-only root."""
    pods = helm.pods(rendered[name])
    assert len(pods) >= 2
    for where, template in pods.items():
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False, where
        assert pod["enableServiceLinks"] is False, where
        assert pod["securityContext"]["runAsNonRoot"] is True, where
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, where
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            assert key not in pod, where
        for one in pod["containers"]:
            assert one["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, where
            assert one["resources"]["requests"] and one["resources"]["limits"]["memory"], where
        user = 999 if "quickstart" in template["metadata"]["labels"]["app.kubernetes.io/component"] else 10001
        assert pod["securityContext"]["runAsUser"] == user, where
    for one in rendered[name]:
        if one["kind"] == "ServiceAccount":
            assert one["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name, resource, count", [
    ("gpu", "nvidia.com/gpu", 1), ("mig", "nvidia.com/mig-1g.10gb", 1), ("scaledjob", "nvidia.com/gpu", 1), ("minimal", None, 0),
])  # fmt: skip
def test_a_worker_asks_for_its_one_device(rendered, name, resource, count):
    one = container(worker(rendered[name]))
    device = {variable["name"]: variable.get("value") for variable in one["env"]}["MEHL_SOUP__WORKER__DEVICE"]
    asked = {kind: {key: n for key, n in one["resources"][kind].items() if "/" in key} for kind in ("requests", "limits")}
    if count == 0:
        assert asked == {"requests": {}, "limits": {}}
        assert device == "cpu" and one["image"].endswith("-cpu")
    else:
        assert asked == {"requests": {resource: count}, "limits": {resource: count}}
        assert device == "cuda:0" and one["image"].endswith("-cuda")


def test_a_worker_has_as_many_threads_as_cores_were_asked_for(minimal):
    def threads(values):
        objects = helm.render(values)
        variables = {one["name"]: one for one in container(worker(objects))["env"]}
        return variables.get("MEHL_SOUP__WORKER__THREADS"), helm.find(objects, "ConfigMap", "-settings")["data"]

    own, _ = threads(minimal)
    assert own["valueFrom"]["resourceFieldRef"] == {"containerName": "worker", "resource": "requests.cpu", "divisor": "1"}
    minimal["settings"] = {"worker": {"threads": 0}}
    own, settings = threads(minimal)
    assert own is None and settings["MEHL_SOUP__WORKER__THREADS"] == "0"


def test_where_a_worker_runs(rendered):
    pod = worker(rendered["gpu"])
    assert pod["runtimeClassName"] == "nvidia"
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert pod["priorityClassName"] == "batch"
    assert pod["securityContext"]["supplementalGroups"] == [2000]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert container(pod)["image"] == "registry.example.com/team/mehl-soup-worker:0.1.0-cuda"
    spread = pod["topologySpreadConstraints"]
    labels = helm.find(rendered["gpu"], "Deployment", "-worker")["spec"]["selector"]["matchLabels"]
    assert spread[0]["labelSelector"]["matchLabels"] == labels and spread[0]["topologyKey"] == "topology.kubernetes.io/zone"


def test_images_by_digest(rendered):
    assert container(worker(rendered["restricted"]))["image"] == "mehl-soup-worker@sha256:" + "1" * 64


@pytest.mark.parametrize("name", CI)
def test_inputs_are_read_only_and_are_the_roots(rendered, name):
    pod = worker(rendered[name])
    one = container(pod)
    mounts = {mount["name"]: mount for mount in one["volumeMounts"]}
    inputs = CI[name]["worker"]["inputs"]
    for given in inputs:
        mount = mounts[f"input-{given['name']}"]
        assert mount["readOnly"] is True and mount["mountPath"] == given["mountPath"]
        assert mount.get("subPath") == given.get("subPath")
    roots = {variable["name"]: variable.get("value") for variable in one["env"]}["MEHL_SOUP__WORKER__INPUT_ROOTS"].split(",")
    demo = [] if name == "restricted" else ["/usr/share/mehl-soup/demo"]
    assert roots == [given["mountPath"] for given in inputs] + demo
    # Every mount has its volume, and every volume is mounted.
    assert {volume["name"] for volume in pod["volumes"]} == set(mounts)
    writable = {mount["mountPath"] for mount in one["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/var/cache/mehl-soup", "/dev/shm", "/tmp"}


def test_shared_memory_and_cache(rendered):
    volumes = {volume["name"]: volume for volume in worker(rendered["mig"])["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Gi"}
    assert volumes["cache"]["emptyDir"] == {"sizeLimit": "24Gi"}
    volumes = {volume["name"]: volume for volume in worker(rendered["gpu"])["volumes"]}
    assert "hostPath" in volumes["cache"] and "emptyDir" not in volumes["cache"]


@pytest.mark.parametrize("name", CI)
def test_secrets_come_as_files_from_secrets_and_are_in_no_other_object(rendered, name):
    objects = rendered[name]
    for where, template in helm.pods(objects).items():
        for one in template["spec"]["containers"]:
            assert all(set(variable.get("valueFrom", {})) <= {"resourceFieldRef"} for variable in one.get("env", [])), where
            assert all("secretRef" not in source for source in one.get("envFrom", [])), where
    secrets = [one for one in objects if one["kind"] == "Secret"]
    rest = yaml.safe_dump([one for one in objects if one["kind"] != "Secret"])
    for secret in secrets:
        for key, value in {**secret.get("data", {}), **secret.get("stringData", {})}.items():
            assert value not in rest, f"{secret['metadata']['name']}: {key}"
    made = {one["metadata"]["name"].removeprefix(helm.FULLNAME) for one in secrets}
    expected = set() if "token" in CI[name] else {"-token"}
    assert made == expected | ({"-quickstart"} if name == "quickstart" else set())


def test_addresses_and_authorities_are_those_of_the_named_secrets(rendered):
    for pod in (worker(rendered["tls"]), helm.find(rendered["tls"], "Deployment", "-scheduler")["spec"]["template"]["spec"]):
        volume = next(volume for volume in pod["volumes"] if volume["name"] == "servers")
        sources = [(one["secret"]["name"], item["key"], item["path"]) for one in volume["projected"]["sources"] for item in one["secret"]["items"]]
        assert sources == [
            ("servers", "REDIS_URL", "redis-url"), ("servers", "AMQP_URL", "amqp-url"),
            ("authorities", "ca.pem", "redis-ca.pem"), ("authorities", "ca.pem", "amqp-ca.pem"),
        ]  # fmt: skip
        # None is optional: what is missing keeps the pod from starting, with an event that names it.
        assert "optional" not in yaml.safe_dump(volume)
        mount = next(mount for mount in container(pod)["volumeMounts"] if mount["name"] == "servers")
        settings = helm.find(rendered["tls"], "ConfigMap", "-settings")["data"]
        for key in ("REDIS__URL_FILE", "AMQP__URL_FILE", "REDIS__CA_FILE", "AMQP__CA_FILE"):
            folder, _, name = settings[f"MEHL_SOUP__{key}"].rpartition("/")
            assert folder == mount["mountPath"] and name in [path for _, _, path in sources]


@pytest.mark.parametrize("name", CI)
def test_the_scheduler_is_never_exposed_without_a_token(rendered, name):
    pod = helm.find(rendered[name], "Deployment", "-scheduler")["spec"]["template"]["spec"]
    env = {variable["name"]: variable["value"] for variable in container(pod)["env"]}
    assert env["MEHL_SOUP__SCHEDULER__LISTEN"] == "0.0.0.0:7070"
    folder, _, file = env["MEHL_SOUP__SCHEDULER__TOKEN_FILE"].rpartition("/")
    mount = next(mount for mount in container(pod)["volumeMounts"] if mount["mountPath"] == folder)
    volume = next(volume for volume in pod["volumes"] if volume["name"] == mount["name"])
    assert volume["secret"]["items"][0]["path"] == file and "optional" not in volume["secret"]
    assert volume["secret"]["secretName"] == CI[name].get("token", {}).get("existingSecret", f"{helm.FULLNAME}-token")


def test_a_made_token_is_long_and_new_each_time(minimal):
    tokens = {helm.find(helm.render(minimal), "Secret", "-token")["data"]["token"] for _ in range(2)}
    assert len(tokens) == 2 and all(len(token) == 64 for token in tokens)


def test_workers_end_in_order_and_upgrades_add_none(rendered):
    deployment = helm.find(rendered["gpu"], "Deployment", "-worker")["spec"]
    assert deployment["replicas"] == 8
    assert deployment["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "25%"}}
    for name in CI:
        assert worker(rendered[name])["terminationGracePeriodSeconds"] >= 60
    budget = helm.find(rendered["gpu"], "PodDisruptionBudget", "-worker")["spec"]
    assert budget["maxUnavailable"] == "50%" and budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert budget["selector"]["matchLabels"] == deployment["selector"]["matchLabels"]


@pytest.mark.parametrize("name", CI)
def test_probes_reach_a_port_and_give_cuda_its_time(rendered, name):
    objects = rendered[name]
    for pod in (worker(objects), helm.find(objects, "Deployment", "-scheduler")["spec"]["template"]["spec"]):
        one = container(pod)
        ports = {port["name"] for port in one["ports"]}
        for probe, path in [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]:
            assert one[probe]["httpGet"]["path"] == path and one[probe]["httpGet"]["port"] in ports
        assert one["startupProbe"]["periodSeconds"] * one["startupProbe"]["failureThreshold"] >= 300


def test_without_autoscaling_there_is_nothing_of_keda(rendered):
    assert all(not one["apiVersion"].startswith("keda.sh") for one in rendered["gpu"])


def test_a_scaled_object_owns_the_number_of_workers(rendered):
    objects = rendered["scaledobject"]
    assert "replicas" not in helm.find(objects, "Deployment", "-worker")["spec"]
    spec = helm.find(objects, "ScaledObject", "-worker")["spec"]
    assert spec["scaleTargetRef"]["name"] == f"{helm.FULLNAME}-worker"
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (1, 100)
    assert container(worker(objects))["args"] == ["serve"]


def test_a_scaled_job_takes_one_task_and_is_not_repeated(rendered):
    objects = rendered["scaledjob"]
    spec = helm.find(objects, "ScaledJob", "-worker")["spec"]
    assert spec["rollout"] == {"strategy": "gradual"}
    assert "scalingStrategy" not in spec
    target = spec["jobTargetRef"]
    assert (target["backoffLimit"], target["parallelism"], target["completions"]) == (0, 1, 1)
    assert target["template"]["spec"]["restartPolicy"] == "Never"
    assert container(worker(objects))["args"] == ["serve", "--once"]
    kinds = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert ("Deployment", f"{helm.FULLNAME}-worker") not in kinds and ("PodDisruptionBudget", f"{helm.FULLNAME}-worker") not in kinds


@pytest.mark.parametrize("name", ["scaledobject", "scaledjob"])
def test_keda_follows_the_load_with_the_token(rendered, name):
    objects = rendered[name]
    kind = {"scaledobject": "ScaledObject", "scaledjob": "ScaledJob"}[name]
    triggers = helm.find(objects, kind, "-worker")["spec"]["triggers"]
    assert [one["type"] for one in triggers] == ["metrics-api"]
    service = helm.find(objects, "Service", "-scheduler")
    expected = f"http://{service['metadata']['name']}.{helm.NAMESPACE}.svc:{service['spec']['ports'][0]['port']}/v1/load"
    metadata = triggers[0]["metadata"]
    assert (metadata["url"], metadata["valueLocation"], metadata["targetValue"]) == (expected, "wanted", "1")
    # The field is one that the scheduler answers with.
    types = (helm.ROOT / "src" / "api" / "types.rs").read_text()
    assert "pub wanted: usize" in types[types.index("pub struct LoadBody") :]
    authentication = helm.find(objects, "TriggerAuthentication", "-worker")
    assert triggers[0]["authenticationRef"]["name"] == authentication["metadata"]["name"]
    assert authentication["spec"]["secretTargetRef"] == [{"parameter": "token", "name": f"{helm.FULLNAME}-token", "key": "token"}]
    # KEDA's namespace is let in.
    policy = yaml.safe_dump(helm.find(objects, "NetworkPolicy", "-scheduler"))
    assert "kubernetes.io/metadata.name: keda" in policy


@pytest.mark.parametrize("name", CI)
def test_selectors_find_their_pods_and_no_others(rendered, name):
    objects = rendered[name]
    labels = {where: template["metadata"]["labels"] for where, template in helm.pods(objects).items()}

    def chosen(selector):
        return {where for where, have in labels.items() if selector.items() <= have.items()}

    for one in objects:
        if one["kind"] in ("Deployment", "StatefulSet"):
            own = f"{one['kind']}/{one['metadata']['name']}"
            assert chosen(one["spec"]["selector"]["matchLabels"]) == {own}
        if one["kind"] == "Service":
            assert len(chosen(one["spec"]["selector"])) == 1
        if one["kind"] in ("PodMonitor", "ServiceMonitor", "PodDisruptionBudget"):
            assert len(chosen(one["spec"]["selector"]["matchLabels"])) == 1
        if one["kind"] == "NetworkPolicy" and not one["metadata"]["name"].endswith("-client"):
            assert len(chosen(one["spec"]["podSelector"]["matchLabels"])) == 1


def test_policies_name_every_peer(rendered):
    scheduler = helm.find(rendered["restricted"], "NetworkPolicy", "-scheduler")["spec"]
    peers = scheduler["ingress"][0]["from"]
    assert {"podSelector": {"matchLabels": {"app": "jupyter"}}, "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "notebooks"}}} in peers
    assert len(peers) == 2
    one = helm.find(rendered["restricted"], "NetworkPolicy", "-worker")["spec"]
    assert one["ingress"] == []
    assert one["egress"][1]["to"] == [{"ipBlock": {"cidr": "10.0.0.0/16"}}]
    ports = [port["port"] for port in helm.find(rendered["tls"], "NetworkPolicy", "-worker")["spec"]["egress"][1]["ports"]]
    assert ports == [6380, 5671]


@pytest.mark.parametrize("name", CI)
def test_policies_let_in_where_pods_listen(rendered, name):
    objects = rendered[name]
    open_ports = {"-scheduler": 7070, "-worker": 9464}
    for end, pod in [("-scheduler", helm.find(objects, "Deployment", "-scheduler")["spec"]["template"]["spec"]), ("-worker", worker(objects))]:
        assert [port["containerPort"] for port in container(pod)["ports"]] == [open_ports[end]]
        for rule in helm.find(objects, "NetworkPolicy", end)["spec"]["ingress"]:
            assert [port["port"] for port in rule["ports"]] == [open_ports[end]]
            assert rule["from"], "an empty list would let everybody in"
    client = helm.find(objects, "NetworkPolicy", "-client")["spec"]
    assert client["ingress"] == [] and client["egress"][1]["ports"][0]["port"] == open_ports["-scheduler"]


def test_settings_that_change_start_pods_anew(minimal):
    def checksum(values):
        return helm.find(helm.render(values), "Deployment", "-worker")["spec"]["template"]["metadata"]["annotations"]["checksum/settings"]

    before = checksum(minimal)
    assert checksum(minimal) == before
    minimal["settings"] = {"worker": {"lease_seconds": 31}}
    assert checksum(minimal) != before


def test_monitoring_can_be_switched_and_labelled(rendered):
    for kind, end in [("PodMonitor", "-worker"), ("ServiceMonitor", "-scheduler"), ("PrometheusRule", "-pool")]:
        assert helm.find(rendered["gpu"], kind, end)["metadata"]["labels"]["release"] == "prometheus"
    endpoints = helm.find(rendered["gpu"], "PodMonitor", "-worker")["spec"]["podMetricsEndpoints"]
    ports = {port["name"] for port in container(worker(rendered["gpu"]))["ports"]}
    assert {one["port"] for one in endpoints} <= ports


def test_every_dashboard_and_rule_of_the_chart_reaches_the_cluster(tmp_path):
    chart = tmp_path / "mehl-soup"
    shutil.copytree(helm.CHART, chart)
    (chart / "dashboards").mkdir(exist_ok=True)
    text = '{\n  "title": "a",\n  "legend": "{{instance}} {{ `x` }}"\n}\n'
    (chart / "dashboards" / "probe.json").write_text(text)
    rule = {"groups": [{"name": "probe", "rules": [{"alert": "Probe", "expr": "1", "annotations": {"summary": "{{ $labels.pod }}"}}]}]}
    (chart / "rules" / "probe.yaml").write_text(yaml.safe_dump(rule))
    objects = helm.render(CI["gpu"], chart)
    dashboards = helm.find(objects, "ConfigMap", "-dashboards")
    assert json.loads(dashboards["data"]["probe.json"]) == json.loads(text)
    assert set(dashboards["data"]) == {file.name for file in (chart / "dashboards").glob("*.json")}
    assert dashboards["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert dashboards["metadata"]["annotations"] == {"grafana_folder": "ML"}
    assert helm.find(objects, "PrometheusRule", "-probe")["spec"] == rule
    ours = yaml.safe_load((helm.CHART / "rules" / "pool.yaml").read_text())
    assert helm.find(objects, "PrometheusRule", "-pool")["spec"] == ours


def test_sweeps_are_submitted_once_for_each_text(minimal):
    def submissions(spec):
        minimal["sweeps"] = [{"name": "first", "spec": spec, "priority": 2, "maxRunning": 4, "attempts": 5}]
        return helm.render(minimal)

    objects = submissions("a = 1\n")
    job = helm.find(objects, "Job", "-sweep-first")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "post-install,post-upgrade"
    arguments = container(job["spec"]["template"]["spec"])["args"]
    assert arguments[:4] == ["submit", "/etc/mehl-soup/sweeps/first.toml", "--name", "first"]
    assert arguments[6:] == ["--priority", "2", "--max-running", "4", "--attempts", "5"]
    assert helm.find(objects, "ConfigMap", "-sweeps")["data"] == {"first.toml": "a = 1\n"}
    # The same text has the same key, another text another one: that is what makes it idempotent.
    again = [container(helm.find(submissions(text), "Job", "-sweep-first")["spec"]["template"]["spec"])["args"] for text in ("a = 1\n", "a = 2\n")]
    assert arguments[4] == "--key" and again[0] == arguments and again[1][5] != arguments[5]


def test_the_flags_of_a_submission_are_those_of_the_program(rendered):
    source = (helm.ROOT / "src" / "cli" / "pool" / "submit.rs").read_text()
    for name, template in helm.pods(rendered["gpu"]).items():
        if "-sweep-" in name or name.startswith("Pod/"):
            for flag in container(template["spec"])["args"]:
                if flag.startswith("--"):
                    assert f"    {flag[2:].replace('-', '_')}: " in source, flag


def test_helm_test_submits_one_task_and_waits(rendered):
    objects = rendered["minimal"]
    pod = helm.find(objects, "Pod", "-test")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert container(pod["spec"])["args"][-1] == "--wait" and pod["spec"]["activeDeadlineSeconds"] == 600
    spec = helm.find(objects, "ConfigMap", "-test")["data"]["test.toml"]
    assert "[search]" not in spec and "/usr/share/mehl-soup/demo/zoo/*" in spec
    assert all(one["kind"] != "Pod" for one in rendered["restricted"])


def test_quickstart_serves_what_its_secret_says(rendered):
    objects = rendered["quickstart"]
    secret = helm.find(objects, "Secret", "-quickstart")["stringData"]
    for name, scheme, port in [("valkey", "redis", 6379), ("rabbitmq", "amqp", 5672)]:
        service = helm.find(objects, "Service", f"-{name}")
        assert service["spec"]["ports"][0]["port"] == port
        address = f"@{service['metadata']['name']}.{helm.NAMESPACE}.svc:{port}/"
        assert secret[f"{scheme}-url"].startswith(f"{scheme}://") and secret[f"{scheme}-url"].endswith(address)
        assert secret["password"] in secret[f"{scheme}-url"] and secret["password"] in secret[f"{name}.conf"]
    for line in ("appendonly yes", "maxmemory-policy noeviction"):
        assert line in secret["valkey.conf"].splitlines()


def test_extra_objects_are_rendered_as_templates(rendered):
    for end in ("-extra", "-extra-text"):
        assert any(one["metadata"]["name"] == f"{helm.RELEASE}{end}" for one in rendered["restricted"])
