"""What a model takes: its inputs, which of their dimensions may vary, and random samples."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

BATCH = "batch"
_DTYPES = {torch.float32: "float32", torch.int64: "int64", torch.bool: "bool"}


@dataclass(frozen=True)
class Varying:
    """A dimension that may vary. Models were compared at `least` and at `most`."""

    name: str
    least: int
    most: int
    # The size that the graph is traced with.
    usual: int


Dimension = int | Varying


@dataclass(frozen=True)
class Input:
    """One input. `dimensions` are those of one sample: the batch is before them."""

    name: str
    dtype: torch.dtype
    dimensions: tuple[Dimension, ...]
    # Values of an integer input are below this bound.
    below: int = 2
    # Ones, then zeros from some position on.
    is_mask: bool = False
    # Rows that stand for random ones.
    rows: Tensor | None = None

    def sample(self, batch: int, sizes: dict[str, int], generator: torch.Generator) -> Tensor:
        """`batch` samples whose varying dimensions have these sizes."""
        if self.rows is not None:
            # As many as asked for, from the first on.
            return self.rows[torch.arange(batch) % len(self.rows)]
        shape = [batch, *(_size(dimension, sizes) for dimension in self.dimensions)]
        if self.is_mask:
            length = shape[1]
            kept = torch.randint(1, length + 1, (batch, 1), generator=generator)
            kept[0] = length
            return (torch.arange(length) < kept).to(self.dtype)
        if self.dtype.is_floating_point:
            return torch.randn(shape, generator=generator, dtype=self.dtype)
        return torch.randint(0, self.below, shape, generator=generator).to(self.dtype)

    def described(self) -> dict[str, object]:
        """As export.json has it."""
        dimensions: list[object] = [{"name": BATCH}]
        for dimension in self.dimensions:
            if isinstance(dimension, Varying):
                bounds = {"least": dimension.least, "most": dimension.most}
                dimensions.append({"name": dimension.name, **bounds})
            else:
                dimensions.append(dimension)
        return {"name": self.name, "dtype": _DTYPES[self.dtype], "dimensions": dimensions}


def _size(dimension: Dimension, sizes: dict[str, int]) -> int:
    if isinstance(dimension, Varying):
        return sizes.get(dimension.name, dimension.usual)
    return dimension


def sample(
    inputs: Sequence[Input], batch: int, *, seed: int, sizes: dict[str, int] | None = None
) -> tuple[Tensor, ...]:
    """Random samples of all inputs."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(one.sample(batch, sizes or {}, generator) for one in inputs)


def varying(inputs: Sequence[Input]) -> dict[str, Varying]:
    """All dimensions that may vary, by name."""
    dimensions = [d for one in inputs for d in one.dimensions if isinstance(d, Varying)]
    return {dimension.name: dimension for dimension in dimensions}


def with_dimension(inputs: Sequence[Input], name: str, by: Dimension) -> tuple[Input, ...]:
    """The same inputs, with another dimension in place of the varying ones of a name."""

    def changed(dimension: Dimension) -> Dimension:
        is_it = isinstance(dimension, Varying) and dimension.name == name
        return by if is_it else dimension

    return tuple(
        replace(one, dimensions=tuple(changed(dimension) for dimension in one.dimensions))
        for one in inputs
    )


def image(name: str, channels: int, height: int, width: int) -> Input:
    """An image, whose size may vary until it is shown that it may not."""
    sides = [_side("height", height), _side("width", width)]
    return Input(name, torch.float32, (channels, *sides))


def _side(name: str, usual: int) -> Varying:
    # Most networks halve the image five times, and take multiples of 32.
    step = 32 if usual >= 32 else usual
    return Varying(name, step, max(usual, 2 * usual // step * step), usual)
