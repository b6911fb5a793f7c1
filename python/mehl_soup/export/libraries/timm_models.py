"""Models of timm, from folders that `timm.models.save_for_hf` writes."""

from pathlib import Path
from typing import Any

import torch

from mehl_soup.errors import InputError, shown
from mehl_soup.export.inputs import image
from mehl_soup.export.libraries import Model


def build(folder: Path, config: dict[str, Any], *, image_size: int | None) -> Model:
    """The model of a folder whose config.json names an architecture of timm."""
    try:
        import timm
    except ImportError as error:
        raise InputError(
            f"{shown(folder)}: config.json is one of timm, which is not installed "
            f"({shown(error)}); install it with `pip install timm`"
        ) from error

    def load(path: Path) -> torch.nn.Module:
        try:
            module = timm.create_model(f"local-dir:{path}", pretrained=True)
        except (RuntimeError, ValueError, KeyError, TypeError, OSError) as error:
            raise InputError(f"{shown(folder)}: timm cannot load it: {error}") from error
        return module.float().eval()

    module: Any = load(folder)
    height, width = _image_size(module, image_size)
    cfg = dict(config.get("pretrained_cfg") or {})
    labels = config.get("label_names")
    channels = getattr(module, "in_chans", None) or (cfg.get("input_size") or [3])[0]
    return Model(
        module=module,
        name=str(config["architecture"]),
        library="timm",
        inputs=(image("inputs", channels, height, width),),
        call=lambda module, given: module(*given),
        load=load,
        ingredient=folder,
        versions={"timm": timm.__version__},
        class_names=tuple(map(str, labels)) if labels else None,
        preprocessing=cfg or None,
    )


def _image_size(module: Any, stated: int | None) -> tuple[int, int]:
    if stated is not None:
        return stated, stated
    size = getattr(getattr(module, "patch_embed", None), "img_size", None)
    if size is not None:
        return int(size[0]), int(size[1])
    size = module.pretrained_cfg["input_size"]
    return int(size[1]), int(size[2])
