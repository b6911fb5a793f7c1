"""Whole runs of CI with small stages in a small repository."""

import dataclasses
import json
import re
import time

import pipeline
import pytest
import recording
from stages import Budget, HeavyStage, Stage, Stages

BUDGET = Budget(core=100, heavy_start=50, total=200)
PASS = Stage("pass", "true", 60)
FAIL = Stage("fail", "false", 60)
LATER = Stage("later", "bash -c 'mkdir -p target; date > target/later'", 60)
HEAVY = HeavyStage(
    "heavy", "bash -c 'echo ran >> target-heavy; echo ok 7'", 60, inputs=("code/",), result="^ok"
)


@pytest.fixture
def root(repository):
    repository.write(".gitignore", "target*\n")
    repository.commit()
    return repository.root


def run(root, capfd, *, core=(PASS,), heavy=(HEAVY,), elapsed=0.0):
    """Exit status and the table's outcomes of a run that began `elapsed` seconds ago."""
    status = pipeline.run(root, Stages(core, heavy, BUDGET), time.monotonic() - elapsed)
    lines = capfd.readouterr().out.splitlines()
    table = lines[max(at for at, line in enumerate(lines) if line.startswith("stage ")) + 1 :]
    # Two spaces or more stand between columns.
    rows = [re.split(r" {2,}", line) for line in table[: table.index("")]]
    return status, {name: outcome for name, _kind, outcome, *_ in rows}


def times_run(root):
    file = root / "target-heavy"
    return len(file.read_text().splitlines()) if file.exists() else 0


def record(root, *, core=(), heavy=(HEAVY,), name="heavy"):
    return recording.record(root, Stages(core, heavy, BUDGET), [name])


def test_a_failure_stops_no_later_stage_and_fails_ci(root, capfd):
    status, table = run(root, capfd, core=(FAIL, LATER))
    assert status == 1 and (root / "target/later").exists() and times_run(root) == 1
    assert table == {"fail": "failed", "later": "passed", "heavy": "passed"}


def test_one_stale_stage_runs_and_the_others_are_listed(root, capfd):
    others = [dataclasses.replace(HEAVY, name=f"heavy-{index}") for index in range(3)]
    status, table = run(root, capfd, heavy=tuple(others))
    assert status == 0 and times_run(root) == 1
    outcomes = sorted(table[one.name] for one in others)
    assert outcomes == ["passed", "stale", "stale"]


def test_a_stale_stage_that_fails_fails_ci(root, capfd):
    status, table = run(root, capfd, heavy=(dataclasses.replace(HEAVY, command="false"),))
    assert status == 1 and table["heavy"] == "failed"


def test_too_late_for_a_heavy_stage_is_no_failure(root, capfd):
    status, table = run(root, capfd, elapsed=50)
    assert status == 0 and times_run(root) == 0
    assert table["heavy"] == "skipped for time"


def test_too_late_for_a_core_stage_is_a_failure(root, capfd):
    status, table = run(root, capfd, elapsed=200)
    assert status == 1 and table["pass"] == "skipped for time"


def test_a_record_makes_a_stage_fresh_until_its_inputs_change(root, repository, capfd):
    assert record(root) == 0
    kept = json.loads((root / ".ci/records/heavy.json").read_text())
    assert kept["result"] == ["ok 7"] and kept["command"] == HEAVY.command
    repository.commit()
    status, table = run(root, capfd)
    assert status == 0 and times_run(root) == 1 and table["heavy"] == "fresh"
    repository.write("code/a.py", "changed")
    status, table = run(root, capfd)
    assert status == 0 and times_run(root) == 2 and table["heavy"] == "passed"


def test_the_record_that_ci_prints_is_one_that_makes_the_stage_fresh(root, capfd):
    pipeline.run(root, Stages((), (HEAVY,), BUDGET), time.monotonic())
    printed = capfd.readouterr().out
    text = printed[printed.index("\n{\n") : printed.index("\n}\n") + 3]
    (root / ".ci/records").mkdir(parents=True)
    (root / ".ci/records/heavy.json").write_text(text)
    assert run(root, capfd)[1]["heavy"] == "fresh"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"stage": "other"}', '{"stage": "heavy", "hash": "0"}']
)
def test_a_record_that_cannot_be_read_makes_the_stage_stale(root, capfd, text):
    (root / ".ci/records").mkdir(parents=True)
    (root / ".ci/records/heavy.json").write_text(text)
    assert run(root, capfd)[0] == 0 and times_run(root) == 1


def refused(root, capfd, **more):
    """What is said when no record is written."""
    assert record(root, **more) == 1
    assert not (root / ".ci/records").exists()
    return capfd.readouterr().out


def test_there_is_no_record_of_a_failed_run(root, capfd):
    failing = dataclasses.replace(HEAVY, command="bash -c 'echo ok; exit 1'")
    assert "exit status 1" in refused(root, capfd, heavy=(failing,))


def test_there_is_no_record_of_a_run_without_a_result(root, capfd):
    silent = dataclasses.replace(HEAVY, command="echo nothing")
    assert "no output line" in refused(root, capfd, heavy=(silent,))


def test_there_is_no_record_if_inputs_change_meanwhile(root, capfd):
    changing = dataclasses.replace(HEAVY, command="bash -c 'echo more >> code/a.py; echo ok'")
    assert "its inputs changed while it ran" in refused(root, capfd, heavy=(changing,))


def test_there_is_no_record_beside_inputs_that_are_not_tracked(root, repository, capfd):
    repository.write("code/new.py", "new")
    assert "code/new.py" in refused(root, capfd)
    assert times_run(root) == 0


def test_a_record_runs_first_what_the_stage_needs(root, capfd):
    needing = dataclasses.replace(HEAVY, command="cat target/later", result=".", needs=("later",))
    assert record(root, core=(FAIL, LATER), heavy=(needing,)) == 0
    (root / ".ci/records/heavy.json").unlink()
    (root / ".ci/records").rmdir()
    needing = dataclasses.replace(needing, needs=("fail",))
    assert "false: exit status 1" in refused(root, capfd, core=(FAIL, LATER), heavy=(needing,))
