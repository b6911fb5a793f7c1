"""Tools around mehl-soup, which learns how to mix fine-tuned checkpoints into one model."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("mehl-soup")
except PackageNotFoundError:
    # Run from a source tree that was not installed.
    __version__ = "unknown"
