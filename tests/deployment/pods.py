"""Pods as the kubelet makes containers of them: variables, and volumes with the files, links and
modes that Kubernetes gives them."""

import base64
import math
import os
import re
import shutil

import helm
from container import Container, Mount

# As Kubernetes names the folder that holds the files of a Secret or ConfigMap; the name tells the
# time of the update.
UPDATE = "..2026_11_29_00_00_00.123456789"
SUFFIXES = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


class Cluster:
    """What is there besides the chart's objects: Secrets of others, and contents of volumes by
    claim name or path of a file server."""

    def __init__(self, objects, secrets, contents, hosts, machine, folder, images):
        self.objects, self.machine, self.folder, self.images = objects, machine, folder, images
        self.contents = contents
        self.hosts = {**hosts, **_services(objects)}
        self.secrets = {
            name: {key: text.encode() for key, text in data.items()}
            for name, data in secrets.items()
        }
        self.maps = {}
        for one in objects:
            name = one["metadata"]["name"]
            if one["kind"] == "Secret":
                data = {key: base64.b64decode(text) for key, text in one.get("data", {}).items()}
                self.secrets[name] = data | {
                    key: text.encode() for key, text in one.get("stringData", {}).items()
                }
            elif one["kind"] == "ConfigMap":
                self.maps[name] = {key: text.encode() for key, text in one["data"].items()}

    def container(self, pod, name):
        """The container of a pod's specification."""
        one = helm.container(pod)
        image = self.images[re.search(r"mehl-soup-(scheduler|worker)[:@]", one["image"])[1]]
        context, own = pod["securityContext"], one["securityContext"]
        assert own["allowPrivilegeEscalation"] is False and own["capabilities"] == {"drop": ["ALL"]}
        assert not pod.get("initContainers"), "the test starts no init containers"
        mounts = self._mounts(pod, one, name)
        groups = list(context.get("supplementalGroups", []))
        if "fsGroup" in context:
            groups.append(context["fsGroup"])
        return Container(
            name=name,
            command=one.get("command", image.entrypoint)
            + one.get("args", [] if "command" in one else image.command),
            environment={
                **image.environment,
                **_given_by_kubernetes(name),
                **self._environment(one),
            },
            mounts=[*image.mounts, *mounts],
            hosts=self.hosts,
            user=context.get("runAsUser", image.user),
            group=context.get("runAsGroup", image.group),
            groups=groups,
            folder=one.get("workingDir", image.folder),
            read_only_root=own.get("readOnlyRootFilesystem", False),
            folders=image.folders,
            programs=image.programs,
        )

    def _environment(self, one):
        found = {}
        for source in one.get("envFrom", []):
            assert set(source) == {"configMapRef"}, source
            found.update(
                {
                    key: text.decode()
                    for key, text in self.maps[source["configMapRef"]["name"]].items()
                }
            )
        for variable in one.get("env", []):
            source = variable.get("valueFrom", {"value": variable.get("value")})
            match source:
                case {"value": str(value)}:
                    found[variable["name"]] = value
                case {
                    "resourceFieldRef": {
                        "resource": resource,
                        "divisor": divisor,
                        "containerName": container,
                    }
                }:
                    kind, key = resource.split(".", 1)
                    assert container == one["name"]
                    found[variable["name"]] = str(
                        math.ceil(quantity(one["resources"][kind][key]) / quantity(divisor))
                    )
                case _:
                    raise AssertionError(f"the test does not know a variable's source {source}")
        return found

    def _mounts(self, pod, one, name):
        """The volumes of a pod, laid out below a folder of their own, as its container mounts
        them."""
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        used = [mount["name"] for mount in one["volumeMounts"]]
        assert set(used) == set(volumes), f"{name}: volumes and mounts differ"
        places = {mount["name"]: mount["mountPath"] for mount in one["volumeMounts"]}
        found, texts = [], []
        for mount in one["volumeMounts"]:
            volume = volumes[mount["name"]]
            folder, keys = self._volume(volume, pod, self.folder / "volumes" / name / mount["name"])
            found.append(
                Mount(
                    folder / mount.get("subPath", ""),
                    places[mount["name"]],
                    mount.get("readOnly", False),
                )
            )
            texts += [(folder, keys)] if keys else []
        # Once all places are known, since a file may name any of them.
        image = self.images[re.search(r"mehl-soup-(scheduler|worker)[:@]", one["image"])[1]]
        for folder, keys in texts:
            _write(
                folder,
                keys,
                lambda text: self.machine.text(
                    text, [*image.mounts, *found, *self._elsewhere()], self.hosts
                ),
            )
        return found

    def _elsewhere(self):
        """Mounts of the workers: specifications name them wherever they are submitted."""
        pod = helm.worker(self.objects)
        for mount in helm.container(pod)["volumeMounts"]:
            if mount["name"].startswith("input-"):
                (volume,) = [one for one in pod["volumes"] if one["name"] == mount["name"]]
                yield Mount(
                    self._volume(volume, pod, None)[0] / mount.get("subPath", ""),
                    mount["mountPath"],
                )
        yield from self.images["worker"].mounts

    def _volume(self, volume, pod, folder):
        """The folder of a volume, and for Secrets and ConfigMaps its files: content and mode by
        path."""
        match {key: value for key, value in volume.items() if key != "name"}:
            case {"secret": source}:
                return folder, _items(
                    self.secrets[source["secretName"]], source, source.get("defaultMode", 0o644)
                )
            case {"configMap": source}:
                return folder, _items(
                    self.maps[source["name"]], source, source.get("defaultMode", 0o644)
                )
            case {"projected": projected}:
                files = {}
                for source in projected["sources"]:
                    ((kind, one),) = source.items()
                    data = {"secret": self.secrets, "configMap": self.maps}[kind][one["name"]]
                    files.update(_items(data, one, projected.get("defaultMode", 0o644)))
                return folder, files
            case {"emptyDir": _}:
                folder.mkdir(parents=True)
                folder.chmod(0o777)
                return folder, None
            case {"hostPath": {"type": kind}}:
                folder.mkdir(parents=True, mode=0o755)
                # The kubelet makes one that is not there, and it is root's. Others are made as
                # docs/kubernetes.md says.
                if kind == "Directory" and self.machine.own_user:
                    os.chown(folder, 10001, 10001)
                return folder, None
            case {"persistentVolumeClaim": {"claimName": name}} | {"nfs": {"path": name}}:
                return self._content(name, pod["securityContext"].get("supplementalGroups")), None
        raise AssertionError(f"the test does not know the volume {volume}")

    def _content(self, name, groups):
        """A volume's content. With supplementary groups, only the first of them can read it."""
        source = self.contents[name]
        if not groups or not self.machine.own_user:
            return source
        copy = self.folder / "contents" / name.strip("/")
        if not copy.exists():
            shutil.copytree(source, copy)
            for path in [copy, *copy.rglob("*")]:
                os.chown(path, 0, groups[0])
                path.chmod(0o750 if path.is_dir() else 0o640)
        return copy


