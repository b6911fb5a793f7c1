"""A module as a TorchScript graph with three ways to normalise, and without its weights.

The graph has the methods `forward` (running statistics of batch normalisation are used), `learn`
(those of the batch) and `collect` (those of the batch, which then stand in the running ones). The
last two exist only where the module has batch normalisation. All share one set of parameters.

Buffers that ingredients bring along are parameters of the graph without gradient, because the
engine reaches parameters by name, and no buffers.
"""

import io
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mehl_soup.errors import InputError, listed, shown

Call = Callable[[nn.Module, Sequence[Tensor]], Any]

FORWARD, LEARN, COLLECT = "forward", "learn", "collect"
# The module's place in the graph.
PREFIX = "module."


def norms(module: nn.Module) -> dict[str, _BatchNorm]:
    """Layers of batch normalisation that keep running statistics, by name."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    }


def statistics(module: nn.Module) -> list[str]:
    """Names of the running means and variances."""
    return [f"{name}.{what}" for name in norms(module) for what in ("running_mean", "running_var")]


@contextmanager
def normalising(module: nn.Module, method: str) -> Iterator[None]:
    """Layers of batch normalisation behave as in a method of the graph."""
    layers = list(norms(module).values())
    before = [(x.training, x.track_running_stats, x.momentum) for x in layers]
    for layer in layers:
        layer.training = method != FORWARD
        layer.track_running_stats = method != LEARN
        # Of what was there before, nothing stays.
        layer.momentum = 1.0
    try:
        yield
    finally:
        for layer, was in zip(layers, before, strict=True):
            layer.training, layer.track_running_stats, layer.momentum = was


class Methods(nn.Module):
    """The module's ways to normalise, as methods to trace."""

    def __init__(self, module: nn.Module, call: Call) -> None:
        super().__init__()
        self.module = module
        self._call = call

    def _run(self, method: str, inputs: Sequence[Tensor]) -> Any:
        with normalising(self.module, method):
            return self._call(self.module, inputs)

    def forward(self, *inputs: Tensor) -> Any:
        """With running statistics."""
        return self._run(FORWARD, inputs)

    def learn(self, *inputs: Tensor) -> Any:
        """With statistics of the batch."""
        return self._run(LEARN, inputs)

    def collect(self, *inputs: Tensor) -> Any:
        """With statistics of the batch, which are kept."""
        return self._run(COLLECT, inputs)


def as_parameters(module: nn.Module, buffers: Sequence[str]) -> None:
    """Turns buffers into parameters without gradient."""
    for name in buffers:
        owner, _, own = name.rpartition(".")
        layer = module.get_submodule(owner)
        values = layer._buffers.pop(own)
        if values is not None:
            layer.register_parameter(own, nn.Parameter(values.detach(), requires_grad=False))


def trace(module: nn.Module, call: Call, inputs: Sequence[Tensor]) -> torch.jit.ScriptModule:
    """The graph by tracing."""
    methods = Methods(module, call)
    given = tuple(inputs)
    names = (FORWARD, LEARN, COLLECT) if norms(module) else (FORWARD,)
    # A pass in batch statistics writes the running ones, which are parameters by now.
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with _quiet(), torch.no_grad():
        graph: torch.jit.ScriptModule = torch.jit.trace_module(  # type: ignore[no-untyped-call]
            methods, dict.fromkeys(names, given), check_trace=False, strict=False
        )
    module.load_state_dict(before)
    return graph


def script(module: nn.Module, inputs: Sequence[Tensor]) -> torch.jit.ScriptModule:
    """The graph from the module's source, for modules without batch normalisation."""

    class Scripted(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.module(x)
            return output

    if len(inputs) != 1:
        raise InputError("modules of several inputs are not scripted")
    if norms(module):
        raise InputError("modules with batch normalisation are not scripted")
    with _quiet():
        graph: torch.jit.ScriptModule = torch.jit.script(Scripted(module).eval())
    return graph


def saved(graph: torch.jit.ScriptModule) -> bytes:
    """The graph as a file, in which each parameter takes one number: ingredients bring the rest.

    The graph keeps its values. So the file is small, and does not depend on an ingredient.
    """
    parameters = dict(graph.named_parameters())
    values = {name: parameter.data for name, parameter in parameters.items()}
    for parameter in parameters.values():
        parameter.data = torch.zeros(1, dtype=parameter.dtype).expand(parameter.shape)
    try:
        file = io.BytesIO()
        with _quiet():
            torch.jit.save(graph, file)
    finally:
        for name, parameter in parameters.items():
            parameter.data = values[name]
    return _without_sources(file)


def _without_sources(file: io.BytesIO) -> bytes:
    """The archive without the paths of Python files and their lines, and without a date.

    So equal graphs have equal hashes, wherever they are made.
    """
    plain = io.BytesIO()
    with zipfile.ZipFile(file) as whole, zipfile.ZipFile(plain, "w") as kept:
        for entry in whole.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                kept.writestr(zipfile.ZipInfo(entry.filename), whole.read(entry))
    return plain.getvalue()


def loaded(file: bytes, values: Mapping[str, Tensor]) -> torch.jit.ScriptModule:
    """A saved graph with values for all its parameters, in memory of their own."""
    with _quiet():
        graph: torch.jit.ScriptModule = torch.jit.load(  # type: ignore[no-untyped-call]
            io.BytesIO(file)
        )
    for name, parameter in graph.named_parameters():
        parameter.data = values[name].detach().clone().contiguous()
    return graph


def shared(module: nn.Module) -> list[str]:
    """Parameters that are one tensor under several names."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [" = ".join(group) for group in names.values() if len(group) > 1]


def dropouts(module: nn.Module) -> str:
    """Modules that are in training mode, in words."""
    left = [name or "the model" for name, layer in module.named_modules() if layer.training]
    return listed(map(shown, left), 5)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings that a user cannot act on.

    The tracer guesses what may be wrong, but graph and module are compared afterwards. And torch
    says that TorchScript is deprecated.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
