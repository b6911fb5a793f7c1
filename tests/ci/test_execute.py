"""Running one command."""

import os
import time

import execute
from stages import HeavyStage, Stage


def test_the_status_and_matching_lines_of_both_streams_are_kept(tmp_path, capfd):
    command = "bash -c 'echo ok 1; echo other; echo ok 2 >&2; exit 3'"
    ran = execute.run(tmp_path, HeavyStage("s", command, 60, result="^ok "), 60)
    assert (ran.status, ran.result) == (3, ["ok 1", "ok 2"])
    assert ran.problem(60) == "exit status 3"
    assert capfd.readouterr().out == "ok 1\nother\nok 2\n"


def test_there_is_no_stdin(tmp_path):
    assert execute.run(tmp_path, Stage("s", "bash -c '! read line'", 60), 60).passed


def test_earlier_results_are_removed_first(tmp_path):
    (tmp_path / "target" / "old").mkdir(parents=True)
    stage = Stage("s", "test ! -e target/old", 60, clears=("target/old", "target/never-there"))
    assert execute.run(tmp_path, stage, 60).passed


def test_at_the_limit_the_command_is_stopped_with_its_children(tmp_path):
    command = "bash -c 'sleep 300 & echo $! > child; wait'"
    ran = execute.run(tmp_path, Stage("s", command, 1), 1)
    assert ran.status is None and ran.problem(1) == "stopped at its limit of 1 s"
    assert not alive(int((tmp_path / "child").read_text()))


def test_what_ignores_the_stop_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "GRACE", 0.3)
    command = "bash -c 'trap \"\" TERM; echo $$ > self; while :; do sleep 0.1; done'"
    began = time.monotonic()
    assert not execute.run(tmp_path, Stage("s", command, 1), 1).passed
    assert time.monotonic() - began < 30
    assert not alive(int((tmp_path / "self").read_text()))


def test_a_command_that_is_missing_fails(tmp_path):
    assert not execute.run(tmp_path, Stage("s", "mehl-soup-no-such-program", 60), 60).passed


def test_flags_of_an_outer_make_do_not_reach_the_stage(tmp_path, monkeypatch):
    (tmp_path / "Makefile").write_text("fail:\n\tfalse\n")
    monkeypatch.setenv("MAKEFLAGS", "i")
    assert not execute.run(tmp_path, Stage("s", "make fail", 60), 60).passed


def alive(pid):
    """Is it running? One that ended and has not been waited for is not."""
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")")[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
