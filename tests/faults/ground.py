"""What all tests of a session share: programs, a digits zoo, a RabbitMQ, and a Redis that no test
harms.

The process that runs the session makes it; those that run tests in its stead read of it.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import specs
from servers import RabbitMq, Redis

ROOT = Path(__file__).parents[2]
# Names the folder of a ground that is there already.
VARIABLE = "MEHL_SOUP_FAULTS_GROUND"
# Users of tests that change what a user may do, or the password.
USERS = {"guest": "guest", "revoked": "first", "rotated": "first"}


def programs():
    """Folder of both programs."""
    target = os.environ.get("CARGO_TARGET_DIR") or os.environ.get("CARGO_BUILD_TARGET_DIR")
    folder = os.environ.get("MEHL_SOUP_FAULTS_PROGRAMS") or ROOT / (target or "target") / "release"
    for name in ("mehl-soup", "mehl-soup-worker"):
        assert (Path(folder) / name).exists(), f"{folder}/{name}: not found; run make build first"
    return Path(folder)


class Ground:
    def __init__(self, folder):
        self.folder, self.programs = Path(folder), programs()
        self.demo, self.cache = self.folder / "demo", self.folder / "cache"

    @classmethod
    def make(cls):
        ground = cls(tempfile.mkdtemp(prefix="mehl-soup-faults-"))
        try:
            ground.redis = Redis(ground.folder / "redis")
            ground.rabbit = RabbitMq.begin_up(ground.folder / "rabbitmq", USERS)
            ground.make_zoo()
        except BaseException:
            ground.end()
            raise
        (ground.folder / "ground.json").write_text(
            json.dumps(
                {
                    "redis": ground.redis.url,
                    "rabbitmq": str(ground.rabbit.folder),
                    "amqp": ground.rabbit.port,
                    "ports": ground.rabbit.ports,
                }
            )
        )
        os.environ[VARIABLE] = str(ground.folder)
        return ground

    @classmethod
    def read(cls):
        """The ground that the session's process has made."""
        ground = cls(os.environ[VARIABLE])
        found = json.loads((ground.folder / "ground.json").read_text())
        ground.redis_url = found["redis"]
        ground.rabbit = RabbitMq(found["rabbitmq"], found["amqp"], found["ports"])
        return ground

    def environment(self):
        """What every program of ours gets: few threads, since many run at once."""
        return {"MEHL_SOUP_CACHE_DIR": str(self.cache), "OMP_NUM_THREADS": "1"}

    def make_zoo(self):
        command = [self.programs / "mehl-soup", "demo", "--make-zoo", self.demo]
        command += ["--ingredients", "4", "--base-epochs", "4", "--epochs", "1"]
        self.run(command)

    def run(self, command, **options):
        ended = subprocess.run(
            [str(word) for word in command],
            env={**os.environ, **self.environment()},
            capture_output=True,
            text=True,
            timeout=300,
            **options,
        )
        assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
        return ended

    def reference(self, name):
        """Hashes of the coefficients that `mehl-soup run` makes of a specification on a quiet
        machine, by task. Each specification is run once a session."""
        folder = self.folder / "references"
        folder.mkdir(exist_ok=True)
        with open(folder / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            out = folder / name
            if not (out / "results.json").exists():
                (folder / f"{name}.toml").write_text(specs.NAMED[name](self.demo))
                command = [self.programs / "mehl-soup", "run", folder / f"{name}.toml"]
                self.run([*command, "--out", out])
        files = out.glob("tasks/*/coefficients.safetensors")
        return {file.parent.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    def shim(self):
        """The library that kills a process which reads a named file (die_on_read.c)."""
        library = self.folder / "die_on_read.so"
        with open(self.folder / "shim.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not library.exists():
                source = Path(__file__).parent / "die_on_read.c"
                compiler = os.environ.get("CC", "cc")
                command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror"]
                self.run([*command, "-o", library, source, "-ldl"])
        return library

    def end(self):
        for name in ("rabbit", "redis"):
            if server := getattr(self, name, None):
                server.end()
        shutil.rmtree(self.folder, ignore_errors=True)
