"""The stages of CI: what each one runs, for how long at most, and which files it depends on.

To add a stage, add an entry to `CORE` or `HEAVY`. `docs/ci.md` explains the difference.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """Times in seconds since the start of CI."""

    core: int  # the core stages must end by then on a quiet machine with two cores
    heavy_start: int  # a heavy stage starts before this second, or not at all
    total: int  # whatever runs is stopped at this second


@dataclass(frozen=True)
class Stage:
    """A command that CI runs in the root of the repository."""

    name: str
    command: str  # split as by a shell, but not run by one
    limit: int  # seconds after which the stage is stopped, and so has failed
    # Folders of earlier results, removed first: the programs keep finished work, so that without
    # this a stage could pass without running.
    clears: tuple[str, ...] = ()


@dataclass(frozen=True)
class HeavyStage(Stage):
    """A stage that CI runs only if the files that it depends on differ from those of its record."""

    inputs: tuple[str, ...] = ()  # git pathspecs of tracked files; `:!PATH` excludes
    result: str = ""  # regular expression: output lines to keep in the record, at least one
    needs: tuple[str, ...] = ()  # names of core stages whose results the command reads


@dataclass(frozen=True)
class Stages:
    """All that CI may run, and the time that it has."""

    core: tuple[Stage, ...]
    heavy: tuple[HeavyStage, ...]
    budget: Budget


# CI ends a run at second 5,400. The difference is for stopping a stage and printing the table.
BUDGET = Budget(core=2700, heavy_start=2400, total=5300)

# In this order: the stages that find the most faults for their cost come first.
CORE = (
    Stage("fetch", "cargo fetch --locked", limit=600),
    Stage("test", "make test", limit=3600),
    Stage("lint", "make lint", limit=1800),
    Stage("deny", "make deny", limit=1200),
    Stage("build", "make build", limit=1800),
    Stage("demo", "make demo", limit=900, clears=("target/demo",)),
)

# What decides how any stage is built and started. `scripts/ci` itself is not among them: a change
# of the table's layout says nothing about the programs. What a stage is (command, inputs, ...) is
# hashed apart.
_BUILD = (
    "Makefile",
    "Cargo.toml",
    "Cargo.lock",
    ".cargo/",
    "scripts/common.sh",
    "scripts/setup.sh",
)

# The programs as `mehl-soup run` and `demo` use them: without what only a pool of processes has.
_LOCAL_PROGRAMS = (
    "src/",
    ":!src/api/",
    ":!src/client/",
    ":!src/queue/rabbitmq/",
    ":!src/store/redis/",
    ":!src/store/redis.rs",
    ":!src/store/scripts/",
    "workers/Cargo.toml",
    "workers/build.rs",
    "workers/src/",
    "workers/data/",
)

_PYTHON_CHECK = ("scripts/setup-python-check.sh", "workers/tests/fixtures/requirements.txt")

HEAVY = (
    HeavyStage(
        "fuzz",
        "make fuzz FUZZ_SECONDS=60",
        limit=1500,
        inputs=(
            *_BUILD,
            "scripts/fuzz.sh",
            "fuzz/",
            # The readers and the modules that they use; tests/ci checks that none is missing.
            "src/fuzzing.rs",
            "src/canonical.rs",
            "src/checkpoint/",
            "src/coefficients/",
            "src/files.rs",
            "src/runner/engine.rs",
            "src/source/",
            "src/sweep/",
            "src/task/",
            "src/untrusted*",
            "src/zoo/",
        ),
        # libFuzzer's last line for each target. Where no fuzzer can be built, there is none, and
        # so no record.
        result=r"^Done \d+ runs in \d+ second",
    ),
    HeavyStage(
        "experiments",
        "make experiments QUICK=1",
        limit=1200,
        clears=("target/experiments/quick",),
        inputs=(
            *_BUILD,
            *_LOCAL_PROGRAMS,
            "scripts/setup-experiments.sh",
            "experiments/",
            ":!experiments/results/",
            ":!experiments/README.md",
        ),
        result=r"^holds: ",
    ),
    HeavyStage(
        "check-python",
        "make check-python",
        limit=2400,
        clears=("target/vision", "target/texts"),
        inputs=(
            *_BUILD,
            *_LOCAL_PROGRAMS,
            *_PYTHON_CHECK,
            "workers/benches/yardstick/",
            "workers/tests/fixtures/fixture.py",
            "workers/tests/fixtures/trajectories/",
            "workers/tests/python/check_model.py",
            "workers/tests/fixtures/make_tokenizers.py",
            "workers/tests/python/vision_zoos.py",
            "workers/tests/python/text_zoos.py",
            "python/mehl_soup/",
            "docs/imagenet.md",
        ),
        result=r": loss \d.* right|^\| [a-z-]+ \| (jsonl|csv|tsv)",
        needs=("demo",),
    ),
    HeavyStage(
        "check-zoos",
        "make check-zoos",
        limit=1800,
        clears=("target/vision",),
        inputs=(
            *_BUILD,
            *_LOCAL_PROGRAMS,
            *_PYTHON_CHECK,
            "workers/tests/python/made_zoos.py",
            # It writes the images.
            "workers/tests/python/vision_zoos.py",
        ),
        result=r": loss \d.* right",
    ),
    HeavyStage(
        "check-architectures",
        "make check-architectures",
        limit=1800,
        clears=("target/architectures",),
        inputs=(
            *_BUILD,
            *_LOCAL_PROGRAMS,
            *_PYTHON_CHECK,
            "workers/tests/python/architectures.py",
            "python/mehl_soup/",
        ),
        result=r"^\| [a-z0-9-]+ \| (transformers|timm|torchvision) ",
    ),
    HeavyStage(
        "python",
        "make python",
        limit=1800,
        inputs=(
            "Makefile",
            "Cargo.toml",
            "scripts/common.sh",
            "scripts/python.sh",
            *_PYTHON_CHECK,
            "python/",
            "docs/architectures.md",
            "docs/convert.md",
        ),
        result=r"^\d+ passed",
    ),
    HeavyStage(
        "soak",
        "make soak SOAK_SECONDS=600",
        limit=1800,
        inputs=(
            *_BUILD,
            "scripts/setup-servers.sh",
            "src/",
            "workers/Cargo.toml",
            "workers/build.rs",
            "workers/src/",
            "workers/data/",
            "tests/soak.rs",
            "tests/soak/",
            "tests/support/",
        ),
        result=r"^test result: ok\. 1 passed",
    ),
)

STAGES = Stages(CORE, HEAVY, BUDGET)
