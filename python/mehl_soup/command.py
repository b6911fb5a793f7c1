"""The command line of the package: its commands, one module each."""

import argparse
from collections.abc import Sequence

from mehl_soup import __version__
from mehl_soup.convert import command as convert
from mehl_soup.export import command as export


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m mehl_soup")
    parser.description = "Tools around mehl-soup. Its main program is `mehl-soup`, written in Rust."
    parser.add_argument("--version", action="version", version=f"mehl-soup {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    convert.add_to(commands)
    export.add_to(commands)
    parsed = parser.parse_args(arguments)
    code: int = parsed.run(parsed)
    return code
