"""Writes tensors as a safetensors file, whole or not at all."""

import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from mehl_soup.errors import InputError, listed, shown

# What the format has a name for, and PyTorch a type of one element each.
_DTYPES = frozenset(
    (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64),
        *(torch.float8_e4m3fn, torch.float8_e5m2, torch.bool),
        *(torch.int64, torch.int32, torch.int16, torch.int8),
        *(torch.uint64, torch.uint32, torch.uint16, torch.uint8),
    )
)


def storable(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors as the format takes them: dense, one after the other in memory, and each with
    memory of its own. Values are the same. Also the names of those that had to be copied because
    they share memory with one before."""
    unfit = [f"{name} ({why})" for name, tensor in tensors.items() if (why := _unfit(tensor))]
    if unfit:
        raise InputError(
            f"safetensors cannot hold {listed(unfit)}: save them as dense tensors of plain numbers"
        )
    stored, shared, storages = {}, [], set()
    for name, tensor in tensors.items():
        plain = tensor.detach().resolve_conj().resolve_neg()
        storage = plain.untyped_storage().data_ptr()
        if plain.numel() > 0 and storage in storages:
            shared.append(name)
            plain = plain.clone(memory_format=torch.contiguous_format)
        storages.add(storage)
        stored[name] = plain.contiguous()
    return stored, shared


def _unfit(tensor: torch.Tensor) -> str:
    if tensor.is_quantized:
        return "quantised"
    if tensor.is_nested:
        return "nested"
    if tensor.layout is not torch.strided:
        return "sparse"
    if tensor.device.type == "meta":
        return "without values, on the device meta"
    if tensor.dtype not in _DTYPES:
        return str(tensor.dtype).removeprefix("torch.")
    return ""


def write(tensors: Mapping[str, torch.Tensor], output: Path, *, overwrite: bool) -> None:
    """Under a temporary name in the same folder, and then under its own."""
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.{secrets.token_hex(4)}.partial")
    try:
        # The permissions of a file that this user makes; safetensors would leave it to the owner.
        partial.touch(exist_ok=False)
        permissions = stat.S_IMODE(partial.stat().st_mode)
        save_file(dict(tensors), partial, metadata={"format": "pt"})
        partial.chmod(permissions)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        refuse_existing(output, overwrite=overwrite)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)


def refuse_existing(output: Path, *, overwrite: bool) -> None:
    """What is in the way of a result is an error, unless it is a file that may be replaced."""
    if output.is_dir():
        raise InputError(f"{shown(output)}: the output path is a folder")
    if output.exists() and not overwrite:
        raise InputError(f"{shown(output)}: already exists; replace it with --overwrite")
