"""A Redis that refuses for a while, in the middle of a task and for longer than its lease. Nothing
ends, nothing fails, the programs say so, and all goes on afterwards, with one attempt too."""

import contextlib
import resource
import signal
import subprocess

import pytest

from pool import LEASE
from processes import holds, until
from servers import Redis, write_secret
from specs import long, short

TASK = "0001-mehl+"
# Of an outage: a lease that cannot be renewed has run out by then.
OUTAGE = LEASE + 1.5


def busy_pool(new_pool, redis, *settings, **options):
    """A pool with a worker that is in the middle of a task; pool, and sweep."""
    pool = new_pool(redis, **options)
    pool.scheduler("scheduler.attempts=1", *settings)
    worker = pool.worker()
    sweep = pool.submit(long(pool.ground.demo))
    pool.until_computing(sweep, TASK, worker)
    return pool, sweep


def assert_waited_out(pool, sweep, seconds=OUTAGE):
    """During an outage: everybody lives, and says that it is not ready."""
    programs = [*pool.schedulers, *pool.workers]
    for program in programs:
        pool.until_not_ready(program, "mehl_soup_redis_connected")
    holds("all programs live", lambda: all(one.is_alive() for one in programs), seconds)
    for program in programs:
        assert pool.readiness(program)[0] == 503, pool.readiness(program)


def assert_goes_on(pool, sweep):
    """After an outage: everybody is ready again, and the task succeeds in its only attempt."""
    for program in [*pool.schedulers, *pool.workers]:
        until(f"{program.name} is ready", lambda: pool.is_ready(program))
    pool.end_of(sweep)
    pool.assert_same(sweep, "long")
    assert pool.task(sweep, TASK)["attempts"] == 1, pool.events(sweep, TASK)
    pool.assert_alive()


@pytest.fixture
def small_disk(tmp_path):
    """A folder that can be filled: a file system of its own, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", folder]
    is_mounted = subprocess.run(mount, capture_output=True).returncode == 0
    yield folder if is_mounted else None
    if is_mounted:
        subprocess.run(["umount", "-l", folder], check=True)


@contextlib.contextmanager
def full_disk(server, folder):
    """Lets a Redis write nothing more to its append-only file."""
    if folder:
        filler = folder / "filler"
        with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        yield
        filler.unlink()
    else:
        # Without a file system of its own: files of this process may not grow.
        pid = server.program.pid
        unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, unlimited[1]))
        yield
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)


def test_the_disk_under_redis_is_full(new_pool, small_disk, tmp_path):
    # A write beyond a limit of size ends a process that does not ignore this signal.
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    server = Redis((small_disk or tmp_path) / "redis", "--auto-aof-rewrite-percentage", "0")
    signal.signal(signal.SIGXFSZ, ignored)
    try:
        pool, sweep = busy_pool(new_pool, server)
        with full_disk(server, small_disk):
            until("it refuses", lambda: "MISCONF" in server.call("SET", "x", "y"))
            assert_waited_out(pool, sweep)
        until("it takes writes", lambda: server.call("SET", "x", "y") == "OK")
        assert_goes_on(pool, sweep)
    finally:
        server.end()


def test_redis_is_full(new_pool, redis):
    pool, sweep = busy_pool(new_pool, redis)
    redis.call("CONFIG", "SET", "maxmemory", "1")
    assert_waited_out(pool, sweep, seconds=8)
    redis.call("CONFIG", "SET", "maxmemory", "0")
    assert_goes_on(pool, sweep)


def test_redis_has_another_password(new_pool, redis, tmp_path):
    secrets = tmp_path / "secrets"
    write_secret(secrets, "redis-url", redis.url, "first")
    environment = {
        "MEHL_SOUP__REDIS__URL": None,
        "MEHL_SOUP__REDIS__URL_FILE": str(secrets / "redis-url"),
    }
    pool, sweep = busy_pool(new_pool, redis, environment=environment)
    redis.call("CONFIG", "SET", "requirepass", "second")
    redis.password = "second"
    redis.call("CLIENT", "KILL", "TYPE", "normal")
    assert_waited_out(pool, sweep, seconds=1)
    write_secret(secrets, "redis-url", f"redis://:second@127.0.0.1:{redis.port}/", "second")
    assert_goes_on(pool, sweep)


@pytest.mark.parametrize("right", ["evalsha", "@write", "@all"])
def test_redis_takes_a_right_away(new_pool, redis, name, right):
    rights = [f"~{{{name}}}:*", "resetchannels", "+@all", "-@dangerous", "+info"]
    redis.call("ACL", "SETUSER", "soup", "on", ">secret", *rights)
    environment = {"MEHL_SOUP__REDIS__URL": f"redis://soup:secret@127.0.0.1:{redis.port}/"}
    pool, sweep = busy_pool(new_pool, redis, environment=environment)
    redis.call("ACL", "SETUSER", "soup", f"-{right}")
    assert_waited_out(pool, sweep)
    redis.call("ACL", "SETUSER", "soup", *rights[2:])
    assert_goes_on(pool, sweep)


def test_redis_is_wiped(ground, new_pool, redis):
    pool, _ = busy_pool(new_pool, redis)
    redis.call("FLUSHALL")
    until("it is noticed", lambda: pool.get("/v1/sweeps")["sweeps"] == [])
    # The same specification, by those who have computed the one that is gone.
    again = pool.submit(short(ground.demo))
    pool.end_of(again)
    pool.assert_same(again, "short")
    pool.assert_alive()


def test_redis_loads_its_file(new_pool, redis):
    pool, sweep = busy_pool(new_pool, redis)
    # Each of these keys is to take 20 ms, and the server answers meanwhile.
    redis.call("DEBUG", "POPULATE", "200", "filler", "1000")
    redis.call("BGREWRITEAOF")
    until("the file is written", lambda: "aof_rewrite_in_progress:0" in redis.call("INFO"))
    redis.stop()
    slowly = ["--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024"]
    redis.start(*slowly, wait=False)
    until("it loads", lambda: "LOADING" in redis.call("GET", "x"))
    assert_waited_out(pool, sweep, seconds=1)
    assert_goes_on(pool, sweep)


def test_redis_runs_a_script_that_does_not_end(new_pool, redis):
    pool, sweep = busy_pool(new_pool, redis)
    redis.call("CONFIG", "SET", "busy-reply-threshold", "100")
    command = ["redis-cli", "-p", str(redis.port), "EVAL", "while true do end", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL):
        until("it is busy", lambda: "BUSY" in redis.call("GET", "x"))
        assert_waited_out(pool, sweep)
        assert redis.call("SCRIPT", "KILL") == "OK"
    assert_goes_on(pool, sweep)


def test_redis_does_not_answer(new_pool, redis):
    pool, sweep = busy_pool(new_pool, redis)
    redis.program.signal(signal.SIGSTOP)
    assert_waited_out(pool, sweep)
    redis.program.signal(signal.SIGCONT)
    assert_goes_on(pool, sweep)
