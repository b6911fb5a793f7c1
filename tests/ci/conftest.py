"""What the tests share: the modules of `scripts/ci`, and a small repository."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "ci"))


class Repository:
    """A git repository with one commit, whose files a test may change."""

    def __init__(self, root):
        self.root = root
        self.git("init", "-q")
        self.write("code/a.py", "a")
        self.write("code/b.py", "b")
        self.write("docs/page.md", "page")
        self.commit()

    def git(self, *arguments):
        identity = ("-c", "user.name=tests", "-c", "user.email=tests@localhost")
        subprocess.run(("git", *identity, *arguments), cwd=self.root, check=True)

    def write(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def commit(self):
        self.git("add", "--all")
        self.git("commit", "-q", "-m", "Change")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    # Hooks of git set it; it would name the wrong repository.
    for variable in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(variable, raising=False)
    return Repository(tmp_path)
