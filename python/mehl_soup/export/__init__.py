"""Any architecture as a graph that mehl-soup's engine runs: built by its own library, and checked.

`export` is loaded on first use, because it imports torch, which takes seconds.
"""

from typing import TYPE_CHECKING

from mehl_soup.errors import InputError

if TYPE_CHECKING:
    from mehl_soup.export.exporting import Exported, Options, export

__all__ = ["Exported", "InputError", "Options", "export"]


def __getattr__(name: str) -> object:
    if name in ("Exported", "Options", "export"):
        from mehl_soup.export import exporting

        return getattr(exporting, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
