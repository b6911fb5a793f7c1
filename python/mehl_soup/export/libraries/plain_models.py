"""Models that a function builds: torchvision's by name, and a user's own."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mehl_soup.errors import InputError, listed, shown
from mehl_soup.export.inputs import Input, image
from mehl_soup.export.libraries import Model

_USUAL_SIDE = 224
# Prefixes of wrappers around a model.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "net.")
_ARGUMENTS = "--arguments"


def torchvision(
    name: str, ingredient: Path, arguments: dict[str, Any], *, image_size: int | None
) -> Model:
    """torchvision's model of this name."""
    try:
        from torchvision import __version__, models  # type: ignore[import-untyped]
    except ImportError as error:
        raise InputError(
            f"torchvision:{shown(name)}: torchvision is not installed ({shown(error)}); install it "
            "with `pip install torchvision`"
        ) from error
    if name not in models.list_models():
        raise InputError(f"torchvision:{shown(name)}: torchvision {__version__} has no such model")
    side = image_size or arguments.get("image_size", _USUAL_SIDE)
    return _model(
        source=f"torchvision:{name}",
        library="torchvision",
        make=lambda: models.get_model(name, weights=None, **arguments),
        ingredient=ingredient,
        inputs=(image("inputs", 3, side, side),),
        versions={"torchvision": __version__},
    )


def factory(
    source: str,
    ingredient: Path,
    arguments: dict[str, Any],
    example: Path | None,
    input_names: tuple[str, ...] | None,
    *,
    image_size: int | None,
) -> Model:
    """What a user's `module:function` returns."""
    module_name, _, function = source.partition(":")
    try:
        make = getattr(importlib.import_module(module_name), function)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{shown(source)}: expected a folder, or module:function: {shown(error)}"
        ) from error
    if example is not None:
        inputs = _of_example(example, input_names)
    elif image_size is not None:
        inputs = (image("inputs", 3, image_size, image_size),)
    else:
        raise InputError(
            f"{shown(source)}: nothing says what the model takes; name a tensor file of your data "
            "with --example, or the size of images with --image-size"
        )
    return _model(
        source=source,
        library=module_name.partition(".")[0],
        make=lambda: make(**arguments),
        ingredient=ingredient,
        inputs=inputs,
        versions={},
    )


def _of_example(file: Path, names: tuple[str, ...] | None) -> tuple[Input, ...]:
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{shown(file)}: --example: not a safetensors file: {error}") from error
    wanted = names or ("inputs",)
    absent = [name for name in wanted if name not in tensors]
    if absent:
        raise InputError(
            f"{shown(file)}: --example: expected tensors {listed(wanted)}, found {listed(tensors)};"
            " name the inputs in their order with --inputs"
        )

    def one(name: str) -> Input:
        rows = tensors[name]
        if len(rows) < 2:
            raise InputError(f"{shown(file)}: --example: `{name}` has fewer than two samples")
        rows = rows.float() if rows.is_floating_point() else rows.long()
        return Input(name, rows.dtype, tuple(rows.shape[1:]), rows=rows)

    return tuple(one(name) for name in wanted)


def _model(
    source: str,
    library: str,
    make: Callable[[], Any],
    ingredient: Path,
    inputs: tuple[Input, ...],
    versions: dict[str, str],
) -> Model:
    file = ingredient / "model.safetensors" if ingredient.is_dir() else ingredient

    def load(path: Path) -> torch.nn.Module:
        try:
            module = make()
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{shown(source)}: cannot build the model ({error}); its arguments are those of "
                f"{_ARGUMENTS}, a JSON object"
            ) from error
        if not isinstance(module, torch.nn.Module):
            raise InputError(
                f"{shown(source)}: expected a torch.nn.Module, found {type(module).__name__}"
            )
        path = path / "model.safetensors" if path.is_dir() else path
        _load_state(module, load_file(path), path)
        return module.float().eval()

    module = load(file)
    return Model(
        module=module,
        name=source.partition(":")[2],
        library=library,
        inputs=inputs,
        call=lambda module, given: module(*given),
        load=load,
        ingredient=ingredient,
        versions=versions,
    )


def _load_state(module: torch.nn.Module, state: dict[str, Tensor], file: Path) -> None:
    """Loads all tensors. The prefix of a wrapper may be before all names."""
    own = module.state_dict().keys()
    for _ in range(4):
        wrapper = next((w for w in _WRAPPERS if all(name.startswith(w) for name in state)), None)
        if wrapper is None or any(name.startswith(wrapper) for name in own):
            break
        state = {name.removeprefix(wrapper): tensor for name, tensor in state.items()}
    # Counters that some programs leave out. No forward pass reads them.
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    absent = sorted(own - state.keys() - counters)
    extra = sorted(state.keys() - own)
    if absent or extra:
        raise InputError(
            f"{shown(file)}: its tensors are not those of the model. Only the model has: "
            f"{listed(absent, 5) or 'none'}. Only the file has: {listed(extra, 5) or 'none'}. "
            f"Set the model's arguments with {_ARGUMENTS}"
        )
    try:
        module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise InputError(
            f"{shown(file)}: {shown(error)}; set the model's arguments with {_ARGUMENTS}"
        ) from error
