"""Tasks that do nothing, through Celery with RabbitMQ and Redis: what `make bench-pool` holds this project's pool against.

    celery_noop.py WORKERS TASKS ROUNDS

starts a worker of so many processes with Celery's own defaults, and submits so many tasks at once, in so many rounds. The servers are those of CELERY_BROKER and
CELERY_RESULTS. Prints JSON: for each round the seconds from the first submission to the last completion, and for each task those from the first submission to
its completion.
"""

import json
import os
import subprocess
import sys
import time
from datetime import timezone

import celery
from celery.result import ResultSet

app = celery.Celery("celery_noop", broker=os.environ["CELERY_BROKER"], backend=os.environ["CELERY_RESULTS"])
app.conf.update(broker_connection_retry_on_startup=True)


@app.task
def noop():
    """Nothing."""


def burst(tasks):
    """Submits tasks, waits for all, and says how long each took."""
    began = time.time()
    results = [noop.delay() for _ in range(tasks)]
    ResultSet(results).join_native(timeout=300)
    # Written by the worker when the task has ended.
    done = [result.date_done.replace(tzinfo=timezone.utc).timestamp() for result in results]
    return {"seconds": max(done) - began, "latencies": [end - began for end in done]}


def main():
    workers, tasks, rounds = map(int, sys.argv[1:])
    arguments = ["worker", f"--concurrency={workers}", "--pool=prefork", "--loglevel=ERROR", "--without-mingle"]
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "celery_noop", *arguments],
        cwd=os.path.dirname(os.path.abspath(__file__)), stdout=subprocess.DEVNULL,
    )
    try:
        # It is there once it does something; all of its processes once they have done a few.
        noop.delay().get(timeout=120)
        burst(20 * workers)
        measured = [burst(tasks) for _ in range(rounds)]
    finally:
        worker.terminate()
        worker.wait(timeout=60)
    print(json.dumps({"version": celery.__version__, "rounds": measured}))


if __name__ == "__main__":
    main()
