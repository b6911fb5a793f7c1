"""Redis and RabbitMQ of this machine, as the deployments of others have them: with users that may
do what the docs name, and with TLS."""

import contextlib
import json
import re
import shutil
import subprocess

import helm
import servers

PASSWORD = "PASSWORD"
POOL = (helm.ROOT / "docs" / "pool.md").read_text()
GUIDE = (helm.ROOT / "docs" / "kubernetes.md").read_text()


class Authority:
    """Certificates of the tests' own."""

    def __init__(self, folder, names):
        folder.mkdir()
        (folder / "extensions").write_text(
            "subjectAltName=IP:127.0.0.1,"
            + ",".join(f"DNS:{name}" for name in names)
            + "\nbasicConstraints=CA:FALSE\n"
        )
        new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        for command in (
            [
                "req",
                "-x509",
                *new_key,
                "-keyout",
                "ca.key",
                "-out",
                "ca.pem",
                "-days",
                "2",
                "-subj",
                "/CN=authority",
            ],
            ["req", *new_key, "-keyout", "key.pem", "-out", "request.pem", "-subj", "/CN=server"],
            [
                *"x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial".split(),
                "-days",
                "2",
                "-extfile",
                "extensions",
                "-out",
                "certificate.pem",
            ],
        ):
            subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)
        self.ca, self.certificate, self.key = (
            folder / "ca.pem",
            folder / "certificate.pem",
            folder / "key.pem",
        )


def redis_rules(installation):
    """What docs/pool.md says that a user of Redis needs."""
    rules = re.search(r"^ACL SETUSER soup (on >PASSWORD ~\{INSTALLATION\}.*)$", POOL, re.M)[1]
    return rules.replace("INSTALLATION", installation).split()


@contextlib.contextmanager
def redis(machine, folder, lines, authority=None):
    """Redis with lines of configuration, on the default port; with an authority on 6380 too, over
    TLS."""
    folder.mkdir()
    host, port = machine.address("127.0.0.1", 6379)
    config = [f"dir {folder}", f"bind {host}", f"port {port}", 'save ""', *lines]
    if authority:
        _, tls = machine.address("127.0.0.1", 6380)
        config += [
            f"tls-port {tls}",
            f"tls-cert-file {authority.certificate}",
            f"tls-key-file {authority.key}",
        ]
        config += [f"tls-ca-cert-file {authority.ca}", "tls-auth-clients no"]
    (folder / "redis.conf").write_text("\n".join(config) + "\n")
    program = shutil.which("redis-server")
    assert program, "redis-server: not found; make setup-servers installs it"
    with servers.running(
        [program, str(folder / "redis.conf")],
        {},
        lambda: servers.answer(port, b"PING\r\nQUIT\r\n", 1, host),
    ):
        yield


# Users of RabbitMQ, by installation: each may do what docs/kubernetes.md says that an
# installation's user needs.
USERS = {"soups.soup-mehl-soup": "chart", "team-a": "team-a", "mehl-soup": "soup"}
# Administrators with their passwords: as the image of RabbitMQ makes one for the compose file, and
# as a new RabbitMQ has it.
HAS_EVERYTHING = {"mehl-soup": "mehl-soup", "guest": "guest"}
VHOSTS = [f"pool-{number}" for number in range(40)]


def rabbitmq_rules(installation):
    """The expression of docs/kubernetes.md for names that a user of an installation needs."""
    (expression,) = re.findall(r"so the expression is `(\^mehl-soup\\\.\.\*)`", GUIDE)
    return expression.replace("mehl-soup", re.escape(installation).replace("\\-", "-"))


def _definitions():
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    users = [{"name": name, "password": PASSWORD, "tags": ""} for name in USERS.values()]
    permissions = []
    for installation, name in USERS.items():
        rules = rabbitmq_rules(installation)
        for vhost in ["/", *VHOSTS]:
            permissions.append(
                {"user": name, "vhost": vhost, "configure": rules, "write": rules, "read": rules}
            )
    for name, password in HAS_EVERYTHING.items():
        users.append({"name": name, "password": password, "tags": "administrator"})
        permissions.append({"user": name, "vhost": "/", **everything})
    return json.dumps(
        {
            "vhosts": [{"name": name} for name in ["/", *VHOSTS]],
            "users": users,
            "permissions": permissions,
        }
    )


@contextlib.contextmanager
def rabbitmq(machine, folder, authority):
    """RabbitMQ on its default ports, 5671 with TLS."""
    folder.mkdir()
    (folder / "definitions.json").write_text(_definitions())
    host, port = machine.address("127.0.0.1", 5672)
    tls = machine.address("127.0.0.1", 5671)
    (folder / "rabbitmq.conf").write_text(
        f"load_definitions = {folder / 'definitions.json'}\n"
        "disk_free_limit.absolute = 1MB\nloopback_users = none\n"
        f"listeners.ssl.1 = {tls[0]}:{tls[1]}\n"
        f"ssl_options.certfile = {authority.certificate}\n"
        f"ssl_options.keyfile = {authority.key}\n"
    )
    with servers.rabbitmq_node(folder, folder / "rabbitmq.conf", host, port):
        yield
