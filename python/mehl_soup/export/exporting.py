"""From an ingredient to an exported folder: the steps, one after the other."""

import copy
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mehl_soup import __version__
from mehl_soup.errors import InputError, listed, shown
from mehl_soup.export import checks, graph, names, writing
from mehl_soup.export.inputs import sample
from mehl_soup.export.libraries import Model

_CONFIG = "config.json"
_MODULES = "modules.json"
_TORCHVISION = "torchvision"


@dataclass(frozen=True)
class Options:
    """How a model is built and exported."""

    # Of torchvision's models and of factories: weights to check names with.
    ingredient: Path | None = None
    # Arguments of torchvision's constructor or of a factory.
    arguments: dict[str, Any] | None = None
    # A tensor file whose tensors a factory's module takes.
    example: Path | None = None
    # Names of the inputs in their order.
    inputs: tuple[str, ...] | None = None
    image_size: int | None = None
    max_length: int | None = None
    trust_remote_code: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Exported:
    """What was exported and how it was checked."""

    folder: Path
    graph_blake3: str
    description: dict[str, Any]
    # What a user should know, one thing each.
    notes: tuple[str, ...]
    # What was compared with the library.
    compared: tuple[str, ...]
    largest_difference: float


def export(source: str | Path, out: str | Path, options: Options | None = None) -> Exported:
    """Builds the model of `source`, makes a graph of it, compares the two, and writes the graph.

    `source` is a folder as transformers or timm save it, `torchvision:NAME`, or `module:function`.

    Raises InputError for what cannot be exported, with the reason. Nothing is written then.
    """
    options = options or Options()
    out = Path(out)
    writing.refuse_existing(out, overwrite=options.overwrite)
    model = _build(source, options)
    module = model.module
    _check_layers(model)
    classes = checks.logits_of(module, model.call, model.inputs, model.name)
    found = names.find(model)
    graph.as_parameters(module, sorted(found.buffers))
    made = _made(model, classes)
    done = made.done
    statistics = set(graph.statistics(module))
    class_names = model.class_names
    notes = list(model.notes)
    if class_names is not None and len(class_names) != classes:
        notes.append(f"{len(class_names)} class names of {classes} classes are left out")
        class_names = None
    if found.unused:
        notes.append(f"{model.library} does not load these tensors: {listed(found.unused, 5)}")
    if found.made:
        notes.append(f"constants of the graph, which the file lacks: {listed(found.made, 5)}")
    if made.bf16_fault:
        notes.append(f"learns in f32 only. In bf16: {made.bf16_fault}")
    on_disk = {graph.PREFIX + name: disk for name, disk in sorted(found.on_disk.items())}
    description = {
        "format": writing.FORMAT,
        "version": writing.VERSION,
        "model": {"library": model.library, "name": model.name, "made_by": made.method},
        "inputs": [one.described() for one in done.inputs],
        "outputs": "embeddings" if model.gives_embeddings else "logits",
        "classes": classes,
        "class_names": list(class_names) if class_names is not None else None,
        "tensors": on_disk,
        "statistics": sorted(found.on_disk[n] for n in found.buffers & statistics),
        "buffers": sorted(found.on_disk[n] for n in found.buffers - statistics),
        "unused": list(found.unused),
        "constants": found.constants,
        "least_batch": done.least_batch,
        "bf16": None
        if made.bf16_fault
        else {"in_f32": sorted(on_disk[graph.PREFIX + name] for name in graph.wide(module))},
        "preprocessing": model.preprocessing,
        "versions": {"mehl_soup": __version__, "torch": torch.__version__, **model.versions},
    }
    digest = writing.write(out, description, made.file, overwrite=options.overwrite)
    return Exported(out, digest, description, tuple(notes), tuple(done.compared), done.largest)


def _build(source: str | Path, options: Options) -> Model:
    # Here, so that each library is only looked for where it is needed.
    from mehl_soup.export.libraries import (
        plain_models,
        sentence_models,
        timm_models,
        transformers_models,
    )

    folder = Path(source)
    if folder.is_dir():
        return _build_folder(folder, options, transformers_models, timm_models, sentence_models)
    name = str(source)
    if folder.is_file() or ":" not in name:
        what = "a file" if folder.is_file() else "no such folder"
        raise InputError(
            f"{shown(name)}: expected a folder with config.json, torchvision:NAME or "
            f"module:function, found {what}; a weights file goes with --ingredient"
        )
    if options.ingredient is None:
        raise InputError(
            f"{shown(name)}: name a folder or safetensors file of your zoo with --ingredient: the "
            "names of its tensors are checked"
        )
    if not options.ingredient.exists():
        raise InputError(f"{shown(options.ingredient)}: --ingredient: not found")
    arguments = options.arguments or {}
    library, _, rest = name.partition(":")
    if library == _TORCHVISION:
        return plain_models.torchvision(
            rest, options.ingredient, arguments, image_size=options.image_size
        )
    return plain_models.factory(
        name,
        options.ingredient,
        arguments,
        options.example,
        options.inputs,
        image_size=options.image_size,
    )


