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


BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", GUIDE, re.S)]


def block(key):
    """The one block of YAML in the guide that has a key."""
    (found,) = [one for one in BLOCKS if key in one]
    return found


def test_the_yaml_of_the_guide_is_yaml_and_its_values_are_taken():
    assert len(BLOCKS) == 6
    servers, large, watched, queued = block("redis"), block("settings"), block("monitoring"), BLOCKS[3]
    base = helm.ci_values()["gpu"]
    inputs = {"inputs": base["worker"]["inputs"]}
    objects = helm.render({**servers, **large, "worker": {**large["worker"], **inputs}})
    assert helm.find(objects, "ScaledJob", "-worker")["spec"]["maxReplicaCount"] == 100
    objects = helm.render({**base, **watched})
    assert helm.find(objects, "PrometheusRule", "-pool")["metadata"]["labels"]["release"] == "prometheus"
    objects = helm.render({**base, "worker": {**queued["worker"], **inputs}})
    assert helm.find(objects, "Deployment", "-worker")["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"


def test_the_recipe_for_valkey_never_runs_two_servers_on_one_file():
    """Values of the official chart 0.12, whose Deployment is rolled unless `deploymentStrategy` says otherwise."""
    recipe = block("dataStorage")
    assert recipe["deploymentStrategy"] == "Recreate"
    assert recipe["dataStorage"] == {"enabled": True, "requestedSize": "20Gi", "keepPvc": True, "accessModes": ["ReadWriteOncePod"]}
    # All keys of the first level that the recipe may name: those of the chart's values.yaml that it needs.
    assert set(recipe) == {"deploymentStrategy", "dataStorage", "valkeyConfig", "auth"}
    for line in ("appendonly yes", "maxmemory-policy noeviction"):
        assert line in recipe["valkeyConfig"].splitlines()
    version = re.search(r"valkey-helm --version (\S+)", GUIDE)[1]
    assert version.startswith("0.12."), "the recipe's keys are those of 0.12: 1.0 has persistence and extraConfig in place of two of them"


def test_permissions_and_keys_of_the_servers_are_those_of_the_installation(rendered):
    name = helm.find(rendered["minimal"], "ConfigMap", "-settings")["data"]["MEHL_SOUP__INSTALLATION"]
    given = re.search(r"rabbitmqctl set_permissions soup '(.*)' '(.*)' '(.*)'", GUIDE).groups()
    # Names of queues and exchanges, as src/queue/rabbitmq/topology.rs makes them.
    names = re.findall(r"`<installation>(\.\w+)`", (helm.ROOT / "src" / "queue" / "rabbitmq" / "topology.rs").read_text())
    assert len(names) == 4 and len(set(given)) == 1
    for end in names:
        assert re.search(given[0], name + end) and not re.search(given[0], "other." + name + end)
    assert not re.search(given[0], name + "-b.tickets")
    assert f"~{{{name}}}:*" in block("dataStorage")["auth"]["aclUsers"]["soup"]["permissions"]


def test_the_guide_names_the_images_that_chart_and_compose_have():
    values = yaml.safe_load((helm.CHART / "values.yaml").read_text())["quickstart"]
    services = yaml.safe_load((helm.ROOT / "docker" / "compose.yaml").read_text())["services"]
    images = [values["rabbitmq"]["image"], values["valkey"]["image"], services["prometheus"]["image"], services["grafana"]["image"]]
    chosen = GUIDE[GUIDE.index("The images of the servers were chosen on ") :].split("\n\n")[0]
    for image in images:
        name, version = re.search(r"(\w+):v?([\d.]+)$", image).groups()
        assert re.search(rf"{name} {re.escape(version)}\b", chosen.replace("\n", " "), re.I), image
    assert block("kind")["spec"]["image"] == f"{values['rabbitmq']['image']}-management"


def test_what_the_guide_says_of_lost_nodes_is_what_the_chart_does(rendered):
    section = GUIDE.split("### A lost node")[1].split("\n## ")[0]
    values = yaml.safe_load((helm.CHART / "values.yaml").read_text())
    assert f"{values['worker']['lostNodeSeconds']} s. Kubernetes' own default is 300 s" in section
    job = helm.find(rendered["scaledjob"], "ScaledJob", "-worker")["spec"]["jobTargetRef"]
    assert f"`backoffLimit: {job['backoffLimit']}`" in GUIDE


def test_helm_test_is_given_more_time_than_the_test_may_take():
    seconds = int(re.search(r"--set test.timeoutSeconds=(\d+)", GUIDE)[1])
    minutes = int(re.search(r"helm test --timeout (\d+)m", GUIDE)[1])
    assert seconds < 60 * minutes
