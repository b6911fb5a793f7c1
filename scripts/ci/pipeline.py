"""A run of CI: the core stages, then at most one stale heavy stage, then the table."""

from __future__ import annotations

import time
from pathlib import Path

import execute
import inputs
import plan
import records
from execute import Ran, say
from plan import Outcome, Row, Verdict
from stages import Stage, Stages


def run(root: Path, stages: Stages, begin: float) -> int:
    """All of CI; returns the exit status. Every stage runs, whatever became of the one before.

    `begin` is the time by the monotonic clock from which the budget counts.
    """
    # Before any stage runs, so that nothing that a stage writes counts as an input.
    verdicts = judge_all(root, stages)
    rows: list[Row] = []
    budget = stages.budget
    try:
        for stage in stages.core:
            limit = plan.core_limit(stage, time.monotonic() - begin, budget)
            row, _ = run_stage(root, stage, "core", limit)
            rows.append(row)
        failed = {row.stage for row in rows if row.outcome is not Outcome.PASSED}
        chosen = plan.choose(verdicts, failed, inputs.commit(root))
        rows += [plan.waiting(one, failed) for one in verdicts if one is not chosen]
        if chosen is not None:
            limit = plan.heavy_limit(chosen.stage, time.monotonic() - begin, budget)
            row, ran = run_stage(root, chosen.stage, "heavy", limit, chosen.note)
            rows.append(row)
            if ran is not None and ran.passed:
                print_record(root, chosen, ran)
    finally:
        print(f"\n{plan.table(rows)}\n", flush=True)
    core, total = plan.core_seconds(rows), round(time.monotonic() - begin)
    print(f"core: {core} s of {budget.core} on a quiet machine with two cores; in all: {total} s")
    if core > budget.core:
        print("the core stages took longer than that. Was the machine busy, or has a stage become slower?")
    failed_too = plan.has_failed(rows)
    print("CI failed" if failed_too else "CI passed", flush=True)
    return 1 if failed_too else 0


def judge_all(root: Path, stages: Stages) -> list[Verdict]:
    """Each heavy stage beside its record."""
    verdicts = []
    for stage in stages.heavy:
        digest, record, problem = None, None, ""
        try:
            digest = inputs.digest(root, stage)
            record = records.read(root, stage.name)
        except (inputs.GitError, records.BadRecord) as error:
            problem = str(error)
        verdicts.append(plan.judge(stage, digest, record, problem))
    return verdicts


def run_stage(
    root: Path, stage: Stage, kind: str, limit: int, note: str = ""
) -> tuple[Row, Ran | None]:
    """Runs a stage unless its limit is 0; returns its row, and how it ended if it ran."""
    if limit == 0:
        return Row(stage.name, kind, Outcome.SKIPPED, note=note), None
    say(f"{stage.name}: {stage.command}")
    ran = execute.run(root, stage, limit)
    outcome = Outcome.PASSED if ran.passed else Outcome.FAILED
    say(f"{stage.name}: {outcome.value} after {ran.seconds} s")
    return Row(stage.name, kind, outcome, ran.seconds, ran.problem(limit) or note), ran


def print_record(root: Path, chosen: Verdict, ran: Ran) -> None:
    """Prints the record of a run that passed: CI cannot commit it, whoever reads the log can."""
    stage = chosen.stage
    if not ran.result or chosen.digest is None or inputs.digest(root, stage) != chosen.digest:
        say(f"{stage.name}: no record of this run; `make record STAGE={stage.name}` shows why")
        return
    say(f"{stage.name}: the record of this run, for {records.path(Path(), stage.name)}:")
    print(records.text(records.made(stage, chosen.digest, ran)), flush=True)
