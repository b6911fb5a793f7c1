"""A pool of real programs: schedulers and workers as processes, and what its API tells."""

import hashlib
import json
import signal
import subprocess
import urllib.error
import urllib.request

from processes import Program, until
from servers import free_port

# Of workers, in seconds. The shortest that can be configured is 2.
LEASE = 2


class Pool:
    """An installation of its own on the given servers."""

    def __init__(self, ground, name, folder, redis=None, amqp=None, environment=None):
        self.ground, self.name, self.folder = ground, name, folder
        self.environment = {
            **ground.environment(),
            "MEHL_SOUP__INSTALLATION": name,
            "MEHL_SOUP__REDIS__URL": redis or ground.redis_url,
            "MEHL_SOUP__AMQP__URL": amqp or ground.rabbit.url(),
            **(environment or {}),
        }
        # None takes a variable away.
        self.environment = {k: v for k, v in self.environment.items() if v is not None}
        self.schedulers, self.workers = [], []

    def scheduler(self, *settings, wait=True):
        """Starts a scheduler; the first one is asked by the calls below."""
        port = free_port()
        command = [str(self.ground.programs / "mehl-soup"), "serve"]
        command += ["--listen", f"127.0.0.1:{port}", *sets(settings)]
        name = f"scheduler-{len(self.schedulers)}"
        program = Program(name, command, self.folder / f"{name}.log", self.environment)
        program.server = f"http://127.0.0.1:{port}"
        self.schedulers.append(program)
        if wait:
            until("the scheduler is ready", lambda: self.is_ready(program))
        return program

    def worker(self, *settings, flags=(), prefix=(), environment=None, roots=None):
        """Starts a worker. `prefix` is a command that starts it in its stead."""
        name, port = f"worker-{len(self.workers)}", free_port()
        base = [f"worker.name={name}", f"worker.listen=127.0.0.1:{port}", "worker.threads=1"]
        base += [f"worker.lease_seconds={LEASE}", "worker.checkpoint_interval_seconds=1"]
        # A fault may take long on a busy machine, and no worker is to give its task up meanwhile.
        base += ["worker.orphan_seconds=240"]
        base += [f"worker.input_roots={roots or self.ground.demo}"]
        command = [*prefix, str(self.ground.programs / "mehl-soup-worker"), "serve"]
        command += [*sets([*base, *settings]), *flags]
        environment = {**self.environment, **(environment or {})}
        program = Program(name, command, self.folder / f"{name}.log", environment)
        program.server = f"http://127.0.0.1:{port}"
        self.workers.append(program)
        return program

    def is_ready(self, program):
        """Whether a program says that it is ready. None while it cannot be asked."""
        return self.readiness(program)[0] == 200

    def readiness(self, program):
        """Status and text of its /readyz; status None while it cannot be asked."""
        try:
            return http("GET", f"{program.server}/readyz", seconds=10)
        except OSError as error:
            return None, repr(error)

    def until_not_ready(self, program, series):
        """Waits until a program says by its readiness, and by a metric, that a server refuses."""
        said = lambda: self.readiness(program)[0] == 503 and self.metric(program, series) == 0
        until(f"{program.name} is not ready", said, seconds=60)

    def metric(self, program, name):
        """Value of a series without labels, or with them as they are written."""
        _, text = http("GET", f"{program.server}/metrics")
        for line in text.decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.rsplit(" ", 1)[1])
        raise KeyError(name)

    def call(self, method, path, body=None, scheduler=None, seconds=60):
        """Status and body of an API call."""
        server = (scheduler or self.schedulers[0]).server
        status, answer = http(method, server + path, body, seconds)
        try:
            return status, json.loads(answer)
        except ValueError:
            return status, answer

    def get(self, path, **options):
        status, answer = self.call("GET", path, **options)
        if status != 200:
            raise LookupError(f"GET {path}: {status} {answer}")
        return answer

    def submit(self, spec, **fields):
        """Creates a sweep; its id."""
        body = {"spec": spec, "format": "toml", "folder": "/", **fields}
        status, answer = self.call("POST", "/v1/sweeps", body)
        assert status in (200, 201), f"{status} {answer}"
        return answer["id"]

    def sweep(self, sweep):
        return self.get(f"/v1/sweeps/{sweep}")

    def tasks(self, sweep):
        """All tasks of a sweep, by id."""
        tasks, at = {}, 0
        while at is not None:
            page = self.get(f"/v1/sweeps/{sweep}/tasks?from={at}&limit=1000")
            tasks.update((task["id"], task) for task in page["tasks"])
            at = page.get("next")
        return tasks

    def task(self, sweep, task):
        return self.get(f"/v1/sweeps/{sweep}/tasks/{task}")

    def events(self, sweep, task):
        return self.get(f"/v1/sweeps/{sweep}/tasks/{task}/events")["events"]

    def count(self, sweep, task, what):
        """How often something happened to a task."""
        return sum(event["what"] == what for event in self.events(sweep, task))

    def end_of(self, sweep, seconds=None):
        """Waits until a sweep has ended; how it stands then."""
        options = {"seconds": seconds} if seconds else {}
        return until(f"sweep {sweep} ends", lambda: ended(self.sweep(sweep)), **options)

    def iterations(self, sweep, task):
        """How many its workers have told of; 0 before the first checkpoint."""
        return (self.task(sweep, task)["progress"] or {}).get("iterations", 0)

    def holder(self, sweep, task):
        """Name of the worker that claimed a task last."""
        claims = [event for event in self.events(sweep, task) if event["what"] == "claimed"]
        return claims[-1]["detail"] if claims else None

    def until_computing(self, sweep, task, worker):
        """Waits until a worker has told of iterations of a task."""

        def is_computing():
            if self.task(sweep, task)["state"] != "running":
                return False
            return self.holder(sweep, task) == worker.name and self.iterations(sweep, task) > 0

        until(f"{worker.name} computes {task}", is_computing)

    def assert_same(self, sweep, reference):
        """Every task succeeded once, with the coefficients of an undisturbed run."""
        tasks = self.tasks(sweep)
        states = {name: (task["state"], task.get("cause")) for name, task in tasks.items()}
        assert all(state == ("succeeded", None) for state in states.values()), states
        found = {}
        for name in tasks:
            assert self.count(sweep, name, "succeeded") == 1, self.events(sweep, name)
            if name != "scores":
                server = self.schedulers[0].server
                path = f"/v1/sweeps/{sweep}/tasks/{name}/coefficients"
                status, content = http("GET", server + path)
                assert status == 200, (name, status, content)
                found[name] = hashlib.sha256(content).hexdigest()
        assert found == self.ground.reference(reference)

    def until_final(self, sweep, task, again, seconds):
        """Starts a worker anew whenever the last one has ended, as systemd and Kubernetes do, until
        the task is final; the task."""

        def is_final():
            if not self.workers[-1].is_alive():
                again()
            found = self.task(sweep, task)
            return found["state"] in ("succeeded", "failed") and found

        return until(f"{task} is final", is_final, seconds)

    def assert_alive(self):
        """No program of the pool has ended."""
        for program in self.schedulers + self.workers:
            assert program.is_alive(), f"{program.name} has ended:\n{program.tail()}"

    def doctor(self, *words):
        """Runs `mehl-soup doctor`: exit code, and what it prints."""
        run = subprocess.run(
            [str(self.ground.programs / "mehl-soup"), "doctor", *words],
            capture_output=True,
            text=True,
            timeout=120,
            env={**self.environment, "PATH": "/usr/bin:/bin"},
        )
        return run.returncode, run.stdout + run.stderr

    def end(self):
        """Ends all programs, and prints what they said: pytest shows it of a failed test."""
        for program in self.workers + self.schedulers:
            program.signal(signal.SIGCONT)
            program.kill()
            print(f"--- {program.name}: {program.process.returncode}\n{program.tail()}")


def sets(settings):
    return [word for setting in settings for word in ("--set", setting)]


def ended(sweep):
    return sweep if sweep.get("outcome") else None


def http(method, url, body=None, seconds=60):
    """Status and bytes of an answer."""
    content = json.dumps(body).encode() if body is not None else None
    headers = {"content-type": "application/json"} if content else {}
    request = urllib.request.Request(url, content, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
