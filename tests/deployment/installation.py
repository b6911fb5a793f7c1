"""The chart, rendered, and every part of it started: scheduler, workers, Jobs that submit, and the
test pod."""

import contextlib
import json
import urllib.parse

import adapt
import brokers
import helm
import servers
from pods import Cluster
from pool import SWEEP, Pool

# Where the servers are that the chart's user brings along.
SERVERS = "servers.example.com"
TOKEN = "a-token-of-the-tests"


def secrets(values, vhost, authority):
    """The Secrets that the values name, with what their user would have put there."""
    found = {}

    def add(name, key, text):
        if name:
            found.setdefault(name, {})[key] = text

    redis, amqp, token = values.get("redis", {}), values.get("amqp", {}), values.get("token", {})
    installation = values.get("installation") or f"{helm.NAMESPACE}.{helm.FULLNAME}"
    user = brokers.USERS[installation]
    redis_address = f"{SERVERS}:6380/" if redis.get("caSecret") else f"{SERVERS}:6379/"
    amqp_address = f"{SERVERS}:5671/{vhost}" if amqp.get("caSecret") else f"{SERVERS}:5672/{vhost}"
    kinds = (
        "rediss" if redis.get("caSecret") else "redis",
        "amqps" if amqp.get("caSecret") else "amqp",
    )
    add(
        redis.get("existingSecret"),
        redis.get("urlKey", "url"),
        f"{kinds[0]}://soup:{brokers.PASSWORD}@{redis_address}\n",
    )
    add(
        amqp.get("existingSecret"),
        amqp.get("urlKey", "url"),
        f"{kinds[1]}://{user}:{brokers.PASSWORD}@{amqp_address}",
    )
    for one in (redis, amqp):
        add(one.get("caSecret"), one.get("caKey", "ca.crt"), authority.ca.read_text())
    add(token.get("existingSecret"), token.get("key", "token"), TOKEN)
    return found, installation


