"""Services of compose files as Docker makes containers of them."""

import os
import re
import shlex
import shutil

import adapt
import helm
import yaml
from container import Container, Mount

DOCKER = helm.ROOT / "docker"


def merged(*names):
    """Compose files laid over each other, as by `docker compose -f A -f B`, with the variables of
    nobody's environment."""
    found = {}
    for name in names:
        text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (DOCKER / name).read_text())
        found = _over(found, yaml.safe_load(text))
    return found


def _over(below, above):
    if isinstance(below, dict) and isinstance(above, dict):
        return {
            key: _over(below[key], above[key])
            if key in below and key in above
            else {**below, **above}[key]
            for key in {**below, **above}
        }
    assert not (isinstance(below, list) and isinstance(above, list)), (
        "the test does not merge lists"
    )
    return above


class Project:
    """The services of a compose file.

    `data` is the folder that a user names by MEHL_SOUP_DATA, in place of the empty one of the
    repository."""

    def __init__(self, file, machine, folder, images, data):
        self.file, self.services, self.machine, self.folder, self.images, self.data = (
            file,
            file["services"],
            machine,
            folder,
            images,
            data,
        )
        # A network of this machine: names of services are its addresses.
        self.hosts = dict.fromkeys(self.services, "127.0.0.1")

    def redis(self):
        """Lines of configuration of the service redis: its flags."""
        program, *flags = self.services["redis"]["command"]
        assert program == "valkey-server"
        return (
            " ".join(shlex.quote(flag) for flag in flags)
            .replace(" --", "\n--")
            .replace("--", "")
            .splitlines()
        )

    def user_of_rabbitmq(self):
        """Name and password of the user that the image makes."""
        environment = self.services["rabbitmq"]["environment"]
        return environment["RABBITMQ_DEFAULT_USER"], environment["RABBITMQ_DEFAULT_PASS"]

    def container(self, name, arguments=None, command=None):
        """The container of a service; `arguments` as of `docker compose run`, `command` as of
        `docker compose exec`."""
        one = self.services[name]
        image = self.images[re.search(r"mehl-soup-(scheduler|worker):", one["image"])[1]]
        assert one["cap_drop"] == ["ALL"] and one["security_opt"] == ["no-new-privileges:true"]
        mounts = [*image.mounts, *self._mounts(name, one)]
        arguments = arguments or one.get("command", image.command)
        variables = {key: adapt.device(str(value)) for key, value in one["environment"].items()}
        return Container(
            name=name,
            command=command or one.get("entrypoint", image.entrypoint) + arguments,
            environment={**image.environment, "HOSTNAME": name, **variables},
            mounts=mounts,
            hosts=self.hosts,
            user=image.user,
            group=image.group,
            folder=one.get("working_dir", image.folder),
            read_only_root=one.get("read_only", False),
            folders=image.folders,
            programs=image.programs,
        )

    def _mounts(self, name, one):
        folder = self.folder / "volumes" / name
        folder.mkdir(parents=True, exist_ok=True)
        for path in one.get("tmpfs", []):
            made = folder / path.strip("/")
            made.mkdir(exist_ok=True)
            made.chmod(0o1777)
            yield Mount(made, path, False)
        for text in one.get("volumes", []):
            source, target, *options = text.split(":")
            if source.startswith("."):
                assert source == "./data", f"the test does not know the folder {source}"
                yield Mount(self.data, target, options == ["ro"])
            else:
                assert source in self.file["volumes"]
                yield Mount(self._named(source, target, one), target, options == ["ro"])
        for secret in one.get("secrets", []):
            # Docker mounts the file itself, with its own mode and owner.
            copy = folder / secret
            shutil.copyfile(DOCKER / self.file["secrets"][secret]["file"], copy)
            copy.chmod(0o644)
            yield Mount(copy, f"/run/secrets/{secret}")

    def _named(self, source, target, one):
        """A named volume: a new one takes over mode and owner of the image's folder."""
        image = self.images[re.search(r"mehl-soup-(scheduler|worker):", one["image"])[1]]
        made = self.folder / "named" / source
        if not made.exists():
            made.mkdir(parents=True)
            for path, mode, owner in image.folders:
                if path == target and self.machine.own_user:
                    made.chmod(mode)
                    os.chown(made, owner, owner)
        return made
