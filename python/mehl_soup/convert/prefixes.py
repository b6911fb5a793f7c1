"""Prefixes that wrappers put before every name of a model's tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

# Of DistributedDataParallel and AveragedModel; of torch.compile; of a state inside a state.
ALWAYS = ("module.", "_orig_mod.", "state_dict.")
# Attributes of training classes (Lightning's, mostly). In a Hugging Face folder they are the
# library's own names: all tensors of a language model can begin with `model.`.
OUTSIDE_OF_FOLDERS = ("model.", "net.")
# How many averages AveragedModel has taken: no part of the model, and outside of `module.`.
_COUNTER = "n_averaged"


@dataclass(frozen=True)
class Stripped:
    """Tensors under their names without the prefix."""

    tensors: dict[str, torch.Tensor]
    prefix: str
    dropped: tuple[str, ...]
    common: str  # a wrapper that most names have, but not all, so that it was left
    without_common: tuple[str, ...]  # the names that lack it


def strip(tensors: Mapping[str, torch.Tensor], wrappers: Sequence[str]) -> Stripped:
    """Takes wrappers off for as long as all names have one and keep a name of their own."""
    rest, prefix, dropped = dict(tensors), "", []
    while True:
        names = [name for name in rest if name != _COUNTER]
        wrapper = next((each for each in wrappers if _all_have(names, each)), None)
        counter = rest.get(_COUNTER)
        if counter is not None and (wrapper != "module." or counter.dim() > 0):
            wrapper = None
        if wrapper is None:
            break
        if counter is not None:
            dropped.append(prefix + _COUNTER)
        prefix += wrapper
        rest = {name.removeprefix(wrapper): rest[name] for name in names}
    common = next((each for each in wrappers if _most_have(names, each)), "")
    lacking = [name for name in names if common and not name.startswith(common)]
    return Stripped(rest, prefix, tuple(dropped), common, tuple(prefix + name for name in lacking))


def _all_have(names: Sequence[str], wrapper: str) -> bool:
    return bool(names) and all(
        name.startswith(wrapper) and len(name) > len(wrapper) for name in names
    )


def _most_have(names: Sequence[str], wrapper: str) -> bool:
    having = sum(name.startswith(wrapper) for name in names)
    return len(names) / 2 < having < len(names)
