"""The real stages and the records of this repository."""

import dataclasses
import re

import inputs
import pytest
import records
from conftest import ROOT
from stages import BUDGET, CORE, HEAVY

heavy = pytest.mark.parametrize("stage", HEAVY, ids=lambda stage: stage.name)


def test_names_are_unique():
    names = [stage.name for stage in (*CORE, *HEAVY)]
    assert len(set(names)) == len(names)


def test_every_target_of_make_that_a_stage_calls_is_there():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for stage in (*CORE, *HEAVY):
        program, *words = stage.command.split()
        if program == "make":
            called = [word for word in words if "=" not in word]
            assert called and set(called) <= targets, stage.command


def test_a_heavy_stage_that_starts_in_time_has_its_whole_limit():
    for stage in HEAVY:
        assert BUDGET.heavy_start + stage.limit <= BUDGET.total, stage.name


def test_only_build_results_are_removed():
    for stage in (*CORE, *HEAVY):
        for folder in stage.clears:
            assert re.fullmatch(r"target(/[a-z-]+)+", folder), folder


@heavy
def test_every_pathspec_of_a_stage_names_a_tracked_file(stage):
    for pathspec in stage.inputs:
        alone = dataclasses.replace(stage, inputs=(pathspec.removeprefix(":!"),))
        assert inputs.tracked(ROOT, alone), f"{pathspec} names no file: mend it, or remove it"


@heavy
def test_every_script_of_a_stage_is_among_its_inputs(stage):
    """The scripts that its recipe calls, and those that they call in turn."""
    files = set(inputs.tracked(ROOT, stage))
    makefile = (ROOT / "Makefile").read_text()
    (target,) = [word for word in stage.command.split()[1:] if "=" not in word]
    head, recipe = re.search(rf"^{target}:([^#\n]*)##.*\n((?:\t.*\n)+)", makefile, re.M).groups()
    wanted = set(re.findall(r"(?:scripts|experiments|workers)/[\w/.-]+", recipe))
    wanted |= {f"scripts/{name}.sh" for name in head.split() if name.startswith("setup")}
    for script in [path for path in wanted if path.endswith(".sh")]:
        wanted |= set(re.findall(r"scripts/[\w-]+\.sh", (ROOT / script).read_text()))
    # What the recipe of `make experiments` uses only without QUICK.
    wanted -= {"experiments/report.py", "scripts/setup-python-check.sh"} - files
    for path in wanted:
        assert path in files or any(file.startswith(f"{path}/") for file in files), path


def test_modules_that_the_fuzzed_readers_use_are_among_the_inputs():
    (fuzz,) = [stage for stage in HEAVY if stage.name == "fuzz"]
    files = [path for path in inputs.tracked(ROOT, fuzz) if path.startswith("src/")]
    assert "src/fuzzing.rs" in files
    for path in files:
        text = (ROOT / path).read_text()
        assert "crate::{" not in text, f"{path}: this test does not read groups of modules"
        for used in re.findall(r"\bcrate::(\w+)(?:::(\w+))?", text):
            candidates = [f"src/{used[0]}.rs", f"src/{used[0]}/mod.rs", f"src/{'/'.join(used)}.rs"]
            assert any(candidate in files for candidate in candidates), f"{path}: {used}"


def test_every_record_is_readable_and_of_a_stage():
    names = {stage.name for stage in HEAVY}
    for file in (ROOT / records.FOLDER).glob("*"):
        assert file.suffix == ".json" and file.stem in names, file
        record = records.read(ROOT, file.stem)
        assert re.fullmatch(r"[0-9a-f]{64}", record.hash), file
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", record.date), file
        assert record.seconds > 0 and record.result, file
