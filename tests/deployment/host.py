"""A machine of somebody who follows the docs by hand: programs on the path, a folder to work in,
files where a configuration names them."""

import os
import re
import tomllib

import adapt
from container import Container, Mount

HOME = "/home/soup"


class Host:
    """`name` is the machine's; `hosts` are the names that it knows, `mounts` its folders with
    data."""

    def __init__(self, name, machine, folder, images, hosts, mounts):
        self.name, self.machine, self.hosts, self.image = name, machine, hosts, images["worker"]
        self.folder = folder / f"host-{name}"
        self.home = self.folder / "home"
        self.home.mkdir(parents=True)
        self.home.chmod(0o777)
        self.mounts = [Mount(self.home, HOME, False), *mounts]
        self.variables = {}

    def put(self, name, text):
        """A file in the folder to work in."""
        (self.home / name).write_text(
            self.machine.text(adapt.device(text), self.mounts, self.hosts)
        )

    def give(self, path, text):
        """A file with a secret, anywhere: only root and the programs' group can read it."""
        folder, name = path.rsplit("/", 1)
        source = self.folder / folder.strip("/").replace("/", "-")
        if not source.exists():
            source.mkdir()
            self.mounts.append(Mount(source, folder))
        file = source / name
        file.write_text(self.machine.text(text, self.mounts, self.hosts))
        if self.machine.own_user:
            os.chown(file, 0, self.image.group)
        file.chmod(0o640)

    def container(self, words, name=None, folder=HOME):
        """A command, typed on the machine."""
        return Container(
            name=name or self.name,
            command=[adapt.device(word) for word in words],
            environment={
                "PATH": self.image.environment["PATH"],
                "HOME": HOME,
                **self.machine.defaults,
                **self.variables,
            },
            mounts=[*self.image.mounts, *self.mounts],
            hosts=self.hosts,
            user=self.image.user,
            group=self.image.group,
            folder=folder,
            read_only_root=False,
            programs=self.image.programs,
        )


def files_of(text):
    """Paths of the files that a configuration names, by key such as `redis.url_file`, each with the
    comment behind it."""
    found = {}
    for section, values in tomllib.loads(text).items():
        for key, value in values.items() if isinstance(values, dict) else ():
            if key.endswith("_file"):
                comment = re.search(
                    rf'^{key} = "{re.escape(value)}"\s+# (.*)$', _section(text, section), re.M
                )
                found[f"{section}.{key}"] = (value, comment and comment[1])
    return found


def _section(text, name):
    return re.search(rf"^\[{name}\]\n(.*?)(?=^\[|\Z)", text, re.M | re.S)[1]
