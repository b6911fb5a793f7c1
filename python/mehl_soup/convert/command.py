"""The command `convert`: options, what it says, and exit codes."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mehl_soup.convert.errors import InputError, listed, shown

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
exit codes: 0 done, 1 failed (disk, memory), 2 bad usage or input. Of several files, those that can
be converted are, whatever becomes of the others."""


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
        help="write into this folder, made if it is missing (default: beside each checkpoint)",
    )
    add(
        "--key",
        help="take the model at this key, as in state_dict_ema or ema.module; . is the checkpoint "
        "itself. Without it, a checkpoint with several models is refused",
    )
    add(
        "--keep-prefix",
        action="store_true",
        help="leave names of tensors as they are. Without it, module., _orig_mod., state_dict., "
        "model. and net. are taken off if all names begin so (beside a config.json: only the "
        "first three)",
    )
    add("--overwrite", action="store_true", help="replace results that exist")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Converts what the options name."""
    # Here, so that --help and wrong usage do not wait for torch.
    try:
        from mehl_soup.convert.converting import convert_one, plan
    except ImportError as error:
        _say(f"error: {error}; `pip install ./python` installs what this command needs")
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
        yield f"  taken off all names: {shown(done.prefix)} (--keep-prefix leaves it)"
    if done.common:
        lacking = listed(done.without_common)
        yield f"  names keep {shown(done.common)}, as some lack it: {lacking}"
    if done.dropped:
        yield f"  dropped: {listed(done.dropped, most=50)}"
    if done.beside:
        yield f"  not taken: {listed(done.beside, most=20)}"
    if done.shared:
        yield f"  shared memory with others, now have their own: {listed(done.shared)}"


def _say(text: str) -> None:
    sys.stdout.flush()
    print(f"convert: {text}", file=sys.stderr)
