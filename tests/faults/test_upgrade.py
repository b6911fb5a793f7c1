"""A pool's Redis as an earlier version left it: a sweep half done, with a task whose worker is gone.
The programs of now finish it, with the bits that it would have had."""

import base64
import fcntl
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from ground import ROOT
from pool import http

FIXTURES = ROOT / "tests/fixtures/formats/v1"
# Where the sweep's inputs lay when it was begun.
INPUTS = Path("/tmp/mehl-soup-formats-v1")


@pytest.fixture
def inputs():
    """The inputs at their place, for one test at a time."""
    with open(f"{INPUTS}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(INPUTS, ignore_errors=True)
        shutil.copytree(FIXTURES / "zoo", INPUTS / "zoo")
        shutil.copy(FIXTURES / "learn.safetensors", INPUTS)
        yield INPUTS
        shutil.rmtree(INPUTS, ignore_errors=True)


def test_a_sweep_that_an_earlier_version_began(ground, new_pool, redis, inputs, tmp_path):
    kept = json.loads((FIXTURES / "redis.json").read_text())
    load(redis, kept["keys"])
    pool = new_pool(redis)
    # The name of the installation is in every key.
    pool.environment["MEHL_SOUP__INSTALLATION"] = "formats-v1"
    pool.scheduler()
    sweep = kept["sweep"]
    assert pool.sweep(sweep)["counts"]["succeeded"] == 5
    pool.worker(roots=inputs)
    ended = pool.end_of(sweep)
    assert (ended["outcome"], ended["counts"]) == ("done", {"succeeded": 7, "pruned": 3})

    expected = coefficients(FIXTURES / "whole")
    found = {}
    for task in expected:
        path = f"/v1/sweeps/{sweep}/tasks/{task}/coefficients"
        status, found[task] = http("GET", pool.schedulers[0].server + path)
        assert status == 200, (task, status)
    # Bits are compared where this machine rounds as the one that the fixtures are of.
    fresh = tmp_path / "fresh"
    ground.run([ground.programs / "mehl-soup", "run", FIXTURES / "sweep.toml", "--out", fresh])
    if coefficients(fresh) == expected:
        for task, content in expected.items():
            assert found[task] == content, f"{task}: coefficients differ"
    pool.assert_alive()


def test_a_database_that_a_newer_version_has_written(new_pool, redis):
    pool = new_pool(redis)
    redis.call("SET", f"{{{pool.name}}}:format", "9")
    says = "it contains sweeps of format 9, this program reads up to 1: upgrade the program"
    for program in (pool.scheduler(wait=False), pool.worker()):
        assert program.wait() != 0
        assert says in program.text()
    assert redis.call("GET", f"{{{pool.name}}}:format") == "9"


def coefficients(run):
    files = (run / "tasks").glob("*/coefficients.safetensors")
    return {file.parent.name: file.read_bytes() for file in files}


def load(redis, keys):
    """Writes keys as the fixture has them."""
    protocol = b""
    for key, entry in keys.items():
        value = entry["value"]
        words = {
            "string": lambda: ["SET", key, value],
            "hash": lambda: ["HSET", key, *(word for pair in value.items() for word in pair)],
            "list": lambda: ["RPUSH", key, *value],
            "set": lambda: ["SADD", key, *value],
            "zset": lambda: ["ZADD", key, *(word for name, score in value for word in (score, name))],
        }[entry["type"]]()
        words = [as_bytes(word) for word in words]
        protocol += b"*%d\r\n" % len(words)
        protocol += b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
    command = ["redis-cli", "-p", str(redis.port), "--pipe"]
    done = subprocess.run(command, input=protocol, capture_output=True, timeout=60)
    assert b"errors: 0, replies: %d" % len(keys) in done.stdout, done


def as_bytes(word):
    if isinstance(word, dict):
        return base64.b64decode(word["base64"])
    return str(word).encode()
