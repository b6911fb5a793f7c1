"""From checkpoints to safetensors files: the steps, one after the other."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from mehl_soup.convert import prefixes
from mehl_soup.convert.choosing import TOP, State, choose
from mehl_soup.convert.loading import load
from mehl_soup.convert.sources import Source, find
from mehl_soup.convert.writing import refuse_existing, storable, write
from mehl_soup.errors import InputError, listed, shown


@dataclass(frozen=True)
class Converted:
    """What was done with one checkpoint."""

    source: Path  # as it was named: a checkpoint, an index or a folder
    output: Path
    key: str  # where in the checkpoint the model was; "." is the checkpoint itself
    names: tuple[str, ...]  # of the tensors that were written
    prefix: str  # what was taken off each name
    dropped: tuple[str, ...]  # entries of the model that were not written, and what they are
    beside: tuple[str, ...]  # other entries of the checkpoint
    shared: tuple[str, ...]  # tensors that shared memory with another, and now have their own
    common: str  # a prefix that most names have, but not all, so that it was left
    without_common: tuple[str, ...]  # the names that lack it


def convert(
    files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str] | None = None,
    key: str | None = None,
    keep_prefix: bool = False,
    overwrite: bool = False,
) -> list[Converted]:
    """Writes a safetensors file for each checkpoint, and returns what was done.

    Raises InputError for what cannot be converted, and OSError where reading or writing fails.
    Nothing is written if two results would have one name, or one exists and `overwrite` is not
    set. At a later error the files before it have been written.
    """
    paths = [files] if isinstance(files, (str, os.PathLike)) else list(files)
    sources = plan(
        [Path(path) for path in paths], Path(out) if out is not None else None, overwrite
    )
    return [convert_one(source, key, keep_prefix, overwrite) for source in sources]


def plan(paths: list[Path], out: Path | None, overwrite: bool) -> list[Source]:
    """What there is to convert, after every check that needs no reading of checkpoints."""
    sources = find(paths, out)
    if out is not None and out.exists() and not out.is_dir():
        raise InputError(f"{shown(out)}: --out: expected a folder, found something else")
    for source in sources:
        refuse_existing(source.output, overwrite=overwrite)
    return sources


def convert_one(
    source: Source, key: str | None = None, keep_prefix: bool = False, overwrite: bool = False
) -> Converted:
    """Converts one model; its errors begin with the name of what was given."""
    if source.weight_map is not None:
        if key is not None:
            raise InputError(f"{shown(source.given)}: --key cannot be used with a sharded model")
        state = _of_shards(source, source.weight_map)
    else:
        checkpoint = load(source.files[0])
        with _named(source.files[0]):
            state = choose(checkpoint, key)
    wrappers: tuple[str, ...] = () if keep_prefix else prefixes.ALWAYS
    if not keep_prefix and not source.in_folder_of_library:
        wrappers += prefixes.OUTSIDE_OF_FOLDERS
    stripped = prefixes.strip(state.tensors, wrappers)
    with _named(source.given):
        if not stripped.tensors:
            raise InputError("there are no tensors to write")
        stored, shared = storable(stripped.tensors)
    write(stored, source.output, overwrite=overwrite)
    return Converted(
        source=source.given,
        output=source.output,
        key=state.key,
        names=tuple(stored),
        prefix=stripped.prefix,
        dropped=(*state.dropped, *stripped.dropped),
        beside=state.beside,
        shared=tuple(shared),
        common=stripped.common,
        without_common=stripped.without_common,
    )


def _of_shards(source: Source, weight_map: dict[str, str]) -> State:
    """All parts of a model, in the order of its index."""
    parts: dict[str, dict[str, torch.Tensor]] = {}
    dropped: list[str] = []
    for file in source.files:
        checkpoint = load(file)
        with _named(file):
            state = choose(checkpoint, TOP)
        parts[file.name] = state.tensors
        dropped += state.dropped
        # A tied weight can be in a part without being in the index.
        extra = [name for name in state.tensors if weight_map.get(name) != file.name]
        dropped += [f"{name} (not in the index as of {file.name})" for name in extra]
    missing = [name for name, file in weight_map.items() if name not in parts[file]]
    if missing:
        raise InputError(
            f"{shown(source.given)}: {listed(missing)}: listed in the index, but missing in "
            "its file"
        )
    tensors = {name: parts[file][name] for name, file in weight_map.items()}
    return State(TOP, tensors, tuple(dropped), ())


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Puts the name of a file before errors that do not have it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{shown(path)}: {error}") from error
