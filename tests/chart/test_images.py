"""Dockerfiles and the compose file, without a Docker engine: linted, and that they agree with each other, the chart and the programs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import helm
from test_environment import OTHERS, known

DOCKER = helm.ROOT / "docker"
DOCKERFILES = {"scheduler": DOCKER / "scheduler.Dockerfile", "worker": DOCKER / "worker.Dockerfile"}
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
GPU = yaml.safe_load((DOCKER / "compose.gpu.yaml").read_text())
SERVICES = COMPOSE["services"]


def instructions(name, keyword):
    """What follows a keyword in a Dockerfile, lines joined."""
    text = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", DOCKERFILES[name].read_text(), flags=re.M))
    return re.findall(rf"^{keyword} (.*)$", text, re.M)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_nothing(name):
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--failure-threshold", "style", DOCKERFILES[name]], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", DOCKERFILES)
def test_images_are_what_the_chart_expects_of_them(name):
    assert instructions(name, "USER") == ["10001:10001"]
    program = {"scheduler": "mehl-soup", "worker": "mehl-soup-worker"}[name]
    assert json.loads(instructions(name, "ENTRYPOINT")[-1]) == ["/usr/bin/tini", "--", program]
    assert json.loads(instructions(name, "CMD")[-1]) == ["serve"]
    assert instructions(name, "HEALTHCHECK")[-1].endswith(f'CMD ["{program}", "healthcheck"]')
    assert instructions(name, "EXPOSE") == [{"scheduler": "7070", "worker": "9464"}[name]]
    last = DOCKERFILES[name].read_text().split("\nFROM ")[-1]
    assert "ca-certificates" in last and "org.opencontainers.image.licenses" in last


@pytest.mark.parametrize("name", DOCKERFILES)
def test_base_images_are_pinned_and_named_once(name):
    arguments = dict(one.split("=", 1) for one in instructions(name, "ARG") if "IMAGE=" in one)
    for image in arguments.values():
        assert re.search(r":\w+-\d{8}-slim$|:\d+\.\d+\.\d+-slim-\w+$", image), image
    rust = re.search(r":(\d+\.\d+)\.", arguments["RUST_IMAGE"])[1]
    assert f'rust-version = "{rust}"' in (helm.ROOT / "Cargo.toml").read_text()
    stages = set()
    for base in instructions(name, "FROM"):
        source, *alias = base.split(" AS ")
        assert source in stages or source.strip("${}") in arguments, base
        stages.update(alias)


def test_the_scheduler_has_no_libtorch_and_the_worker_the_one_of_the_setup():
    assert "torch" not in re.sub(r"^#.*\n", "", DOCKERFILES["scheduler"].read_text(), flags=re.M)
    setup = (helm.ROOT / "scripts" / "setup.sh").read_text()
    version = re.search(r"^readonly TORCH=(\S+)", setup, re.M)[1]
    assert f"TORCH={version}" in instructions("worker", "ARG")
    subset = re.search(r"^readonly CPU_SUBSET=\((.*)\)", setup, re.M)[1]
    assert subset in DOCKERFILES["worker"].read_text()


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_a_build_copies_is_in_its_context(name):
    allowed = [line.removeprefix("!") for line in (helm.ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for copied in instructions(name, "COPY"):
        if not copied.startswith("--from=") and copied != ". .":
            for source in copied.split()[:-1]:
                assert any(Path(source).match(one) for one in allowed), source
    for needed in ("Cargo.toml", "Cargo.lock", "src", "workers"):
        assert needed in allowed and (helm.ROOT / needed).exists()


def test_versions_of_images_are_those_of_the_chart():
    version = yaml.safe_load((helm.CHART / "Chart.yaml").read_text())["appVersion"]
    values = yaml.safe_load((helm.CHART / "values.yaml").read_text())
    assert SERVICES["scheduler"]["image"] == f"{values['scheduler']['image']['repository']}:{version}"
    assert SERVICES["worker"]["image"] == f"{values['worker']['image']['repository']}:{version}-cpu"
    assert GPU["services"]["worker"]["image"] == f"{values['worker']['image']['repository']}:{version}-cuda"
    assert SERVICES["rabbitmq"]["image"] == values["quickstart"]["rabbitmq"]["image"]
    assert SERVICES["redis"]["image"] == values["quickstart"]["valkey"]["image"]
    for name in DOCKERFILES:
        assert f"VERSION={version}" in instructions(name, "ARG")


def test_compose_keeps_the_data_of_each_series_of_rabbitmq_apart():
    series = re.search(r":(\d+\.\d+)\.\d+$", SERVICES["rabbitmq"]["image"])[1]
    assert SERVICES["rabbitmq"]["volumes"] == [f"rabbitmq-{series}:/var/lib/rabbitmq"]


def test_images_of_servers_are_of_series_that_are_supported():
    """The oldest series of each that its project supported when docs/kubernetes.md says that the images were chosen."""
    supported = {"rabbitmq": (4, 3), "redis": (9, 0), "prometheus": (3, 13), "grafana": (13, 2)}
    for name, oldest in supported.items():
        major, minor, _ = re.search(r":v?(\d+)\.(\d+)\.(\d+)$", SERVICES[name]["image"]).groups()
        assert (int(major), int(minor)) >= oldest, SERVICES[name]["image"]


def test_compose_gives_known_variables_only():
    for name in ("scheduler", "worker", "client"):
        for variable in SERVICES[name]["environment"]:
            assert variable in known() or variable in OTHERS, f"{name}: {variable}"
    assert set(GPU["services"]["worker"]["environment"]) <= set(known())


def test_compose_publishes_on_loopback_only():
    published = [port for one in SERVICES.values() for port in one.get("ports", [])]
    assert len(published) == 3 and all(port.startswith("127.0.0.1:") for port in published)


def test_compose_waits_for_what_is_healthy():
    images_with_checks = {"scheduler", "worker"}
    for name, one in SERVICES.items():
        assert "healthcheck" in one or name in images_with_checks, name
        for other, how in one.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"} and other in SERVICES
    assert set(SERVICES["scheduler"]["depends_on"]) == {"redis", "rabbitmq"}


def test_compose_names_files_and_volumes_that_are_there():
    used = set()
    for name, one in SERVICES.items():
        for volume in one.get("volumes", []):
            source = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", volume).split(":")[0]
            if source.startswith("."):
                assert (DOCKER / source).resolve().exists(), f"{name}: {source}"
            else:
                used.add(source)
        if "build" in one:
            assert (DOCKER / one["build"]["context"] / one["build"]["dockerfile"]).resolve() in DOCKERFILES.values()
        for secret in one.get("secrets", []):
            assert secret in COMPOSE["secrets"]
    assert used == set(COMPOSE["volumes"])
    assert (DOCKER / re.search(r":-\./(.*)\}", COMPOSE["secrets"]["token"]["file"])[1]).read_text().strip()


def test_compose_keeps_redis_as_the_programs_need_it():
    command = SERVICES["redis"]["command"]
    for flag, value in [("--appendonly", "yes"), ("--maxmemory-policy", "noeviction")]:
        assert command[command.index(flag) + 1] == value


def test_prometheus_and_grafana_find_what_they_read():
    prometheus = yaml.safe_load((DOCKER / "prometheus.yaml").read_text())
    jobs = {one["job_name"]: one for one in prometheus["scrape_configs"]}
    assert jobs["mehl-soup-scheduler"]["static_configs"] == [{"targets": ["scheduler:7070"]}]
    worker = jobs["mehl-soup-worker"]["dns_sd_configs"][0]
    assert worker["names"] == ["worker"] and SERVICES["worker"]["environment"]["MEHL_SOUP__WORKER__LISTEN"].endswith(f":{worker['port']}")
    provisioning = DOCKER / "grafana" / "provisioning"
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    folder = yaml.safe_load((provisioning / "dashboards" / "mehl-soup.yaml").read_text())["providers"][0]["options"]["path"]
    mounts = [volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]]
    assert folder in mounts and "/etc/grafana/provisioning" in mounts


def test_the_zoo_of_the_demo_is_where_chart_and_compose_look_for_it():
    place = "/usr/share/mehl-soup/demo"
    assert any(copied.endswith(f" {place}") for copied in instructions("worker", "COPY"))
    assert place in SERVICES["worker"]["environment"]["MEHL_SOUP__WORKER__INPUT_ROOTS"].split(",")
    assert SERVICES["client"]["working_dir"] == place
    assert place in (helm.CHART / "templates" / "_worker.tpl").read_text()
