"""Alerts: promtool takes them, each fires where it must, and the docs say what to do then."""

import re

import yaml

import helm
import promql
from conftest import CI

FILES = sorted((helm.CHART / "rules").glob("*.yaml"))
RULES = [rule for file in FILES for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]
TESTS = helm.ROOT / "tests" / "chart" / "alerts.yaml"


def test_promtool_takes_the_rules():
    assert FILES and len(RULES) >= 11
    for file in FILES:
        promql.promtool("check", "rules", file)


def test_every_alert_fires_where_it_must(tmp_path):
    tests = {"rule_files": [str(file) for file in FILES], **yaml.safe_load(TESTS.read_text())}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests))
    promql.promtool("test", "rules", tmp_path / "tests.yaml")
    fires, keeps = set(), set()
    for test in tests["tests"]:
        for one in test["alert_rule_test"]:
            (fires if one["exp_alerts"] else keeps).add(one["alertname"])
    names = {rule["alert"] for rule in RULES}
    assert fires == names and keeps == names


def test_no_progress_is_what_a_worker_should_have_noticed_itself():
    def limit(settings):
        rules = helm.find(helm.render({**CI["gpu"], "settings": settings}), "PrometheusRule", "-pool")["spec"]["groups"][0]["rules"]
        (expression,) = [rule["expr"] for rule in rules if rule["alert"] == "MehlSoupNoProgress"]
        return int(re.search(r"> (\d+)\)", expression)[1])

    assert (limit({}), limit({"worker": {"stall_seconds": 7200}})) == (900, 7500)


def test_every_alert_asks_for_series_that_there_are():
    known = promql.registry()
    for rule in RULES:
        for name, labels in promql.series(rule["expr"]):
            kind, own = known[name]
            assert labels <= own, f"{rule['alert']}: {name}"
            assert (kind == "counter") == (name in promql.rates(rule["expr"])), f"{rule['alert']}: {name}"


def test_every_alert_has_a_paragraph_that_says_what_to_do():
    text = (helm.ROOT / "docs" / "alerts.md").read_text()
    sections = dict(re.findall(r"^## (\w+)\n\n(.*?)(?=\n## |\Z)", text, re.M | re.S))
    assert set(sections) == {rule["alert"] for rule in RULES}
    for rule in RULES:
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}
        assert rule["annotations"]["runbook"] == f"docs/alerts.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert len(sections[rule["alert"]].split()) > 30, rule["alert"]
