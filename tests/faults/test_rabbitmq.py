"""A RabbitMQ that refuses for a while. Nothing ends, and what is running goes on."""

from processes import holds, until
from servers import write_secret
from specs import long, short

TASK = "0001-mehl+"


def busy_pool(new_pool, **options):
    pool = new_pool(**options)
    pool.scheduler("scheduler.attempts=1", "scheduler.republish_after_seconds=2")
    worker = pool.worker()
    sweep = pool.submit(long(pool.ground.demo))
    pool.until_computing(sweep, TASK, worker)
    return pool, sweep


def assert_goes_on(pool, sweep):
    for program in [*pool.schedulers, *pool.workers]:
        until(f"{program.name} is ready", lambda: pool.is_ready(program))
    pool.end_of(sweep)
    pool.assert_same(sweep, "long")
    assert pool.task(sweep, TASK)["attempts"] == 1, pool.events(sweep, TASK)
    # New work comes through, too.
    again = pool.submit(short(pool.ground.demo))
    pool.end_of(again)
    pool.assert_same(again, "short")
    pool.assert_alive()


def test_permissions_are_revoked(ground, new_pool):
    pool, sweep = busy_pool(new_pool, amqp=ground.rabbit.url("revoked", "first"))
    programs = [*pool.schedulers, *pool.workers]
    # Work that needs the broker meanwhile.
    ground.rabbit.ctl("clear_permissions", "revoked")
    for program in programs:
        pool.until_not_ready(program, "mehl_soup_broker_connected")
    waiting = pool.submit(short(ground.demo))
    holds("all programs live", lambda: all(one.is_alive() for one in programs), 8)
    for program in programs:
        assert pool.readiness(program)[0] == 503
    ground.rabbit.ctl("set_permissions", "revoked", ".*", ".*", ".*")
    assert_goes_on(pool, sweep)
    pool.end_of(waiting)
    pool.assert_same(waiting, "short")


def test_the_password_is_rotated(ground, new_pool, tmp_path):
    secrets, rabbit = tmp_path / "secrets", ground.rabbit
    write_secret(secrets, "amqp-url", rabbit.url("rotated", "first"), "first")
    environment = {
        "MEHL_SOUP__AMQP__URL": None,
        "MEHL_SOUP__AMQP__URL_FILE": str(secrets / "amqp-url"),
    }
    pool, sweep = busy_pool(new_pool, environment=environment)
    programs = [*pool.schedulers, *pool.workers]
    rabbit.ctl("change_password", "rotated", "second")
    rabbit.ctl("close_all_user_connections", "rotated", "the password has changed")
    for program in programs:
        pool.until_not_ready(program, "mehl_soup_broker_connected")
    holds("all programs live", lambda: all(one.is_alive() for one in programs), 2)
    write_secret(secrets, "amqp-url", rabbit.url("rotated", "second"), "second")
    assert_goes_on(pool, sweep)
