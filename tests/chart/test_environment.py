"""Variables in the chart are those that the programs know, and no setting is out of reach."""

import re

import yaml

import helm
from conftest import CI

# Variables that are no setting, with the file of the programs that reads them.
OTHERS = {
    "MEHL_SOUP_CACHE_DIR": "src/zoo/hash_cache.rs",
    "MEHL_SOUP_SERVER": "src/config/env_names.rs",
    "RUST_LOG": "src/logging.rs",
}
# Settings that the chart does not give, and why.
NOT_GIVEN = {
    "redis.url": "a file is given: a variable could be read by whoever sees the pod's specification",
    "amqp.url": "as redis.url",
    "scheduler.token": "as redis.url",
    "client.token": "as redis.url",
    "worker.name": "the default is made of the pod's name, which is unique",
    "client.timeout_seconds": "for the pods that submit; the default will do",
    "client.ca_file": "the scheduler is spoken to by http, within the cluster",
}


def known():
    """Variables of the settings, from the table that the programs' own tests hold against them."""
    document = (helm.ROOT / "docs" / "configuration.md").read_text()
    keys = re.findall(r"^\| `((?:log|redis|amqp|scheduler|worker|client)\.\w+|installation)` \|", document, re.M)
    assert len(keys) > 30
    return {f"MEHL_SOUP__{key.replace('.', '__').upper()}": key for key in keys}


def variables(objects):
    """All variables that pods of these objects have."""
    maps = {one["metadata"]["name"]: one["data"] for one in objects if one["kind"] == "ConfigMap"}
    for template in helm.pods(objects).values():
        for one in template["spec"]["containers"]:
            yield from (variable["name"] for variable in one.get("env", []))
            for source in one.get("envFrom", []):
                yield from maps[source["configMapRef"]["name"]]


def test_no_variable_is_unknown(rendered):
    names = known()
    for name, objects in rendered.items():
        for variable in variables(objects):
            if not variable.startswith("RABBITMQ_"):
                assert variable in names or variable in OTHERS, f"{name}: {variable}"


def test_other_variables_are_read_where_it_is_said():
    for variable, file in OTHERS.items():
        assert f'"{variable}"' in (helm.ROOT / file).read_text()


def test_every_setting_can_be_given_or_it_is_said_why_not():
    """With every value set, the pods have every variable there is."""
    values = helm.ci_values()["tls"]
    values["worker"]["torchscriptAllow"] = ["ab" * 32]
    schema = yaml.safe_load((helm.CHART / "values.schema.json").read_text())
    values["settings"] = {
        section: {key: one.get("maximum") or one["enum"][-1] for key, one in part["properties"].items()}
        for section, part in schema["properties"]["settings"]["properties"].items()
    }
    given = set(variables(helm.render(values)))
    missing = {key for variable, key in known().items() if variable not in given}
    assert missing == set(NOT_GIVEN)


def test_large_numbers_are_written_as_such():
    values = helm.ci_values()["minimal"]
    values["settings"] = {"scheduler": {"retention_seconds": 316224000}}
    assert helm.find(helm.render(values), "ConfigMap", "-settings")["data"]["MEHL_SOUP__SCHEDULER__RETENTION_SECONDS"] == "316224000"


def test_words_are_written_as_they_are():
    values = helm.ci_values()["minimal"]
    values["settings"] = {"log": {"format": "json"}}
    assert helm.find(helm.render(values), "ConfigMap", "-settings")["data"]["MEHL_SOUP__LOG__FORMAT"] == "json"


def test_installations_do_not_meet(rendered):
    def installation(objects):
        return helm.find(objects, "ConfigMap", "-settings")["data"]["MEHL_SOUP__INSTALLATION"]

    assert installation(rendered["minimal"]) == f"{helm.NAMESPACE}.{helm.FULLNAME}"
    assert installation(rendered["restricted"]) == CI["restricted"]["installation"]
