"""Writes an exported folder, whole or not at all.

BLAKE3SUMS has the hashes of the other files, in the format of `b3sum`. The engine refuses a folder
whose files are others by now.
"""

import json
import secrets
import shutil
from pathlib import Path
from typing import Any

from blake3 import blake3

from mehl_soup.errors import InputError, shown

DESCRIPTION = "export.json"
GRAPH = "graph.pt"
SUMS = "BLAKE3SUMS"
FORMAT = "mehl-soup export"
VERSION = 1


def refuse_existing(folder: Path, *, overwrite: bool) -> None:
    """What is in the way is an error, unless it is an export that may be replaced."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{shown(folder)}: --out: expected a folder, found a file")
    names = {file.name for file in folder.iterdir()}
    if not names <= {DESCRIPTION, GRAPH, SUMS}:
        raise InputError(f"{shown(folder)}: --out: has files that are no export; name a new folder")
    if names and not overwrite:
        raise InputError(f"{shown(folder)}: already exists; replace it with --overwrite")


def write(folder: Path, description: dict[str, Any], graph: bytes, *, overwrite: bool) -> str:
    """Writes beside the folder and renames. Returns the graph's BLAKE3, in hexadecimal."""
    refuse_existing(folder, overwrite=overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    text = json.dumps(description, indent=1, ensure_ascii=False) + "\n"
    files = {DESCRIPTION: text.encode(), GRAPH: graph}
    hashes = {name: blake3(content).hexdigest() for name, content in files.items()}
    sums = "".join(f"{digest}  {name}\n" for name, digest in hashes.items())
    try:
        partial.mkdir()
        for name, content in (files | {SUMS: sums.encode()}).items():
            (partial / name).write_bytes(content)
        refuse_existing(folder, overwrite=overwrite)
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return hashes[GRAPH]
