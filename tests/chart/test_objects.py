"""Objects: valid for several versions of Kubernetes, restricted, found by their selectors, with secrets where they belong."""

import json
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

import helm
from conftest import CI

SCHEMAS = {file.stem: json.loads(file.read_text()) for file in (Path(__file__).parent / "schemas").glob("*.json")}
# The oldest that the chart takes, one between, and the newest that is known to kubernetes-validate.
VERSIONS = ["1.29", "1.33", "1.37"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", CI)
def test_kubernetes_takes_every_object(rendered, name, version):
    objects = list(helm.plain(rendered[name]))
    assert len(objects) >= 8
    for one in objects:
        try:
            used = kubernetes_validate.validate(one, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            pytest.fail(f"{one['kind']}/{one['metadata']['name']}: {'.'.join(map(str, error.path))}: {error.message}")
        assert used == version


@pytest.mark.parametrize("name", CI)
def test_custom_objects_have_known_fields_only(rendered, name):
    plain = {one["kind"] for one in helm.plain(rendered[name])}
    custom = [one for one in rendered[name] if one["kind"] not in plain]
    for one in custom:
        jsonschema.validate(one, SCHEMAS[one["kind"].lower()])
    expected = {
        "scaledobject": {"ScaledObject", "TriggerAuthentication"},
        "scaledjob": {"ScaledJob", "TriggerAuthentication"},
        "gpu": {"PodMonitor", "ServiceMonitor", "PrometheusRule"},
    }
    assert {one["kind"] for one in custom} == expected.get(name, set())


@pytest.mark.parametrize("name", CI)
def test_names_are_unique_and_everything_is_in_the_namespace(rendered, name):
    # A test's ConfigMap and pod, and a sweep's, are of different kinds.
    names = [(one["kind"], one["metadata"]["name"]) for one in rendered[name]]
    assert len(names) == len(set(names))
    assert {one["metadata"]["namespace"] for one in rendered[name]} == {helm.NAMESPACE}
    assert all(len(name) <= 63 for _, name in names)


def test_a_long_release_name_leaves_room_for_every_end(minimal):
    minimal["fullnameOverride"] = "a" * 100
    minimal["sweeps"] = [{"name": "b" * 19, "spec": "x"}]
    objects = helm.render(minimal)
    assert max(len(one["metadata"]["name"]) for one in objects) <= 63


@pytest.mark.parametrize("name", CI)
def test_pods_are_restricted(rendered, name):
    """What the pod security standard "restricted" asks for, and more: no token of Kubernetes, read-only root."""
    pods = helm.pods(rendered[name])
    assert len(pods) >= 2
    for where, template in pods.items():
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False, where
        assert pod["enableServiceLinks"] is False, where
        assert pod["securityContext"]["runAsNonRoot"] is True, where
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, where
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            assert key not in pod, where
        for one in pod["containers"]:
            assert one["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, where
            assert one["resources"]["requests"] and one["resources"]["limits"]["memory"], where
        user = 999 if "quickstart" in template["metadata"]["labels"]["app.kubernetes.io/component"] else 10001
        assert pod["securityContext"]["runAsUser"] == user, where
    for one in rendered[name]:
        if one["kind"] == "ServiceAccount":
            assert one["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", CI)
def test_secrets_come_as_files_from_secrets_and_are_in_no_other_object(rendered, name):
    objects = rendered[name]
    for where, template in helm.pods(objects).items():
        for one in template["spec"]["containers"]:
            assert all(set(variable.get("valueFrom", {})) <= {"resourceFieldRef"} for variable in one.get("env", [])), where
            assert all("secretRef" not in source for source in one.get("envFrom", [])), where
    secrets = [one for one in objects if one["kind"] == "Secret"]
    rest = yaml.safe_dump([one for one in objects if one["kind"] != "Secret"])
    for secret in secrets:
        for key, value in {**secret.get("data", {}), **secret.get("stringData", {})}.items():
            assert value not in rest, f"{secret['metadata']['name']}: {key}"
    made = {one["metadata"]["name"].removeprefix(helm.FULLNAME) for one in secrets}
    expected = set() if "token" in CI[name] else {"-token"}
    assert made == expected | ({"-quickstart"} if name == "quickstart" else set())


def test_addresses_and_authorities_are_those_of_the_named_secrets(rendered):
    for pod in (helm.worker(rendered["tls"]), helm.find(rendered["tls"], "Deployment", "-scheduler")["spec"]["template"]["spec"]):
        volume = next(volume for volume in pod["volumes"] if volume["name"] == "servers")
        sources = [(one["secret"]["name"], item["key"], item["path"]) for one in volume["projected"]["sources"] for item in one["secret"]["items"]]
        assert sources == [
            ("servers", "REDIS_URL", "redis-url"), ("servers", "AMQP_URL", "amqp-url"),
            ("authorities", "ca.pem", "redis-ca.pem"), ("authorities", "ca.pem", "amqp-ca.pem"),
        ]  # fmt: skip
        # None is optional: what is missing keeps the pod from starting, with an event that names it.
        assert "optional" not in yaml.safe_dump(volume)
        mount = next(mount for mount in helm.container(pod)["volumeMounts"] if mount["name"] == "servers")
        settings = helm.find(rendered["tls"], "ConfigMap", "-settings")["data"]
        for key in ("REDIS__URL_FILE", "AMQP__URL_FILE", "REDIS__CA_FILE", "AMQP__CA_FILE"):
            folder, _, name = settings[f"MEHL_SOUP__{key}"].rpartition("/")
            assert folder == mount["mountPath"] and name in [path for _, _, path in sources]


@pytest.mark.parametrize("name", CI)
def test_the_scheduler_is_never_exposed_without_a_token(rendered, name):
    pod = helm.find(rendered[name], "Deployment", "-scheduler")["spec"]["template"]["spec"]
    env = {variable["name"]: variable.get("value") for variable in helm.container(pod)["env"]}
    assert env["MEHL_SOUP__SCHEDULER__LISTEN"] == "[::]:7070"
    folder, _, file = env["MEHL_SOUP__SCHEDULER__TOKEN_FILE"].rpartition("/")
    mount = next(mount for mount in helm.container(pod)["volumeMounts"] if mount["mountPath"] == folder)
    volume = next(volume for volume in pod["volumes"] if volume["name"] == mount["name"])
    assert volume["secret"]["items"][0]["path"] == file and "optional" not in volume["secret"]
    assert volume["secret"]["secretName"] == CI[name].get("token", {}).get("existingSecret", f"{helm.FULLNAME}-token")


def test_a_made_token_is_long_and_new_each_time(minimal):
    tokens = {helm.find(helm.render(minimal), "Secret", "-token")["data"]["token"] for _ in range(2)}
    assert len(tokens) == 2 and all(len(token) == 64 for token in tokens)


@pytest.mark.parametrize("name", CI)
def test_selectors_find_their_pods_and_no_others(rendered, name):
    objects = rendered[name]
    labels = {where: template["metadata"]["labels"] for where, template in helm.pods(objects).items()}

    def chosen(selector):
        return {where for where, have in labels.items() if selector.items() <= have.items()}

    for one in objects:
        if one["kind"] in ("Deployment", "StatefulSet"):
            own = f"{one['kind']}/{one['metadata']['name']}"
            assert chosen(one["spec"]["selector"]["matchLabels"]) == {own}
        if one["kind"] == "Service":
            assert len(chosen(one["spec"]["selector"])) == 1
        if one["kind"] in ("PodMonitor", "ServiceMonitor", "PodDisruptionBudget"):
            assert len(chosen(one["spec"]["selector"]["matchLabels"])) == 1
        if one["kind"] == "NetworkPolicy" and not one["metadata"]["name"].endswith("-client"):
            assert len(chosen(one["spec"]["podSelector"]["matchLabels"])) == 1


def test_policies_name_every_peer(rendered):
    scheduler = helm.find(rendered["restricted"], "NetworkPolicy", "-scheduler")["spec"]
    peers = scheduler["ingress"][0]["from"]
    assert {"podSelector": {"matchLabels": {"app": "jupyter"}}, "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "notebooks"}}} in peers
    assert len(peers) == 2
    one = helm.find(rendered["restricted"], "NetworkPolicy", "-worker")["spec"]
    assert one["ingress"] == []
    assert one["egress"][1]["to"] == [{"ipBlock": {"cidr": "10.0.0.0/16"}}]
    ports = [port["port"] for port in helm.find(rendered["tls"], "NetworkPolicy", "-worker")["spec"]["egress"][1]["ports"]]
    assert ports == [6380, 5671]


@pytest.mark.parametrize("name", CI)
def test_policies_let_in_where_pods_listen(rendered, name):
    objects = rendered[name]
    open_ports = {"-scheduler": 7070, "-worker": 9464}
    for end, pod in [("-scheduler", helm.find(objects, "Deployment", "-scheduler")["spec"]["template"]["spec"]), ("-worker", helm.worker(objects))]:
        assert [port["containerPort"] for port in helm.container(pod)["ports"]] == [open_ports[end]]
        for rule in helm.find(objects, "NetworkPolicy", end)["spec"]["ingress"]:
            assert [port["port"] for port in rule["ports"]] == [open_ports[end]]
            assert rule["from"], "an empty list would let everybody in"
    client = helm.find(objects, "NetworkPolicy", "-client")["spec"]
    assert client["ingress"] == [] and client["egress"][1]["ports"][0]["port"] == open_ports["-scheduler"]
