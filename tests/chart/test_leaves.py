"""No value is without effect: every leaf of values.yaml is changed, and some object that is rendered has to change with it."""

import copy
import functools

import pytest
import yaml

import helm

VALUES = yaml.safe_load((helm.CHART / "values.yaml").read_text())
# Nothing is drawn at random: the token is given, and so is the quickstart's password.
BASE = {**helm.ci_values()["minimal"], "token": {"existingSecret": "token"}}
ZOO = BASE["worker"]["inputs"]
PEERS = [{"namespaceSelector": {}}]
MINE = [{"name": "mine", "emptyDir": {}}]

# Values that a leaf needs around it to matter: by the leaf's path or the beginning of it, the longest that fits. A value of None is left out.
CONTEXTS = {
    "redis.caKey": ({"redis": {"caSecret": "authorities"}}, "it is a key of that Secret"),
    "amqp.caKey": ({"amqp": {"caSecret": "authorities"}}, "it is a key of that Secret"),
    "scheduler.pdb.maxUnavailable": ({"scheduler": {"pdb": {"enabled": True}}}, "there is no budget by default"),
    "worker.device": ({"worker": {"gpu": {"count": 1}}}, "another one needs a GPU"),
    "worker.gpu": ({"worker": {"gpu": {"count": 1}}}, "the base computes on the CPU"),
    "autoscaling": ({"autoscaling": {"kind": "scaledObject"}}, "nothing is scaled by default"),
    "autoscaling.kind": ({}, "the other leaves need a kind, and the kind needs none"),
    "autoscaling.successfulJobsHistoryLimit": ({"autoscaling": {"kind": "scaledJob"}}, "only this kind has Jobs"),
    "autoscaling.failedJobsHistoryLimit": ({"autoscaling": {"kind": "scaledJob"}}, "only this kind has Jobs"),
    "networkPolicy.kedaNamespace": ({"autoscaling": {"kind": "scaledObject"}}, "KEDA is let in if it scales"),
    "monitoring": ({"monitoring": {kind: {"enabled": True} for kind in VALUES["monitoring"]}}, "there are no objects of monitoring by default"),
    "sweepJobs": ({"sweeps": [{"name": "a", "spec": "x"}]}, "there is no sweep by default"),
    "quickstart": ({"quickstart": {"enabled": True, "password": "aPassword1234"}, "redis": None, "amqp": None}, "there are no servers by default"),
    "quickstart.enabled": ({"redis": None, "amqp": None, "quickstart": {"password": "aPassword1234"}}, "switched on, it takes the place of servers by name"),
}  # fmt: skip

