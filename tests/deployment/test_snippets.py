"""What README.md and docs/*.md tell people to write is taken from the pages and carried out."""

import copy
import json
import re
import shutil
import tomllib

import adapt
import brokers
import helm
import pytest
import snippets
import yaml
from container import Mount, until
from host import Host, files_of
from installation import SERVERS, Installation
from pool import Pool, by_hand, end

TOKEN = "a-token-of-the-tests"

# Snippets that other tests use, or that show something that the programs do not read. Page and
# beginning of a line, and why.
ELSEWHERE = {
    ("README.md", "export PATH="): "finds the programs; the tests have them on the path",
    ("README.md", "mehl-soup demo --make-zoo"): "workers/tests/programs/make_zoo.rs",
    ("README.md", "mehl-soup report"): "workers/tests/pool/run.rs, workers/tests/programs",
    ("README.md", "python -m mehl_soup export"): "workers/tests/python/architectures.py",
    ("docs/make-zoo.md", "mehl-soup demo --make-zoo pets"): "workers/tests/programs/make_zoo.rs",
    ("docs/make-zoo.md", "mehl-soup demo --make-zoo news"): "workers/tests/programs/make_text_zoo.rs",
    ("docs/inputs.md", "mehl-soup merge"): "workers/tests/programs/honest.rs",
    ("docs/gpu.md", "export LD_LIBRARY_PATH"): "names a libtorch with CUDA",
    (
        "docs/imagenet.md",
        "mehl-soup inspect",
    ): "workers/tests/python/vision_zoos.py carries the page out on miniatures",
    (
        "docs/imagenet.md",
        'name = "imagenet-72"',
    ): "workers/tests/python/vision_zoos.py carries the page out on miniatures",
    (
        "docs/kubernetes.md",
        "apiVersion: rabbitmq.com",
    ): "an object of RabbitMQ's operator; tests/chart/test_docs.py",
    (
        "docs/kubernetes.md",
        "mehl-soup results ID --format json",
    ): "a backup with kubectl; `results` is run with the README's commands",
}
CONFIGURATION = snippets.block("docs/pool.md", "# pool.toml")
TWO_MACHINES = snippets.block("docs/pool.md", "export MEHL_SOUP_CONFIG")
DOCTOR = snippets.block("docs/pool.md", "mehl-soup doctor ")
CLIENT = snippets.block("README.md", "export MEHL_SOUP_SERVER")
BY_HAND = snippets.block("README.md", "mehl-soup serve ")
OWN_SWEEP = snippets.block("README.md", 'ingredients = ["zoo/*"]')
FORWARDED = snippets.block("docs/kubernetes.md", "export MEHL_SOUP_SERVER")
VALKEY = snippets.block("docs/kubernetes.md", "valkeyConfig:")
LISTED = {snippets.block(*key) for key in ELSEWHERE}


def rest(kind):
    """Snippets of a kind that no test asks for by name."""
    return [one for one in snippets.of_kind(kind) if one not in snippets.USED]


def test_every_snippet_is_used_or_it_is_said_why_not():
    known = (
        snippets.USED
        | set(rest("configuration"))
        | set(rest("specification"))
        | set(rest("values"))
    )
    unknown = [str(one) for one in snippets.ALL if snippets.kind(one) and one not in known]
    assert unknown == [], "the test does not know how to carry them out"
    assert (
        len(snippets.of_kind("configuration")) >= 2
        and len(snippets.of_kind("specification")) >= 4
        and len(snippets.of_kind("values")) >= 4
    )


def sweep(roots, name="digits"):
    """A small sweep; with one root it has the demo's folders, with two it is the first's zoo and
    the second's data."""
    zoo, data = (roots[0], roots[1]) if len(roots) == 2 else (f"{roots[0]}/zoo", f"{roots[0]}/data")
    files = "\n".join(
        f'{part} = "{data}/{part}.safetensors"' for part in ("learn", "select", "test")
    )
    return f"""name = "{name}"
[zoo]
allow_chance = true
ingredients = ["{zoo}/*"]
[data]
{files}
[soup]
method = "mehl"
inner_epochs = 1
batch = 32
"""


