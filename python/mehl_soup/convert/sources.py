"""What a user names (a checkpoint, an index of shards, a folder), and where its result goes."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mehl_soup.errors import InputError, listed, shown

_CHECKPOINT = "pytorch_model.bin"
_INDEX = f"{_CHECKPOINT}.index.json"
_CONFIG = "config.json"
# The name that transformers, timm and mehl-soup look for.
_MODEL = "model.safetensors"
# `.pth.tar` is timm's; no tar archive is in it.
_SUFFIXES = re.compile(r"\.(pth\.tar|pt|pth|bin|ckpt|pkl|tar|safetensors)$", re.IGNORECASE)
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.")
# An index has some hundred bytes for each tensor.
_LARGEST_INDEX = 64 << 20


@dataclass(frozen=True)
class Source:
    """One model to convert."""

    given: Path  # as the user named it
    files: tuple[Path, ...]
    output: Path
    weight_map: dict[str, str] | None = None  # of shards: which file holds which tensor
    in_folder_of_library: bool = False  # a config.json beside it says what the names mean


def find(paths: Iterable[Path], out: Path | None) -> list[Source]:
    """All models, after a look at whether their results would overwrite each other."""
    sources = [_find(path, out) for path in paths]
    taken: dict[Path, Source] = {}
    for source in sources:
        first = taken.setdefault(source.output.absolute(), source)
        if first is not source:
            raise InputError(
                f"{shown(first.given)} and {shown(source.given)}: both would be written as "
                f"{shown(source.output)}; convert them into different folders, or rename "
                "one"
            )
    return sources


def _find(path: Path, out: Path | None) -> Source:
    if path.is_dir():
        return _find_folder(path, out)
    beside_config = (path.parent / _CONFIG).is_file()
    if path.name.endswith(".index.json"):
        if out is not None:
            raise _no_out(path)
        weight_map = _read_index(path)
        files = tuple(path.parent / name for name in sorted(set(weight_map.values())))
        name = path.name.removesuffix(".index.json")
        output = path.with_name(_MODEL if name == _CHECKPOINT else _renamed(name))
        return Source(path, files, output, weight_map, beside_config)
    if _SHARD.search(path.name) and path.is_file():
        raise InputError(
            f"{shown(path)}: one part of a sharded model; give its folder, or {_INDEX} in it"
        )
    if out is not None:
        output = out / _renamed(path.name)
    elif path.name == _CHECKPOINT and beside_config:
        output = path.with_name(_MODEL)
    else:
        output = path.with_name(_renamed(path.name))
    if output.absolute() == path.absolute():
        raise InputError(
            f"{shown(path)}: the result would have the name of the checkpoint. A safetensors "
            "file needs no conversion; a checkpoint with this name must be renamed first"
        )
    return Source(path, (path,), output, None, beside_config)


def _find_folder(folder: Path, out: Path | None) -> Source:
    there = [name for name in (_INDEX, _CHECKPOINT) if (folder / name).is_file()]
    if len(there) == 1:
        if out is not None:
            raise _no_out(folder)
        return _find(folder / there[0], None)
    if there:
        raise InputError(f"{shown(folder)}: has {listed(there)}; give the one to convert")
    raise InputError(
        f"{shown(folder)}: expected {_CHECKPOINT} or {_INDEX} in the folder, found neither; "
        "give other checkpoints by file name"
    )


def _no_out(path: Path) -> InputError:
    return InputError(
        f"{shown(path)}: --out would separate the weights from their config.json. Omit it "
        f"to write them beside config.json, as {_MODEL}"
    )


def _renamed(name: str) -> str:
    return f"{_SUFFIXES.sub('', name)}.safetensors"


def _read_index(index: Path) -> dict[str, str]:
    if not index.is_file():
        raise InputError(f"{shown(index)}: not found")
    try:
        if index.stat().st_size > _LARGEST_INDEX:
            raise ValueError("larger than any index")
        weight_map = json.loads(index.read_bytes())["weight_map"]
        if not weight_map:
            raise ValueError("no tensors in it")
        for name, file in weight_map.items():
            # A name from a file must not lead out of the folder.
            if not isinstance(file, str) or file in ("", ".", "..") or re.search(r"[/\\\0]", file):
                raise ValueError(f"{name} is in {file!r}, which is not a file in its folder")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{shown(index)}: expected the index of a model in parts (`weight_map`), found another "
            f"document ({shown(error)})"
        ) from error
    return dict(weight_map)
