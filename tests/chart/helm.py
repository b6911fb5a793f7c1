"""The chart as Helm's own engine renders it: by `helm` where it is installed, else by its library in the PyPI package helm-python-sdk."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "mehl-soup"
RELEASE, NAMESPACE = "soup", "soups"
FULLNAME = "soup-mehl-soup"


class Refused(Exception):
    """Helm does not render the chart with these values."""


def render(values, chart=CHART):
    """The objects that the chart makes of `values`, hooks among them.

    Raises Refused with Helm's message if it makes none."""
    documents = _by_program(values, chart) if shutil.which("helm") else _by_library(values, chart)
    return [document for text in documents for document in yaml.safe_load_all(text) if document]


def notes(values):
    """What is said after the installation; None where only `helm` is there, which does not tell without a cluster."""
    if shutil.which("helm"):
        return None
    import helm_python

    with helm_python.Chart.load(CHART) as loaded:
        return loaded.render(values, name=RELEASE, namespace=NAMESPACE)["mehl-soup/templates/NOTES.txt"]


def _by_program(values, chart):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values, file)
        file.flush()
        command = ["helm", "template", RELEASE, str(chart), "--namespace", NAMESPACE, "--values", file.name]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise Refused(done.stderr)
    return [done.stdout]


def _by_library(values, chart):
    import helm_python

    try:
        with helm_python.Chart.load(chart) as loaded:
            rendered = loaded.render(values, name=RELEASE, namespace=NAMESPACE)
    except helm_python.HelmError as error:
        raise Refused(str(error)) from error
    return [text for path, text in sorted(rendered.items()) if path.endswith(".yaml")]


def ci_values():
    """The values of each `ci/NAME-values.yaml`, by NAME."""
    files = sorted((CHART / "ci").glob("*-values.yaml"))
    return {file.name.removesuffix("-values.yaml"): yaml.safe_load(file.read_text()) for file in files}


def find(objects, kind, end=""):
    """The object of a kind whose name is that of the installation with `end`."""
    found = [one for one in objects if one["kind"] == kind and one["metadata"]["name"] == FULLNAME + end]
    assert len(found) == 1, f"{kind} {FULLNAME}{end}: expected one, found {len(found)}"
    return found[0]


def pods(objects):
    """Metadata and specification of every pod that the objects make, by kind and name of what makes it."""
    made = {}
    for one in objects:
        name = f"{one['kind']}/{one['metadata']['name']}"
        match one["kind"]:
            case "Pod":
                made[name] = one
            case "Deployment" | "StatefulSet" | "Job":
                made[name] = one["spec"]["template"]
            case "ScaledJob":
                made[name] = one["spec"]["jobTargetRef"]["template"]
    return made


def plain(objects):
    """The objects as Kubernetes knows them: a ScaledJob as a Job that KEDA would make of it. Others of custom kinds are left out."""
    for one in objects:
        if one["kind"] == "ScaledJob":
            target = {key: value for key, value in one["spec"]["jobTargetRef"].items()}
            yield {"apiVersion": "batch/v1", "kind": "Job", "metadata": one["metadata"], "spec": target}
        elif "." not in one["apiVersion"].split("/")[0] or one["apiVersion"].split("/")[0].endswith(".k8s.io"):
            yield one


def worker(objects):
    """The specification of the one pod that is a worker's."""
    found = [pod for name, pod in pods(objects).items() if name.endswith("-worker")]
    assert len(found) == 1
    return found[0]["spec"]


def scheduler(objects):
    """The specification of the scheduler's pod."""
    return find(objects, "Deployment", "-scheduler")["spec"]["template"]["spec"]


def environment(objects, pod):
    """Variables of a pod's one container by name, those of its ConfigMaps among them; None for a value that Kubernetes fills in."""
    maps = {one["metadata"]["name"]: one["data"] for one in objects if one["kind"] == "ConfigMap"}
    found = {}
    for source in container(pod).get("envFrom", []):
        found.update(maps[source["configMapRef"]["name"]])
    for variable in container(pod).get("env", []):
        found[variable["name"]] = variable.get("value")
    return found


def container(pod):
    """The one container of a pod's specification."""
    assert len(pod["containers"]) == 1
    return pod["containers"][0]
