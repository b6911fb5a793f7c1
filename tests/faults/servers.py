"""Redis and RabbitMQ servers of the tests' own, on loopback addresses."""

import base64
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from processes import PATIENCE, Program, until

# Debian's scripts that do not insist on a user of their own.
RABBITMQ = Path("/usr/lib/rabbitmq/bin")
# Nodes that are tried until one can be used.
STARTS = 2
MISSING = "not found: `make setup-servers` installs it"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Redis:
    """A Redis with an append-only file."""

    def __init__(self, folder, *arguments):
        assert shutil.which("redis-server"), f"redis-server: {MISSING}"
        self.folder, self.arguments, self.port = Path(folder), arguments, free_port()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.password, self.program = None, None
        self.start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/"

    def start(self, *arguments, wait=True):
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(self.folder), "--appendonly", "yes", "--save", ""]
        command += ["--maxmemory-policy", "noeviction", "--enable-debug-command", "yes"]
        log = self.folder.parent / f"{self.folder.name}.log"
        self.program = Program("redis", [*command, *self.arguments, *arguments], log)
        if wait:
            until("Redis", lambda: self.call("PING") == "PONG")

    def call(self, *words):
        """The answer of a command, as redis-cli prints it: lines, without quotes."""
        command = ["redis-cli", "-p", str(self.port)]
        if self.password:
            command += ["-a", self.password, "--no-auth-warning"]
        command += map(str, words)
        run = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return run.stdout.strip()

    def stop(self):
        """Ends it as an operator does: what it has is on disk."""
        self.program.signal(signal.SIGTERM)
        self.program.wait()

    def end(self):
        self.program.kill()


class RabbitMq:
    """A node with a port mapper, a cookie and users of its own."""

    def __init__(self, folder, port, ports, programs=()):
        self.folder, self.port, self.ports = Path(folder), port, ports
        self.programs = programs

    @classmethod
    def begin(cls, folder, users):
        """Starts one with these users and passwords; `await_up` waits until it can be used."""
        assert (RABBITMQ / "rabbitmq-server").exists(), f"{RABBITMQ}/rabbitmq-server: {MISSING}"
        folder = Path(folder)
        for name in ("data", "log"):
            (folder / name).mkdir(parents=True)
        (folder / "users.json").write_text(json.dumps(definitions(users)))
        (folder / "rabbitmq.conf").write_text(
            "disk_free_limit.absolute = 1MB\nloopback_users = none\n"
            f"load_definitions = {folder}/users.json\n"
        )
        node = cls(folder, free_port(), (free_port(), free_port()))
        mapper = ["epmd", "-address", "127.0.0.1", "-port", str(node.ports[0])]
        mapper = Program("epmd", mapper, folder / "epmd.log")
        until("epmd", lambda: socket.create_connection(("127.0.0.1", node.ports[0])))
        server = [str(RABBITMQ / "rabbitmq-server")]
        server = Program("rabbitmq", server, folder / "node.log", node.environment())
        node.programs = (server, mapper)
        return node

    def environment(self):
        inside = lambda name: str(self.folder / name)
        mapper, distribution = self.ports
        return {
            # The cookie lies in the home folder.
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"faults-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": inside("data"),
            "RABBITMQ_LOG_BASE": inside("log"),
            "RABBITMQ_PID_FILE": inside("pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": inside("plugins"),
            "RABBITMQ_CONFIG_FILE": inside("rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": inside("none"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
        }

    @classmethod
    def begin_up(cls, folder, users):
        """One that can be used. A node that opens its port and never answers was seen once, on a
        busy machine: it is given up, with its log shown, and another one is started."""
        for number in range(STARTS):
            node = cls.begin(Path(folder) / f"{number}", users)
            try:
                node.await_up(PATIENCE / STARTS)
                return node
            except AssertionError as error:
                logs = "".join(program.tail() for program in node.programs)
                print(f"{error}\n{logs}", file=sys.stderr)
                node.end()
        raise AssertionError(f"RabbitMQ: none of {STARTS} nodes could be used")

    def await_up(self, seconds=PATIENCE):
        until("RabbitMQ", self.answers, seconds)

    def answers(self):
        """Whether it says hello: it opens its port before it can be used."""
        with socket.create_connection(("127.0.0.1", self.port), 2) as stream:
            stream.sendall(b"AMQP\0\0\x09\x01")
            return len(stream.recv(1)) == 1

    def url(self, user="guest", password="guest"):
        return f"amqp://{user}:{password}@127.0.0.1:{self.port}/"

    def ctl(self, *words):
        run = subprocess.run(
            [str(RABBITMQ / "rabbitmqctl"), "-q", *words],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, **self.environment()},
        )
        assert run.returncode == 0, f"rabbitmqctl {words}: {run.stdout}{run.stderr}"
        return run.stdout

    def end(self):
        for program in self.programs:
            program.kill()


def definitions(users):
    """What a node loads at its start: users, each with all permissions in `/`."""

    def hashed(password):
        salt = os.urandom(4)
        return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()

    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    return {
        "users": [
            {
                "name": name,
                "password_hash": hashed(password),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": "",
            }
            for name, password in users.items()
        ],
        "vhosts": [{"name": "/"}],
        "permissions": [{"user": name, "vhost": "/", **everything} for name in users],
    }


def write_secret(folder, name, text, version):
    """As Kubernetes does: the name is a link into a folder that is replaced as a whole."""
    (folder / version).mkdir(parents=True)
    (folder / version / name).write_text(f"{text}\n")
    (folder / "..new").symlink_to(version)
    os.replace(folder / "..new", folder / "..data")
    if not (folder / name).is_symlink():
        (folder / name).symlink_to(f"..data/{name}")
