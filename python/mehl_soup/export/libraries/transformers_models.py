"""Models of Hugging Face transformers, from folders that `save_pretrained` writes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mehl_soup.errors import InputError, listed, shown
from mehl_soup.export.inputs import Input, Varying, image
from mehl_soup.export.libraries import Model

# Longest text that graph and model are compared at, unless an option says otherwise.
LONGEST = 512
# Length of the text that the graph is traced with.
_USUAL_LENGTH = 24
_USUAL_SIDE = 224
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")


def build(
    folder: Path,
    config: dict[str, Any],
    *,
    trust_remote_code: bool,
    image_size: int | None,
    longest: int | None,
) -> Model:
    """The model of a folder, of the class that its config.json names."""
    try:
        import transformers
    except ImportError as error:
        raise InputError(
            f"{shown(folder)}: config.json is one of transformers, which is not installed "
            f"({shown(error)}); install it with `pip install transformers`"
        ) from error
    talk: Any = transformers.logging
    talk.set_verbosity_error()
    talk.disable_progress_bar()
    loader = _loader(transformers, folder, config, trust_remote_code=trust_remote_code)

    def load(path: Path) -> torch.nn.Module:
        options: dict[str, Any] = {"local_files_only": True, "dtype": torch.float32}
        if trust_remote_code:
            options["trust_remote_code"] = True
        try:
            module: torch.nn.Module = loader.from_pretrained(path, **options)
        except (OSError, ValueError, RuntimeError, ImportError, AttributeError) as error:
            raise InputError(f"{shown(folder)}: transformers cannot load it: {error}") from error
        return module.eval()

    module = load(folder)
    inputs, notes = _inputs(module, folder, image_size, longest)
    of_config: Any = module.config
    written_by = config.get("transformers_version")
    if written_by and written_by != transformers.__version__:
        notes.append(
            f"transformers {shown(written_by)} wrote the ingredient; the graph is exported with "
            f"{transformers.__version__}"
        )
    names = [of_config.id2label[i] for i in sorted(of_config.id2label)]
    versions = {"transformers": transformers.__version__}
    if config.get("model_type") == "timm_wrapper":
        import timm

        versions["timm"] = timm.__version__
    return Model(
        module=module,
        name=type(module).__name__,
        library="transformers",
        inputs=inputs,
        call=lambda module, given: _logits(module, inputs, given),
        load=load,
        ingredient=folder,
        versions=versions,
        class_names=tuple(map(str, names)),
        preprocessing=_preprocessing(folder, config),
        notes=tuple(notes),
    )


def _loader(
    transformers: Any, folder: Path, config: dict[str, Any], *, trust_remote_code: bool
) -> Any:
    named = config.get("architectures") or []
    if not (isinstance(named, list) and len(named) == 1 and isinstance(named[0], str)):
        raise InputError(
            f"{shown(folder / 'config.json')}: expected `architectures` with the name of one "
            f"class, found {shown(named)}; save the model with `save_pretrained`"
        )
    auto_map = config.get("auto_map")
    if auto_map:
        if not trust_remote_code:
            raise InputError(
                f"{shown(folder)}: the model's code is in the folder (auto_map in config.json), "
                "and exporting would run it; read it, then allow it with --trust-remote-code"
            )
        found = [name for name in auto_map if name.startswith("AutoModelFor")]
        if len(found) != 1:
            raise InputError(
                f"{shown(folder / 'config.json')}: expected one AutoModelFor... in auto_map, found "
                f"{listed(auto_map)}"
            )
        return getattr(transformers, found[0])
    loader = getattr(transformers, named[0], None)
    if loader is None:
        raise InputError(
            f"{shown(folder / 'config.json')}: transformers {transformers.__version__} has no "
            f"class {shown(named[0])}; install the version that wrote the model "
            f"({shown(config.get('transformers_version', 'not said'))})"
        )
    return loader


def _inputs(
    module: torch.nn.Module, folder: Path, image_size: int | None, longest: int | None
) -> tuple[tuple[Input, ...], list[str]]:
    main = getattr(module, "main_input_name", None)
    config: Any = module.config
    if main == "pixel_values":
        if longest is not None:
            raise InputError("--max-length is for models of text; this model takes images")
        vision = getattr(config, "vision_config", config)
        channels = getattr(vision, "num_channels", 3)
        height, width, notes = _image_size(vision, folder, image_size)
        return (image(main, channels, height, width),), notes
    if main == "input_ids":
        if image_size is not None:
            raise InputError("--image-size is for models of images; this model takes text")
        return text_inputs(config, longest), []
    raise InputError(
        f"{shown(folder)}: {type(module).__name__} takes {shown(main)}; expected a model of "
        "images (pixel_values) or of text (input_ids). For other inputs write a factory: "
        "docs/architectures.md"
    )


def _image_size(vision: Any, folder: Path, stated: int | None) -> tuple[int, int, list[str]]:
    if stated is not None:
        return stated, stated, []
    found = getattr(vision, "image_size", None)
    cfg = getattr(vision, "pretrained_cfg", None) or {}
    if found is None and isinstance(cfg, dict) and cfg.get("input_size"):
        found = cfg["input_size"][1:]
    if isinstance(found, int):
        return found, found, []
    if isinstance(found, (list, tuple)) and len(found) == 2:
        return int(found[0]), int(found[1]), []
    for name in _PROCESSORS:
        size = _processor_size(folder / name)
        if size is not None:
            return *size, []
    note = (
        f"assumed: images of {_USUAL_SIDE} pixels; no file says a size (set it with --image-size)"
    )
    return _USUAL_SIDE, _USUAL_SIDE, [note]


def _processor_size(file: Path) -> tuple[int, int] | None:
    if not file.is_file():
        return None
    found = json.loads(file.read_text(encoding="utf-8"))
    found = found.get("image_processor", found)
    for key in ("crop_size", "size"):
        size = found.get(key)
        if isinstance(size, dict) and {"height", "width"} <= size.keys():
            return size["height"], size["width"]
        if isinstance(size, dict) and "shortest_edge" in size and key == "size":
            return size["shortest_edge"], size["shortest_edge"]
    return None


def text_inputs(config: Any, longest: int | None) -> tuple[Input, ...]:
    """What an encoder of text takes."""
    positions = getattr(config, "max_position_embeddings", None)
    # RoBERTa counts positions from after that of padding.
    if getattr(config, "model_type", "") in _OFFSET and positions:
        positions -= config.pad_token_id + 1
    if longest is not None and positions is not None and longest > positions:
        raise InputError(f"--max-length {longest}: the model has {positions} positions")
    most = longest or min(positions or LONGEST, LONGEST)
    length = Varying("length", 1, most, min(_USUAL_LENGTH, most))
    integers = torch.int64
    inputs = [
        Input("input_ids", integers, (length,), below=config.vocab_size),
        Input("attention_mask", integers, (length,), is_mask=True),
    ]
    types = getattr(config, "type_vocab_size", 0) or 0
    if types > 1:
        inputs.append(Input("token_type_ids", integers, (length,), below=types))
    return tuple(inputs)


_OFFSET = (
    "camembert",
    "data2vec-text",
    "longformer",
    "mpnet",
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
)


def _logits(module: torch.nn.Module, inputs: Sequence[Input], given: Sequence[Tensor]) -> Any:
    named = {one.name: tensor for one, tensor in zip(inputs, given, strict=True)}
    outputs = module(**named)
    logits = getattr(outputs, "logits", None)
    if logits is None:
        raise InputError(
            f"{type(module).__name__} returns {listed(outputs.keys())} and no logits; name a class "
            "with a classification head in `architectures` of config.json"
        )
    return logits


def _preprocessing(folder: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    for name in _PROCESSORS:
        if (folder / name).is_file():
            found: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
            return found
    return config.get("pretrained_cfg")
