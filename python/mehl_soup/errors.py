"""The error of this package, and how text from files is shown in one."""

from collections.abc import Iterable


class InputError(Exception):
    """An input or an option is not what it should be. The text is one that a user can act on."""


def shown(text: object) -> str:
    """Text from a file, without characters that could command a terminal, and of bounded length."""
    safe = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))
    return safe if len(safe) <= 200 else f"{safe[:200]}..."


def listed(texts: Iterable[object], most: int = 8) -> str:
    """Texts from a file, in one line; of many, the first ones and how many more there are."""
    every = [shown(text) for text in texts]
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