@pytest.mark.parametrize("snippet", rest("configuration"), ids=str)
def test_a_configuration_runs_a_pool_on_one_machine(
    snippet, machine, folder, images, zoos, broker, authority
):
    settings = tomllib.loads(snippet.text)
    roots = settings["worker"]["input_roots"]
    mounts = (
        [Mount(zoos[0] / part, root) for part, root in zip(("zoo", "data"), roots)]
        if len(roots) == 2
        else [Mount(zoos[0], roots[0])]
    )
    host = Host("machine", machine, folder, images, {SERVERS: "127.0.0.1"}, mounts)
    secure = {part: "ca_file" in settings.get(part, {}) for part in ("redis", "amqp")}
    installation = settings.get("installation", "mehl-soup")
    vhost = next(broker)
    redis = f"redis://soup:{brokers.PASSWORD}@{SERVERS}:6379"
    if secure["redis"]:
        redis = redis.replace("redis:", "rediss:").replace("6379", "6380")
    amqp = f"amqp://{brokers.USERS[installation]}:{brokers.PASSWORD}@{SERVERS}:5672"
    if secure["amqp"]:
        amqp = amqp.replace("amqp:", "amqps:").replace("5672", "5671")
    contents = {
        "redis.url_file": f"{redis}/",
        "amqp.url_file": f"{amqp}/{vhost}",
        **dict.fromkeys(("redis.ca_file", "amqp.ca_file"), authority.ca.read_text()),
        **dict.fromkeys(("scheduler.token_file", "client.token_file"), TOKEN),
    }
    for key, (path, _) in files_of(snippet.text).items():
        host.give(path, contents[key])
    host.put("pool.toml", snippet.text)
    host.put("sweep.toml", sweep(roots))
    host.variables["MEHL_SOUP_CONFIG"] = "pool.toml"
    rules = brokers.redis_rules(installation)
    with (
        brokers.redis(
            machine,
            folder / "redis",
            [f"user soup {' '.join(rules)}", "user default off"],
            authority,
        ),
        Pool(machine, folder) as pool,
    ):
        shown = json.loads(
            pool.run(host.container(["mehl-soup", "config", "--format", "json"], "config"))
        )
        assert {one["key"] for one in shown if one["from"].startswith("file")} == keys(settings)
        processes = by_hand(pool, host, [["mehl-soup", "serve"], ["mehl-soup-worker", "serve"]])
        pool.run(
            host.container(["mehl-soup", "submit", "sweep.toml", "--wait"], "submit"),
            beside=processes,
        )
        pool.all_succeed(["digits"], processes)
        end(processes)


def keys(settings):
    """Keys of a configuration, as the programs name them."""
    found = set()
    for name, value in settings.items():
        found |= {f"{name}.{key}" for key in value} if isinstance(value, dict) else {name}
    return found


def test_two_machines_work_as_the_page_says(machine, folder, images, zoos, broker):
    """docs/pool.md, "On two machines", to its end, with the commands of the README for what came of
    it."""
    variables, commands = snippets.commands(TWO_MACHINES)
    serve, work, submit = (one.words for one in commands)
    assert (serve[:2], work[:2], submit[:2]) == (
        ["mehl-soup", "serve"],
        ["mehl-soup-worker", "serve"],
        ["mehl-soup", "submit"],
    )
    roots = tomllib.loads(CONFIGURATION.text)["worker"]["input_roots"]
    hosts = [
        Host(name, machine, folder, images, {"head": "127.0.0.1"}, [Mount(zoos[0], roots[0])])
        for name in ("head", "other")
    ]
    for host in hosts:
        for key, (path, comment) in files_of(CONFIGURATION.text).items():
            assert comment or key.endswith("token_file"), f"docs/pool.md: what is in {path}?"
            host.give(path, comment or TOKEN)
        host.put("pool.toml", CONFIGURATION.text)
        host.put("sweep.toml", sweep(roots))
        host.variables = variables
    head, other = hosts
    # The tests' machines share their ports, so the worker on `head` is a second one on a machine.
    second = re.search(
        r"each its own `(--set worker\.listen=\S+)`", (helm.ROOT / "docs" / "pool.md").read_text()
    )[1].split()
    users = [f"user soup {' '.join(brokers.redis_rules('mehl-soup'))}", "user default off"]
    with brokers.redis(machine, folder / "redis", users), Pool(machine, folder) as pool:
        scheduler = pool.start(head.container(serve, "scheduler"))
        workers = [
            pool.start(other.container(work, "worker-other")),
            pool.start(head.container([*work, *second], "worker-head")),
        ]
        processes = [scheduler, *workers]
        pool.answers(7070, "/readyz", processes)

        def both():
            _, body = pool.ask(7070, "/v1/workers", TOKEN)
            return len(json.loads(body)["workers"]) == 2

        until("both workers are known", both, processes)
        assert pool.ask(7070, "/v1/workers")[0] == 401
        pool.run(other.container(submit, "submit"), beside=processes)
        pool.all_succeed(["digits"], processes, TOKEN)
        identity = asked_of_it(pool, head, processes, TOKEN)
        for number, command in enumerate(snippets.commands(DOCTOR)[1]):
            words = [identity if word == "SWEEP" else word for word in command.words]
            pool.run(head.container(words, f"doctor-{number}"), beside=processes)
        assert pool.sweeps(TOKEN) == []
        end(processes)


def asked_of_it(pool, host, processes, token=None, place=None, name="digits"):
    """The README's commands about a sweep that is done; its id."""
    (identity,) = [one["id"] for one in pool.sweeps(token) if one["name"] == name]
    where = {"folder": place} if place else {}
    said = {}
    _, commands = snippets.commands(CLIENT)
    for number, command in enumerate(commands):
        words = [identity if word == "ID" else word for word in command.words]
        if words[:2] != ["mehl-soup", "submit"]:
            said[words[1]] = pool.run(
                host.container(words, f"{words[1]}-{number}", **where), beside=processes
            )
    assert name in said["status"] and "mehl" in said["results"] and "scores" in said["logs"]
    return identity


