"""Checkpoints as trainers write them: what is taken from each, bit for bit."""

import argparse
import pathlib

import numpy as np
import pytest
import torch
from conftest import assert_same, command, rewritten, state, under
from torch.optim.swa_utils import AveragedModel

from mehl_soup.convert import convert

STATE = state()
ARGS = argparse.Namespace(lr=1e-3, output_dir=pathlib.Path("out"), betas=(0.9, 0.95), opt=None)
OPTIMIZER = {
    "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(3, 4)}},
    "param_groups": [{"lr": 1e-3, "params": [0]}],
}
LAYOUTS = {
    "plain": (STATE, "."),
    "timm": (
        {
            "epoch": 1,
            "arch": "vit_tiny",
            "state_dict": STATE,
            "optimizer": OPTIMIZER,
            "args": ARGS,
            "version": 2,
            "amp_scaler": {"scale": 65536.0, "_growth_tracker": 3},
            "metric": np.float64(81.2),
        },
        "state_dict",
    ),
    "deit": (
        {"model": STATE, "optimizer": OPTIMIZER, "lr_scheduler": {}, "epoch": 3, "args": ARGS},
        "model",
    ),
    "mae": (
        {"model": STATE, "optimizer": OPTIMIZER, "epoch": 3, "scaler": {}, "args": ARGS},
        "model",
    ),
    "nested": (
        {"model": {"state_dict": STATE, "step": 3}, "step": torch.tensor(3)},
        "model.state_dict",
    ),
    "ema_beside_decay": ({"ema": {"module": STATE, "decay": torch.tensor(0.999)}}, "ema.module"),
    "evaluation": (
        {
            "model_state_dict": STATE,
            "accuracy": np.float32(0.5),
            "epoch": np.int64(3),
            "confusion": np.eye(3),
            "names": np.array(["cat", "dog"]),
            "device": torch.device("cpu"),
            "dtype": torch.bfloat16,
        },
        "model_state_dict",
    ),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before-1.6"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_trainers(tmp_path, name, zipped):
    checkpoint, key = LAYOUTS[name]
    file = tmp_path / f"{name}.pth.tar"
    torch.save(checkpoint, file, _use_new_zipfile_serialization=zipped)
    (done,) = convert(file)
    assert done.output == tmp_path / f"{name}.safetensors"
    assert done.key == key and not done.prefix and not done.dropped
    # What torch itself loads of it, here where the file is trusted.
    trusted = torch.load(file, weights_only=False)
    for part in key.split(".") if key != "." else ():
        trusted = trusted[part]
    assert_same(done.output, trusted)


def test_timm_with_its_own_saver(tmp_path):
    timm = pytest.importorskip("timm")
    utils = pytest.importorskip("timm.utils")
    model = timm.create_model("resnet10t", num_classes=3)
    optimizer = torch.optim.AdamW(model.parameters())
    args = argparse.Namespace(model="resnet10t", lr=1e-3)
    saver = utils.CheckpointSaver(
        model, optimizer, args=args, checkpoint_dir=str(tmp_path), recovery_dir=str(tmp_path)
    )
    saver.save_checkpoint(0, metric=0.5)
    (done,) = convert(tmp_path / "last.pth.tar")
    assert done.key == "state_dict" and done.output.name == "last.safetensors"
    assert_same(done.output, model.state_dict())


# Where Lightning has had its AttributeDict; whole trainings with 2.6.6 name the last two.
LIGHTNING = (
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
)


@pytest.mark.parametrize("path", LIGHTNING)
def test_lightning_without_lightning(tmp_path, class_at, path):
    attributes = class_at(path, dict)
    torch.save(
        {
            "epoch": 2,
            "global_step": 20,
            "pytorch-lightning_version": "2.6.6",
            "state_dict": under("model.", STATE),
            "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"current": {"ready": 3}}}},
            "callbacks": {
                "ModelCheckpoint{'monitor': 'val_loss'}": {
                    "best_model_score": torch.tensor(0.3),
                    "best_k_models": {"a.ckpt": torch.tensor(0.3)},
                    "dirpath": pathlib.Path("checkpoints"),
                }
            },
            "optimizer_states": [OPTIMIZER],
            "lr_schedulers": [{"last_epoch": 2}],
            "hparams_name": "kwargs",
            "hyper_parameters": {"lr": 1e-3, "model": attributes(depth=2, width=attributes())},
        },
        tmp_path / "epoch=2.ckpt",
    )
    class_at.forget()
    if path != LIGHTNING[-1]:
        (done,) = convert(tmp_path / "epoch=2.ckpt")
        assert (done.key, done.prefix) == ("state_dict", "model.")
    else:
        # In a process that has never seen such a class.
        done = command("convert", "epoch=2.ckpt", folder=tmp_path)
        assert done.returncode == 0 and done.stdout == "epoch=2.safetensors\n"
        assert "key state_dict, 6 tensors" in done.stderr
        assert "removed from all names: model. (keep it with --keep-prefix)" in done.stderr
        assert "hyper_parameters (mapping of 2)" in done.stderr
    assert_same(tmp_path / "epoch=2.safetensors", STATE)


def test_fabric_saves_its_state_as_attributes(tmp_path, class_at):
    attributes = class_at("lightning_fabric.utilities.data.AttributeDict", dict)
    torch.save(attributes(model=STATE, iter_num=3), tmp_path / "fabric.ckpt")
    class_at.forget()
    (done,) = convert(tmp_path / "fabric.ckpt")
    assert done.key == "model" and done.beside == ("iter_num (int)",)
    assert_same(done.output, STATE)


def test_callbacks_of_early_lightning(tmp_path, class_at):
    callback = class_at("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint")
    saved = {"state_dict": STATE, "callbacks": {callback: {"best_model_score": torch.tensor(1.0)}}}
    torch.save(saved, tmp_path / "early.ckpt")
    class_at.forget()
    assert_same(convert(tmp_path / "early.ckpt")[0].output, STATE)


@pytest.mark.parametrize(
    "path",
    [
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "pathlib._local.PosixPath",
        "pathlib.WindowsPath",
    ],
)
def test_names_of_other_versions_and_systems(tmp_path, path):
    """A pickle in which a path has the name that it has elsewhere."""
    torch.save({"model": STATE, "output": pathlib.PosixPath("a/b")}, tmp_path / "here.pt")
    here = type(pathlib.PosixPath()).__module__
    old, new = f"c{here}\nPosixPath\n", "c{}\n{}\n".format(*path.rsplit(".", 1))
    rewritten(tmp_path / "here.pt", lambda text: text.replace(old.encode(), new.encode()))
    assert_same(convert(tmp_path / "here.pt")[0].output, STATE)


def test_weights_of_an_average(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    torch.save(AveragedModel(model).state_dict(), tmp_path / "swa.pt")
    (done,) = convert(tmp_path / "swa.pt")
    assert done.prefix == "module." and done.dropped == ("n_averaged",)
    assert_same(done.output, model.state_dict())


def test_a_compiled_model_within_ddp(tmp_path):
    model = torch.nn.Linear(3, 2)
    wrapped = torch.nn.ModuleDict({"module": torch.compile(model, backend="eager")})
    assert list(wrapped.state_dict()) == ["module._orig_mod.weight", "module._orig_mod.bias"]
    torch.save(wrapped.state_dict(), tmp_path / "ddp.pt")
    (done,) = convert(tmp_path / "ddp.pt")
    assert done.prefix == "module._orig_mod."
    assert_same(done.output, model.state_dict())
