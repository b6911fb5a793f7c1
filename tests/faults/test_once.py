"""Workers for one task each, as a Kubernetes Job starts them when there is work."""

from processes import until
from specs import short


def test_cold_workers_take_tasks_before_the_scheduler_has_seen_them(ground, new_pool, redis):
    pool = new_pool(redis)
    # Without workers, one ticket is in the queue, and the next look is seconds away.
    pool.scheduler("scheduler.interval_seconds=5", "scheduler.window_extra=1")
    sweep = pool.submit(short(ground.demo))
    done = 0
    while done < 5:
        # An autoscaler starts a worker for each task that can be taken.
        tasks = until("there is work", lambda: pool.get("/v1/load")["runnable"])
        # All workers of before are forgotten.
        redis.call("DEL", f"{{{pool.name}}}:workers", f"{{{pool.name}}}:worker")
        workers = [pool.worker(flags=["--once"]) for _ in range(tasks)]
        assert [worker.wait() for worker in workers] == [0] * tasks
        done += tasks
        assert pool.sweep(sweep)["counts"]["succeeded"] == done
    pool.assert_same(sweep, "short")


def test_a_worker_without_work_ends(new_pool):
    pool = new_pool()
    pool.scheduler("scheduler.interval_seconds=5")
    assert pool.worker(flags=["--once"]).wait(60) == 0
