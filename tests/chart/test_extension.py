"""What an installation adds to the pods of scheduler and workers: variables, volumes, init containers, security contexts, labels."""

import copy

import kubernetes_validate
import pytest

import helm
from conftest import CI

EXTRA = {
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}, {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
    "extraVolumes": [{"name": "more", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    "initContainers": [{"name": "copy", "image": "busybox", "command": ["true"]}],
}
PODS = {"scheduler": helm.scheduler, "worker": helm.worker}


@pytest.mark.parametrize("part", PODS)
@pytest.mark.parametrize("name", ["minimal", "scaledjob"])
def test_what_is_added_reaches_the_pod_of_its_part_only(name, part):
    values = copy.deepcopy(CI[name])
    values.setdefault(part, {}).update(EXTRA)
    objects = helm.render(values)
    pod = PODS[part](objects)
    assert pod["initContainers"] == EXTRA["initContainers"]
    assert pod["volumes"][-1:] == EXTRA["extraVolumes"]
    assert helm.container(pod)["volumeMounts"][-1:] == EXTRA["extraVolumeMounts"]
    assert helm.container(pod)["env"][-2:] == EXTRA["extraEnv"]
    for one in helm.plain(objects):
        kubernetes_validate.validate(one, "1.37", strict=True)
    (other,) = set(PODS) - {part}
    assert PODS[other](objects) == PODS[other](helm.render(CI[name]))


@pytest.mark.parametrize("name", CI)
def test_no_volume_changes_its_group_and_secrets_can_be_read(rendered, name):
    """fsGroup has Kubernetes change the group of every file of a writable volume, such as a zoo of many terabytes."""
    for where, template in helm.pods(rendered[name]).items():
        if "quickstart" not in template["metadata"]["labels"]["app.kubernetes.io/component"]:
            assert modes(template["spec"]) == {0o444} or not modes(template["spec"]), where
            assert "fsGroup" not in template["spec"]["securityContext"], where


def modes(pod):
    """Modes of the files of Secrets that a pod mounts. They belong to root, and to the pod's fsGroup."""
    volumes = [volume.get("secret") or volume.get("projected") for volume in pod["volumes"]]
    return {volume["defaultMode"] for volume in volumes if volume}


@pytest.mark.parametrize("part", PODS)
def test_security_contexts_can_be_changed_and_secrets_stay_readable(minimal, part):
    minimal.setdefault(part, {})["podSecurityContext"] = {"fsGroup": 2000, "fsGroupChangePolicy": "OnRootMismatch", "runAsUser": 3000}
    minimal[part]["securityContext"] = {"readOnlyRootFilesystem": False}
    pod = PODS[part](helm.render(minimal))
    assert pod["securityContext"] == {
        "runAsNonRoot": True, "runAsUser": 3000, "runAsGroup": 10001, "fsGroup": 2000, "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    assert modes(pod) == {0o440}
    assert helm.container(pod)["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": False, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip


def test_defaults_of_a_security_context_can_be_removed(minimal):
    """OpenShift chooses user and group by itself, and refuses others."""
    minimal["worker"]["podSecurityContext"] = {"runAsUser": None, "runAsGroup": None}
    context = helm.worker(helm.render(minimal))["securityContext"]
    assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_supplementary_groups_join_the_security_context(minimal):
    minimal["worker"]["supplementalGroups"] = [2000]
    minimal["worker"]["podSecurityContext"] = {"supplementalGroupsPolicy": "Strict"}
    context = helm.worker(helm.render(minimal))["securityContext"]
    assert (context["supplementalGroups"], context["supplementalGroupsPolicy"]) == ([2000], "Strict")


@pytest.mark.parametrize("name, kind", [("minimal", "Deployment"), ("scaledobject", "Deployment"), ("scaledjob", "ScaledJob")])
def test_labels_of_the_workload_are_not_those_of_the_pods(name, kind):
    values = copy.deepcopy(CI[name])
    values["worker"]["labels"] = {"kueue.x-k8s.io/queue-name": "gpus"}
    values["worker"]["podLabels"] = {"cost-centre": "7"}
    one = helm.find(helm.render(values), kind, "-worker")
    template = one["spec"].get("template") or one["spec"]["jobTargetRef"]["template"]
    assert one["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus" and "cost-centre" not in one["metadata"]["labels"]
    assert template["metadata"]["labels"]["cost-centre"] == "7" and "kueue.x-k8s.io/queue-name" not in template["metadata"]["labels"]


def test_no_label_of_the_values_breaks_a_selector(minimal):
    mine = {"app.kubernetes.io/component": "mine", "team": "a"}
    minimal["commonLabels"] = mine
    minimal["worker"]["podLabels"] = mine
    one = helm.find(helm.render(minimal), "Deployment", "-worker")
    labels = one["spec"]["template"]["metadata"]["labels"]
    assert one["spec"]["selector"]["matchLabels"].items() <= labels.items() and labels["team"] == "a"


@pytest.mark.parametrize("name", CI)
def test_every_container_says_how_much_of_the_nodes_disk_it_needs(rendered, name):
    for where, template in helm.pods(rendered[name]).items():
        assert "ephemeral-storage" in helm.container(template["spec"])["resources"]["requests"], where


@pytest.mark.parametrize("name", CI)
def test_programs_listen_on_ipv6_and_ipv4(rendered, name):
    for pod, variable in [(helm.scheduler, "MEHL_SOUP__SCHEDULER__LISTEN"), (helm.worker, "MEHL_SOUP__WORKER__LISTEN")]:
        assert helm.environment(rendered[name], pod(rendered[name]))[variable].startswith("[::]:")


def test_names_are_looked_up_where_dns_servers_listen(minimal):
    def ports(values):
        rules = [one["spec"]["egress"][0] for one in helm.render(values) if one["kind"] == "NetworkPolicy"]
        assert len(rules) == 3 and all(set(rule) == {"ports"} for rule in rules)
        (found,) = {tuple(sorted((port["protocol"], port["port"]) for port in rule["ports"])) for rule in rules}
        return list(found)

    # A policy sees a pod's own port: OpenShift's DNS servers have 5353 behind the Service's 53.
    assert ports(minimal) == [("TCP", 53), ("TCP", 5353), ("UDP", 53), ("UDP", 5353)]
    minimal["networkPolicy"] = {"dnsPorts": [1053]}
    assert ports(minimal) == [("TCP", 1053), ("UDP", 1053)]


def test_helm_test_ends_before_helm_gives_up(rendered):
    assert helm.find(rendered["minimal"], "Pod", "-test")["spec"]["activeDeadlineSeconds"] < 300