# What a leaf becomes, where that does not follow from its default. Lists and mappings that are empty by default are all here.
BECOMES = {
    "commonLabels": {"team": "a"},
    "image.pullPolicy": "Always",
    "image.pullSecrets": ["registry"],
    "settings.log": {"format": "json"},
    "settings.redis": {"timeout_seconds": 9},
    "settings.amqp": {"timeout_seconds": 9},
    "settings.scheduler": {"attempts": 9},
    "settings.worker": {"lease_seconds": 9},
    "scheduler.image.digest": "sha256:" + "0" * 64,
    "scheduler.service.type": "NodePort",
    "scheduler.service.annotations": {"a": "b"},
    "worker.image.digest": "sha256:" + "0" * 64,
    "worker.inputs": [*ZOO, {"name": "more", "mountPath": "/more", "volume": {"emptyDir": {}}}],
    "worker.torchscriptAllow": ["ab" * 32],
    "worker.device": "cuda:1",
    "worker.gpu.count": 0,
    "worker.gpu.resourceName": "nvidia.com/mig-1g.10gb",
    "worker.gpu.tolerations": [],
    "worker.cache.volume": {"hostPath": {"path": "/cache"}},
    "worker.supplementalGroups": [2000],
    "worker.maxUnavailable": "26%",
    "worker.pdb.maxUnavailable": "51%",
    "worker.labels": {"a": "b"},
    "autoscaling.kind": "scaledJob",
    "serviceAccount.annotations": {"a": "b"},
    "networkPolicy.clients": PEERS,
    "networkPolicy.monitoring": PEERS,
    "networkPolicy.servers": PEERS,
    "networkPolicy.serverPorts": [6380],
    "networkPolicy.dnsPorts": [53],
    "monitoring.podMonitor.interval": "16s",
    "monitoring.serviceMonitor.interval": "16s",
    "monitoring.dashboards.annotations": {"a": "b"},
    "sweeps": [{"name": "a", "spec": "x"}],
    "quickstart.password": "bPassword1234",
    "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}],
}  # fmt: skip
for _part in ("scheduler", "worker"):
    BECOMES |= {
        f"{_part}.podAnnotations": {"a": "b"},
        f"{_part}.podLabels": {"a": "b"},
        f"{_part}.nodeSelector": {"a": "b"},
        f"{_part}.tolerations": [{"key": "a", "operator": "Exists"}],
        f"{_part}.affinity": {"podAntiAffinity": {}},
        f"{_part}.topologySpreadConstraints": [{"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
        f"{_part}.extraEnv": [{"name": "A", "value": "b"}],
        f"{_part}.extraVolumes": MINE,
        f"{_part}.extraVolumeMounts": [{"name": "tmp", "mountPath": "/mine"}],
        f"{_part}.initContainers": [{"name": "mine", "image": "mine"}],
        f"{_part}.securityContext.capabilities.drop": ["NET_RAW"],
    }  # fmt: skip
for _kind in ("podMonitor", "serviceMonitor", "prometheusRule"):
    BECOMES[f"monitoring.{_kind}.labels"] = {"a": "b"}


def leaves(value, path=()):
    """Paths and values of all that has nothing in it, lists among them."""
    if isinstance(value, dict) and value:
        for key, one in value.items():
            yield from leaves(one, (*path, key))
    else:
        yield ".".join(path), value


LEAVES = dict(leaves(VALUES))


def another(path, value):
    """A value that is not the default."""
    if path in BECOMES:
        return BECOMES[path]
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case str() if value[:1].isdigit():
            # An amount: 4Gi becomes 14Gi.
            return f"1{value}"
        case str():
            return f"{value}x"
    pytest.fail(f"{path}: BECOMES has to say what {value!r} becomes")


def merged(values, more):
    both = copy.deepcopy(values)
    for key, value in more.items():
        if value is None:
            both.pop(key, None)
        else:
            both[key] = merged(both.get(key, {}), value) if isinstance(value, dict) else value
    return both


def with_leaf(values, path, value):
    values = copy.deepcopy(values)
    *outer, last = path.split(".")
    inner = values
    for key in outer:
        inner = inner.setdefault(key, {})
    inner[last] = value
    return values


def context(path):
    """The longest beginning of a path that CONTEXTS has; "" if it has none."""
    parts = path.split(".")
    return next((one for n in range(len(parts), 0, -1) if (one := ".".join(parts[:n])) in CONTEXTS), "")


def at(values, path):
    for key in path.split("."):
        values = values[key]
    return values


@functools.cache
def rendered(surrounding):
    """The objects of a context: many leaves have the same."""
    return helm.render(merged(BASE, CONTEXTS[surrounding][0]) if surrounding else BASE)


@pytest.mark.parametrize("path", LEAVES)
def test_a_value_that_changes_changes_an_object(path):
    base = merged(BASE, CONTEXTS[context(path)][0]) if context(path) else BASE
    before = at(merged(VALUES, base), path)
    value = another(path, before)
    assert value != before, f"{path}: {value!r} is what it is already"
    changed = with_leaf(base, path, value)
    if path == "quickstart.enabled":
        # Without it, and without servers by name, nothing is rendered at all.
        with pytest.raises(helm.Refused):
            helm.render(base)
        assert helm.find(helm.render(changed), "StatefulSet", "-valkey")
    else:
        same = helm.render(changed) == rendered(context(path))
        assert not same, f"{path}: {value!r} changes nothing"


@pytest.mark.parametrize("surrounding", ["", "monitoring", "quickstart", "sweepJobs"])
def test_rendering_twice_is_the_same(surrounding):
    """Otherwise the test above would pass for every leaf."""
    again = helm.render(merged(BASE, CONTEXTS[surrounding][0]) if surrounding else BASE)
    assert again == rendered(surrounding)


def test_nothing_is_listed_that_is_no_leaf():
    assert set(BECOMES) <= set(LEAVES)
    assert {context(path) for path in LEAVES} - {""} == set(CONTEXTS)