def _build_folder(
    folder: Path, options: Options, of_transformers: Any, of_timm: Any, of_sentences: Any
) -> Model:
    for stated, name in (
        (options.ingredient, "--ingredient"),
        (options.arguments, "--arguments"),
        (options.example, "--example"),
    ):
        if stated is not None:
            raise InputError(f"{name} goes with torchvision:NAME and module:function, not a folder")
    if (folder / _MODULES).is_file():
        if options.image_size is not None:
            raise InputError("--image-size is for models of images; this model takes text")
        names.tensors_of(folder)
        sentence: Model = of_sentences.build(folder, longest=options.max_length)
        return _with_inputs(sentence, options.inputs)
    file = folder / _CONFIG
    if not file.is_file():
        raise InputError(
            f"{shown(folder)}: has no {_CONFIG}, so that nothing says which model it is; name it "
            "as torchvision:NAME or module:function with --ingredient"
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{shown(file)}: not JSON: {shown(error)}") from error
    if not isinstance(config, dict):
        raise InputError(f"{shown(file)}: expected a JSON object, found {type(config).__name__}")
    # The weights first: libraries make random ones, or fetch, where there are none.
    names.tensors_of(folder)
    if "model_type" in config:
        built: Model = of_transformers.build(
            folder,
            config,
            trust_remote_code=options.trust_remote_code,
            image_size=options.image_size,
            longest=options.max_length,
        )
        return _with_inputs(built, options.inputs)
    if "architecture" in config:
        timm_model: Model = of_timm.build(folder, config, image_size=options.image_size)
        return timm_model
    raise InputError(
        f"{shown(file)}: expected `model_type` of transformers or `architecture` of timm, found "
        f"{listed(config)}"
    )


def _with_inputs(model: Model, wanted: tuple[str, ...] | None) -> Model:
    """The model with some of its inputs; the library has defaults for the others."""
    if wanted is None:
        return model
    by_name = {one.name: one for one in model.inputs}
    unknown = [name for name in wanted if name not in by_name]
    if unknown:
        raise InputError(f"--inputs: expected some of {listed(by_name)}, found {listed(unknown)}")
    kept = tuple(by_name[name] for name in wanted)

    def call(module: nn.Module, given: Any) -> Any:
        named = dict(zip(wanted, given, strict=True))
        return module(**named).logits

    return dataclasses.replace(model, inputs=kept, call=call)


def _check_layers(model: Model) -> None:
    tied = graph.shared(model.module)
    if tied:
        raise InputError(f"{shown(model.name)}: one tensor has two names: {listed(tied, 3)}")
    others = [
        name
        for name, layer in model.module.named_modules()
        if isinstance(layer, nn.modules.instancenorm._InstanceNorm) and layer.track_running_stats
    ]
    if others:
        raise InputError(
            f"{shown(model.name)}: instance normalisation with running statistics is not "
            f"supported: {listed(others, 3)}"
        )


@dataclass(frozen=True)
class _Made:
    graph: torch.jit.ScriptModule
    file: bytes
    method: str
    done: checks.Comparison
    # Why it does not learn in bf16.
    bf16_fault: str | None


def _made(model: Model, classes: int) -> _Made:
    """The graph by tracing, or from source where a trace computes something else."""
    given = sample(model.inputs, checks.TRACED_BATCH, seed=2)
    values = {graph.PREFIX + name: p for name, p in model.module.named_parameters()}
    faults: list[str] = []
    bf16_fault = None
    for method, with_bf16 in (("trace", True), ("trace", False), ("script", False)):
        # The graph must not depend on the values that it was made with.
        other = _other_values(model.module)
        try:
            if method == "trace":
                traced = graph.trace(other, model.call, given, with_bf16=with_bf16)
            else:
                traced = graph.script(other, given)
            file = graph.saved(traced)
            if with_bf16:
                narrow = graph.loaded(file, values)
                bf16_fault = checks.bf16_fault(model.module, model.call, narrow, model.inputs)
                if bf16_fault:
                    continue
            made = graph.loaded(file, values)
            done = checks.compare(model.module, model.call, made, model.inputs, classes)
        except checks.DiffersError as differs:
            fault = shown(differs)
        except InputError as error:
            fault = str(error)
        except Exception as error:
            # The tracer and the compiler raise what they like.
            last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            fault = shown(last[0])
        else:
            if method == "script":
                bf16_fault = "a graph from source has the dtypes of its code"
            return _Made(made, file, method, done, bf16_fault)
        if with_bf16:
            bf16_fault = fault
        else:
            faults.append(f"by {method}: {fault}")
    by_export = checks.exportable_by_torch_export(model.module, model.call, given)
    raise InputError(
        f"{shown(model.name)}: no graph computes what the model computes. "
        + "; ".join(faults)
        + (
            ". torch.export can hold it, but libtorch cannot run that here"
            if by_export
            else ". torch.export cannot hold it either"
        )
    )


def _other_values(module: nn.Module) -> nn.Module:
    """The same module with random values near its own."""
    other = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in other.parameters():
            noise = torch.rand(parameter.shape, generator=generator)
            # Factors keep variances above 0.
            parameter.mul_(1 + noise / 4)
    return other
