"""docs/architectures.md, "On a pool": a worker runs the graphs that its operator lists, and no other."""

import json

import adapt
import brokers
import pytest
import snippets
from container import Mount, until
from host import Host
from pool import Pool, by_hand, end

import zoo

CONFIGURATION = snippets.block("docs/architectures.md", "torchscript_allow = ")
SPECIFICATION = snippets.block("docs/architectures.md", 'architecture = "exported"')
DATA = "\n".join(f'{part} = "data/{part}.safetensors"' for part in ("learn", "select", "test"))


@pytest.fixture
def started(machine, folder, images, broker, request):
    """Scheduler and worker of the page's configuration, and where to type commands; the zoo is in
    /data."""
    data = folder / "data"
    zoo.exported(data, request.param)
    (data / "sweep.toml").write_text(
        adapt.by_chance(SPECIFICATION.text)
        + f"[data]\n{DATA}\n[soup]\ninner_epochs = 1\nbatch = 8\n"
    )
    host = Host("machine", machine, folder, images, {}, [Mount(data, "/data")])
    host.put("pool.toml", CONFIGURATION.text)
    host.variables = {**machine.default_servers, "MEHL_SOUP_CONFIG": "/home/soup/pool.toml"}
    with brokers.redis(machine, folder / "redis", []), Pool(machine, folder) as pool:
        processes = by_hand(pool, host, [["mehl-soup", "serve"], ["mehl-soup-worker", "serve"]])
        submit = ["mehl-soup", "submit", "sweep.toml"]
        pool.run(host.container(submit, "submit", folder="/data"), beside=processes)
        yield pool, processes, zoo.graph_hash(data)
        end(processes)


@pytest.mark.parametrize("started", [zoo.EXPORTED], indirect=True, ids=["listed"])
def test_a_listed_graph_runs(started):
    pool, processes, listed = started
    assert listed in CONFIGURATION.text, f"docs/architectures.md: the fixture's hash is {listed}"
    pool.all_succeed(["sweep"], processes)


@pytest.mark.parametrize("started", [zoo.EXPORTED.parent / "batch-norm"], indirect=True, ids=[""])
def test_another_graph_does_not_run(started):
    pool, processes, other = started
    (one,) = until(
        "the sweep's end",
        lambda: [one for one in pool.sweeps() if one["outcome"]],
        processes,
        seconds=60,
    )
    assert one["outcome"] == "failed", one
    status, body = pool.ask(7070, f"/v1/sweeps/{one['id']}/tasks")
    assert status == 200, body
    said = f"(worker.torchscript_allow); its blake3 is {other}"
    assert any(said in (task.get("cause") or "") for task in json.loads(body)["tasks"]), body
