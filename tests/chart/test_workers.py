"""Workers: their device, where they run, what they read and write, how they begin and end."""

import pytest

import helm
from conftest import CI


@pytest.mark.parametrize("name, resource, count", [
    ("gpu", "nvidia.com/gpu", 1), ("mig", "nvidia.com/mig-1g.10gb", 1), ("scaledjob", "nvidia.com/gpu", 1), ("minimal", None, 0),
])  # fmt: skip
def test_a_worker_asks_for_its_one_device(rendered, name, resource, count):
    one = helm.container(helm.worker(rendered[name]))
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
        (found,) = [one for one in helm.container(helm.worker(helm.render(values)))["env"] if one["name"] == "MEHL_SOUP__WORKER__THREADS"]
        return found

    assert threads(minimal)["valueFrom"]["resourceFieldRef"] == {"containerName": "worker", "resource": "requests.cpu", "divisor": "1"}
    minimal["settings"] = {"worker": {"threads": 0}}
    assert threads(minimal)["value"] == "0"


def test_where_a_worker_runs(rendered):
    pod = helm.worker(rendered["gpu"])
    assert pod["runtimeClassName"] == "nvidia"
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}
    assert pod["tolerations"][0] == {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert pod["priorityClassName"] == "batch"
    assert pod["securityContext"]["supplementalGroups"] == [2000]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert helm.container(pod)["image"] == "registry.example.com/team/mehl-soup-worker:0.1.0-cuda"
    spread = pod["topologySpreadConstraints"]
    labels = helm.find(rendered["gpu"], "Deployment", "-worker")["spec"]["selector"]["matchLabels"]
    assert spread[0]["labelSelector"]["matchLabels"] == labels and spread[0]["topologyKey"] == "topology.kubernetes.io/zone"


def test_images_by_digest(rendered):
    assert helm.container(helm.worker(rendered["restricted"]))["image"] == "mehl-soup-worker@sha256:" + "1" * 64


@pytest.mark.parametrize("name", CI)
def test_inputs_are_read_only_and_are_the_roots(rendered, name):
    pod = helm.worker(rendered[name])
    one = helm.container(pod)
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
    volumes = {volume["name"]: volume for volume in helm.worker(rendered["mig"])["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Gi"}
    assert volumes["cache"]["emptyDir"] == {"sizeLimit": "24Gi"}
    volumes = {volume["name"]: volume for volume in helm.worker(rendered["gpu"])["volumes"]}
    assert "hostPath" in volumes["cache"] and "emptyDir" not in volumes["cache"]


def test_workers_end_in_order_and_upgrades_add_none(rendered):
    deployment = helm.find(rendered["gpu"], "Deployment", "-worker")["spec"]
    assert deployment["replicas"] == 8
    assert deployment["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "25%"}}
    for name in CI:
        assert helm.worker(rendered[name])["terminationGracePeriodSeconds"] >= 60
    budget = helm.find(rendered["gpu"], "PodDisruptionBudget", "-worker")["spec"]
    assert budget["maxUnavailable"] == "50%" and budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert budget["selector"]["matchLabels"] == deployment["selector"]["matchLabels"]


@pytest.mark.parametrize("name", CI)
def test_probes_reach_a_port_and_give_cuda_its_time(rendered, name):
    objects = rendered[name]
    for pod in (helm.worker(objects), helm.find(objects, "Deployment", "-scheduler")["spec"]["template"]["spec"]):
        one = helm.container(pod)
        ports = {port["name"] for port in one["ports"]}
        for probe, path in [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]:
            assert one[probe]["httpGet"]["path"] == path and one[probe]["httpGet"]["port"] in ports
        assert one["startupProbe"]["periodSeconds"] * one["startupProbe"]["failureThreshold"] >= 300
