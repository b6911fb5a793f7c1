"""A container, what its image brings along, and its process."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import adapt
import helm

# Longest time of one step, on a machine that others keep busy.
PATIENCE = 120


@dataclass
class Mount:
    """A file or folder of this machine under a path of the container."""

    source: Path
    target: str
    read_only: bool = True


@dataclass
class Container:
    """What an engine is told of a container."""

    name: str
    command: list[str]
    environment: dict[str, str]
    mounts: list[Mount]
    hosts: dict[str, str] = field(default_factory=dict)
    user: int = 10001
    group: int = 10001
    groups: list[int] = field(default_factory=list)
    folder: str = "/"
    read_only_root: bool = True
    # Path, mode and owner of folders that the image has.
    folders: list[tuple[str, int, int]] = field(default_factory=list)
    programs: list[Path] = field(default_factory=list)


class Image:
    """What docker/NAME.Dockerfile's last stage says, with programs and demo of the tests."""

    def __init__(self, name, programs, demo):
        text = (helm.ROOT / "docker" / f"{name}.Dockerfile").read_text()
        text = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.M))
        self.stage = re.split(r"^FROM ", text, flags=re.M)[-1]
        self.entrypoint = json.loads(self._one("ENTRYPOINT"))
        self.command = json.loads(self._one("CMD"))
        health = re.search(r"^HEALTHCHECK .*CMD (\[.*\])$", self.stage, re.M)
        self.health = json.loads(health[1])
        self.user, self.group = map(int, self._one("USER").split(":"))
        self.folder = self._one("WORKDIR")
        variables = dict(
            re.findall(r"(\w+)=(\S+)", " ".join(re.findall(r"^ENV (.*)$", self.stage, re.M)))
        )
        self.environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/nonexistent",
            **variables,
        }
        made = re.findall(r"install -d -o (\d+) -g \d+ (\S+)", self.stage)
        self.folders = [(path, 0o755, int(owner)) for owner, path in made]
        self.mounts, self.programs = [], []
        for copied in re.findall(r"^COPY --from=build (.*)$", self.stage, re.M):
            *sources, target = copied.split()
            for source in sources:
                if source.startswith("/src/target/release/"):
                    self.programs.append(programs / Path(source).name)
                    self.mounts.append(
                        Mount(
                            self.programs[-1],
                            target + Path(source).name if target.endswith("/") else target,
                        )
                    )
                else:
                    assert source == "/opt/demo", (
                        f"docker/{name}.Dockerfile copies {source}, which no test knows"
                    )
                    self.mounts.append(Mount(demo, target))

    def _one(self, instruction):
        (found,) = re.findall(rf"^{instruction} (.*)$", self.stage, re.M)
        return found


class Process:
    """A container's process. Its log, stdout included, is a file."""

    def __init__(self, machine, container, folder):
        folder.mkdir(parents=True)
        container.environment = {**adapt.SHARED_CORES, **container.environment}
        self.name, self.log, self.output = container.name, folder / "log", folder / "output"
        command, environment, inside = machine.command(container, folder)
        with self.log.open("wb") as log, self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                env=environment,
                cwd=inside,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                start_new_session=True,
            )

    def said(self):
        """The end of its log."""
        text = self.log.read_text(errors="replace") + self.output.read_text(errors="replace")
        return f"--- {self.name}\n" + "\n".join(text.splitlines()[-40:])

    def wait(self, seconds=PATIENCE):
        """Its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.name} has not ended after {seconds} s\n{self.said()}"
            ) from None

    def ends_well(self, seconds=PATIENCE):
        """Waits for its end, which has to be a good one; what it wrote to stdout."""
        code = self.wait(seconds)
        assert code == 0, f"{self.name} ended with {code}\n{self.said()}"
        return self.output.read_text()

    def lives(self):
        code = self.process.poll()
        assert code is None, f"{self.name} ended with {code}\n{self.said()}"

    def is_asked_to_end(self, seconds):
        """SIGTERM, as an engine sends it, and the good end that the program owes within the grace
        period."""
        self.lives()
        self.process.send_signal(signal.SIGTERM)
        self.ends_well(seconds)

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def until(what, condition, processes=(), seconds=PATIENCE):
    """The first true answer of a condition; fails when time is up or one of the processes ends."""
    end = time.monotonic() + seconds
    while not (answer := condition()):
        for one in processes:
            one.lives()
        assert time.monotonic() < end, f"{what}: not after {seconds} s\n" + "\n".join(
            one.said() for one in processes
        )
        time.sleep(0.05)
    return answer
