"""Values: which are taken, which are refused and how, and that schema and values name the same."""

import json
import re

import pytest
import yaml

import helm

SCHEMA = json.loads((helm.CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((helm.CHART / "values.yaml").read_text())
# Keys whose own keys are the user's, though values.yaml gives some.
FREE = {"resources", "labels", "podSecurityContext", "securityContext"}


def resolve(schema):
    while "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    return schema


def leaves_of_schema(schema, path=""):
    """Paths of the schema that are no object with fixed keys."""
    schema = resolve(schema)
    if "properties" not in schema:
        return {path}
    return set().union(*(leaves_of_schema(one, f"{path}.{key}".lstrip(".")) for key, one in schema["properties"].items()))


def closed_objects(schema, path=""):
    """Objects with fixed keys, as (path, schema)."""
    schema = resolve(schema)
    if "properties" in schema:
        yield path, schema
        for key, one in schema["properties"].items():
            yield from closed_objects(one, f"{path}.{key}".lstrip("."))
    if isinstance(schema.get("items"), dict):
        yield from closed_objects(schema["items"], f"{path}[]")


def leaves_of_values(value, path=""):
    if not isinstance(value, dict) or not value or path.split(".")[-1] in FREE:
        return {path}
    return set().union(*(leaves_of_values(one, f"{path}.{key}".lstrip(".")) for key, one in value.items()))


def test_schema_and_values_have_the_same_keys():
    in_schema = {re.sub(r"\.(requests|limits)$", "", path) for path in leaves_of_schema(SCHEMA)}
    in_schema = {".".join(path.split(".")[:2]) if path.startswith("settings.") else path for path in in_schema}
    assert leaves_of_values(VALUES) == in_schema - {"global"}


def test_no_object_of_the_schema_takes_unknown_keys():
    seen = list(closed_objects(SCHEMA))
    assert len(seen) > 30
    assert [path for path, one in seen if one.get("additionalProperties") is not False] == []


def test_every_known_setting_of_the_programs_can_be_set_with_its_own_range():
    document = (helm.ROOT / "docs" / "configuration.md").read_text()
    known = {}
    for key, least, most in re.findall(r"^\| `(\w+\.\w+)` \| (\d+) to (\d+)", document, re.M):
        section, name = key.split(".")
        if section != "client":
            known.setdefault(section, {})[name] = (int(least), int(most))
    assert known, "docs/configuration.md: no settings with a range found"
    words = re.findall(r"^\| `(\w+)\.(\w+)` \| (`\w+`(?: or `\w+`)+) \|", document, re.M)
    for section, name, choice in words:
        known.setdefault(section, {})[name] = tuple(re.findall(r"`(\w+)`", choice))
    settings = SCHEMA["properties"]["settings"]["properties"]
    found = {
        section: {key: tuple(one.get("enum") or (one["minimum"], one["maximum"])) for key, one in part["properties"].items()}
        for section, part in settings.items()
    }
    assert found == known


def change(values, path, value):
    *outer, key = path.split(".")
    for one in outer:
        values = values.setdefault(one, {})
    values[key] = value


# Value and words that the refusal has to hold.
REFUSED = [
    ("worker.replica", 2, "'replica' not allowed"),
    ("workers", {}, "'workers' not allowed"),
    ("settings.worker.lease_second", 30, "'lease_second' not allowed"),
    ("settings.log.format", "xml", "/settings/log/format"),
    ("settings.worker.url", "redis://h", "'url' not allowed"),
    ("worker.inputs", [{"name": "a", "mountPath": "/a", "volume": {}, "path": "/x"}], "'path' not allowed"),
    ("worker.replicas", "2", "got string, want integer"),
    ("worker.replicas", -1, "minimum"),
    ("settings.worker.lease_seconds", 1, "minimum: got 1, want 2"),
    ("settings.worker.lease_seconds", 2.5, "got number, want integer"),
    ("quickstart.enabled", "yes", "got string, want boolean"),
    ("worker.device", "gpu", "/worker/device"),
    ("worker.gpu.resourceName", "gpu", "/worker/gpu/resourceName"),
    ("worker.shmSize", "1 GB", "/worker/shmSize"),
    ("worker.image.digest", "sha256:12", "/worker/image/digest"),
    ("worker.torchscriptAllow", ["abc"], "/worker/torchscriptAllow/0"),
    ("autoscaling.kind", "hpa", "/autoscaling/kind"),
    ("installation", "a b", "/installation"),
    ("sweeps", [{"name": "a"}], "missing property 'spec'"),
    ("sweeps", [{"name": "A_B", "spec": "x"}], "/sweeps/0/name"),
    ("worker.gpu.count", 2, "a worker has one device"),
    ("worker.resources.limits", {"nvidia.com/gpu": 2}, "configure the worker's GPU in worker.gpu"),
    ("worker.resources.requests", {"nvidia.com/mig-1g.10gb": 1}, "configure the worker's GPU in worker.gpu"),
    ("worker.device", "cuda:0", "worker.gpu.count is 0"),
    ("worker.inputs", [], "worker.inputs is empty"),
    ("redis.existingSecret", "", "redis.existingSecret is empty"),
    ("amqp.existingSecret", "", "amqp.existingSecret is empty"),
    ("quickstart.enabled", True, "are both set"),
    ("autoscaling.minReplicas", 9, "is above autoscaling.maxReplicas"),
    ("autoscaling", {"kind": "scaledJob", "minReplicas": 1}, "KEDA would start Jobs without end"),
    ("worker.extraEnv", [{"name": "MEHL_SOUP__WORKER__DEVICE", "value": "cpu"}], "worker.extraEnv has MEHL_SOUP__WORKER__DEVICE"),
    ("worker.extraEnv", [{"name": "MEHL_SOUP__INSTALLATION", "value": "x"}], "worker.extraEnv has MEHL_SOUP__INSTALLATION"),
    ("worker.extraEnv", [{"name": "A", "value": "x"}] * 2, "worker.extraEnv has A"),
    ("scheduler.extraEnv", [{"name": "A", "val": "x"}], "'val' not allowed"),
    ("scheduler.extraEnv", [{"name": "A", "value": 1}], "got number, want string"),
    ("quickstart.password", "short", "/quickstart/password"),
    ("settings.worker.orphan_seconds", 29, "is below settings.worker.lease_seconds (30)"),
    ("sweeps", [{"name": "a", "spec": "x"}] * 2, "two entries have the name a"),
]


@pytest.mark.parametrize("path, value, words", REFUSED, ids=[f"{path}-{words}" for path, _, words in REFUSED])
def test_what_is_wrong_is_refused_and_named(minimal, path, value, words):
    change(minimal, path, value)
    with pytest.raises(helm.Refused) as refused:
        helm.render(minimal)
    assert words in str(refused.value)


@pytest.mark.parametrize("again, words", [("name", "two entries have the name zoo"), ("mountPath", "two entries have the mountPath /data/zoo")])
def test_two_inputs_in_one_place_are_refused(minimal, again, words):
    first = minimal["worker"]["inputs"][0]
    minimal["worker"]["inputs"].append({**first, "name": "other", "mountPath": "/other", again: first[again]})
    with pytest.raises(helm.Refused, match=words):
        helm.render(minimal)


def test_lint_finds_nothing(minimal):
    helm_python = pytest.importorskip("helm_python")
    report = helm_python.lint(helm.CHART, minimal, strict=True, namespace=helm.NAMESPACE)
    assert report["total_charts_linted"] == 1
    # An icon is recommended only.
    assert [one for one in report["messages"] if one["severity"] > 1] == [] and report["errors"] == []


def test_the_chart_alone_says_what_it_needs():
    with pytest.raises(helm.Refused, match="worker.inputs is empty"):
        helm.render({})


def test_notes_name_secrets_roots_and_what_is_not_for_production(minimal):
    said = helm.notes(minimal)
    if said is None:
        pytest.skip("helm tells its notes to clusters only")
    for words in ["redis, key url", "rabbitmq, key url", "/data/zoo", "reason=FailedMount", "noeviction", "--timeout 300s"]:
        assert words in said
    assert "NOT FOR PRODUCTION" not in said
    assert "NOT FOR PRODUCTION" in helm.notes(helm.ci_values()["quickstart"])
