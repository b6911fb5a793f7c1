"""The decisions of CI, without effects: what is fresh, what runs, for how long, what is printed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from records import Record
from stages import Budget, HeavyStage, Stage


class Outcome(Enum):
    """What became of a stage in this run of CI."""

    PASSED = "passed"
    FAILED = "failed"
    FRESH = "fresh"
    STALE = "stale"
    SKIPPED = "skipped for time"


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    stage: str
    kind: str  # core or heavy
    outcome: Outcome
    seconds: int | None = None  # nothing for a stage that did not run
    note: str = ""


@dataclass(frozen=True)
class Verdict:
    """A heavy stage beside its record."""

    stage: HeavyStage
    fresh: bool
    note: str
    digest: str | None = None  # hash of its inputs; nothing if they could not be listed
    recorded: str = ""  # the record's date; empty without one


def judge(
    stage: HeavyStage, digest: str | None, record: Record | None, problem: str = ""
) -> Verdict:
    """Is the record of the stage one of these inputs?

    A `problem` (an unreadable record, inputs that cannot be listed) makes the stage stale.
    """
    recorded = record.date if record else ""
    if problem:
        return Verdict(stage, False, problem, digest, recorded)
    if record is None:
        return Verdict(stage, False, "no record", digest)
    day = record.date[:10]
    if digest is None or record.hash != digest:
        note = f"inputs changed since the record of {day}"
        return Verdict(stage, False, note, digest, recorded)
    return Verdict(stage, True, f"record of {day}, {record.seconds} s", digest, recorded)


def choose(verdicts: list[Verdict], failed: set[str], commit: str | None) -> Verdict | None:
    """The one stale stage that this run of CI may run.

    CI cannot commit records, so "the oldest first" would run the same stage each time until
    somebody commits its record. The commit's hash chooses instead: over many commits each stale
    stage gets the same share, and a repeated run of a commit repeats its stage. Without a commit
    it is the stage with the oldest record. A stage that needs a failed core stage has to wait.
    """
    ready = [one for one in verdicts if not one.fresh and not failed & set(one.stage.needs)]
    if not ready:
        return None
    ready.sort(key=lambda one: (one.recorded, one.stage.name))
    return ready[int(commit[:8], 16) % len(ready) if commit else 0]


def core_limit(stage: Stage, elapsed: float, budget: Budget) -> int:
    """Seconds that a core stage may take; 0 if there is no time left for it."""
    return max(0, min(stage.limit, int(budget.total - elapsed)))


def heavy_limit(stage: Stage, elapsed: float, budget: Budget) -> int:
    """Seconds that a heavy stage may take; 0 if it is too late to start one."""
    return 0 if elapsed >= budget.heavy_start else core_limit(stage, elapsed, budget)


def waiting(verdict: Verdict, failed: set[str]) -> Row:
    """The row of a heavy stage that is not run."""
    needs = sorted(failed & set(verdict.stage.needs))
    note = f"{verdict.note}; needs {', '.join(needs)}" if needs else verdict.note
    outcome = Outcome.FRESH if verdict.fresh else Outcome.STALE
    return Row(verdict.stage.name, "heavy", outcome, note=note)


def has_failed(rows: list[Row]) -> bool:
    """Has CI failed? A core stage that did not run has not passed; a stale heavy stage may wait."""
    return any(
        row.outcome is Outcome.FAILED or (row.kind == "core" and row.outcome is Outcome.SKIPPED)
        for row in rows
    )


def table(rows: list[Row]) -> str:
    """The rows in aligned columns."""
    cells = [("stage", "kind", "outcome", "seconds", "note")]
    for row in rows:
        seconds = "-" if row.seconds is None else str(row.seconds)
        cells.append((row.stage, row.kind, row.outcome.value, seconds, row.note))
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    lines = []
    for stage, kind, outcome, seconds, note in cells:
        left = f"{stage:{widths[0]}}  {kind:{widths[1]}}  {outcome:{widths[2]}}"
        lines.append(f"{left}  {seconds:>{widths[3]}}  {note}".rstrip())
    return "\n".join(lines)


def core_seconds(rows: list[Row]) -> int:
    """Seconds that the core stages took together."""
    return sum(row.seconds or 0 for row in rows if row.kind == "core")
