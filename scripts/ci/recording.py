"""Makes records of heavy stages on a developer's machine."""

from __future__ import annotations

from pathlib import Path

import execute
import inputs
import records
from execute import say
from records import Record
from stages import HeavyStage, Stages


class Refused(Exception):
    """No record is written; the text says why."""


def record(root: Path, stages: Stages, names: list[str]) -> int:
    """Runs the stages and writes the records of those that pass; returns the exit status."""
    refused = []
    for stage in (stage for stage in stages.heavy if stage.name in names):
        try:
            file = records.write(root, run(root, stages, stage))
            say(f"{stage.name}: passed; commit {file.relative_to(root)}")
        except (Refused, inputs.GitError) as error:
            refused.append(f"{stage.name}: {error}")
    for line in refused:
        say(f"no record of {line}")
    return 1 if refused else 0


def run(root: Path, stages: Stages, stage: HeavyStage) -> Record:
    """Runs what the stage needs, then the stage. Raises `Refused` if the run proves nothing."""
    if new := inputs.untracked(root, stage):
        raise Refused(f"git does not track {', '.join(new)}: add or ignore it first")
    before = inputs.digest(root, stage)
    for one in [*(core for core in stages.core if core.name in stage.needs), stage]:
        say(f"{one.name}: {one.command}")
        ran = execute.run(root, one, one.limit)
        if not ran.passed:
            raise Refused(f"{one.command}: {ran.problem(one.limit)}")
    if not ran.result:
        raise Refused(f"it passed, but no output line matches {stage.result!r}")
    if inputs.digest(root, stage) != before:
        raise Refused("its inputs changed while it ran")
    return records.made(stage, before, ran)
