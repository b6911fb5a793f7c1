"""Which tensor on disk becomes which tensor of the module: read off the library's own loading.

A copy of the ingredient whose tensors hold random values is loaded. What then stands in memory
tells where it came from, whatever the library renames on the way.
"""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from blake3 import blake3
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mehl_soup.errors import InputError, listed, shown
from mehl_soup.export.libraries import Model

_MODEL = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_CONFIG = "config.json"
# Files of a library that say how a model is built; weights are far larger.
_LARGEST_TEXT = 16 << 20
_SEED = 20407
# Batches that batch normalisation has seen: no pass reads it.
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Names:
    """How names in memory and on disk belong together."""

    # Parameters of the module, and buffers that are saved, by their names in memory.
    on_disk: dict[str, str]
    # Those of `on_disk` that are buffers, by their names in memory.
    buffers: frozenset[str]
    # Tensors on disk that the library does not load.
    unused: tuple[str, ...]
    # What the library makes itself, because the ingredient does not have it.
    made: tuple[str, ...]
    # BLAKE3 of tensors on disk that are not of a float type, which become constants of the graph.
    constants: dict[str, str]


def tensors_of(ingredient: Path) -> dict[str, Tensor]:
    """All tensors of a folder or a safetensors file."""
    files = _files(ingredient)
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{shown(file)}: cannot be read: {shown(error)}") from error
    return tensors


def _files(ingredient: Path) -> list[Path]:
    if ingredient.is_file():
        return [ingredient]
    if (ingredient / _MODEL).is_file():
        return [ingredient / _MODEL]
    index = ingredient / _INDEX
    if index.is_file():
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return [ingredient / shard for shard in sorted(set(shards))]
    if list(ingredient.glob("*.bin")):
        raise InputError(
            f"{shown(ingredient)}: has pickled weights only; convert them first with "
            f"`python -m mehl_soup convert {shown(ingredient)}`"
        )
    raise InputError(f"{shown(ingredient)}: expected {_MODEL} or {_INDEX}, found neither")


def find(model: Model) -> Names:
    """Loads random values as an ingredient, and sees where they went.

    Raises InputError if a parameter is not a tensor on disk as it is.
    """
    real = tensors_of(model.ingredient)
    marked = _marked(real)
    with tempfile.TemporaryDirectory(prefix="mehl-soup-export-") as temporary:
        copy = Path(temporary) / model.ingredient.name
        _write_copy(model.ingredient, marked, copy)
        module = model.load(copy)
    origin = {_key(tensor.float()): name for name, tensor in marked.items() if _is_marked(tensor)}
    parameters = dict(module.named_parameters())
    buffers = {k: v for k, v in module.state_dict().items() if k not in parameters}
    on_disk: dict[str, str] = {}
    absent = []
    for name, tensor in parameters.items():
        found = origin.get(_key(tensor.detach()))
        if found is None:
            absent.append(name)
        else:
            on_disk[name] = found
    of_buffers = {
        name: found
        for name, tensor in buffers.items()
        if tensor.is_floating_point() and (found := origin.get(_key(tensor))) is not None
    }
    used = {*on_disk.values(), *of_buffers.values()}
    unused = sorted(name for name in origin.values() if name not in used)
    if absent:
        raise InputError(_unmapped(model, absent, unused))
    made = sorted(
        name
        for name, tensor in buffers.items()
        if tensor.is_floating_point() and name not in of_buffers
    )
    constants = {
        name: blake3(tensor.contiguous().numpy().tobytes()).hexdigest()
        for name, tensor in sorted(real.items())
        if not tensor.is_floating_point() and not name.endswith(_COUNTER)
    }
    names = Names(
        on_disk | of_buffers, frozenset(of_buffers), tuple(unused), tuple(made), constants
    )
    _verify(model, names, real)
    return names


def _unmapped(model: Model, absent: list[str], unused: list[str]) -> str:
    return (
        f"{shown(model.ingredient)}: {len(absent)} parameters of {shown(model.name)} are not "
        f"tensors of the ingredient as they are. In memory: {listed(absent, 5)}. On disk and not "
        f"loaded: {listed(unused, 5) or 'none'}. If tensors are missing, the ingredient was saved "
        f"from another model. If {model.library} joins or splits tensors while it loads, write a "
        "factory whose module has the names on disk (docs/architectures.md)"
    )


def _marked(real: dict[str, Tensor]) -> dict[str, Tensor]:
    """Random values, so that no two tensors are equal. Integers stay: they may be positions."""
    generator = torch.Generator().manual_seed(_SEED)
    taken: set[tuple[torch.Size, bytes]] = set()
    marked = {}
    for name, tensor in real.items():
        if not _is_marked(tensor):
            marked[name] = tensor
            continue
        # Values that are exact in any float type, so that the library may convert.
        values = torch.randint(1, 2**8, tensor.shape, generator=generator).to(tensor.dtype)
        while _key(values.float()) in taken:
            values = values + 1
        taken.add(_key(values.float()))
        marked[name] = values
    return marked


def _is_marked(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.numel() > 0


def _key(tensor: Tensor) -> tuple[torch.Size, bytes]:
    return tensor.shape, tensor.detach().float().contiguous().numpy().tobytes()


def _write_copy(ingredient: Path, tensors: dict[str, Tensor], copy: Path) -> None:
    if ingredient.is_file():
        save_file(tensors, copy, metadata={"format": "pt"})
        return
    copy.mkdir()
    for file in ingredient.iterdir():
        is_weights = file.suffix == ".safetensors" or file.name == _INDEX
        if file.is_file() and not is_weights and file.stat().st_size <= _LARGEST_TEXT:
            shutil.copyfile(file, copy / file.name)
        # Modules of sentence-transformers say how they work in a folder each.
        if file.is_dir() and (file / _CONFIG).is_file():
            weights = next(file.glob("*.safetensors"), None)
            if weights is not None:
                raise InputError(
                    f"{shown(weights)}: expected all weights in {_MODEL} of the model's folder"
                )
            (copy / file.name).mkdir()
            shutil.copyfile(file / _CONFIG, copy / file.name / _CONFIG)
    save_file(tensors, copy / _MODEL, metadata={"format": "pt"})


def _verify(model: Model, names: Names, real: dict[str, Tensor]) -> None:
    """The real ingredient, loaded by its library, holds what the map says."""
    state = model.module.state_dict()
    differing = [
        name
        for name, disk in names.on_disk.items()
        if not torch.equal(state[name].float(), real[disk].float())
    ]
    if differing:
        raise InputError(
            f"{shown(model.ingredient)}: loading changes values of {listed(differing, 5)}, so that "
            "a mix of files would not be a mix of models"
        )
