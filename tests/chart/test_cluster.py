"""What the chart takes over from objects that a cluster has already: passwords, the number of workers."""

import base64

import cluster
import helm
from conftest import CI

QUICKSTART = f"{helm.FULLNAME}-quickstart"


def stored(secret):
    """A Secret as the API server keeps it: with `data` only."""
    data = {key: base64.b64encode(value.encode()).decode() for key, value in secret.get("stringData", {}).items()}
    return {**{key: value for key, value in secret.items() if key != "stringData"}, "data": {**secret.get("data", {}), **data}}


def password(objects):
    return helm.find(objects, "Secret", "-quickstart")["stringData"]["password"]


def test_a_password_that_was_drawn_is_kept_by_upgrades_and_installations_that_follow():
    first = helm.render(CI["quickstart"])
    secret = helm.find(first, "Secret", "-quickstart")
    # helm uninstall leaves the Secret, as it leaves the volumes.
    assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    again = cluster.render(CI["quickstart"], [stored(secret)])
    assert password(again) == password(first)
    marks = [
        {name: template["metadata"]["annotations"].get("checksum/quickstart") for name, template in helm.pods(objects).items() if "annotations" in template["metadata"]}
        for objects in (first, again)
    ]
    assert marks[0] == marks[1]


def test_a_password_of_the_values_wins_over_the_kept_one():
    first = helm.render(CI["quickstart"])
    values = {**CI["quickstart"], "quickstart": {"enabled": True, "password": "anotherPassword1"}}
    assert password(cluster.render(values, [stored(helm.find(first, "Secret", "-quickstart"))])) == "anotherPassword1"


def test_a_secret_without_a_password_is_filled():
    empty = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": QUICKSTART, "namespace": helm.NAMESPACE}}
    assert len(password(cluster.render(CI["quickstart"], [empty]))) == 32


def test_the_token_is_kept_by_upgrades():
    first = helm.find(helm.render(CI["minimal"]), "Secret", "-token")
    assert helm.find(cluster.render(CI["minimal"], [first]), "Secret", "-token")["data"] == first["data"]


def test_autoscaling_that_is_switched_on_leaves_running_workers():
    running = helm.find(helm.render({**CI["scaledobject"], "autoscaling": {"kind": "none"}}), "Deployment", "-worker")
    running["spec"]["replicas"] = 8
    assert helm.find(cluster.render(CI["scaledobject"], [running]), "Deployment", "-worker")["spec"]["replicas"] == 8
    running["spec"]["replicas"] = 0
    assert helm.find(cluster.render(CI["scaledobject"], [running]), "Deployment", "-worker")["spec"]["replicas"] == 0
    # Where there is no Deployment yet, KEDA chooses alone.
    assert "replicas" not in helm.find(cluster.render(CI["scaledobject"], []), "Deployment", "-worker")["spec"]


def test_without_autoscaling_the_number_of_workers_is_that_of_the_values():
    running = helm.find(helm.render(CI["minimal"]), "Deployment", "-worker")
    running["spec"]["replicas"] = 8
    assert helm.find(cluster.render(CI["minimal"], [running]), "Deployment", "-worker")["spec"]["replicas"] == 1
