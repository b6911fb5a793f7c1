"""Runs a stage's command: within a time limit, without stdin, in a process group of its own."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from stages import HeavyStage, Stage

# Seconds from SIGTERM to SIGKILL.
GRACE = 30

# What `make` hands down to the programs that it starts. A stage is the same whoever starts it:
# flags such as --ignore-errors must not reach its own `make`.
OF_OUTER_MAKE = ("MAKEFLAGS", "MFLAGS", "GNUMAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL")


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    status: int | None  # exit status; nothing if it was stopped at its limit
    seconds: int
    result: list[str]  # lines of the output that the stage's expression finds

    @property
    def passed(self) -> bool:
        return self.status == 0

    def problem(self, limit: int) -> str:
        """Why it failed; empty if it passed."""
        if self.passed:
            return ""
        if self.status is None:
            return f"stopped at its limit of {limit} s"
        return f"exit status {self.status}"


def say(text: str) -> None:
    """A line that stands out from the output of the stages."""
    print(f"\n=== {text}", flush=True)


def run(root: Path, stage: Stage, limit: int) -> Ran:
    """Removes the results of earlier runs, then runs the command for `limit` seconds at most.

    If this process is interrupted, the command is stopped before the exception goes on.
    """
    for folder in stage.clears:
        shutil.rmtree(root / folder, ignore_errors=True)
    wanted = stage.result if isinstance(stage, HeavyStage) else ""
    begin = time.monotonic()
    try:
        process = subprocess.Popen(
            shlex.split(stage.command),
            cwd=root,
            env={key: value for key, value in os.environ.items() if key not in OF_OUTER_MAKE},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if wanted else None,
            stderr=subprocess.STDOUT if wanted else None,
            # A group of its own, so that a stop reaches what the command started.
            start_new_session=True,
        )
    except OSError as error:
        print(f"{stage.command}: {error}", flush=True)
        return Ran(127, 0, [])
    found: list[str] = []
    reader = None
    if process.stdout is not None:
        reader = threading.Thread(
            target=_pass_on, args=(process.stdout, re.compile(wanted), found), daemon=True
        )
        reader.start()
    try:
        status: int | None = process.wait(limit)
    except subprocess.TimeoutExpired:
        stop(process)
        status = None
    except BaseException:
        stop(process)
        raise
    if reader is not None:
        # Not for ever: a program left behind may hold the pipe open.
        reader.join(10)
    return Ran(status, round(time.monotonic() - begin), list(found))


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the command and its children: asks first, kills what is left after `GRACE` seconds."""
    _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline:
        process.poll()  # a process that has ended is in its group until it is waited for
        if not _signal(process, 0):
            return
        time.sleep(0.1)
    _signal(process, signal.SIGKILL)
    process.wait()


def _signal(process: subprocess.Popen[bytes], number: int) -> bool:
    """Sends a signal to the command's group. False if nothing of the group is left."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def _pass_on(output: IO[bytes], wanted: re.Pattern[str], found: list[str]) -> None:
    """Copies the output to stdout, and keeps the lines that match."""
    for line in output:
        text = line.decode(errors="replace")
        sys.stdout.write(text)
        sys.stdout.flush()
        if wanted.search(text):
            found.append(text.strip())