def quantity(text):
    """A quantity of Kubernetes as a number."""
    number, suffix = re.fullmatch(r"([\d.]+)(\w*)", str(text)).groups()
    return float(number) * SUFFIXES[suffix]


def _items(data, source, mode):
    """Files of a Secret or ConfigMap: content and mode by path."""
    items = source.get("items") or [{"key": key, "path": key} for key in data]
    return {item["path"]: (data[item["key"]], item.get("mode", mode)) for item in items}


def _write(folder, files, text):
    """Files as the kubelet writes them: links to a link to the folder of the update. They are
    root's."""
    update = folder / UPDATE
    update.mkdir(parents=True)
    folder.chmod(0o1777)
    (folder / "..data").symlink_to(UPDATE)
    for path, (content, mode) in files.items():
        (update / path).write_text(text(content.decode()))
        (update / path).chmod(mode)
        (folder / path).symlink_to(f"..data/{path}")


def _services(objects):
    """Names of Services in the cluster's DNS. Its address is this machine's: there is no proxy, so
    ports have to be equal."""
    names = {}
    for one in objects:
        if one["kind"] == "Service":
            name, space = one["metadata"]["name"], one["metadata"]["namespace"]
            address = "127.0.0.2" if "rabbitmq" in name or "valkey" in name else "127.0.0.1"
            names.update(
                {
                    name + end: address
                    for end in ("", f".{space}", f".{space}.svc", f".{space}.svc.cluster.local")
                }
            )
    return names


def _given_by_kubernetes(name):
    return {
        "HOSTNAME": name,
        "KUBERNETES_SERVICE_HOST": "10.96.0.1",
        "KUBERNETES_SERVICE_PORT": "443",
        "KUBERNETES_PORT": "tcp://10.96.0.1:443",
    }
