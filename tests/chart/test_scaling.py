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
    types = (helm.ROOT / "src" / "api" / "types.rs").read_text()
    assert "pub wanted: usize" in types[types.index("pub struct LoadBody") :]
    authentication = helm.find(objects, "TriggerAuthentication", "-worker")
    assert triggers[0]["authenticationRef"]["name"] == authentication["metadata"]["name"]
    assert authentication["spec"]["secretTargetRef"] == [{"parameter": "token", "name": f"{helm.FULLNAME}-token", "key": "token"}]
    # KEDA's namespace is let in.
    policy = yaml.safe_dump(helm.find(objects, "NetworkPolicy", "-scheduler"))
    assert "kubernetes.io/metadata.name: keda" in policy
