"""What starts pods anew, and what must not: a worker that is started anew gives its task back and loads its zoo again."""

import re
import shutil

import helm
import pytest
from conftest import CI


def templates(objects):
    """The pod templates of objects that keep pods running; a difference in one starts its pods anew."""
    return {name: template for name, template in helm.pods(objects).items() if name.split("/")[0] in ("Deployment", "StatefulSet", "ScaledJob")}


def changed(before, after):
    """Ends of the names of those whose pods are started anew."""
    before, after = templates(before), templates(after)
    assert set(before) == set(after)
    return {name.split("/")[1].removeprefix(f"{helm.FULLNAME}-") for name in before if before[name] != after[name]}


def merged(values, more):
    """Values with more of them, section by section."""
    both = {**values}
    for key, value in more.items():
        both[key] = merged(both.get(key, {}), value) if isinstance(value, dict) else value
    return both


@pytest.mark.parametrize("name", CI)
def test_another_version_of_the_chart_starts_nothing_anew(tmp_path, name):
    chart = tmp_path / "mehl-soup"
    shutil.copytree(helm.CHART, chart)
    about = (chart / "Chart.yaml").read_text()
    (chart / "Chart.yaml").write_text(re.sub(r"^version: .*", "version: 9.9.9", about, flags=re.M))
    # What is drawn in each rendering is given.
    values = merged(CI[name], {"quickstart": {"password": "aPassword1234"}}) if name == "quickstart" else CI[name]
    assert changed(helm.render(values), helm.render(values, chart)) == set()


def test_another_version_of_the_programs_starts_those_anew_whose_image_changes(tmp_path):
    chart = tmp_path / "mehl-soup"
    shutil.copytree(helm.CHART, chart)
    about = (chart / "Chart.yaml").read_text()
    (chart / "Chart.yaml").write_text(re.sub(r"^appVersion: .*", 'appVersion: "9.9.9"', about, flags=re.M))
    values = merged(CI["minimal"], {"worker": {"image": {"tag": "mine"}}})
    assert changed(helm.render(values), helm.render(values, chart)) == {"scheduler"}


@pytest.mark.parametrize("more, anew", [
    ({"settings": {"scheduler": {"attempts": 9}}}, {"scheduler"}),
    ({"settings": {"worker": {"lease_seconds": 31}}}, {"worker"}),
    ({"settings": {"redis": {"timeout_seconds": 9}}}, {"scheduler", "worker"}),
    ({"settings": {"log": {"format": "json"}}}, {"scheduler", "worker"}),
    ({"rustLog": "mehl_soup=debug"}, {"scheduler", "worker"}),
    ({"installation": "other"}, {"scheduler", "worker"}),
    ({"redis": {"existingSecret": "other"}}, {"scheduler", "worker"}),
    ({"token": {"existingSecret": "other"}}, {"scheduler"}),
    ({"scheduler": {"resources": {"limits": {"memory": "2Gi"}}}}, {"scheduler"}),
    ({"worker": {"maxUnavailable": 1, "replicas": 3, "labels": {"a": "b"}}, "networkPolicy": {"enabled": False}}, set()),
], ids=str)  # fmt: skip
def test_a_value_starts_those_pods_anew_that_it_concerns(more, anew):
    assert changed(helm.render(CI["minimal"]), helm.render(merged(CI["minimal"], more))) == anew


def test_another_password_starts_both_servers_and_their_clients_anew():
    def rendered(password):
        return helm.render(merged(CI["quickstart"], {"quickstart": {"password": password}}))

    assert changed(rendered("aPassword1234"), rendered("aPassword1234")) == set()
    assert changed(rendered("aPassword1234"), rendered("bPassword1234")) == {"rabbitmq", "valkey", "scheduler", "worker"}


@pytest.mark.parametrize("name", CI)
def test_no_pod_template_names_a_version(rendered, name):
    for where, template in helm.pods(rendered[name]).items():
        if not where.startswith("Pod/"):
            assert not {"helm.sh/chart", "app.kubernetes.io/version"} & set(template["metadata"]["labels"]), where