def complete(snippet):
    """A specification that has zoo and data, those of the demo where the snippet leaves them out,
    and then short epochs."""
    given = tomllib.loads(snippet.text)
    if "zoo" in given:
        return adapt.by_chance(snippet.text)
    parts = [f'{part} = "data/{part}.safetensors"' for part in ("learn", "select", "test")]
    text = '[zoo]\nallow_chance = true\ningredients = ["zoo/*"]\n[data]\n' + "\n".join(parts) + "\n"
    own = snippet.text if "soup" in given else f"[soup]\n{snippet.text}"
    return text + (
        own
        if "inner_epochs" in given.get("soup", {})
        else own.replace("[soup]\n", "[soup]\ninner_epochs = 1\n")
    )


def test_the_readme_s_pool_computes_every_specification_of_the_docs(
    machine, folder, images, zoos, broker
):
    """Servers and programs with all their defaults, as in the README: its own specification over
    images, the others over the demo."""
    data = folder / "data"
    shutil.copytree(zoos[1], data / "own")
    shutil.copytree(zoos[0], data / "docs")
    (data / "own").chmod(0o777)
    (data / "own" / "sweep.toml").write_text(adapt.by_chance(OWN_SWEEP.text))
    others = {str(one).replace("/", "-").replace(":", "-"): one for one in rest("specification")}
    for name, one in others.items():
        (data / "docs" / f"{name}.toml").write_text(complete(one))
    host = Host("machine", machine, folder, images, {}, [Mount(data, "/data", False)])
    exported = {
        name: value.replace("PORT", "7070") for name, value in snippets.commands(CLIENT)[0].items()
    }
    host.variables = {**machine.default_servers, **exported}
    serve, work, config = (one.words for one in snippets.commands(BY_HAND)[1])
    _, (submit, *_) = snippets.commands(CLIENT)
    with brokers.redis(machine, folder / "redis", []), Pool(machine, folder) as pool:
        processes = by_hand(pool, host, [serve, work])
        assert "scheduler.listen" in pool.run(host.container(config, "config"), beside=processes)
        for name in others:
            words = ["mehl-soup", "submit", f"{name}.toml", "--name", name]
            pool.run(host.container(words, name, folder="/data/docs"), beside=processes)
        pool.run(host.container(submit.words, "submit", folder="/data/own"), beside=processes)
        pool.all_succeed(["sweep", *others], processes)
        asked_of_it(pool, host, processes, place="/data/own", name="sweep")
        assert (data / "own" / "model" / "config.json").exists()
        end(processes)


def merged(parts):
    """Values laid over each other, as by several `--values`."""
    found = {}
    for part in parts:
        for key, value in part.items():
            found[key] = {**found[key], **value} if isinstance(found.get(key), dict) else value
    return found


def test_the_guide_s_values_work_with_its_servers_and_its_client(
    machine, folder, images, zoos, broker, authority
):
    """docs/kubernetes.md: Valkey with its lines of configuration and its user, all values that fit
    together, and a client over a
    forwarded port."""
    parts = [
        values
        for one in rest("values")
        if "autoscaling" not in (values := yaml.safe_load(one.text)) and one != VALKEY
    ]
    values = merged(
        [{"worker": {"inputs": helm.ci_values()["minimal"]["worker"]["inputs"]}}, *parts]
    )
    assert len(parts) == 3 and "redis" in values
    valkey = yaml.safe_load(VALKEY.text)
    users = {name: one["permissions"] for name, one in valkey["auth"]["aclUsers"].items()}
    lines = [
        *valkey["valkeyConfig"].splitlines(),
        f"user default on >{TOKEN} {users['default']}",
        f"user soup on >{brokers.PASSWORD} {users['soup']}",
    ]
    one = Installation(values, machine, folder, images, zoos, broker, authority, lines)
    variables, commands = snippets.commands(FORWARDED)
    (submit,) = [command.words for command in commands if command.words[0] == "mehl-soup"]
    host = Host("desk", machine, folder, images, {}, [Mount(zoos[2], "/data/zoo")])
    host.put(variables["MEHL_SOUP__CLIENT__TOKEN_FILE"], one.token)
    host.put("sweep.toml", sweep(["/data/zoo"]))
    host.variables = variables

    def from_the_desk(pool, processes):
        pool.run(host.container(submit, "desk"), beside=processes)
        pool.all_succeed(["digits"], processes, one.token)

    one.run(from_the_desk)


@pytest.mark.parametrize(
    "snippet", [one for one in rest("values") if "autoscaling" in yaml.safe_load(one.text)], ids=str
)
def test_values_that_scale_work(snippet, machine, folder, images, zoos, broker, authority):
    base = copy.deepcopy(helm.ci_values()["minimal"])
    # Without `helm test`: each task of a Job is a worker of its own, and one sweep of them will do.
    values = merged(
        [
            {
                "redis": base["redis"],
                "amqp": base["amqp"],
                "worker": {"inputs": base["worker"]["inputs"]},
                "test": {"enabled": False},
            },
            yaml.safe_load(snippet.text),
        ]
    )
    Installation(values, machine, folder, images, zoos, broker, authority).run()
