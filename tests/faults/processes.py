"""Programs that a test starts, and waiting for something to become true."""

import os
import signal
import subprocess
import time
from pathlib import Path

# Longest wait for anything, in seconds. The machine may be busy with other tests.
PATIENCE = 240


def until(what, seen, seconds=PATIENCE, pause=0.05):
    """Asks again and again; returns the first answer of `seen` that is true.

    An exception counts as no answer; the last one is told when the time is over.
    """
    end = time.monotonic() + seconds
    last = None
    while True:
        try:
            last = seen()
        except (OSError, ValueError, KeyError, LookupError) as error:
            last = error
        if last and not isinstance(last, Exception):
            return last
        assert time.monotonic() < end, f"{what}: not within {seconds} s; last seen: {last!r}"
        time.sleep(pause)


def holds(what, seen, seconds, pause=0.1):
    """Demands that `seen` is true for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert seen(), what
        time.sleep(pause)


class Program:
    """A process in a group of its own. It ends with this process, however that ends."""

    def __init__(self, name, command, log, environment=None):
        self.name, self.log = name, Path(log)
        with open(self.log, "ab") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        # Its standard input closes when this process is gone, and it kills the group.
        self.guard = subprocess.Popen(
            ["sh", "-c", 'read -r _; kill -s KILL -- "-$1" 2>/dev/null', "sh", str(self.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    @property
    def pid(self):
        return self.process.pid

    def is_alive(self):
        return self.process.poll() is None

    def signal(self, number):
        if self.is_alive():
            self.process.send_signal(number)

    def wait(self, seconds=PATIENCE):
        """Its exit code, or minus the signal that ended it."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} has not ended within {seconds} s:\n{self.tail()}")

    def kill(self):
        """Ends it and its children at once."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        if self.guard.stdin and not self.guard.stdin.closed:
            self.guard.stdin.close()
            self.guard.wait()

    def text(self):
        """What it has written to stdout and stderr."""
        return self.log.read_text(errors="replace")

    def tail(self, lines=30):
        return "\n".join(self.text().splitlines()[-lines:])
