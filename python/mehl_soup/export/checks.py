"""Compares a graph with the module that it was made of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from mehl_soup.errors import InputError, listed, shown
from mehl_soup.export import graph as graphs
from mehl_soup.export.inputs import Input, Varying, sample, varying, with_dimension

# Largest difference of a logit, relative to the largest logit, at least 1.
TOLERANCE = 1e-5
# In bf16, of which a number has 8 bits: from the module in bf16, and from that in f32.
_TOLERANCE_BF16 = 0.02
_TOLERANCE_ROUNDED = 0.2
TRACED_BATCH = 2
_BATCHES = (1, 3)
# Of batches in batch statistics: a layer may see one value per channel and sample.
_LEARN_BATCHES = (3, 5)


@dataclass
class Comparison:
    """What was compared, and the largest difference found."""

    inputs: tuple[Input, ...]
    classes: int
    largest: float = 0.0
    compared: list[str] = field(default_factory=list)
    least_batch: int = 1

    def take(self, what: str, difference: float) -> None:
        """Notes one comparison."""
        self.largest = max(self.largest, difference)
        self.compared.append(what)


class DiffersError(Exception):
    """A graph computes something else than its module."""


def logits_of(module: nn.Module, call: graphs.Call, inputs: Sequence[Input], name: str) -> int:
    """Number of classes.

    Raises InputError if outputs are no logits, or differ from call to call.
    """
    given = sample(inputs, TRACED_BATCH, seed=1)
    with torch.no_grad():
        try:
            output = call(module, given)
            again = call(module, given)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            shapes = ", ".join(
                f"{one.name} {list(t.shape)}" for one, t in zip(inputs, given, strict=True)
            )
            raise InputError(f"{shown(name)} does not take {shapes}: {shown(error)}") from error
    if not isinstance(output, Tensor):
        raise InputError(
            f"{shown(name)}: expected one tensor of logits, found {type(output).__name__}; write a "
            "factory whose module returns the logits (docs/architectures.md)"
        )
    if output.dim() != 2 or len(output) != TRACED_BATCH or output.shape[1] < 2:
        raise InputError(
            f"{shown(name)}: expected logits [{TRACED_BATCH}, classes] of at least two classes, "
            f"found {list(output.shape)}"
        )
    if not output.is_floating_point():
        raise InputError(f"{shown(name)}: expected logits of a float type, found {output.dtype}")
    if not torch.equal(output, again):
        training = graphs.dropouts(module)
        raise InputError(
            f"{shown(name)}: gives other logits each time; dropout is on"
            + (f" (in training mode: {training})" if training else " whatever the mode is")
        )
    return output.shape[1]


def compare(
    reference: nn.Module,
    call: graphs.Call,
    graph: torch.jit.ScriptModule,
    inputs: tuple[Input, ...],
    classes: int,
) -> Comparison:
    """Compares on random inputs of several batch sizes and sizes of other dimensions.

    Dimensions that the module itself cannot vary, or the graph cannot, become fixed.

    Raises DiffersError if graph and module differ at the sizes that the graph was traced with.
    """
    done = Comparison(inputs, classes)
    for batch in (TRACED_BATCH, *_BATCHES):
        _same(
            reference, call, graph, sample(inputs, batch, seed=10 + batch), f"batch {batch}", done
        )
    if graphs.norms(reference):
        _compare_statistics(reference, call, graph, inputs, done)
    _compare_sizes(reference, call, graph, done)
    return done


def _same(
    reference: nn.Module,
    call: graphs.Call,
    graph: torch.jit.ScriptModule,
    given: Sequence[Tensor],
    what: str,
    done: Comparison,
    method: str = graphs.FORWARD,
) -> None:
    with torch.no_grad():
        with graphs.normalising(reference, method):
            expected = call(reference, given)
        try:
            found = getattr(graph, method)(*given)
        except RuntimeError as error:
            raise DiffersError(f"{what}: {shown(str(error).strip().splitlines()[-1])}") from error
    if found.shape != expected.shape:
        raise DiffersError(f"{what}: expected {list(expected.shape)}, found {list(found.shape)}")
    difference = _difference(expected, found)
    if not difference <= TOLERANCE:
        raise DiffersError(f"{what}: logits differ by {difference:.1e} of the largest")
    done.take(what, difference)


def _difference(expected: Tensor, found: Tensor) -> float:
    scale = max(1.0, expected.abs().max().item())
    return (expected - found.float()).abs().max().item() / scale


def _compare_statistics(
    reference: nn.Module,
    call: graphs.Call,
    graph: torch.jit.ScriptModule,
    inputs: Sequence[Input],
    done: Comparison,
) -> None:
    names = graphs.statistics(reference)
    for batch in _LEARN_BATCHES:
        given = sample(inputs, batch, seed=20 + batch)
        of_graph = dict(graph.named_parameters())
        before = {name: of_graph[graphs.PREFIX + name].clone() for name in names}
        for method in (graphs.LEARN, graphs.COLLECT):
            what = f"batch {batch} in `{method}`"
            _same(reference, call, graph, given, what, done, method)
            expected = before if method == graphs.LEARN else reference.state_dict()
            for name in names:
                own = of_graph[graphs.PREFIX + name]
                difference = _difference(expected[name], own)
                if not difference <= TOLERANCE:
                    raise DiffersError(f"{what}: {name} differs by {difference:.1e}")
    with torch.no_grad(), graphs.normalising(reference, graphs.LEARN):
        try:
            call(reference, sample(inputs, 1, seed=20))
        except ValueError:
            done.least_batch = 2


def _compare_sizes(
    reference: nn.Module, call: graphs.Call, graph: torch.jit.ScriptModule, done: Comparison
) -> None:
    """Height and width vary together or not at all; each other dimension by itself."""
    dimensions = varying(done.inputs)
    images = [name for name in dimensions if name in ("height", "width")]
    others = [[name] for name in dimensions if name not in images]
    for names in [images, *others]:
        bounds = [dimensions[name] for name in names]
        # The widest bounds that work; at last the one size that the graph was traced with.
        found = next(
            (tried for tried in _narrower(bounds) if _vary(reference, call, graph, tried, done)),
            None,
        )
        for i, dimension in enumerate(bounds):
            by = found[i] if found else dimension.usual
            done.inputs = with_dimension(done.inputs, dimension.name, by)


def _narrower(bounds: list[Varying]) -> Iterator[list[Varying]]:
    yield bounds
    yield [replace(d, least=max(d.least, d.usual // 2)) for d in bounds]
    yield [replace(d, least=d.usual) for d in bounds]


def _vary(
    reference: nn.Module,
    call: graphs.Call,
    graph: torch.jit.ScriptModule,
    bounds: list[Varying],
    done: Comparison,
) -> bool:
    """Whether graph and module agree at both bounds, and for images that are not square."""
    if all(d.least == d.most for d in bounds):
        return False
    sizes = [
        {d.name: d.least for d in bounds},
        {d.name: d.most for d in bounds},
        {d.name: d.most if i == 0 else d.least for i, d in enumerate(bounds)},
    ]
    compared, largest = list(done.compared), done.largest
    try:
        for n, size in enumerate(sizes):
            what = " x ".join(f"{name} {value}" for name, value in size.items())
            given = sample(done.inputs, TRACED_BATCH, seed=30 + n, sizes=size)
            if what not in done.compared:
                _same(reference, call, graph, given, what, done)
    except (DiffersError, RuntimeError, ValueError, IndexError, AssertionError):
        done.compared, done.largest = compared, largest
        return False
    return True


def bf16_fault(
    reference: nn.Module,
    call: graphs.Call,
    graph: torch.jit.ScriptModule,
    inputs: Sequence[Input],
) -> str | None:
    """Why the graph does not learn in bf16, or None if it does. It changes the graph's dtypes."""
    wide = {graphs.PREFIX + name for name in graphs.wide(reference)}
    parameters = dict(graph.named_parameters())
    for name, parameter in parameters.items():
        if name not in wide:
            parameter.data = parameter.data.bfloat16()
    method = graphs.methods(reference)[:2][-1]
    for batch in (TRACED_BATCH, *_LEARN_BATCHES):
        given = sample(inputs, batch, seed=40 + batch)
        with torch.no_grad(), graphs.normalising(reference, method):
            exact = call(reference, given)
            with graphs.in_bf16(reference):
                expected = call(reference, graphs.narrow(given)).float()
        try:
            found = getattr(graph, method + graphs.BF16)(*graphs.narrow(given)).float()
            found.logsumexp(1).sum().backward()
        except RuntimeError as error:
            last = str(error).strip().splitlines()[-1]
            return shown(last.removeprefix("RuntimeError: "))
        for other, tolerance in ((expected, _TOLERANCE_BF16), (exact, _TOLERANCE_ROUNDED)):
            difference = _difference(other, found.detach())
            if not difference <= tolerance:
                return f"logits differ by {difference:.1e} of the largest"
    broken = [
        name
        for name, parameter in parameters.items()
        if parameter.grad is not None and not parameter.grad.isfinite().all()
    ]
    return f"gradients of {listed(broken, 3)} are not finite" if broken else None


def exportable_by_torch_export(
    module: nn.Module, call: graphs.Call, given: Sequence[Tensor]
) -> bool:
    """Whether `torch.export` can hold the module. The engine cannot run that."""
    try:
        torch.export.export(graphs.Methods(module, call), tuple(given))
    except Exception:
        return False
    return True
