"""Tasks that end every worker, or cannot succeed. They fail with their cause after `attempts`
crashes without progress, and leave the workers to others meanwhile."""

import json
import math
import re
import signal
import struct
from pathlib import Path

from processes import until
from specs import short, spec

TASK = "0001-mehl+"
ATTEMPTS = 3
# A machine that is busy starts a worker in some seconds, and a lost one is noticed after its lease.
CRASHES = 90


def test_too_little_memory_for_a_task(ground, new_pool):
    pool = new_pool()
    pool.scheduler(f"scheduler.attempts={ATTEMPTS}")
    enough = pool.worker()
    small = lambda: pool.submit(short(ground.demo, batch=8))
    first, little = small(), []
    until("it is done", lambda: little.append(data_bytes(enough)) or pool.sweep(first)["outcome"])
    hungry = pool.submit(spec(ground.demo, epochs=2000, batch=350, memory="64GiB"))
    pool.until_computing(hungry, TASK, enough)
    little, much = max(little), max(data_bytes(enough) for _ in range(100))
    assert much > little * 1.2, f"the task needs no more than others: {much} bytes, {little}"
    enough.kill()

    limit = f"--data={(little + much) // 2}"
    starve = lambda: pool.worker(prefix=["prlimit", limit])
    starve()
    until("it crashes", lambda: pool.task(hungry, TASK)["crashes"] > 0)
    other = small()
    task = pool.until_final(hungry, TASK, starve, CRASHES)
    assert (task["state"], task["crashes"]) == ("failed", ATTEMPTS), task
    assert "memory" in task["cause"] or "lost its worker" in task["cause"], task
    # The first crash is that of the worker that had enough memory, and made progress.
    assert pool.count(hungry, TASK, "crashed") <= 1 + ATTEMPTS, pool.events(hungry, TASK)
    assert len(pool.workers) <= 2 + ATTEMPTS
    # Between two attempts, others had their turn.
    assert pool.end_of(other)["outcome"] == "done"
    failed = pool.events(hungry, TASK)[-1]["at"]
    ends = [pool.events(other, task)[-1]["at"] for task in pool.tasks(other)]
    assert min(ends) < failed


def test_a_task_that_kills_its_worker_in_an_iteration(ground, new_pool):
    pool = new_pool()
    pool.scheduler(f"scheduler.attempts={ATTEMPTS}")
    healthy = pool.worker(flags=["--once"])
    sweep = pool.submit(spec(ground.demo, ("mehl+",), epochs=20))
    assert healthy.wait() == 0
    # The scores are there. Each iteration ends with a look at the memory of the process.
    kept = "worker.checkpoint_interval_seconds=60"
    poisoned = poison(pool, "/status", kept, after=80)
    poisoned()
    task = pool.until_final(sweep, TASK, poisoned, CRASHES)
    assert_failed_by_its_crashes(pool, sweep, task)


def test_a_task_that_kills_its_worker_while_one_ingredient_is_scored(ground, new_pool):
    pool = new_pool()
    pool.scheduler(f"scheduler.attempts={ATTEMPTS}")
    # The header is read first, then each tensor once; time for a checkpoint of what is scored.
    poisoned = poison(pool, "run-03/model.safetensors", after=20, later=1500)
    poisoned()
    sweep = pool.submit(short(ground.demo))
    task = pool.until_final(sweep, "scores", poisoned, CRASHES)
    assert_failed_by_its_crashes(pool, sweep, task)
    assert pool.end_of(sweep)["outcome"] == "failed"


def test_a_loss_that_is_not_a_number(ground, new_pool, name):
    pool = new_pool()
    pool.scheduler(f"scheduler.attempts={ATTEMPTS}")
    worker = pool.worker()
    data = ground.demo / "data" / f"{name}.safetensors"
    not_a_number(ground.demo / "data/learn.safetensors", data)
    sweep = pool.submit(spec(ground.demo, ("mehl+", "learned+"), epochs=3, learn=data))
    assert pool.end_of(sweep)["outcome"] == "failed"
    failed = [task for task in pool.tasks(sweep).values() if task["state"] == "failed"]
    assert failed
    for task in failed:
        assert re.search("nan|not finite|not a number", task["cause"], re.IGNORECASE), task
        assert (task["attempts"], task["crashes"]) == (1, 0), task
    # The worker goes on.
    healthy = pool.submit(short(ground.demo))
    assert pool.end_of(healthy)["outcome"] == "done"
    assert worker.is_alive()


def poison(pool, file, *settings, after, later=0):
    """Starts workers that are killed in a read of a file."""
    environment = {
        "LD_PRELOAD": str(pool.ground.shim()),
        "DIE_ON_READ_OF": file,
        "DIE_ON_READ_AFTER": str(after),
        "DIE_ON_READ_LATER": str(later),
    }
    return lambda: pool.worker(*settings, environment=environment)


def assert_failed_by_its_crashes(pool, sweep, task):
    assert (task["state"], task["crashes"]) == ("failed", ATTEMPTS), task
    assert "lost its worker" in task["cause"], task
    crashes = pool.count(sweep, task["id"], "crashed")
    # A first attempt may come further than those before it, but not every one.
    assert ATTEMPTS <= crashes <= ATTEMPTS + 2, pool.events(sweep, task["id"])
    died = [worker for worker in pool.workers if worker.process.poll() == -signal.SIGKILL]
    assert len(died) == crashes


def not_a_number(source, target):
    """Copies a tensor file, with a NaN as its first input."""
    content = bytearray(source.read_bytes())
    (length,) = struct.unpack_from("<Q", content)
    inputs = json.loads(content[8 : 8 + length])["inputs"]
    assert inputs["dtype"] == "F32"
    struct.pack_into("<f", content, 8 + length + inputs["data_offsets"][0], math.nan)
    target.write_bytes(content)


def data_bytes(program):
    """Private memory of a process that it can write to: what `prlimit --data` limits."""
    for line in Path(f"/proc/{program.pid}/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) << 10
    raise KeyError("VmData")
