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
    """Names of all variables that pods of these objects have."""
    for template in helm.pods(objects).values():
        yield from helm.environment(objects, template["spec"])


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


def test_large_numbers_are_written_as_such(minimal):
    minimal["settings"] = {"scheduler": {"retention_seconds": 316224000}, "worker": {"stall_seconds": 2592000}}
    minimal["worker"]["podSecurityContext"] = {"runAsUser": 1000660000, "supplementalGroups": [1000660000]}
    minimal["worker"]["supplementalGroups"] = [1000660001]
    objects = helm.render(minimal)
    assert helm.environment(objects, helm.scheduler(objects))["MEHL_SOUP__SCHEDULER__RETENTION_SECONDS"] == "316224000"
    assert helm.environment(objects, helm.worker(objects))["MEHL_SOUP__WORKER__STALL_SECONDS"] == "2592000"
    context = helm.worker(objects)["securityContext"]
    assert (context["runAsUser"], context["supplementalGroups"]) == (1000660000, [1000660001])


def test_words_are_written_as_they_are(minimal):
    minimal["settings"] = {"log": {"format": "json"}}
    assert helm.find(helm.render(minimal), "ConfigMap", "-settings")["data"]["MEHL_SOUP__LOG__FORMAT"] == "json"


def test_what_is_logged_is_chosen_for_scheduler_and_workers(minimal):
    minimal["rustLog"] = "mehl_soup=debug,lapin=warn"
    objects = helm.render(minimal)
    for pod in (helm.scheduler(objects), helm.worker(objects)):
        assert helm.environment(objects, pod)["RUST_LOG"] == minimal["rustLog"]


def test_settings_of_a_part_reach_that_part_only(minimal):
    minimal["settings"] = {"scheduler": {"attempts": 7}, "worker": {"lease_seconds": 31}, "redis": {"timeout_seconds": 9}}
    objects = helm.render(minimal)
    scheduler, worker = (helm.environment(objects, pod) for pod in (helm.scheduler(objects), helm.worker(objects)))
    assert scheduler["MEHL_SOUP__SCHEDULER__ATTEMPTS"] == "7" and worker["MEHL_SOUP__WORKER__LEASE_SECONDS"] == "31"
    assert "MEHL_SOUP__SCHEDULER__ATTEMPTS" not in worker and "MEHL_SOUP__WORKER__LEASE_SECONDS" not in scheduler
    assert scheduler["MEHL_SOUP__REDIS__TIMEOUT_SECONDS"] == worker["MEHL_SOUP__REDIS__TIMEOUT_SECONDS"] == "9"


def test_installations_do_not_meet(rendered):
    def installation(objects):
        return helm.find(objects, "ConfigMap", "-settings")["data"]["MEHL_SOUP__INSTALLATION"]

    assert installation(rendered["minimal"]) == f"{helm.NAMESPACE}.{helm.FULLNAME}"
    assert installation(rendered["restricted"]) == CI["restricted"]["installation"]
