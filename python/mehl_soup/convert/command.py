"""The command `convert`: options, what it says, and exit codes."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mehl_soup.errors import InputError, listed, shown

if TYPE_CHECKING:
    from mehl_soup.convert.converting import Converted

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

_DESCRIPTION = """\
Turns PyTorch checkpoints into safetensors files, which mehl-soup reads.

A checkpoint is a pickle, and pickles can run code. This command reads tensors and nothing else:
it makes no object that a file asks for, and refuses files that cannot be read so. Values keep
their bits and types. The checkpoint is not changed.

The result is NAME.safetensors beside the checkpoint or in DIR. pytorch_model.bin with a
config.json beside it becomes model.safetensors in its folder, because that is the name that
mehl-soup, transformers and timm look for. A FOLDER, or its pytorch_model.bin.index.json, stands for
the Hugging Face model in it.

stdout: the path of each result, a line each. stderr: what was taken, renamed and left out."""

_EPILOG = """\
exit codes: 0 done, 1 failed (disk, memory), 2 wrong usage or input. If one of several files
cannot be converted, the others still are."""


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command to those of the package."""
    parser = commands.add_parser(
        "convert",
        help="turn PyTorch checkpoints into safetensors files, without running code in them",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "files", nargs="+", type=Path, metavar="FILE", help="checkpoint, index of shards, or folder"
    )
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="output folder, created if missing (default: beside each checkpoint)",
    )
    add(
        "--key",
        help="key of the model, for example state_dict_ema or ema.module; . is the checkpoint "
        "itself. Required if a checkpoint contains several models",
    )
    add(
        "--keep-prefix",
        action="store_true",
        help="keep tensor names as they are. By default the prefixes module., _orig_mod., "
        "state_dict., model. and net. are removed if all names have them (beside a config.json: "
        "only the first three)",
    )
    add("--overwrite", action="store_true", help="replace results that exist")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Converts what the options name."""
    # Here, so that --help and wrong usage do not wait for torch.
    try:
        from mehl_soup.convert.converting import convert_one, plan
    except ImportError as error:
        _say(f"error: {error}; install the requirements with `pip install ./python`")
        return FAILED
    try:
        sources = plan(options.files, options.out, options.overwrite)
    except InputError as error:
        _say(f"error: {error}")
        return BAD_INPUT
    codes = {DONE}
    for source in sources:
        try:
            done = convert_one(source, options.key, options.keep_prefix, options.overwrite)
        except InputError as error:
            _say(f"error: {error}")
            codes.add(BAD_INPUT)
        except KeyboardInterrupt:
            _say("interrupted")
            return INTERRUPTED
        # Besides OSError: safetensors has an error of its own for a full disk.
        except Exception as error:
            _say(f"error: {shown(source.given)}: {shown(error) or type(error).__name__}")
            codes.add(FAILED)
        else:
            for line in told(done):
                _say(line)
            print(done.output, flush=True)
    # Bad input comes before failure: the same command cannot succeed later.
    return max(codes)


def told(done: "Converted") -> Iterator[str]:
    """What a user should know about a conversion, in lines."""
    taken = "the checkpoint itself" if done.key == "." else f"key {shown(done.key)}"
    noun = "tensor" if len(done.names) == 1 else "tensors"
    yield f"{shown(done.source)}: {taken}, {len(done.names)} {noun}"
    if done.prefix:
        yield f"  removed from all names: {shown(done.prefix)} (keep it with --keep-prefix)"
    if done.common:
        lacking = listed(done.without_common)
        yield f"  names keep {shown(done.common)}, because some do not have it: {lacking}"
    if done.dropped:
        yield f"  dropped: {listed(done.dropped, most=50)}"
    if done.beside:
        yield f"  not converted: {listed(done.beside, most=20)}"
    if done.shared:
        yield f"  shared memory, now stored separately: {listed(done.shared)}"


def _say(text: str) -> None:
    sys.stdout.flush()
    print(f"convert: {text}", file=sys.stderr)
