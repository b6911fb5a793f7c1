"""The package as it is installed, and what the pages tell people to write."""

import re
import shlex
import subprocess
import sys
import textwrap

import pytest
import torch
from conftest import PACKAGE, ROOT, assert_same, command, dinov2, state, under

from mehl_soup.convert import allowed

STATE = state()


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """`pip install ./python`, without its dependencies and without a network."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    options = ["--no-build-isolation", "--disable-pip-version-check", "--target", str(target)]
    subprocess.run([*pip, *options, "./python"], cwd=ROOT, check=True, timeout=120)
    return target


def commands(page):
    """The commands of a page's blocks that call this package."""
    text = (ROOT / page).read_text()
    blocks = re.findall(r"^( *)```sh\n(.*?)^\1```$", text, re.M | re.S)
    lines = "\n".join(textwrap.dedent(block) for _, block in blocks).splitlines()
    found = [line.partition("  #")[0].strip() for line in lines]
    return [line for line in found if "mehl_soup" in line or "./python" in line]


def test_the_readme_step(tmp_path, installed):
    install, convert, export = commands("README.md")
    assert install == "pip install ./python"
    torch.save({"state_dict": under("module.", STATE), "epoch": 3}, tmp_path / "model.pt")
    python, *arguments = shlex.split(convert)
    assert (python, arguments[:2]) == ("python", ["-m", "mehl_soup"])
    done = command(*arguments[2:], folder=tmp_path, package=installed)
    assert (done.returncode, done.stdout) == (0, "zoo/model.safetensors\n"), done.stderr
    assert_same(tmp_path / "zoo" / "model.safetensors", STATE)
    dinov2(tmp_path / "zoo" / "run-0")
    done = command(*shlex.split(export)[3:], folder=tmp_path, package=installed)
    assert (done.returncode, done.stdout) == (0, "exported\n"), done.stderr


def test_the_commands_of_the_page_on_architectures(tmp_path, installed):
    """The first block of docs/architectures.md; its table of sources has the others."""
    _, export = commands("docs/architectures.md")
    dinov2(tmp_path / "zoo" / "run-0")
    done = command(*shlex.split(export)[3:], folder=tmp_path, package=installed)
    assert (done.returncode, done.stdout) == (0, "exported\n"), done.stderr
    assert "docs/architectures.md" in (ROOT / "README.md").read_text()


def test_the_commands_of_the_page(tmp_path, installed):
    """docs/convert.md, from its first command to its last, on files as it names them."""
    for name in ("model.pt", "run-1/last.pth.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        torch.save(
            {"state_dict": STATE, "state_dict_ema": STATE | {"ema": STATE["head.half"]}}
            if "last" in name
            else STATE,
            tmp_path / name,
        )
    (tmp_path / "run-2").mkdir()
    (tmp_path / "run-2" / "config.json").write_text("{}")
    torch.save(STATE, tmp_path / "run-2" / "pytorch_model.bin")
    written = []
    for line in commands("docs/convert.md"):
        words = shlex.split(line)
        if words[:1] == ["pip"]:
            continue
        done = command(*words[3:], folder=tmp_path, package=installed)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        written += done.stdout.splitlines()
    assert written == [
        "zoo/model.safetensors",
        "zoo/last.safetensors",
        "run-2/model.safetensors",
    ]


def test_every_allowed_global_is_on_the_page():
    page = (ROOT / "docs" / "convert.md").read_text()
    for _, path in allowed.STAND_INS:
        assert f"`{path.rsplit('.', 1)[1]}`" in page, path


def test_versions_and_types(installed):
    version = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    done = command("--version", folder=installed, package=installed)
    assert done.stdout == f"mehl-soup {version}\n"
    assert (installed / "mehl_soup" / "py.typed").is_file()
    assert not (PACKAGE / "build").exists()


def test_without_torch_it_says_what_to_install(tmp_path, monkeypatch):
    """As after `pip install --no-deps`: a folder in front of the path has a torch that is none."""
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('No module named torch')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    torch.save(STATE, tmp_path / "model.pt")
    done = command("convert", "model.pt", folder=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "No module named torch" in done.stderr and "pip install ./python" in done.stderr
    assert not (tmp_path / "model.safetensors").exists()
