"""The decisions of a run of CI."""

from collections import Counter

import plan
from plan import Outcome, Row, Verdict
from records import Record
from stages import Budget, HeavyStage, Stage

BUDGET = Budget(core=2700, heavy_start=2400, total=5300)
FUZZ = HeavyStage("fuzz", "make fuzz", limit=1500, needs=("demo",))
RECORD = Record("fuzz", "abc", "2026-11-29T12:00:00Z", 812, "make fuzz", ["Done"])


def stale(name, recorded="", needs=()):
    return Verdict(HeavyStage(name, name, 60, needs=needs), False, "", recorded=recorded)


def test_a_stage_is_fresh_only_with_a_record_of_the_same_inputs():
    assert plan.judge(FUZZ, "abc", RECORD).fresh
    assert plan.judge(FUZZ, "abc", RECORD).note == "record of 2026-11-29, 812 s"
    changed = plan.judge(FUZZ, "abd", RECORD)
    assert not changed.fresh and changed.note == "inputs changed since the record of 2026-11-29"
    assert plan.judge(FUZZ, "abc", None) == Verdict(FUZZ, False, "no record", "abc")
    assert not plan.judge(FUZZ, None, RECORD).fresh


def test_a_problem_with_record_or_inputs_makes_a_stage_stale_and_is_told():
    verdict = plan.judge(FUZZ, "abc", RECORD, "cannot start git")
    assert not verdict.fresh and verdict.note == "cannot start git"


def test_fresh_stages_are_not_chosen():
    fresh = plan.judge(FUZZ, "abc", RECORD)
    assert plan.choose([fresh], set(), "0" * 40) is None
    other = stale("other")
    assert plan.choose([fresh, other], set(), "f" * 40) is other


def test_commits_choose_each_stale_stage_about_equally_often():
    stages = [stale("a"), stale("b", "2026-01-01T00:00:00Z"), stale("c")]
    # Hashes of a thousand commits: spread over all values, as hashes are.
    commits = [f"{index * 2654435761 % 2**32:08x}" + "0" * 32 for index in range(1000)]
    chosen = Counter(plan.choose(stages, set(), commit).stage.name for commit in commits)
    assert set(chosen) == {"a", "b", "c"}
    assert min(chosen.values()) > 250, chosen


def test_a_repeated_run_of_a_commit_chooses_the_same_stage_whatever_the_order():
    stages = [stale("a"), stale("b"), stale("c")]
    for commit in ("12345678" + "0" * 32, "9abcdef0" + "0" * 32):
        chosen = plan.choose(stages, set(), commit).stage.name
        assert plan.choose(stages[::-1], set(), commit).stage.name == chosen


def test_without_a_commit_the_oldest_record_comes_first_and_none_before_any():
    new, old = stale("new", "2026-02-01T00:00:00Z"), stale("old", "2026-01-01T00:00:00Z")
    assert plan.choose([new, old], set(), None) is old
    none = stale("none")
    assert plan.choose([new, old, none], set(), None) is none


def test_a_stage_that_needs_a_failed_one_is_not_chosen_and_says_so():
    verdict = stale("check", needs=("demo",))
    assert plan.choose([verdict], {"demo"}, "0" * 40) is None
    assert plan.choose([verdict], {"lint"}, "0" * 40) is verdict
    assert plan.waiting(verdict, {"demo", "lint"}).note.endswith("needs demo")


def test_a_heavy_stage_starts_before_its_second_or_not_at_all():
    assert plan.heavy_limit(FUZZ, 2399.9, BUDGET) == 1500
    assert plan.heavy_limit(FUZZ, 2400, BUDGET) == 0


def test_no_stage_goes_on_after_the_end_of_the_budget():
    test = Stage("test", "make test", limit=3600)
    assert plan.core_limit(test, 0, BUDGET) == 3600
    assert plan.core_limit(test, 5000, BUDGET) == 300
    assert plan.core_limit(test, 5400, BUDGET) == 0


def test_ci_fails_for_what_failed_and_for_a_core_stage_that_did_not_run():
    passed = Row("test", "core", Outcome.PASSED, 5)
    waiting = [Row("a", "heavy", outcome) for outcome in (Outcome.STALE, Outcome.FRESH)]
    late = Row("b", "heavy", Outcome.SKIPPED)
    assert not plan.has_failed([passed, *waiting, late])
    assert plan.has_failed([passed, Row("lint", "core", Outcome.FAILED, 1), *waiting])
    assert plan.has_failed([passed, Row("lint", "core", Outcome.SKIPPED)])
    assert plan.has_failed([passed, Row("fuzz", "heavy", Outcome.FAILED, 1)])


def test_the_table_names_every_stage_with_its_seconds():
    rows = [
        Row("test", "core", Outcome.PASSED, 1234),
        Row("fuzz", "heavy", Outcome.FRESH, note="record of 2026-11-29, 812 s"),
        Row("check-zoos", "heavy", Outcome.SKIPPED, note="no record"),
    ]
    assert plan.table(rows).splitlines() == [
        "stage       kind   outcome           seconds  note",
        "test        core   passed               1234",
        "fuzz        heavy  fresh                   -  record of 2026-11-29, 812 s",
        "check-zoos  heavy  skipped for time        -  no record",
    ]
    assert plan.core_seconds(rows) == 1234
