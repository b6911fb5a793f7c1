"""PyTorch checkpoints become safetensors files, without running code that they may hold.

`convert` is loaded on first use, because it imports torch, which takes seconds.
"""

from typing import TYPE_CHECKING

from mehl_soup.errors import InputError

if TYPE_CHECKING:
    from mehl_soup.convert.converting import Converted, convert

__all__ = ["Converted", "InputError", "convert"]


def __getattr__(name: str) -> object:
    if name in ("Converted", "convert"):
        from mehl_soup.convert import converting

        return getattr(converting, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
