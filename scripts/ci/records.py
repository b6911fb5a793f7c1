"""Records of heavy stages that passed: one committed JSON file for each in `.ci/records`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path

from execute import Ran
from stages import HeavyStage

FOLDER = Path(".ci/records")


class BadRecord(Exception):
    """A record's file cannot be used; the text names the file and the reason."""


@dataclass(frozen=True)
class Record:
    """One run that passed."""

    stage: str
    hash: str  # of the stage's inputs, see `inputs.digest`
    date: str  # when it ended, in UTC, as 2026-01-31T12:00:00Z
    seconds: int
    command: str
    result: list[str]  # lines of its output


def made(stage: HeavyStage, digest: str, ran: Ran) -> Record:
    """The record of a run that has just passed."""
    date = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Record(stage.name, digest, date, ran.seconds, stage.command, ran.result)


def path(root: Path, stage: str) -> Path:
    """The file of a stage's record."""
    return root / FOLDER / f"{stage}.json"


def text(record: Record) -> str:
    """What the record's file holds."""
    return json.dumps(asdict(record), indent=2, ensure_ascii=False) + "\n"


def read(root: Path, stage: str) -> Record | None:
    """The stage's record, or nothing if there is none. Raises `BadRecord`."""
    file = path(root, stage)
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BadRecord(f"{file}: {error}") from error
    expected = {field.name for field in fields(Record)}
    if not isinstance(found, dict) or set(found) != expected:
        raise BadRecord(f"{file}: expected the keys {', '.join(sorted(expected))}")
    if found["stage"] != stage:
        raise BadRecord(f"{file}: expected the record of {stage}, found that of {found['stage']}")
    return Record(**found)


def write(root: Path, record: Record) -> Path:
    """Writes the record's file and returns its path."""
    file = path(root, record.stage)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text(record))
    return file