class Installation:
    """What `helm install` makes of values, as processes.

    `redis_lines` is the configuration of Redis; without it, as docs/pool.md says that the
    installation's user needs."""

    def __init__(self, values, machine, folder, images, zoos, broker, authority, redis_lines=None):
        self.values, self.machine, self.folder, self.authority = (
            adapt.mounted_sweep(values),
            machine,
            folder,
            authority,
        )
        self.objects = helm.render(self.values)
        given, installation = secrets(values, "" if broker is None else next(broker), authority)
        self.redis_lines = redis_lines or [
            f"user soup {' '.join(brokers.redis_rules(installation))}",
            "user default off",
            "maxmemory-policy noeviction",
        ]
        _, pictures, volume = zoos
        contents = {"zoo": volume, "/sets": pictures / "data"}
        self.cluster = Cluster(
            self.objects, given, contents, {SERVERS: "127.0.0.1"}, machine, folder, images
        )
        self.pods = helm.pods(self.objects)
        secret = self.values.get("token", {}).get("existingSecret") or f"{helm.FULLNAME}-token"
        self.token = self.cluster.secrets[secret][
            self.values.get("token", {}).get("key", "token")
        ].decode()

    @contextlib.contextmanager
    def servers(self):
        """Redis and RabbitMQ of the quickstart with the chart's files, else a Redis of the tests'
        own (RabbitMQ is there)."""
        if self.values.get("quickstart", {}).get("enabled"):
            (self.folder / "rabbitmq").mkdir()
            (self.folder / "valkey").mkdir()
            redis, amqp = (self.machine.address("127.0.0.2", port) for port in (6379, 5672))
            with (
                servers.valkey(self.objects, self.folder / "valkey", *redis),
                servers.rabbitmq(self.objects, self.folder / "rabbitmq", *amqp),
            ):
                yield
        else:
            tls = self.authority if self.values["redis"].get("caSecret") else None
            with brokers.redis(self.machine, self.folder / "redis", self.redis_lines, tls):
                yield

    def run(self, also=lambda pool, processes: None):
        """Starts everything, waits until every sweep is done, and asks everything to end. `also` is
        called in between."""
        with self.servers(), Pool(self.machine, self.folder) as pool:
            scheduler = pool.start(self._container("Deployment", "-scheduler"))
            processes = [scheduler]
            worker = None
            if not self._once():
                worker = pool.start(self._container("Deployment", "-worker"))
                processes.append(worker)
            self._probed(pool, "Deployment", "-scheduler", [scheduler])
            if worker:
                self._probed(pool, "Deployment", "-worker", processes)
            names = [
                self._submit(pool, name, processes)
                for name in self.pods
                if name.startswith("Job/") and "-sweep-" in name
            ]
            test = self._test(pool)
            pool.all_succeed(
                names + ["helm-test"] * (test is not None),
                processes,
                self.token,
                lambda: self._scale(pool),
            )
            if test:
                test.ends_well()
            also(pool, processes)
            for one in reversed(processes):
                one.is_asked_to_end(self._grace(one is worker))

    def _pod(self, kind, end):
        return self.pods[f"{kind}/{helm.FULLNAME}{end}"]["spec"]

    def _container(self, kind, end):
        container = self.cluster.container(self._pod(kind, end), f"{helm.FULLNAME}{end}".lower())
        container.environment = {
            name: adapt.device(text) for name, text in container.environment.items()
        }
        return container

    def _once(self):
        return any(name.startswith("ScaledJob/") for name in self.pods)

    def _probed(self, pool, kind, end, processes):
        """The probes of the pod, in the order in which the kubelet asks them."""
        one = helm.container(self._pod(kind, end))
        ports = {port["name"]: port["containerPort"] for port in one["ports"]}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            ask = one[probe]["httpGet"]
            pool.answers(ports[ask["port"]], ask["path"], processes)
        self._service(kind, end, ports)

    def _service(self, kind, end, ports):
        """Services lead to the port of the container, which is where the clients look in this
        network without proxies."""
        for service in (
            one
            for one in self.objects
            if one["kind"] == "Service" and one["metadata"]["name"] == helm.FULLNAME + end
        ):
            for port in service["spec"]["ports"]:
                assert ports[port["targetPort"]] == port["port"], (
                    "a Service with another port than the container's"
                )

    def _submit(self, pool, name, processes):
        """A Job that submits a sweep; the name of the sweep."""
        container = self.cluster.container(self.pods[name]["spec"], name.split("/")[1])
        pool.run(container, beside=processes)
        return container.command[container.command.index("--name") + 1]

    def _test(self, pool):
        pods = [name for name in self.pods if name.startswith("Pod/")]
        if not pods:
            return None
        (name,) = pods
        return pool.start(self.cluster.container(self.pods[name]["spec"], name.split("/")[1]))

    def _scale(self, pool):
        """What KEDA does with a ScaledJob: it reads the load where the trigger says, and starts
        Jobs. Here one at a time."""
        if not self._once():
            return
        name = f"{helm.FULLNAME}-worker"
        if any(one.name.startswith(name) and one.process.poll() is None for one in pool.processes):
            return
        for one in pool.processes:
            if one.name.startswith(name):
                one.ends_well()
        job = helm.find(self.objects, "ScaledJob", "-worker")
        (trigger,) = job["spec"]["triggers"]
        asked = urllib.parse.urlsplit(trigger["metadata"]["url"])
        assert self.cluster.hosts[asked.hostname] == "127.0.0.1"
        status, body = pool.ask(asked.port, asked.path, self._keda_token(trigger))
        assert status == 200, body
        if json.loads(body)[trigger["metadata"]["valueLocation"]] > 0:
            number = sum(one.name.startswith(name) for one in pool.processes)
            container = self.cluster.container(
                self._pod("ScaledJob", "-worker"), f"{name}-{number}"
            )
            container.environment = {
                key: adapt.device(text) for key, text in container.environment.items()
            }
            pool.start(container)

    def _keda_token(self, trigger):
        """The token that the trigger's authentication takes from a Secret."""
        (found,) = [
            one
            for one in self.objects
            if one["kind"] == "TriggerAuthentication"
            and one["metadata"]["name"] == trigger["authenticationRef"]["name"]
        ]
        (reference,) = [
            one for one in found["spec"]["secretTargetRef"] if one["parameter"] == "token"
        ]
        return self.cluster.secrets[reference["name"]][reference["key"]].decode()

    def _grace(self, is_worker):
        pod = self._pod("Deployment", "-worker" if is_worker else "-scheduler")
        return min(SWEEP, pod["terminationGracePeriodSeconds"])
