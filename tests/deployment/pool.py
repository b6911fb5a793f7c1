"""Containers that work together, and what is asked of them over HTTP."""

import contextlib
import json
import urllib.error
import urllib.request

from container import PATIENCE, Process, until

# Longest time of a small sweep.
SWEEP = 300


class Pool:
    """Starts containers, and ends all of them with the block in which it is used."""

    def __init__(self, machine, folder):
        self.machine, self.folder, self.processes = machine, folder, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for one in self.processes:
            one.kill()

    def start(self, container):
        process = Process(
            self.machine,
            container,
            self.folder / "containers" / f"{len(self.processes)}-{container.name}",
        )
        self.processes.append(process)
        return process

    def run(self, container, seconds=SWEEP, beside=()):
        """Starts a container that ends, and gives what it wrote to stdout. Those beside it must
        live as long."""
        process = self.start(container)
        until(
            f"end of {container.name}", lambda: process.process.poll() is not None, beside, seconds
        )
        return process.ends_well()

    def ask(self, port, path, token=None):
        """The status and body of an answer; None where nobody listens."""
        host, real = self.machine.address("127.0.0.1", port)
        request = urllib.request.Request(f"http://{host}:{real}{path}")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return None

    def answers(self, port, path, processes):
        """Waits until a probe is answered well."""

        def answered():
            self.last = self.ask(port, path)
            return self.last is not None and self.last[0] == 200

        with _with_last(self):
            until(f"{path} of port {port}", answered, processes, PATIENCE)

    def sweeps(self, token=None):
        status, body = self.ask(7070, "/v1/sweeps", token)
        assert status == 200, body
        return json.loads(body)["sweeps"]

    def all_succeed(self, names, processes, token=None, work=lambda: None):
        """Waits until the sweeps of these names have ended, and demands that each of their tasks
        has succeeded or was pruned by
        a search. `work` is called again and again meanwhile."""

        def ended():
            work()
            found = [one for one in self.sweeps(token) if one["name"] in names and one["outcome"]]
            return found if len(found) == len(names) else None

        for one in until(f"end of sweeps {names}", ended, processes, SWEEP):
            logs = "\n".join(process.said() for process in processes)
            assert one["outcome"] == "done" and set(one["counts"]) <= {"succeeded", "pruned"}, (
                f"{one}\n{logs}"
            )


def by_hand(pool, host, commands):
    """Starts scheduler and worker by these commands, and waits until they can work."""
    processes = [pool.start(host.container(words, words[0])) for words in commands]
    for port in (7070, 9464):
        pool.answers(port, "/readyz", processes)
    return processes


def end(processes):
    for one in reversed(processes):
        one.is_asked_to_end(60)


@contextlib.contextmanager
def _with_last(pool):
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{error}\nlast answer: {pool.last}") from None
