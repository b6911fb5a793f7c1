"""Workers that are killed, stopped and asked to end. What comes out is what an undisturbed run on
one machine gives, byte for byte."""

import signal
import time

from pool import LEASE
from processes import until
from specs import long, short

TASK = "0001-mehl+"


def test_a_worker_killed_in_iterations(ground, new_pool):
    pool = new_pool()
    pool.scheduler()
    killed = pool.worker()
    sweep = pool.submit(long(ground.demo))
    pool.until_computing(sweep, TASK, killed)
    killed.signal(signal.SIGKILL)
    killed.wait()
    before = pool.iterations(sweep, TASK)
    other = pool.worker()
    until("the other one has it", lambda: pool.holder(sweep, TASK) == other.name)
    assert pool.iterations(sweep, TASK) >= before
    pool.end_of(sweep)
    pool.assert_same(sweep, "long")
    assert pool.task(sweep, TASK)["attempts"] == 2


def test_a_worker_killed_while_it_scores(ground, new_pool, tmp_path):
    pool = new_pool()
    pool.scheduler()
    marker = tmp_path / "died"
    scoring = {
        "LD_PRELOAD": str(ground.shim()),
        "DIE_ON_READ_OF": "zoo/run-02/model.safetensors",
        "DIE_ON_READ_AFTER": "20",
        "DIE_ON_READ_ONCE": str(marker),
    }
    killed = pool.worker(environment=scoring)
    sweep = pool.submit(short(ground.demo))
    assert killed.wait() == -signal.SIGKILL
    assert marker.exists()
    assert pool.holder(sweep, "scores") == killed.name
    pool.worker()
    pool.end_of(sweep)
    pool.assert_same(sweep, "short")
    assert pool.task(sweep, "scores")["attempts"] == 2


def test_a_worker_stopped_past_its_lease(ground, new_pool):
    pool = new_pool()
    pool.scheduler()
    stopped = pool.worker()
    sweep = pool.submit(long(ground.demo))
    pool.until_computing(sweep, TASK, stopped)
    stopped.signal(signal.SIGSTOP)
    other = pool.worker()
    until("another has its task", lambda: pool.holder(sweep, TASK) == other.name)
    stopped.signal(signal.SIGCONT)
    until("it is told so", lambda: "nothing was written" in stopped.text())
    assert pool.metric(stopped, "mehl_soup_fenced_writes_total") == 1
    assert pool.holder(sweep, TASK) == other.name
    pool.end_of(sweep)
    pool.assert_same(sweep, "long")
    pool.assert_alive()


def test_a_worker_asked_to_end_in_a_task(ground, new_pool):
    pool = new_pool()
    pool.scheduler()
    asked = pool.worker()
    sweep = pool.submit(long(ground.demo))
    pool.until_computing(sweep, TASK, asked)
    began = time.monotonic()
    asked.signal(signal.SIGTERM)
    assert asked.wait() == 0
    assert time.monotonic() - began < 5
    # It is given back at once, not when the lease ends.
    assert pool.count(sweep, TASK, "released") == 1 and pool.count(sweep, TASK, "crashed") == 0
    other = pool.worker()
    pool.end_of(sweep)
    assert pool.holder(sweep, TASK) == other.name
    pool.assert_same(sweep, "long")


def test_a_worker_asked_to_end_while_redis_does_not_answer(ground, new_pool, redis):
    pool = new_pool(redis)
    pool.scheduler()
    asked = pool.worker()
    sweep = pool.submit(long(ground.demo))
    pool.until_computing(sweep, TASK, asked)
    redis.program.signal(signal.SIGSTOP)
    began = time.monotonic()
    asked.signal(signal.SIGTERM)
    code = asked.wait()
    took = time.monotonic() - began
    redis.program.signal(signal.SIGCONT)
    assert code == 0 and took < LEASE + 4, f"exit code {code} after {took:.1f} s"
    pool.worker()
    pool.end_of(sweep)
    pool.assert_same(sweep, "long")


def test_a_cache_folder_that_cannot_be_written_to(new_pool, tmp_path):
    """A file stands where a folder is expected: root may write everywhere else."""
    pool, cache = new_pool(), tmp_path / "cache"
    cache.touch()
    environment = {"MEHL_SOUP_CACHE_DIR": str(cache / "folder")}
    refused = pool.worker(environment=environment)
    assert refused.wait() == 2
    assert f"cannot write to the cache folder {cache}/folder" in refused.text(), refused.tail()
    cache.unlink()
    worker = pool.worker(environment=environment)
    until("the worker is ready", lambda: pool.is_ready(worker))
    (cache / "folder").rmdir()
    cache.rmdir()
    cache.touch()
    until("it is not ready", lambda: pool.readiness(worker)[0] == 503)
    assert f"cache folder {cache}/folder" in pool.readiness(worker)[1].decode()
    cache.unlink()
    until("it is ready again", lambda: pool.is_ready(worker))
