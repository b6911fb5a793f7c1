"""Files that are refused: pickles that need more than tensors, and what is no checkpoint."""

import argparse
import gzip
import io
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections import OrderedDict

import pytest
import torch
from conftest import PACKAGE, command, rewritten, state
from safetensors.torch import save_file

from mehl_soup.convert import InputError, convert
from mehl_soup.convert.loading import load

STATE = state()


class Attack:
    """What a hostile author saves."""

    def __reduce__(self):
        return (os.system, ("touch ran",))


class Sneaky:
    def __reduce__(self):
        return (print, ("ran",))


def refused(file):
    with pytest.raises(InputError) as error:
        convert(file)
    message = str(error.value)
    assert message.startswith(f"{file}: ") and "\n" not in message
    assert not file.with_name(f"{file.stem}.safetensors").exists()
    return message


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before-1.6"])
@pytest.mark.parametrize(
    ("saved", "named"),
    [
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        ({"model": torch.nn.Linear(2, 2)}, "torch.nn.modules.linear.Linear"),
        ({"state_dict": STATE, "x": Attack()}, f"{os.system.__module__}.system"),
        ({"state_dict": STATE, "x": Sneaky()}, "print"),
    ],
)
def test_a_pickle_that_needs_more_than_tensors(tmp_path, monkeypatch, capsys, saved, named, zipped):
    monkeypatch.chdir(tmp_path)
    torch.save(saved, tmp_path / "file.pt", _use_new_zipfile_serialization=zipped)
    message = refused(tmp_path / "file.pt")
    assert f"contains {named} besides tensors" in message
    assert "Pickles can run code" in message and "`model.state_dict()`" in message
    assert [path.name for path in tmp_path.iterdir()] == ["file.pt"]
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    "path", ["builtins.eval", "argparse._sys", "omegaconf.dictconfig.DictConfig", "torch.load"]
)
def test_other_globals_of_packages_with_allowed_ones(tmp_path, path):
    torch.save({"model": STATE, "odd": OrderedDict}, tmp_path / "file.pt")
    module, name = path.rsplit(".", 1)
    new = f"c{module}\n{name}\n".encode()
    rewritten(tmp_path / "file.pt", lambda text: text.replace(b"ccollections\nOrderedDict\n", new))
    assert f"contains {path.removeprefix('builtins.')} besides tensors" in refused(
        tmp_path / "file.pt"
    )


def test_a_stand_in_is_never_what_the_file_wants(tmp_path):
    """Whatever a pickle does with an allowed global, nothing of the kind is made or imported."""
    torch.save({"model": STATE, "args": argparse.Namespace(a=1)}, tmp_path / "file.pt")
    loaded = load(tmp_path / "file.pt")["args"]
    assert not isinstance(loaded, argparse.Namespace) and not vars(loaded)
    # Nor does it stay allowed for other code of the process.
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "file.pt", weights_only=True)


def test_another_protocol(tmp_path):
    torch.save(STATE, tmp_path / "file.pt", pickle_protocol=4)
    assert "another protocol than torch.save writes" in refused(tmp_path / "file.pt")


def zip_of(names):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return made.getvalue()


def tar_of(names):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return made.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "found an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a git-lfs pointer"),
        (b"<!DOCTYPE html><html>Not found</html>", "an HTML page"),
        (b"\r\n <html><body>Sign in</body></html>", "an HTML page"),
        (gzip.compress(b"x"), "gzip-compressed data: unpack it first"),
        (tar_of(["sys_info", "pickle", "storages", "tensors"]), "the first format of PyTorch"),
        (zip_of(["readme.txt"]), "another zip archive"),
        (zip_of(["m/constants.pkl", "m/data.pkl", "m/code/m.py"]), "a TorchScript program"),
        (pickle.dumps({"model": 3}), "a pickle not written by torch.save"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"just some text", "a file that begins with b'just some text'"),
        (b"\x00" * 600, "a file that begins with"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_checkpoint(tmp_path, content, says):
    (tmp_path / "file.pt").write_bytes(content)
    message = refused(tmp_path / "file.pt")
    assert "expected a checkpoint written by torch.save, found " in message and says in message


@pytest.mark.parametrize("tensors", [STATE, {f"{index}": torch.ones(1) for index in range(99)}])
def test_safetensors_need_no_conversion(tmp_path, tensors):
    save_file(tensors, tmp_path / "file.pt")
    assert "a safetensors file: it needs no conversion" in refused(tmp_path / "file.pt")
    (tmp_path / "file.pt").rename(tmp_path / "file.safetensors")
    with pytest.raises(InputError, match="A safetensors file needs no conversion"):
        convert(tmp_path / "file.safetensors", overwrite=True)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before-1.6"])
def test_files_that_were_cut(tmp_path, zipped):
    torch.save(STATE, tmp_path / "whole.pt", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "whole.pt").read_bytes()
    for length in (20, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "file.pt").write_bytes(whole[:length])
        message = refused(tmp_path / "file.pt")
        assert "a truncated zip archive" in message or "damaged or incomplete" in message


def test_a_damaged_pickle(tmp_path):
    torch.save({"model": STATE}, tmp_path / "file.pt")
    rewritten(tmp_path / "file.pt", lambda text: text[:-1])
    assert "damaged or incomplete" in refused(tmp_path / "file.pt")


def test_what_is_not_there_or_no_file(tmp_path):
    assert "not found" in refused(tmp_path / "none.pt")
    os.mkfifo(tmp_path / "pipe.pt")
    assert "expected a file, found something else" in refused(tmp_path / "pipe.pt")


def test_exit_codes_and_streams(tmp_path):
    torch.save(STATE, tmp_path / "good.pt")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "bad.pt")
    done = command("convert", "bad.pt", "good.pt", "--out", "zoo", folder=tmp_path)
    assert done.returncode == 2 and done.stdout == "zoo/good.safetensors\n"
    assert done.stderr.startswith(
        "convert: error: bad.pt: the checkpoint contains torch.nn.modules."
    )
    assert "convert: good.pt: the checkpoint itself, 6 tensors" in done.stderr
    (tmp_path / "in-the-way").write_text("")
    done = command("convert", "good.pt", "--out", "in-the-way/zoo", folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "") and "in-the-way/zoo" in done.stderr
    assert "Traceback" not in done.stderr
    for wrong in ([], ["convert"], ["convert", "--nonsense", "good.pt"], ["unknown"]):
        done = command(*wrong, folder=tmp_path)
        assert (done.returncode, done.stdout) == (2, "") and "usage:" in done.stderr


def test_help_does_not_wait_for_torch(tmp_path):
    done = command("convert", "--help", folder=tmp_path)
    assert done.returncode == 0 and "pickles can run code" in done.stdout
    listing = "import sys, mehl_soup.command, mehl_soup.convert; assert 'torch' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    subprocess.run([sys.executable, "-c", listing], check=True, cwd=tmp_path, env=environment)
