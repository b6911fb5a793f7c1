"""A module as a TorchScript graph with three ways to normalise, and without its weights.

The graph has the methods `forward` (running statistics of batch normalisation are used), `learn`
(those of the batch) and `collect` (those of the batch, which then stand in the running ones). The
last two exist only where the module has batch normalisation. The same with `_bf16` behind their
names expect parameters in bf16: a trace has the dtypes that it was made in. All share one set of
parameters.

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
BF16 = "_bf16"
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
    """The module's ways to normalise, as methods to trace.

    A method in bf16 leaves the dtypes to its caller.
    """

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

    forward_bf16, learn_bf16, collect_bf16 = forward, learn, collect


def methods(module: nn.Module) -> tuple[str, ...]:
    """Methods of a graph in f32."""
    return (FORWARD, LEARN, COLLECT) if norms(module) else (FORWARD,)


def wide(module: nn.Module) -> frozenset[str]:
    """Parameters that stay in f32: those of batch normalisation, whose statistics are sums."""
    return frozenset(
        f"{name}.{own}"
        for name, layer in norms(module).items()
        for own, _ in layer.named_parameters(recurse=False)
    )


@contextmanager
def in_bf16(module: nn.Module) -> Iterator[None]:
    """All parameters that are not wide, and all buffers of a float type, are in bf16."""
    kept = wide(module)
    tensors: list[Tensor] = [p for name, p in module.named_parameters() if name not in kept]
    tensors += [buffer for buffer in module.buffers() if buffer.is_floating_point()]
    before = [tensor.data for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.data = tensor.data.bfloat16()
        yield
    finally:
        for tensor, was in zip(tensors, before, strict=True):
            tensor.data = was


def narrow(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Inputs as the methods in bf16 take them."""
    return tuple(x.bfloat16() if x.is_floating_point() else x for x in inputs)


def as_parameters(module: nn.Module, buffers: Sequence[str]) -> None:
    """Turns buffers into parameters without gradient."""
    for name in buffers:
        owner, _, own = name.rpartition(".")
        layer = module.get_submodule(owner)
        values = layer._buffers.pop(own)
        if values is not None:
            layer.register_parameter(own, nn.Parameter(values.detach(), requires_grad=False))


class _Calls(dict[str, tuple[Tensor, ...]]):
    """Inputs by method, in the order in which the tracer takes them: methods in bf16 come last, and
    while they are traced the module is in bf16."""

    def __init__(self, module: nn.Module, inputs: Sequence[Tensor], *, with_bf16: bool) -> None:
        own = methods(module)
        super().__init__({name: tuple(inputs) for name in own})
        if with_bf16:
            self.update({name + BF16: narrow(inputs) for name in own})
        self._module = module

    def items(self) -> Iterator[tuple[str, tuple[Tensor, ...]]]:  # type: ignore[override]
        for name, inputs in super().items():
            if name.endswith(BF16):
                with in_bf16(self._module):
                    yield name, inputs
            else:
                yield name, inputs


def trace(
    module: nn.Module, call: Call, inputs: Sequence[Tensor], *, with_bf16: bool
) -> torch.jit.ScriptModule:
    """The graph by tracing."""
    # A pass in batch statistics writes the running ones, which are parameters by now.
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    calls = _Calls(module, inputs, with_bf16=with_bf16)
    with _quiet(), torch.no_grad():
        graph: torch.jit.ScriptModule = torch.jit.trace_module(  # type: ignore[no-untyped-call]
            Methods(module, call), calls, check_trace=False, strict=False
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

    Its identity (`serialization_id`) goes too: torch made it of these files among others.

    So equal graphs have equal hashes, wherever they are made.
    """
    plain = io.BytesIO()
    with zipfile.ZipFile(file) as whole, zipfile.ZipFile(plain, "w") as kept:
        for entry in whole.infolist():
            if not entry.filename.endswith((".debug_pkl", "/serialization_id")):
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
