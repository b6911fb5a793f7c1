"""The operations guide and the alerts: what they name is there."""

import re

import yaml

import helm

GUIDE = (helm.ROOT / "docs" / "kubernetes.md").read_text()
SOURCES = "".join(file.read_text() for file in (helm.ROOT / "src" / "metrics").rglob("*.rs"))


def series(text):
    """Names of series in a text, without the prefix and what Prometheus adds to a histogram's."""
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bmehl_soup_([a-z_]+)", text)}


def test_every_series_that_is_named_is_one_of_the_programs():
    texts = {"docs/kubernetes.md": GUIDE}
    for file in [*(helm.ROOT / "docs").glob("*.md"), *(helm.CHART / "rules").glob("*.yaml"), *(helm.CHART / "dashboards").glob("*.json")]:
        texts[file.name] = file.read_text()
    assert len(series(texts["metrics.md"])) > 30
    for name, text in texts.items():
        assert {one for one in series(text) if f'"{one}"' not in SOURCES} == set(), name


def test_every_value_that_is_named_is_one_of_the_chart():
    values = yaml.safe_load((helm.CHART / "values.yaml").read_text())
    named = re.findall(r"`((?:worker|scheduler|autoscaling|networkPolicy|monitoring|quickstart|redis|amqp|token|serviceAccount)\.[A-Za-z.]+)`", GUIDE)
    assert len(named) > 20
    table = (helm.ROOT / "docs" / "configuration.md").read_text()
    for path in named:
        value = values
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        assert value is not None or f"`{path}`" in table, path


def test_the_yaml_of_the_guide_is_yaml_and_its_values_are_taken():
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", GUIDE, re.S)]
    assert len(blocks) == 5
    servers, large, watched = blocks[2:]
    base = helm.ci_values()["gpu"]
    inputs = {"inputs": base["worker"]["inputs"]}
    objects = helm.render({**servers, **large, "worker": {**large["worker"], **inputs}})
    assert helm.find(objects, "ScaledJob", "-worker")["spec"]["maxReplicaCount"] == 100
    objects = helm.render({**base, **watched})
    assert helm.find(objects, "PrometheusRule", "-pool")["metadata"]["labels"]["release"] == "prometheus"
