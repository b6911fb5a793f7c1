"""What a heavy stage depends on, as one hash: its definition and the tracked files it names."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

from stages import HeavyStage


class GitError(Exception):
    """Git could not answer; the text is what it said."""


def digest(root: Path, stage: HeavyStage) -> str:
    """SHA-256 of the stage's definition and its input files as they are in the working tree.

    A file counts with its path, its content and whether it is executable. Files that git does not
    track do not count. The time limit is left out: it says nothing about the result.
    """
    total = hashlib.sha256(definition(stage))
    for path in tracked(root, stage):
        file = root / path
        if file.is_symlink():
            kind, content = b"link", os.readlink(file).encode()
        elif file.is_file():
            kind = b"executable" if file.stat().st_mode & 0o111 else b"file"
            content = file.read_bytes()
        else:  # deleted, and the deletion is not committed yet
            continue
        total.update(b"\0".join((path.encode(), kind, hashlib.sha256(content).digest())))
    return total.hexdigest()


def definition(stage: HeavyStage) -> bytes:
    """The part of a stage's entry that decides its result."""
    fields = (stage.name, stage.command, stage.clears, stage.inputs, stage.result, stage.needs)
    return json.dumps(fields).encode()


def tracked(root: Path, stage: HeavyStage) -> list[str]:
    """Paths of the stage's input files that git tracks, sorted."""
    return _list(root, "--cached", stage.inputs)


def untracked(root: Path, stage: HeavyStage) -> list[str]:
    """Paths that would be input files if they were added to git, sorted."""
    return _list(root, "--others", stage.inputs)


def commit(root: Path) -> str | None:
    """The hash of the commit that is checked out, or nothing outside of a repository."""
    try:
        return _git(root, "rev-parse", "HEAD").strip()
    except GitError:
        return None


def _list(root: Path, which: str, pathspecs: tuple[str, ...]) -> list[str]:
    found = _git(root, "ls-files", "-z", which, "--exclude-standard", "--", *pathspecs)
    return sorted(set(filter(None, found.split("\0"))))


def _git(root: Path, *arguments: str) -> str:
    try:
        ran = subprocess.run(
            ("git", *arguments), cwd=root, capture_output=True, text=True, errors="surrogateescape"
        )
    except OSError as error:
        raise GitError(f"cannot start git: {error}") from error
    if ran.returncode != 0:
        raise GitError(f"git {arguments[0]}: {ran.stderr.strip()}")
    return ran.stdout
