"""What a file is, by its first bytes, so that a wrong one is refused in words that help."""

import json
import zipfile
from enum import Enum
from pathlib import Path

from mehl_soup.errors import InputError, shown


class Kind(Enum):
    """The two formats of torch.save."""

    ZIP = "since PyTorch 1.6; it can be mapped into memory"
    STREAM = "before PyTorch 1.6"


_EXPECTED = "expected a checkpoint written by torch.save, found"
# How a file of Kind.STREAM begins: a pickle of torch's magic number, of protocol 2 or later.
_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_BEGINNINGS = (
    (
        b"version https://git-lfs.github.com/spec",
        "a git-lfs pointer instead of the file: fetch it with `git lfs pull`",
    ),
    (b"\x1f\x8b", "gzip-compressed data: unpack it first"),
    (b"\x89HDF", "an HDF5 file, as Keras writes them"),
    (b"Rar!", "a RAR archive: unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it first"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"GGUF", "a GGUF model"),
)


def kind_of(file: Path) -> Kind:
    """Which format of torch.save a file has; any other is an InputError."""
    if not file.exists():
        raise InputError(f"{shown(file)}: not found")
    if not file.is_file():
        raise InputError(f"{shown(file)}: expected a file, found something else")
    with file.open("rb") as opened:
        head = opened.read(512)
    if head.startswith(b"PK\x03\x04"):
        found = _fault_of_zip(file)
    elif head[:1] == b"\x80":
        if head[2:].startswith(_MAGIC):
            return Kind.STREAM
        found = "a pickle not written by torch.save; pickles can run code, so it is not opened"
    else:
        found = _name(head, file)
    if found:
        raise InputError(f"{shown(file)}: {_EXPECTED} {found}")
    return Kind.ZIP


def _fault_of_zip(file: Path) -> str:
    """What is wrong with a zip archive as a checkpoint; nothing is good."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError):
        return "a truncated zip archive: was the copy or download interrupted?"
    if any(name.endswith("/constants.pkl") for name in names):
        return (
            "a TorchScript program, which runs code. If you trust it, save the tensors of "
            "torch.jit.load(...).state_dict() with torch.save"
        )
    if not any(name.endswith("/data.pkl") for name in names):
        return "another zip archive"
    return ""


def _name(head: bytes, file: Path) -> str:
    if not head:
        return "an empty file"
    for beginning, name in _BEGINNINGS:
        if head.startswith(beginning):
            return name
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page: did the download need a login, or was the address wrong?"
    if _is_safetensors(head, file):
        return "a safetensors file: it needs no conversion"
    if head[257:262] == b"ustar":
        return (
            "a tar archive. Unpack it. If it is a checkpoint in the first format of PyTorch, only "
            "an unrestricted torch.load can read it: if you trust it, load it and save it again"
        )
    return f"a file that begins with {head[:16]!r}"


def _is_safetensors(head: bytes, file: Path) -> bool:
    length = int.from_bytes(head[:8], "little")
    if not (2 <= length <= file.stat().st_size - 8 and head[8:9] == b"{"):
        return False
    if length > len(head):
        return True
    try:
        json.loads(head[8 : 8 + length])
    except ValueError:
        return False
    return True
