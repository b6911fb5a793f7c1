"""Folders of Hugging Face: one pickle or several, with a config.json beside them."""

import json

import pytest
import torch
from conftest import assert_same, state, under

from mehl_soup.convert import InputError, convert

STATE = under("model.", state())
PARTS = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run-2").mkdir()
    (tmp_path / "run-2" / "config.json").write_text("{}")
    return tmp_path / "run-2"


@pytest.fixture
def sharded(folder):
    names = list(STATE)
    weight_map = {name: PARTS[index >= 3] for index, name in enumerate(names)}
    for part in PARTS:
        tensors = {name: STATE[name] for name in names if weight_map[name] == part}
        torch.save(tensors, folder / part)
    write_index(folder, weight_map)
    return folder


def write_index(folder, weight_map):
    index = {"metadata": {"total_size": 3}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("given", ["", "pytorch_model.bin"])
def test_a_folder_gets_the_name_that_libraries_look_for(folder, given):
    torch.save(STATE, folder / "pytorch_model.bin")
    (done,) = convert(folder / given)
    assert done.output == folder / "model.safetensors"
    # The names are the library's, so `model.` is no wrapper.
    assert done.prefix == ""
    assert_same(done.output, STATE)
    assert (folder / "config.json").read_text() == "{}"


def test_wrappers_of_training_are_none_of_the_library(folder):
    torch.save(under("module._orig_mod.", STATE), folder / "pytorch_model.bin")
    (done,) = convert(folder)
    assert done.prefix == "module._orig_mod."
    assert_same(done.output, STATE)


def test_other_names_stay(folder, tmp_path):
    for name in ("pytorch_model.bin", "best.bin"):
        torch.save(STATE, folder / name)
    assert convert(folder / "best.bin")[0].output == folder / "best.safetensors"
    (done,) = convert(folder / "pytorch_model.bin", out=tmp_path / "zoo")
    assert done.output == tmp_path / "zoo" / "pytorch_model.safetensors"
    (folder / "config.json").unlink()
    (done,) = convert(folder / "pytorch_model.bin")
    assert done.output == folder / "pytorch_model.safetensors"


@pytest.mark.parametrize("given", ["", "pytorch_model.bin.index.json"])
def test_a_model_in_parts(sharded, given):
    (done,) = convert(sharded / given)
    assert done.output == sharded / "model.safetensors" and done.names == tuple(STATE)
    assert_same(done.output, STATE)


def test_a_tied_weight_outside_of_the_index(sharded):
    part = torch.load(sharded / PARTS[1], weights_only=True)
    torch.save({**part, "tied": torch.ones(2)}, sharded / PARTS[1])
    (done,) = convert(sharded)
    assert done.dropped == (f"tied (not in the index as of {PARTS[1]})",)
    assert_same(done.output, STATE)


def test_one_part_alone(sharded):
    with pytest.raises(InputError, match="one part of a sharded model; give its folder"):
        convert(sharded / PARTS[0])


def test_parts_that_lack_something(sharded):
    names = list(STATE)
    write_index(sharded, {**dict.fromkeys(names[:3], PARTS[0]), "gone": PARTS[1]})
    with pytest.raises(InputError, match="gone: listed in the index, but missing in"):
        convert(sharded)
    (sharded / PARTS[1]).unlink()
    with pytest.raises(InputError, match=rf"{PARTS[1]}: not found"):
        convert(sharded)


@pytest.mark.parametrize(
    "index",
    [
        *("", "{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": []}', "[" * 100_000),
        *('{"weight_map": {"a": 3}}', '{"weight_map": {"a": "../other.bin"}}'),
        *('{"weight_map": {"a": ".."}}', '{"weight_map": {"a": "/etc/passwd"}}'),
    ],
    ids=lambda index: index[:30],
)
def test_an_index_that_is_none(sharded, index):
    (sharded / "pytorch_model.bin.index.json").write_text(index)
    with pytest.raises(InputError, match=r"index\.json: expected the index of a model in parts"):
        convert(sharded)


def test_folders_that_are_not_plain(folder, sharded, tmp_path):
    with pytest.raises(
        InputError, match=r"--out would separate the weights from their config\.json"
    ):
        convert(folder, out=tmp_path / "zoo")
    with pytest.raises(InputError, match="--key cannot be used with a sharded model"):
        convert(folder, key="model")
    torch.save(STATE, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="give the one to convert"):
        convert(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"expected pytorch_model\.bin or .* found neither"):
        convert(tmp_path / "empty")
    with pytest.raises(InputError, match=r"none\.bin\.index\.json: not found"):
        convert(folder / "none.bin.index.json")


@pytest.mark.filterwarnings("ignore")
def test_transformers_loads_the_result(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    config.image_size = 32
    model = transformers.ViTForImageClassification(config).eval()
    config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (done,) = convert(tmp_path)
    assert_same(done.output, model.state_dict())
    (tmp_path / "pytorch_model.bin").unlink()
    loaded = transformers.ViTForImageClassification.from_pretrained(tmp_path).eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(images).logits, model(images).logits)
