"""The hash of a heavy stage's inputs."""

import dataclasses
import os

import inputs
import pytest
from stages import HeavyStage

STAGE = HeavyStage("s", "make s", limit=60, inputs=("code/", ":!code/b.py"), result="^ok")


def test_only_tracked_input_files_count(repository):
    before = inputs.digest(repository.root, STAGE)
    assert inputs.tracked(repository.root, STAGE) == ["code/a.py"]
    repository.write("code/b.py", "excluded")
    repository.write("docs/page.md", "not named")
    repository.write("code/new.py", "not tracked")
    assert inputs.digest(repository.root, STAGE) == before
    assert inputs.untracked(repository.root, STAGE) == ["code/new.py"]


def test_content_path_and_mode_of_an_input_change_the_hash(repository):
    seen = {inputs.digest(repository.root, STAGE)}
    repository.write("code/a.py", "changed")
    seen.add(inputs.digest(repository.root, STAGE))
    os.chmod(repository.root / "code/a.py", 0o755)
    seen.add(inputs.digest(repository.root, STAGE))
    repository.git("mv", "code/a.py", "code/c.py")
    seen.add(inputs.digest(repository.root, STAGE))
    (repository.root / "code/c.py").unlink()
    seen.add(inputs.digest(repository.root, STAGE))
    assert len(seen) == 5


def test_a_commit_does_not_change_the_hash(repository):
    repository.write("code/a.py", "changed")
    before = inputs.digest(repository.root, STAGE)
    repository.commit()
    assert inputs.digest(repository.root, STAGE) == before
    (repository.root / "code/a.py").unlink()
    before = inputs.digest(repository.root, STAGE)
    repository.commit()
    assert inputs.digest(repository.root, STAGE) == before


@pytest.mark.parametrize(
    "change",
    [
        {"name": "t"},
        {"command": "true"},
        {"inputs": ("code/a.py",)},  # the same files
        {"result": "."},
        {"clears": ("target/s",)},
        {"needs": ("demo",)},
    ],
)
def test_every_part_of_the_definition_changes_the_hash(repository, change):
    other = dataclasses.replace(STAGE, **change)
    assert inputs.digest(repository.root, other) != inputs.digest(repository.root, STAGE)


def test_the_limit_does_not_change_the_hash(repository):
    other = dataclasses.replace(STAGE, limit=61)
    assert inputs.digest(repository.root, other) == inputs.digest(repository.root, STAGE)


def test_the_fields_of_a_stage_are_all_hashed_but_the_limit():
    fields = {field.name for field in dataclasses.fields(HeavyStage)}
    assert fields == {"name", "command", "clears", "inputs", "result", "needs", "limit"}


def test_outside_of_a_repository_git_is_quoted(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(inputs.GitError, match="ls-files: .*not a git repository"):
        inputs.digest(tmp_path, STAGE)
    assert inputs.commit(tmp_path) is None
