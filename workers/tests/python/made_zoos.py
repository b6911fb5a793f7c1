"""Are zoos of `mehl-soup demo --make-zoo` at home in the libraries whose models they are?

    made_zoos.py OUT    after `mehl-soup demo --make-zoo OUT/FAMILY --family FAMILY --images ...` for vit, timm-vit and
                        resnet, and `mehl-soup run OUT/FAMILY/sweep.toml --out OUT/FAMILY/run` for each

Loads every ingredient and the winner in transformers, timm or torchvision (strictly; a ResNet in timm too), reads the
images of the select split with the transform that their own files name, and compares with `results.json`: the loss
within 1e-5 nats, the accuracy within one sample. The images must have the size that the models take already: libraries'
resizing may differ by one level of 255. Needs the packages of `../fixtures/requirements.txt`.
"""

import json
import sys
from pathlib import Path

import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

LOSS_TOLERANCE, SAMPLES_TOLERANCE = 1e-5, 1


def in_transformers(folder, _):
    model, info = transformers.AutoModelForImageClassification.from_pretrained(
        folder, output_loading_info=True, local_files_only=True
    )
    faults = {what: names for what, names in info.items() if names}
    if faults:
        sys.exit(f"{folder}: {faults}")
    processor = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    names = [model.config.id2label[i] for i in range(model.config.num_labels)]
    transform = lambda image: torch.as_tensor(processor(image, return_tensors="np")["pixel_values"][0])  # noqa: E731
    return (lambda images: model.eval()(images).logits), transform, names


def in_timm(folder, config):
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model), is_training=False)
    return model, transform, config["label_names"]


def in_torchvision(folder, config):
    model = ResNet(BasicBlock, config["model_args"]["layers"], num_classes=config["num_classes"])
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    _, transform, names = in_timm(folder, config)
    return model.eval(), transform, names


LIBRARIES = {
    "vit": {"transformers": in_transformers},
    "timm-vit": {"timm": in_timm},
    "resnet": {"torchvision": in_torchvision, "timm": in_timm},
}


@torch.no_grad()
def score(load, folder, images):
    """Mean cross-entropy, number of images classified right, number of images."""
    model, transform, names = load(folder, json.loads((folder / "config.json").read_text()))
    files = sorted(images.rglob("*.png"))
    inputs = torch.stack([transform(Image.open(file).convert("RGB")) for file in files])
    labels = torch.tensor([names.index(file.relative_to(images).parts[0]) for file in files])
    logits = torch.cat([model(batch) for batch in inputs.split(64)])
    right = (logits.argmax(dim=1) == labels).sum().item()
    return nn.functional.cross_entropy(logits.double(), labels).item(), right, len(files)


def check(out, family):
    """Yields one line for each score that is too far off."""
    results = json.loads((out / family / "run" / "results.json").read_text())
    models = [(out / family / "zoo" / ingredient["name"], ingredient["select"]) for ingredient in results["ingredients"]]
    models.append((out / family / "run" / "best", results["tasks"][0]["select"]))
    for library, load in LIBRARIES[family].items():
        for folder, said in models:
            loss, right, samples = score(load, folder, out / family / "data" / "select")
            print(
                f"{family} {folder.name} in {library}: loss {loss:.6f} (results say {said['loss']:.6f}), "
                f"{right} of {samples} right ({said['accuracy'] * samples:.0f})"
            )
            if not abs(loss - said["loss"]) <= LOSS_TOLERANCE:
                yield f"{folder}: loss {loss!r} in {library}, {said['loss']!r} in results.json"
            if not abs(right - said["accuracy"] * samples) <= SAMPLES_TOLERANCE + 1e-6:
                yield f"{folder}: {right} right in {library}, {said['accuracy'] * samples!r} in results.json"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    out = Path(sys.argv[1]).resolve()
    faults = [fault for family in LIBRARIES for fault in check(out, family)]
    for fault in faults:
        print(fault, file=sys.stderr)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
