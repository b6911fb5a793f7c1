"""How results are written: bits, memory, names of files, and whole or not at all."""

import os
import stat

import pytest
import torch
from conftest import assert_same, command, state
from safetensors import safe_open

from mehl_soup.convert import InputError, convert, writing

STATE = state()


def test_tied_weights_and_views(tmp_path):
    weight = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = {
        "embedding": weight,
        "head": weight,
        "transposed": weight.t(),
        "rows": weight[1:3],
        "columns": weight[:, ::2],
        "expanded": torch.ones(1).expand(5),
        "alone": torch.randn(6, 4).t(),
        "empty": torch.ones(0, 3),
        "also_empty": torch.ones(0, 3),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "conjugate": torch.randn(3, dtype=torch.complex64).conj(),
    }
    torch.save(tensors, tmp_path / "tied.pt")
    (done,) = convert(tmp_path / "tied.pt")
    assert done.shared == ("head", "transposed", "rows", "columns")
    assert_same(done.output, {**tensors, "conjugate": tensors["conjugate"].resolve_conj()})


@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64),
        *(torch.float8_e4m3fn, torch.float8_e5m2, torch.bool),
        *(torch.int64, torch.int32, torch.int16, torch.int8),
        *(torch.uint64, torch.uint32, torch.uint16, torch.uint8),
    ],
    ids=str,
)
def test_types_keep_their_bits(tmp_path, dtype):
    tensors = {"a": torch.tensor([0.0, 1.0, 3.0, -0.0]).to(dtype), "b": torch.ones(2, 2).to(dtype)}
    torch.save(tensors, tmp_path / "typed.pt")
    assert_same(convert(tmp_path / "typed.pt")[0].output, tensors)


def test_bits_of_odd_floats_stay(tmp_path):
    odd = torch.tensor([0x7FC00001, 0x7F800001, -1, 1, -(2**31)], dtype=torch.int32)
    tensors = {"odd": odd.view(torch.float32), "odd_half": odd.clone().view(torch.bfloat16)}
    torch.save(tensors, tmp_path / "odd.pt")
    assert_same(convert(tmp_path / "odd.pt")[0].output, tensors)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: torch.eye(3).to_sparse(), "odd (sparse)"),
        (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "odd (quantised)"),
        (lambda: torch.ones(2, device="meta"), "odd (without values, on the device meta)"),
        (lambda: torch.ones(2, dtype=torch.complex128), "odd (complex128)"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_the_format_cannot_hold(tmp_path, make, says):
    torch.save({"model": {**STATE, "odd": make()}}, tmp_path / "odd.pt")
    with pytest.raises(InputError, match="safetensors cannot hold") as error:
        convert(tmp_path / "odd.pt")
    assert says in str(error.value) and str(tmp_path / "odd.pt") in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["odd.pt"]


def test_the_file_says_what_it_was_made_for_and_is_the_same_each_time(tmp_path):
    torch.save(STATE, tmp_path / "a.pt")
    torch.save(dict(reversed(STATE.items())), tmp_path / "b.pt")
    first, second = convert([tmp_path / "a.pt", tmp_path / "b.pt"])
    with safe_open(first.output, "pt") as opened:
        assert opened.metadata() == {"format": "pt"}
    assert first.output.read_bytes() == second.output.read_bytes()
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(first.output.stat().st_mode) == 0o666 & ~mask


def test_results_are_replaced_only_when_asked(tmp_path):
    torch.save(STATE, tmp_path / "a.pt")
    torch.save(STATE, tmp_path / "b.pt")
    (tmp_path / "b.safetensors").write_text("precious")
    with pytest.raises(
        InputError, match=r"b\.safetensors: already exists; replace it with --overwrite"
    ):
        convert([tmp_path / "a.pt", tmp_path / "b.pt"])
    assert not (tmp_path / "a.safetensors").exists()
    assert (tmp_path / "b.safetensors").read_text() == "precious"
    convert(tmp_path / "b.pt", overwrite=True)
    assert_same(tmp_path / "b.safetensors", STATE)


def test_two_results_of_one_name(tmp_path):
    for name in ("a/model.pt", "b/model.pth"):
        (tmp_path / name).parent.mkdir()
        torch.save(STATE, tmp_path / name)
    done = command("convert", "a/model.pt", "b/model.pth", "--out", "zoo", folder=tmp_path)
    assert done.returncode == 2 and not done.stdout and not (tmp_path / "zoo").exists()
    assert "both would be written as zoo/model.safetensors" in done.stderr
    assert "into different folders, or rename one" in done.stderr


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    torch.save(STATE, tmp_path / "a.pt")
    (tmp_path / "a.safetensors").write_text("before")

    def full(_tensors, file, metadata):
        file.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        convert(tmp_path / "a.pt", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "a.safetensors"]
    assert (tmp_path / "a.safetensors").read_text() == "before"


def test_the_folder_for_results(tmp_path):
    torch.save(STATE, tmp_path / "last.pth.tar")
    (done,) = convert(tmp_path / "last.pth.tar", out=tmp_path / "new" / "zoo")
    assert done.output == tmp_path / "new" / "zoo" / "last.safetensors"
    assert_same(done.output, STATE)
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError, match="--out: expected a folder"):
        convert(tmp_path / "last.pth.tar", out=tmp_path / "taken")
    (tmp_path / "last.safetensors").mkdir()
    with pytest.raises(InputError, match="the output path is a folder"):
        convert(tmp_path / "last.pth.tar", overwrite=True)
