"""What a container sees in place of a node: its own root folder, its own network, its hosts' names.

Two kinds, of which `machine()` takes the first that is possible:

- `Namespaces`, as root: each container has a mount namespace with a root of its own (see enter.py),
  and all tests share a network namespace, so that every port is free and every address is the one
  that chart, compose file and docs name. What is not as on a node: the containers share one network
  and the machine's process ids, libraries of the machine stand in for those of the image, and `env`
  for tini where tini is not installed.
- `Paths`, for everyone else, or with MEHL_SOUP_DEPLOYMENT=paths: no root of its own. Paths that the
  container mounts, and addresses, are replaced in its command, its environment and its files; see
  `Paths.text`. The user is the one who runs the tests.
"""

import ctypes
import fcntl
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
LOOPBACK = "127.0.0.1"
# Names of any address of the own machine.
OWN = ("127.0.0.1", "localhost", "0.0.0.0", "[::]")


def machine():
    """The best that is possible here. Enters the network namespace of the tests."""
    wanted = os.environ.get("MEHL_SOUP_DEPLOYMENT", "")
    assert wanted in ("", "paths", "namespaces"), (
        f"MEHL_SOUP_DEPLOYMENT is {wanted}: expected paths or namespaces"
    )
    if wanted == "paths":
        return Paths()
    if (
        os.geteuid() == 0
        and ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS | CLONE_NEWNET) == 0
    ):
        with socket.socket() as one:
            fcntl.ioctl(one, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
        return Namespaces()
    assert wanted == "", (
        "MEHL_SOUP_DEPLOYMENT=namespaces: needs root and the right to make namespaces"
    )
    return Paths()


def _libraries(program):
    """Folders of the libraries that a program loads from elsewhere than the system's folders:
    libtorch's."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    found = {os.path.normpath(os.path.dirname(path)) for path in re.findall(r"=> (/\S+)", listed)}
    return sorted(one for one in found if not one.startswith(("/lib", "/usr/lib")))


class Namespaces:
    """Containers with a root of their own; see the top of this file."""

    own_user = True
    # Variables for addresses that nobody names.
    defaults, default_servers = {}, {}

    def address(self, host, port):
        """Where a server that is named so is reached, and where it has to listen."""
        return host, port

    def text(self, text, mounts, hosts):
        """A text of the container, as the container gets it."""
        return text

    def command(self, container, folder):
        """What starts a container: command, environment, working folder."""
        root = folder / "root"
        root.mkdir()
        system = [
            name for name in ("/lib", "/lib64", "/usr/lib", "/usr/lib64") if os.path.lexists(name)
        ]
        shown = [name for name in system if not os.path.islink(name)]
        shown += [
            "/proc",
            "/sys",
            *(name for name in ("/etc/ssl", "/etc/ld.so.cache") if os.path.exists(name)),
        ]
        shown += [f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom")]
        for program in container.programs:
            shown += [one for one in _libraries(program) if one not in shown]
        mounts = [
            {"source": one, "target": one, "read_only": not one.startswith(("/proc", "/dev"))}
            for one in shown
        ]
        mounts.append(
            {
                "source": shutil.which("tini") or shutil.which("env"),
                "target": "/usr/bin/tini",
                "read_only": True,
            }
        )
        mounts += [
            {"source": str(one.source), "target": one.target, "read_only": one.read_only}
            for one in container.mounts
        ]
        hosts = {"localhost": LOOPBACK, container.name: LOOPBACK, **container.hosts}
        account = "mehl-soup:x:10001:10001::/nonexistent:/usr/sbin/nologin"
        description = {
            "root": str(root),
            "links": {name: os.readlink(name) for name in system if os.path.islink(name)},
            "folders": [
                ("/tmp", 0o1777, 0),
                ("/usr/local/bin", 0o755, 0),
                ("/dev/shm", 0o1777, 0),
                *container.folders,
            ],
            "files": {
                "/etc/hosts": "".join(f"{address} {name}\n" for name, address in hosts.items()),
                "/etc/passwd": f"root:x:0:0:root:/root:/bin/bash\n{account}\n",
            },
            # A mount hides what was mounted below it before.
            "mounts": sorted(mounts, key=lambda one: one["target"].count("/")),
            "read_only": container.read_only_root,
            "folder": container.folder,
            "groups": container.groups,
            "group": container.group,
            "user": container.user,
            "command": container.command,
            "environment": container.environment,
            "parent": os.getpid(),
        }
        file = folder / "container.json"
        file.write_text(json.dumps(description))
        return [sys.executable, Path(__file__).with_name("enter.py"), file], None, None


class Paths:
    """Containers with the paths of this machine; see the top of this file."""

    own_user = False
    # The ports that the programs take where nothing else is said may not be free: they are replaced
    # as well.
    defaults = {
        "MEHL_SOUP__SCHEDULER__LISTEN": f"{LOOPBACK}:7070",
        "MEHL_SOUP__WORKER__LISTEN": f"{LOOPBACK}:9464",
        "MEHL_SOUP_SERVER": f"http://{LOOPBACK}:7070",
    }
    default_servers = {
        "MEHL_SOUP__REDIS__URL": f"redis://{LOOPBACK}:6379/",
        "MEHL_SOUP__AMQP__URL": f"amqp://{LOOPBACK}:5672/",
    }

    def __init__(self):
        self.ports = {}

    def address(self, host, port):
        if (host, port) not in self.ports:
            with socket.socket() as one:
                one.bind((LOOPBACK, 0))
                self.ports[host, port] = one.getsockname()[1]
        return LOOPBACK, self.ports[host, port]

    def text(self, text, mounts, hosts):
        """Replaces all paths that are mounted, and all addresses `HOST:PORT` of known hosts."""

        def address(found):
            host, port = found[1], int(found[2])
            if host in OWN:
                return "{}:{}".format(*self.address(LOOPBACK, port))
            return "{}:{}".format(*self.address(hosts[host], port)) if host in hosts else found[0]

        targets = {one.target: str(one.source) for one in mounts}
        if targets:
            longest_first = sorted(targets, key=len, reverse=True)
            pattern = "(?<![\\w/.-])(" + "|".join(map(re.escape, longest_first)) + r")(?![\w.-])"
            text = re.sub(pattern, lambda found: targets[found[1]], text)
        return re.sub(r"((?:\[::\])|(?:[A-Za-z0-9][A-Za-z0-9.-]*)):(\d+)", address, text)

    def command(self, container, folder):
        def own(text):
            return self.text(text, container.mounts, container.hosts)

        command = [own(one) for one in container.command]
        if command[:2] == ["/usr/bin/tini", "--"]:
            command = command[2:]
        environment = {name: own(value) for name, value in container.environment.items()}
        programs = [str(program.parent) for program in container.programs]
        environment["PATH"] = ":".join([*programs, os.environ["PATH"]])
        # What the image has in the user's folders.
        environment.setdefault("MEHL_SOUP_CACHE_DIR", str(folder / "cache"))
        inside = own(container.folder)
        return command, environment, inside if inside != container.folder else folder
