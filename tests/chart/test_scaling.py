"""Autoscaling: what KEDA is told, in each of its two kinds."""

import pytest
import yaml

import helm


def test_without_autoscaling_there_is_nothing_of_keda(rendered):
    assert all(not one["apiVersion"].startswith("keda.sh") for one in rendered["gpu"])


def test_a_scaled_object_owns_the_number_of_workers(rendered):
    objects = rendered["scaledobject"]
    assert "replicas" not in helm.find(objects, "Deployment", "-worker")["spec"]
    spec = helm.find(objects, "ScaledObject", "-worker")["spec"]
    assert spec["scaleTargetRef"]["name"] == f"{helm.FULLNAME}-worker"
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (1, 100)
    assert helm.container(helm.worker(objects))["args"] == ["serve"]


def test_a_job_of_a_scaled_job_takes_one_task(rendered):
    objects = rendered["scaledjob"]
    spec = helm.find(objects, "ScaledJob", "-worker")["spec"]
    assert spec["rollout"] == {"strategy": "gradual"}
    assert "scalingStrategy" not in spec
    target = spec["jobTargetRef"]
    assert (target["parallelism"], target["completions"]) == (1, 1)
    assert target["template"]["spec"]["restartPolicy"] == "Never"
    assert helm.container(helm.worker(objects))["args"] == ["serve", "--once"]
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
    types = (helm.ROOT / "src" / "api_types.rs").read_text()
    assert "pub wanted: usize" in types[types.index("pub struct LoadBody") :]
    authentication = helm.find(objects, "TriggerAuthentication", "-worker")
    assert triggers[0]["authenticationRef"]["name"] == authentication["metadata"]["name"]
    assert authentication["spec"]["secretTargetRef"] == [{"parameter": "token", "name": f"{helm.FULLNAME}-token", "key": "token"}]
    # KEDA's namespace is let in.
    policy = yaml.safe_dump(helm.find(objects, "NetworkPolicy", "-scheduler"))
    assert "kubernetes.io/metadata.name: keda" in policy


def tolerations(pod):
    """Seconds of each toleration of a lost node, by taint."""
    lost = [one for one in pod["tolerations"] if one["key"].startswith("node.kubernetes.io/")]
    assert all((one["operator"], one["effect"]) == ("Exists", "NoExecute") for one in lost)
    return {one["key"]: one["tolerationSeconds"] for one in lost}


TAINTS = {"node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"}


@pytest.mark.parametrize("name", helm.ci_values())
def test_pods_leave_a_lost_node_long_before_the_300_seconds_of_kubernetes(rendered, name):
    for pod in (helm.worker(rendered[name]), helm.scheduler(rendered[name])):
        assert tolerations(pod) == dict.fromkeys(TAINTS, 30)


def test_how_long_a_lost_node_is_waited_for_can_be_said(minimal):
    minimal["worker"]["lostNodeSeconds"] = 5
    minimal["scheduler"] = {"lostNodeSeconds": 0}
    objects = helm.render(minimal)
    assert tolerations(helm.worker(objects)) == dict.fromkeys(TAINTS, 5)
    assert tolerations(helm.scheduler(objects)) == dict.fromkeys(TAINTS, 0)


@pytest.mark.parametrize("given, left", [
    ({"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 7}, {"node.kubernetes.io/not-ready"}),
    ({"operator": "Exists"}, set()),
    # It says nothing of pods that run already.
    ({"operator": "Exists", "effect": "NoSchedule"}, TAINTS),
])  # fmt: skip
def test_a_toleration_of_the_values_replaces_that_of_the_chart(minimal, given, left):
    minimal["worker"]["tolerations"] = [given]
    found = helm.worker(helm.render(minimal))["tolerations"]
    assert found[0] == given and {one["key"] for one in found[1:]} == left


def test_a_job_whose_node_is_lost_starts_a_pod_elsewhere(rendered):
    """Kubernetes counts a pod that is Terminating against backoffLimit, and replaces it as long as that is not used up; but not under a
    podFailurePolicy, and not with podReplacementPolicy Failed. A Job without a live pod that is not Failed yet keeps KEDA from starting another."""
    target = helm.find(rendered["scaledjob"], "ScaledJob", "-worker")["spec"]["jobTargetRef"]
    assert target["backoffLimit"] >= 1
    assert "podFailurePolicy" not in target and target.get("podReplacementPolicy", "TerminatingOrFailed") == "TerminatingOrFailed"


def test_only_workers_with_a_gpu_tolerate_the_taints_of_gpu_nodes(minimal):
    def keys(values):
        return [one["key"] for one in helm.worker(helm.render(values))["tolerations"] if one["key"] not in TAINTS]

    assert keys(minimal) == []
    minimal["worker"]["tolerations"] = [{"key": "batch", "operator": "Exists"}]
    assert keys(minimal) == ["batch"]
    minimal["worker"]["gpu"] = {"count": 1}
    assert keys(minimal) == ["batch", "nvidia.com/gpu"]
    minimal["worker"]["gpu"]["tolerations"] = [{"key": "amd.com/gpu", "operator": "Exists"}]
    assert keys(minimal) == ["batch", "amd.com/gpu"]
