"""The quickstart's servers, started with the files that the chart mounts: Redis and RabbitMQ as `make setup-servers` installs them, in place
of the images. Paths of the pod become paths of a folder, and ports are free ones on loopback; all else is as rendered."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import helm

# Debian's script that does not insist on a user of its own.
RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
PATIENCE = 120
LOOPBACK = "127.0.0.1"


def _free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _mounted(objects, server, root):
    """Writes the files that the server's container mounts from the Secret below `root`, and returns their paths by key."""
    (template,) = [one["spec"]["template"] for one in objects if one["kind"] == "StatefulSet" and one["metadata"]["name"].endswith(f"-{server}")]
    secret = helm.find(objects, "Secret", "-quickstart")["stringData"]
    mounts = {mount["subPath"]: mount["mountPath"] for mount in helm.container(template["spec"])["volumeMounts"] if mount["name"] == "settings"}
    paths = {key: root / path.lstrip("/") for key, path in mounts.items()}
    for key, path in paths.items():
        text = secret[key]
        for other, mount in mounts.items():
            text = text.replace(mount, str(paths[other]))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return paths


@contextlib.contextmanager
def running(command, environment, is_up):
    """A process, once it is up, with those that it starts; they are ended at the end of the block, in order if they will."""
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        until = time.monotonic() + PATIENCE
        while not is_up():
            assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
            assert time.monotonic() < until, f"{command[0]} is not up after {PATIENCE} s"
            time.sleep(0.1)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            pass
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answer(port, data, at_least, host=LOOPBACK):
    """The first bytes of a server's answer; fewer than asked for if it closes, none if it cannot be reached."""
    found = b""
    try:
        with socket.create_connection((host, port), 5) as stream:
            stream.settimeout(15)
            stream.sendall(data)
            while len(found) < at_least and (more := stream.recv(4096)):
                found += more
    except OSError:
        pass
    return found


@contextlib.contextmanager
def valkey(objects, root, host=LOOPBACK, port=None):
    """Redis with the chart's valkey.conf; `root` keeps its data. Gives a function that runs lines of commands, after a password."""
    program = shutil.which("redis-server")
    assert program, "redis-server: not found; make setup-servers installs it"
    config = _mounted(objects, "valkey", root)["valkey.conf"]
    (root / "data").mkdir(exist_ok=True)
    config.write_text(config.read_text().replace("dir /data", f"dir {root / 'data'}"))
    port = port or _free_port()

    def ask(password, *lines):
        text = "".join(f"{line}\r\n" for line in (f"AUTH {password}", *lines, "QUIT"))
        return answer(port, text.encode(), 1 << 20, host).decode().splitlines()

    flags = ["--port", str(port), "--bind", host]
    with running([program, str(config), *flags], {}, lambda: answer(port, b"PING\r\nQUIT\r\n", 1, host)):
        yield ask


@contextlib.contextmanager
def rabbitmq_node(root, config, host, port):
    """RabbitMQ with a file of configuration; `root` keeps its data."""
    assert RABBITMQ.exists(), f"{RABBITMQ}: not found; make setup-servers installs it"
    mapper, distribution = _free_port(), _free_port()
    for name in ("data", "log"):
        (root / name).mkdir(exist_ok=True)
    environment = {
        "HOME": str(root),
        "ERL_EPMD_PORT": str(mapper),
        "ERL_EPMD_ADDRESS": LOOPBACK,
        # The same at each start, else a node does not find its data. Each has a port mapper of its own.
        "RABBITMQ_NODENAME": "chart@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": host,
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_MNESIA_BASE": str(root / "data"),
        "RABBITMQ_LOG_BASE": str(root / "log"),
        "RABBITMQ_PID_FILE": str(root / "pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(root / "enabled_plugins"),
        "RABBITMQ_CONFIG_FILE": str(config),
        "RABBITMQ_CONF_ENV_FILE": str(root / "none"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
    }
    with (
        running([shutil.which("epmd"), "-address", LOOPBACK, "-port", str(mapper)], {}, lambda: _reached(mapper)),
        running([str(RABBITMQ)], environment, lambda: answer(port, b"AMQP\0\0\x09\x01", 1, host)),
    ):
        yield


@contextlib.contextmanager
def rabbitmq(objects, root, host=LOOPBACK, port=None):
    """RabbitMQ with the chart's files; `root` keeps its data. Gives a function that tells whether a password is taken."""
    config = _mounted(objects, "rabbitmq", root)["rabbitmq.conf"]
    port = port or _free_port()

    def frame(kind, payload):
        return bytes([kind]) + b"\0\0" + len(payload).to_bytes(4, "big") + payload + b"\xce"

    def start_ok(user, password):
        secret = f"\0{user}\0{password}".encode()
        arguments = b"\0\0\0\0" + b"\x05PLAIN" + len(secret).to_bytes(4, "big") + secret + b"\x05en_US"
        return frame(1, b"\0\x0a\0\x0b" + arguments)

    def takes(user, password):
        with socket.create_connection((host, port), 5) as stream:
            stream.settimeout(30)

            def method():
                """Class and method of the next frame; None if the server closes."""
                head = stream.recv(7, socket.MSG_WAITALL)
                if len(head) < 7:
                    return None
                body = stream.recv(int.from_bytes(head[3:7], "big") + 1, socket.MSG_WAITALL)
                return int.from_bytes(body[:2], "big"), int.from_bytes(body[2:4], "big")

            stream.sendall(b"AMQP\0\0\x09\x01")
            assert method() == (10, 10), "no connection.start"
            stream.sendall(start_ok(user, password))
            # connection.tune; or the server closes, as this client does not ask for the reason.
            try:
                return method() == (10, 30)
            except ConnectionResetError:
                return False

    with rabbitmq_node(root, config, host, port):
        yield takes


def _reached(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
