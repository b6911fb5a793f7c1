"""Which model of a checkpoint is taken, and what is said where that is not plain."""

import pytest
import torch
from conftest import assert_same, state

from mehl_soup.convert import InputError, convert

STATE, OTHER = state(), state(seed=1)


def refused(tmp_path, checkpoint, **options):
    torch.save(checkpoint, tmp_path / "file.pt")
    with pytest.raises(InputError) as error:
        convert(tmp_path / "file.pt", **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.pt"]
    assert str(error.value).startswith(str(tmp_path / "file.pt"))
    return str(error.value)


@pytest.mark.parametrize(
    ("checkpoint", "keys"),
    [
        ({"state_dict": STATE, "state_dict_ema": OTHER}, ["state_dict", "state_dict_ema"]),
        ({"student": STATE, "teacher": OTHER, "epoch": 3}, ["student", "teacher"]),
        ({"model": STATE, "ema": {"module": OTHER}}, ["model", "ema.module"]),
        ({"head.weight": torch.ones(2), "model": STATE}, [".", "model"]),
    ],
)
def test_one_of_several_has_to_be_chosen(tmp_path, checkpoint, keys):
    message = refused(tmp_path, checkpoint)
    assert "contains 2 models: " in message and f"--key {keys[0]}" in message
    for key in keys:
        assert f"{key} (1 tensor)" in message or f"{key} (6 tensors)" in message
        (done,) = convert(tmp_path / "file.pt", key=key, overwrite=True)
        taken = checkpoint
        for part in key.split(".") if key != "." else ():
            taken = taken[part]
        tensors = {name: value for name, value in taken.items() if not isinstance(value, dict)}
        assert done.key == key and not done.prefix
        assert_same(done.output, tensors)


def test_one_model_at_two_keys_is_one(tmp_path):
    torch.save({"model": STATE, "state_dict": STATE}, tmp_path / "file.pt")
    assert_same(convert(tmp_path / "file.pt")[0].output, STATE)


def test_keys_that_nobody_knows_have_to_be_named(tmp_path):
    checkpoint = {"generator": STATE, "critic.main": OTHER, "step": torch.tensor(3)}
    message = refused(tmp_path, checkpoint)
    assert "generator (6 tensors), critic.main (6 tensors)" in message and "--key" in message
    (done,) = convert(tmp_path / "file.pt", key="critic.main")
    assert done.beside == ("generator (6 tensors)", "step (tensor)")
    assert_same(done.output, OTHER)


def test_a_key_that_is_not_there(tmp_path):
    message = refused(tmp_path, {"model": STATE, "epoch": 3}, key="modle")
    assert "--key modle: no such key; the checkpoint has model (6 tensors)" in message
    message = refused(tmp_path, {"model": STATE, "epoch": 3}, key="epoch")
    assert "--key epoch: no mapping of tensors, but int; the checkpoint has model" in message
    assert "the checkpoint has no mapping of tensors" in refused(tmp_path, {"epoch": 3}, key="a.b")


def test_what_is_not_a_tensor_is_told(tmp_path):
    mixed = {**STATE, "version": "1.0", "extra": None, 3: torch.ones(2), "inner": OTHER}
    torch.save({"model": mixed, "epoch": 4}, tmp_path / "file.pt")
    (done,) = convert(tmp_path / "file.pt")
    assert done.dropped == (
        "version (str)",
        "extra (NoneType)",
        "3 (tensor)",
        "inner (6 tensors)",
    )
    assert done.beside == ("epoch (int)",)
    assert_same(done.output, STATE)


OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}


@pytest.mark.parametrize(
    ("checkpoint", "says"),
    [
        ({}, "it has nothing at all"),
        ({"model": {}}, "it has model"),
        ({"epoch": 3, "lr": 0.1}, "it has epoch, lr"),
        (OPTIMIZER, "the state of an optimizer, not a model"),
        ({"optimizer": OPTIMIZER, "epoch": 2}, "it has optimizer, epoch"),
        ([torch.ones(2)], "expected a mapping of names to tensors, found list of 1"),
        (torch.ones(2), "found tensor"),
    ],
)
def test_checkpoints_without_a_model(tmp_path, checkpoint, says):
    assert says in refused(tmp_path, checkpoint)


def test_a_mapping_that_holds_itself(tmp_path):
    checkpoint = {"model": STATE}
    checkpoint["checkpoint"] = checkpoint
    torch.save(checkpoint, tmp_path / "file.pt")
    assert_same(convert(tmp_path / "file.pt")[0].output, STATE)


def test_names_cannot_command_a_terminal(tmp_path):
    message = refused(tmp_path, {"\x1b[2Jodd" + "x" * 1000: 3})
    assert "\x1b" not in message and "\\x1b[2Jodd" in message and len(message) < 1000
