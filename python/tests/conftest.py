"""Checkpoints for the tests, and the command as users start it."""

import os
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parent
sys.path.insert(0, str(PACKAGE))


def command(*arguments, folder, package=PACKAGE):
    """`python -m mehl_soup`, started in a folder."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    inherited = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join([str(package), *([inherited] if inherited else [])])
    return subprocess.run(
        [sys.executable, "-m", "mehl_soup", *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def state(seed=0):
    """A small state dict of several types."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, 4, generator=generator)
    return {
        "blocks.0.weight": weight,
        "blocks.0.bias": weight[:, 0].contiguous().bfloat16(),
        "head.weight": weight.double() * 3,
        "head.steps": torch.tensor(7),
        "head.mask": torch.tensor([True, False]),
        "head.half": weight.half(),
    }


def under(prefix, tensors):
    return {prefix + name: tensor for name, tensor in tensors.items()}


def assert_same(file, tensors):
    """The file has these tensors and no others: types, shapes and bits."""
    loaded = load_file(file)
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        found = loaded[name]
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape), name
        assert bits(found) == bits(tensor), name


def bits(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.fixture
def class_at():
    """Makes a class under the name of a package that need not be installed, until `forget`."""
    with pytest.MonkeyPatch.context() as patch:

        def make(path, base=object):
            module, name = path.rsplit(".", 1)
            parts = module.split(".")
            for length in range(1, len(parts) + 1):
                package = ".".join(parts[:length])
                if package not in sys.modules:
                    patch.setitem(sys.modules, package, types.ModuleType(package))
            made = type(name, (base,), {"__module__": module, "__qualname__": name})
            patch.setattr(sys.modules[module], name, made, raising=False)
            return made

        make.forget = patch.undo
        yield make


def rewritten(file, change):
    """Applies a function to the pickle of a checkpoint, and leaves the rest as it is."""
    with zipfile.ZipFile(file) as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(file, "w") as archive:
        for entry, content in entries:
            pickled = entry.filename.endswith("/data.pkl")
            changed = change(content) if pickled else content
            assert not pickled or changed != content
            archive.writestr(entry, changed)


CLASS_NAMES = ["cat", "dog", "owl"]


def labelled(config):
    """The configuration with names of classes."""
    config.id2label = dict(enumerate(CLASS_NAMES))
    config.label2id = {name: i for i, name in enumerate(CLASS_NAMES)}
    return config


def dinov2(folder):
    """A miniature model whose names in memory and on disk differ, as transformers saves it."""
    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=32,
        patch_size=8,
    )
    transformers.Dinov2ForImageClassification(labelled(config)).save_pretrained(folder)
    return folder
