"""Models as their libraries build them, one module for each library."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mehl_soup.export.inputs import Input


@dataclass(frozen=True)
class Model:
    """A model that a library has built, and how it builds it with other weights."""

    module: torch.nn.Module
    # What the module's outputs are made of, in words: for messages.
    name: str
    library: str
    inputs: tuple[Input, ...]
    # Calls the module with inputs in the order of `inputs`.
    call: Callable[[torch.nn.Module, Sequence[Tensor]], Any]
    # The same model with the weights of another file or folder of the same layout.
    load: Callable[[Path], torch.nn.Module]
    # An ingredient as its library writes it: a folder or a safetensors file.
    ingredient: Path
    versions: dict[str, str] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    preprocessing: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    # Whether outputs are embeddings, and no logits.
    gives_embeddings: bool = False
