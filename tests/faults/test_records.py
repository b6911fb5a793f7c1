"""Records of sweeps that cannot be read, and creations that are cut off. Schedulers live on, other
sweeps too, and `mehl-soup doctor` repairs what is wrong beside them."""

import json
import signal
import socket
import struct

import pytest

from processes import until
from servers import Redis
from specs import short

# Each damages a sweep's record; `{}` is the sweep.
DAMAGES = {
    "a negative count": ("HSET", "counts:{}", "pending", "-1"),
    "a count that is no number": ("HSET", "counts:{}", "paused", "many"),
    "a list of another type": ("SET", "ready:{}", "damaged"),
    "a field that is missing": ("HDEL", "sweep:{}", "attempts"),
    "a priority that is no number": ("HSET", "sweep:{}", "priority", "high"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_record_that_cannot_be_read(ground, new_pool, redis, damage):
    pool = new_pool(redis)
    scheduler = pool.scheduler()
    sweep = pool.submit(short(ground.demo))
    key = f"{{{pool.name}}}:"
    command, name, *rest = (word.format(sweep) for word in DAMAGES[damage])
    if command == "SET":
        redis.call("DEL", key + name)
    redis.call(command, key + name, *rest)
    set_aside = lambda: pool.metric(pool.schedulers[0], "mehl_soup_sweeps_set_aside") == 1
    until("it is set aside", set_aside, seconds=60)
    # A scheduler that starts with it, too.
    scheduler.signal(signal.SIGTERM)
    assert scheduler.wait() == 0
    pool.schedulers.clear()
    pool.scheduler()
    until("it is set aside again", set_aside, seconds=60)
    assert sweep in pool.schedulers[0].text()

    pool.worker()
    other = pool.submit(short(ground.demo, batch=8))
    assert pool.end_of(other)["outcome"] == "done"
    assert set_aside()

    code, text = pool.doctor("--format", "json")
    assert code == 1 and sweep in text, text
    code, text = pool.doctor("--repair")
    assert code == 0 and sweep in text, text
    until("it can be read again", lambda: pool.sweep(sweep)["counts"])
    pool.end_of(sweep)
    pool.assert_same(sweep, "short")
    until("none is set aside", lambda: not set_aside())
    assert pool.doctor()[0] == 0, pool.doctor()
    pool.assert_alive()


def test_a_sweep_that_cannot_be_repaired_is_removed(ground, new_pool, redis):
    pool = new_pool(redis)
    pool.scheduler()
    pool.worker()
    sweep, other = (pool.submit(short(ground.demo, batch=batch)) for batch in (64, 8))
    key = f"{{{pool.name}}}:sweep:{sweep}"
    redis.call("DEL", key)
    redis.call("SET", key, "damaged")
    set_aside = lambda: pool.metric(pool.schedulers[0], "mehl_soup_sweeps_set_aside") >= 1
    until("it is set aside", set_aside, seconds=60)
    assert pool.end_of(other)["outcome"] == "done"
    code, text = pool.doctor("--repair")
    assert code == 1 and sweep in text, text
    code, text = pool.doctor("--remove", sweep)
    assert code == 0, text
    until("none is set aside", lambda: not set_aside())
    assert pool.call("GET", f"/v1/sweeps/{sweep}")[0] == 404
    code, text = pool.doctor()
    assert code == 0, text
    left = redis.call("--scan", "--pattern", f"*{sweep}*")
    assert left == "", left
    pool.assert_alive()


def large(tasks, seconds=None):
    """A sweep whose creation takes a while; nobody computes it."""
    limit = f"max_seconds = {seconds}" if seconds else ""
    return f"""zoo.ingredients = ["/nowhere/*"]
data.learn = "/nowhere/learn.safetensors"
[search]
strategy = "random"
tasks = {tasks}
{limit}
[search.space]
learning_rate = {{ log_uniform = [1e-3, 1e-1] }}
"""


TASKS = 60000


class Creation:
    """A creation by a scheduler that was stopped in its middle, while another one lives on."""

    def __init__(self, pool, redis, text):
        self.pool, self.redis = pool, redis
        self.creator = pool.scheduler()
        # The one that is asked below lives on.
        other = pool.scheduler()
        pool.schedulers.reverse()
        assert pool.schedulers[0] is other
        self.body = {"spec": text, "format": "toml", "folder": "/", "key": "mine"}
        content = json.dumps(self.body).encode()
        port = int(self.creator.server.rsplit(":", 1)[1])
        self.client = socket.create_connection(("127.0.0.1", port))
        head = f"POST /v1/sweeps HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(content)}\r\n"
        head += "content-type: application/json\r\n\r\n"
        self.client.sendall(head.encode() + content)
        until("some tasks are there", lambda: self.created() > 0, pause=0)
        self.creator.signal(signal.SIGSTOP)
        # Whatever it has sent is done.
        assert 0 < self.created() < TASKS, "it was not stopped in the middle"
        (self.sweep,) = (sweep["id"] for sweep in pool.get("/v1/sweeps")["sweeps"])

    def created(self):
        key = f"{{{self.pool.name}}}:"
        sweep = self.redis.call("ZRANGE", f"{key}sweeps", 0, -1)
        return int(self.redis.call("ZCARD", f"{key}tasks:{sweep}")) if sweep else 0

    def disconnect(self):
        """The client is gone without a word."""
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.client.close()

    def go_on(self):
        self.creator.signal(signal.SIGCONT)

    def counts(self):
        return self.pool.sweep(self.sweep)["counts"]

    def assert_all_final(self):
        """Every task is final, the counts are right, both schedulers live; it can be deleted."""
        until("all tasks are final", lambda: self.counts() == {"cancelled": self.created()})
        # Examining so many tasks is one step of the server, which takes a while on a slow machine.
        code, text = self.pool.doctor("--set", "redis.timeout_seconds=60")
        assert code == 0, text
        # What the owner of any sweep does. One whose time is over is cancelled once more.
        assert self.pool.call("POST", f"/v1/sweeps/{self.sweep}/cancel")[0] == 200
        assert self.pool.call("DELETE", f"/v1/sweeps/{self.sweep}")[0] == 204
        self.pool.assert_alive()


@pytest.fixture
def fast_redis(tmp_path):
    """One for many tasks."""
    server = Redis(tmp_path / "redis", "--appendfsync", "no")
    yield server
    server.end()


def test_the_time_of_a_sweep_passes_while_it_is_created(new_pool, fast_redis):
    creation = Creation(new_pool(fast_redis), fast_redis, large(TASKS, seconds=1))
    until("its time is over", lambda: "cancelled" in creation.counts())
    creation.go_on()
    creation.assert_all_final()


@pytest.mark.parametrize("then", ["the same key", "cancel", "time"])
def test_the_client_disconnects_while_its_sweep_is_created(new_pool, fast_redis, then):
    pool = new_pool(fast_redis)
    creation = Creation(pool, fast_redis, large(TASKS, seconds=2 if then == "time" else None))
    creation.disconnect()
    creation.go_on()
    if then == "the same key":
        status, answer = pool.call("POST", "/v1/sweeps", creation.body)
        assert status == 200 and answer["id"] == creation.sweep, answer
        # Some samples are equal: they are one task.
        assert sum(creation.counts().values()) == creation.created() > TASKS * 0.9
    if then != "time":
        assert pool.call("POST", f"/v1/sweeps/{creation.sweep}/cancel")[0] == 200
    creation.assert_all_final()
