"""The command `export`: options, what it says, and exit codes."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mehl_soup.errors import InputError, listed, shown

if TYPE_CHECKING:
    from mehl_soup.export.exporting import Exported

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

_DESCRIPTION = """\
Makes a graph of any differentiable classifier, which the engine of mehl-soup runs.

SOURCE is an ingredient's folder, as transformers (save_pretrained) or timm (save_for_hf) write it,
or torchvision:NAME, or module:function, a function of yours that returns a torch.nn.Module.

The model is built by its own library. The graph is compared with it on random inputs of several
batch sizes, image sizes and text lengths before anything is written. Names of tensors are taken
from how the library loads the ingredient. The graph holds no weights: it serves every ingredient
of the same architecture.

In the specification: zoo.architecture = "FOLDER".

stdout: the folder. stderr: what was found and compared."""

_EPILOG = "exit codes: 0 done, 1 failed (disk, memory), 2 wrong usage or input"


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command to those of the package."""
    parser = commands.add_parser(
        "export",
        help="make a graph of any architecture that mehl-soup can learn soups of",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("source", metavar="SOURCE", help="folder, torchvision:NAME or module:function")
    add("--out", type=Path, required=True, metavar="FOLDER", help="folder to write")
    add(
        "--ingredient",
        type=Path,
        metavar="PATH",
        help="a model of the zoo, for torchvision:NAME and module:function",
    )
    add(
        "--arguments",
        type=_json_object,
        metavar="JSON",
        help="arguments of torchvision's constructor or of the function, for example "
        "'{\"num_classes\": 37}'",
    )
    add(
        "--example",
        type=Path,
        metavar="FILE",
        help="safetensors file with samples of the inputs, for module:function",
    )
    add(
        "--inputs",
        type=lambda text: tuple(text.split(",")),
        metavar="NAMES",
        help="the model's inputs in their order, separated by commas (default: all that are usual)",
    )
    add("--image-size", type=_positive, metavar="N", help="side of the images, in pixels")
    add(
        "--max-length",
        type=_positive,
        metavar="N",
        help="longest text, in tokens (default: the model's positions, at most 512)",
    )
    add(
        "--trust-remote-code",
        action="store_true",
        help="run Python code that is in the folder. It can do anything that you can",
    )
    add("--overwrite", action="store_true", help="replace an earlier export")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Exports what the options name."""
    # Here, so that --help and wrong usage do not wait for torch.
    try:
        from mehl_soup.export.exporting import Options, export
    except ImportError as error:
        _say(f"error: {error}; install the requirements with `pip install ./python`")
        return FAILED
    names = ("ingredient", "arguments", "example", "inputs", "image_size", "max_length")
    flags = ("trust_remote_code", "overwrite")
    try:
        chosen = Options(**{name: getattr(options, name) for name in (*names, *flags)})
        done = export(options.source, options.out, chosen)
    except InputError as error:
        _say(f"error: {error}")
        return BAD_INPUT
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except (OSError, MemoryError) as error:
        _say(f"error: {shown(error) or type(error).__name__}")
        return FAILED
    for line in told(done):
        _say(line)
    print(done.folder, flush=True)
    return DONE


def told(done: "Exported") -> Iterator[str]:
    """What a user should know about an export, in lines."""
    description = done.description
    model = description["model"]
    is_of_classes = description["outputs"] == "logits"
    gives = f"{description['classes']} classes" if is_of_classes else "embeddings"
    yield f"{shown(model['name'])} of {model['library']}, {gives}"
    for one in description["inputs"]:
        dimensions = ", ".join(_dimension(dimension) for dimension in one["dimensions"])
        yield f"  input {shown(one['name'])}: {one['dtype']} [{dimensions}]"
    tensors = description["tensors"]
    renamed = [(own, disk) for own, disk in tensors.items() if own != f"module.{disk}"]
    yield f"  {len(tensors)} tensors, {len(renamed)} with other names on disk"
    if description["statistics"]:
        yield f"  batch normalisation: {len(description['statistics'])} running statistics"
    yield (
        f"  compared with {model['library']} at {listed(done.compared, 20)}: largest difference "
        f"{done.largest_difference:.1e} of the largest output"
    )
    for note in done.notes:
        yield f"  note: {note}"
    inputs = [one["name"] for one in description["inputs"]]
    if len(inputs) > 1:
        yield f"  for tensor files: data.inputs = {json.dumps(inputs)}"
    yield f'  for a pool: worker.torchscript_allow = ["{done.graph_blake3}"]'


def _dimension(dimension: Any) -> str:
    if isinstance(dimension, int):
        return str(dimension)
    if "least" in dimension:
        return f"{dimension['name']} {dimension['least']}..{dimension['most']}"
    return str(dimension["name"])


def _json_object(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError("expected a JSON object")
    return found


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("expected a number of at least 1")
    return number


def _say(text: str) -> None:
    sys.stdout.flush()
    print(f"export: {text}", file=sys.stderr)
