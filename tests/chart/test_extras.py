"""What can be switched on: monitoring, sweeps, the test of a release, servers to try things out, further objects."""

import json
import shutil

import yaml

import helm
from conftest import CI


def test_monitoring_can_be_switched_and_labelled(rendered):
    for kind, end in [("PodMonitor", "-worker"), ("ServiceMonitor", "-scheduler"), ("PrometheusRule", "-pool")]:
        assert helm.find(rendered["gpu"], kind, end)["metadata"]["labels"]["release"] == "prometheus"
    endpoints = helm.find(rendered["gpu"], "PodMonitor", "-worker")["spec"]["podMetricsEndpoints"]
    ports = {port["name"] for port in helm.container(helm.worker(rendered["gpu"]))["ports"]}
    assert {one["port"] for one in endpoints} <= ports


def test_every_dashboard_and_rule_of_the_chart_reaches_the_cluster(tmp_path):
    chart = tmp_path / "mehl-soup"
    shutil.copytree(helm.CHART, chart)
    (chart / "dashboards").mkdir(exist_ok=True)
    text = '{\n  "title": "a",\n  "legend": "{{instance}} {{ `x` }}"\n}\n'
    (chart / "dashboards" / "probe.json").write_text(text)
    rule = {"groups": [{"name": "probe", "rules": [{"alert": "Probe", "expr": "1", "annotations": {"summary": "{{ $labels.pod }}"}}]}]}
    (chart / "rules" / "probe.yaml").write_text(yaml.safe_dump(rule))
    objects = helm.render(CI["gpu"], chart)
    dashboards = helm.find(objects, "ConfigMap", "-dashboards")
    assert json.loads(dashboards["data"]["probe.json"]) == json.loads(text)
    assert set(dashboards["data"]) == {file.name for file in (chart / "dashboards").glob("*.json")}
    assert dashboards["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert dashboards["metadata"]["annotations"] == {"grafana_folder": "ML"}
    assert helm.find(objects, "PrometheusRule", "-probe")["spec"] == rule
    ours = yaml.safe_load((helm.CHART / "rules" / "pool.yaml").read_text())
    assert helm.find(objects, "PrometheusRule", "-pool")["spec"] == ours


def test_sweeps_are_submitted_once_for_each_text(minimal):
    def submissions(spec):
        minimal["sweeps"] = [{"name": "first", "spec": spec, "priority": 2, "maxRunning": 4, "attempts": 5}]
        return helm.render(minimal)

    objects = submissions("a = 1\n")
    job = helm.find(objects, "Job", "-sweep-first")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "post-install,post-upgrade"
    arguments = helm.container(job["spec"]["template"]["spec"])["args"]
    assert arguments[:4] == ["submit", "/etc/mehl-soup/sweeps/first.toml", "--name", "first"]
    assert arguments[6:] == ["--priority", "2", "--max-running", "4", "--attempts", "5"]
    assert helm.find(objects, "ConfigMap", "-sweeps")["data"] == {"first.toml": "a = 1\n"}
    # The same text has the same key, another text another one: that is what makes it idempotent.
    again = [helm.container(helm.find(submissions(text), "Job", "-sweep-first")["spec"]["template"]["spec"])["args"] for text in ("a = 1\n", "a = 2\n")]
    assert arguments[4] == "--key" and again[0] == arguments and again[1][5] != arguments[5]


def test_the_flags_of_a_submission_are_those_of_the_program(rendered):
    source = (helm.ROOT / "src" / "cli" / "pool" / "submit.rs").read_text()
    for name, template in helm.pods(rendered["gpu"]).items():
        if "-sweep-" in name or name.startswith("Pod/"):
            for flag in helm.container(template["spec"])["args"]:
                if flag.startswith("--"):
                    assert f"    {flag[2:].replace('-', '_')}: " in source, flag


def test_helm_test_submits_one_task_and_waits(rendered):
    objects = rendered["minimal"]
    pod = helm.find(objects, "Pod", "-test")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert helm.container(pod["spec"])["args"][-1] == "--wait" and pod["spec"]["activeDeadlineSeconds"] == 240
    spec = helm.find(objects, "ConfigMap", "-test")["data"]["test.toml"]
    assert "[search]" not in spec and "/usr/share/mehl-soup/demo/zoo/*" in spec
    assert all(one["kind"] != "Pod" for one in rendered["restricted"])


def test_quickstart_serves_what_its_secret_says(rendered):
    objects = rendered["quickstart"]
    secret = helm.find(objects, "Secret", "-quickstart")["stringData"]
    for name, scheme, port, file in [("valkey", "redis", 6379, "valkey.conf"), ("rabbitmq", "amqp", 5672, "rabbitmq.json")]:
        service = helm.find(objects, "Service", f"-{name}")
        assert service["spec"]["ports"][0]["port"] == port
        address = f"@{service['metadata']['name']}.{helm.NAMESPACE}.svc:{port}/"
        assert secret[f"{scheme}-url"].startswith(f"{scheme}://") and secret[f"{scheme}-url"].endswith(address)
        assert secret["password"] in secret[f"{scheme}-url"] and secret["password"] in secret[file]
    for line in ("appendonly yes", "maxmemory-policy noeviction"):
        assert line in secret["valkey.conf"].splitlines()


def test_extra_objects_are_rendered_as_templates(rendered):
    for end in ("-extra", "-extra-text"):
        assert any(one["metadata"]["name"] == f"{helm.RELEASE}{end}" for one in rendered["restricted"])
