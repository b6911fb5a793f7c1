"""Which mapping of tensors in a checkpoint is the model."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch

from mehl_soup.convert.allowed import StandIn
from mehl_soup.errors import InputError, listed, shown

# Where training scripts keep a model. Two of them may be nested: `ema.module`.
MODEL_KEYS = frozenset(
    (
        *("state_dict", "model", "model_state_dict", "model_state", "module", "checkpoint"),
        *("state_dict_ema", "model_ema", "ema", "ema_state_dict", "ema_model", "params_ema"),
        *("ema_model_state_dict", "model_ema_state_dict", "net", "network", "params", "weights"),
        *("teacher", "student", "backbone", "encoder", "online_network", "target_network"),
    )
)
# Their tensors are no weights: moments, scales, counters.
_NO_MODELS = frozenset(
    (
        *("optimizer", "optimizers", "optimizer_states", "optimizer_state_dict", "optim"),
        *("lr_scheduler", "lr_schedulers", "scheduler", "scheduler_state_dict", "loops"),
        *("scaler", "amp_scaler", "grad_scaler", "amp", "callbacks", "rng_state", "rng_states"),
    )
)
TOP = "."


@dataclass(frozen=True)
class State:
    """The mapping that was taken."""

    key: str  # a path with dots; TOP is the checkpoint itself
    tensors: dict[str, torch.Tensor]
    dropped: tuple[str, ...]  # entries of the mapping that are no tensors
    beside: tuple[str, ...]  # other entries of the checkpoint, and other models in it


def choose(checkpoint: object, key: str | None) -> State:
    """The model of a checkpoint: the only one, or the one that `key` names."""
    if not isinstance(checkpoint, Mapping):
        raise InputError(f"expected a mapping of names to tensors, found {_described(checkpoint)}")
    found = dict(_states(checkpoint))
    if key is not None:
        taken, path = _under(checkpoint, key, found), key
    else:
        path = _only(checkpoint, found)
        taken = found[path]
    tensors = {
        name: value
        for name, value in taken.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor)
    }
    dropped = tuple(
        f"{name} ({_described(value)})" for name, value in taken.items() if name not in tensors
    )
    beside = () if path == TOP else tuple(_beside(checkpoint, found, path))
    return State(path, tensors, dropped, beside)


def _states(
    checkpoint: Mapping[object, object],
) -> Iterator[tuple[str, Mapping[object, object]]]:
    """Mappings with tensors at any key but those of optimizers and the like, with their paths."""
    seen = set()
    pending: list[tuple[tuple[str, ...], Mapping[object, object]]] = [((), checkpoint)]
    while pending:
        path, mapping = pending.pop(0)
        # The same mapping at two keys is one model.
        if id(mapping) in seen:
            continue
        seen.add(id(mapping))
        if _tensors(mapping):
            yield ".".join(path) or TOP, mapping
        for key, value in mapping.items():
            # At any key: those that are not known to hold models are told to the user.
            if not isinstance(key, str) or key in _NO_MODELS or len(path) == 2:
                continue
            if isinstance(value, Mapping):
                pending.append(((*path, key), value))


def _tensors(mapping: Mapping[object, object]) -> list[torch.Tensor]:
    return [
        value
        for key, value in mapping.items()
        if isinstance(key, str) and isinstance(value, torch.Tensor)
    ]


def _only(checkpoint: Mapping[object, object], found: Mapping[str, Mapping[object, object]]) -> str:
    """The path of the one model."""
    models = [path for path in found if _is_at_known_keys(path)]
    # A step or decay beside models, kept as a tensor without dimensions, makes no model.
    models = [
        path
        for path in models
        if any(tensor.dim() > 0 for tensor in _tensors(found[path]))
        or not any(_is_within(other, path) for other in models)
    ]
    # Nor is what stands beside mappings at keys that nobody knows.
    if models == [TOP] and len(found) > 1 and all(t.dim() == 0 for t in _tensors(checkpoint)):
        models = []
    if len(models) == 1:
        return models[0]
    if models:
        raise InputError(
            f"the checkpoint contains {len(models)} models: {_counted(found, models)}; "
            f"choose one with --key, as in --key {shown(models[0])}"
        )
    if found:
        raise InputError(
            "the checkpoint has no tensors under a usual key of a model, but "
            f"{_counted(found, found)}; choose one with --key"
        )
    if {"state", "param_groups"} <= checkpoint.keys():
        raise InputError("the checkpoint contains the state of an optimizer, not a model")
    entries = listed(checkpoint) if checkpoint else "nothing at all"
    raise InputError(f"the checkpoint contains no tensors of a model; it has {entries}")


def _is_at_known_keys(path: str) -> bool:
    return path == TOP or all(part in MODEL_KEYS for part in path.split("."))


def _is_within(path: str, outer: str) -> bool:
    return path != outer and (outer == TOP or path.startswith(f"{outer}."))


def _under(
    checkpoint: Mapping[object, object], key: str, found: Mapping[str, Mapping[object, object]]
) -> Mapping[object, object]:
    value = checkpoint if key == TOP else _follow(checkpoint, key)
    if isinstance(value, Mapping) and _tensors(value):
        return value
    there = _counted(found, found) if found else "no mapping of tensors"
    fault = "no such key" if value is None else f"no mapping of tensors, but {_described(value)}"
    raise InputError(f"--key {shown(key)}: {fault}; the checkpoint has {there}")


def _follow(mapping: Mapping[object, object], key: str) -> object:
    """The value at a path. Keys may have dots of their own, so the longest one is tried first."""
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        head = ".".join(parts[:length])
        value = next((value for name, value in mapping.items() if str(name) == head), None)
        if value is None or length == len(parts):
            if value is not None:
                return value
            continue
        if isinstance(value, Mapping):
            inner = _follow(value, ".".join(parts[length:]))
            if inner is not None:
                return inner
    return None


def _beside(
    checkpoint: Mapping[object, object], found: Mapping[str, Mapping[object, object]], path: str
) -> Iterator[str]:
    for key, value in checkpoint.items():
        name = str(key)
        if name != path and not path.startswith(f"{name}."):
            yield f"{name} ({_described(value)})"
    # Beside a nested model, as in {"model": {"weights": .., "average": ..}}.
    outer = path.rpartition(".")[0]
    for other, mapping in found.items():
        if outer and _is_within(other, outer) and other != path and not _is_within(other, path):
            yield f"{other} ({_described(mapping)})"


def _counted(found: Mapping[str, Mapping[object, object]], paths: Iterable[str]) -> str:
    return listed(f"{path} ({_plural(len(_tensors(found[path])), 'tensor')})" for path in paths)


def _described(value: object) -> str:
    if isinstance(value, StandIn):
        return value.stands_for
    if isinstance(value, torch.Tensor):
        return "tensor"
    if isinstance(value, Mapping):
        tensors = len(_tensors(value))
        return _plural(tensors, "tensor") if tensors else f"mapping of {len(value)}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
