"""Embedding models of sentence-transformers, from folders that `save` writes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mehl_soup.errors import InputError, shown
from mehl_soup.export.libraries import Model
from mehl_soup.export.libraries.transformers_models import text_inputs

MODULES = "modules.json"


def build(folder: Path, *, longest: int | None) -> Model:
    """The model of a folder, whose embeddings are what the graph gives."""
    try:
        import sentence_transformers
        import transformers
    except ImportError as error:
        raise InputError(
            f"{shown(folder)}: is a model of sentence-transformers, which is not installed "
            f"({shown(error)}); install it with `pip install sentence-transformers`"
        ) from error
    talk: Any = transformers.logging
    talk.set_verbosity_error()
    talk.disable_progress_bar()

    def load(path: Path) -> torch.nn.Module:
        try:
            module: torch.nn.Module = sentence_transformers.SentenceTransformer(
                str(path), device="cpu", local_files_only=True
            )
        except (OSError, ValueError, RuntimeError, ImportError, KeyError, TypeError) as error:
            raise InputError(
                f"{shown(folder)}: sentence-transformers cannot load it: {error}"
            ) from error
        return module.float().eval()

    module = load(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    of_encoder: Any = getattr(next(module.children()), "auto_model", None)
    if of_encoder is None or getattr(of_encoder, "main_input_name", None) != "input_ids":
        raise InputError(f"{shown(folder / MODULES)}: expected an encoder of text as first module")
    inputs = text_inputs(of_encoder.config, longest)
    return Model(
        module=module,
        name=f"{type(of_encoder).__name__} with {len(list(module.children()))} modules",
        library="sentence-transformers",
        inputs=inputs,
        call=lambda module, given: _embeddings(module, [one.name for one in inputs], given),
        load=load,
        ingredient=folder,
        versions={
            "sentence-transformers": sentence_transformers.__version__,
            "transformers": transformers.__version__,
        },
        gives_embeddings=True,
        notes=()
        if config.get("model_type")
        not in ("bert", "roberta", "xlm-roberta", "distilbert", "modernbert")
        else ("the encoder is native to mehl-soup: no graph is needed",),
    )


def _embeddings(module: torch.nn.Module, names: Sequence[str], given: Sequence[Tensor]) -> Any:
    return module(dict(zip(names, given, strict=True)))["sentence_embedding"]
