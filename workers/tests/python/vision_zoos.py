"""Zoos of real fine-tunes, one per vision family, and the check that their soups are at home in the libraries they came from.

    vision_zoos.py images OUT   images of digits as PNG
    vision_zoos.py make OUT     the images, and a zoo with its sweep.toml for each family
    vision_zoos.py check OUT    after `mehl-soup run OUT/FAMILY/sweep.toml --out OUT/FAMILY/run` for each: loads the winner in
                                its library, reads the same PNG files with that library's transform, and compares scores

Loss must agree within the tolerance of each family: 1e-5 nats where the pixels that reach the model are the same bytes
(two f32 forward passes with other orders of sums), 5e-3 where they were resized (each library's pixels may differ by
one level of 255). Accuracy must agree within one sample, or three where they were resized.
Needs the packages of `../fixtures/requirements.txt`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

# Threads that wait must not spin: beside other work that costs a factor of seven. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np  # noqa: E402
import open_clip
import timm
import torch
import torchvision
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.transforms import v2 as T

ROOT = Path(__file__).resolve().parents[3]
SIDE, CLASSES, INGREDIENTS = 32, 10, 6
SPLITS = {"base": 400, "tune": 500, "learn": 320, "select": 280, "test": 297}
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def plain(mean, std):
    """Pixels as they are, normalised."""
    return T.Compose([T.ToImage(), T.ToDtype(torch.float32, scale=True), T.Normalize(mean, std)])


class Family:
    """How a family's models are made, saved, and loaded again by the library that they are of."""

    resized, epochs = False, 20
    spec = ""

    def sweep(self, folder, name, seed, _splits):
        """Writes the sweep's specification beside the zoo."""
        data = "\n".join(f'{split} = "../data/{split}"' for split in ("learn", "select", "test"))
        (folder / "sweep.toml").write_text(
            f'name = "{name}"\nseed = {seed}\n[zoo]\ningredients = ["zoo/*"]\n[data]\n{data}\n{self.spec}'
            "[soup]\nbatch = 40\nmodel_batch = 3\ninner_epochs = 3\n"
            '[search]\ngreedy_baseline = true\n[search.space]\nmethod = ["mehl", "mehl+"]\n'
        )

    def samples(self, out, _name, split):
        """Images and labels of a split of the sweep."""
        return [(path, int(path.parent.name)) for path in sorted((out / "data" / split).rglob("*.png"))]

    def make(self):
        raise NotImplementedError

    def transform(self, model):
        raise NotImplementedError


class Resnet(Family):
    """torchvision's ResNet with one basic block a stage, as bare safetensors of its state dict."""

    rate, epochs = 2e-3, 6
    spec = f"""[data.image]
size = {SIDE}
resize = {SIDE}
mean = {list(IMAGENET_MEAN)}
std = {list(IMAGENET_STD)}
"""

    def make(self):
        return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=CLASSES)

    def transform(self, _):
        return plain(IMAGENET_MEAN, IMAGENET_STD)

    def save(self, model, path):
        save_file(model.state_dict(), f"{path}.safetensors")

    def load(self, folder):
        model = self.make()
        model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
        return model


class Timm(Family):
    """timm's ViT tiny at 32 pixels, saved as for its hub: its own crop_pct makes the images be resized."""

    rate, resized = 5e-4, True
    arguments = dict(img_size=SIDE, patch_size=8, depth=4, num_classes=CLASSES)

    def make(self):
        return timm.create_model("vit_tiny_patch16_224", **self.arguments)

    def transform(self, model):
        config = timm.data.resolve_data_config(dict(img_size=SIDE), model=model)
        return timm.data.create_transform(**config, is_training=False)

    def save(self, model, path):
        timm.models.save_for_hf(model, path, model_args=dict(self.arguments), safe_serialization=True)

    def load(self, folder):
        return timm.create_model(f"local-dir:{folder}", pretrained=True)


class ClipTower(nn.Module):
    """The wrapper of mlfoundations/model-soups around a CLIP model: visual tower, L2-normalised features, linear head."""

    def __init__(self):
        super().__init__()
        self.model = nn.Module()
        self.model.visual = open_clip.transformer.VisionTransformer(
            image_size=SIDE, patch_size=8, width=128, layers=3, heads=2, mlp_ratio=4.0, output_dim=64,
            act_layer=open_clip.transformer.QuickGELU,
        )  # fmt: skip
        self.model.logit_scale = nn.Parameter(torch.tensor(2.6593))
        # What is left of the text tower: it takes no part.
        self.model.token_embedding = nn.Embedding(40, 64)
        self.model.text_projection = nn.Parameter(torch.zeros(64, 64))
        self.classification_head = nn.Linear(64, CLASSES)
        # Features have length 1: without a scale, as that of CLIP's zero-shot heads, the logits could not differ by much.
        nn.init.normal_(self.classification_head.weight, std=1.5)

    def forward(self, images):
        features = self.model.visual(images)
        return self.classification_head(features / features.norm(dim=-1, keepdim=True))


def documented(begin, end="```"):
    """What the page on the public ingredients has between two marks."""
    page = (ROOT / "docs" / "imagenet.md").read_text()
    return page.split(begin, 1)[1].split(end)[0]


class Clip(Family):
    """OpenAI CLIP's visual tower with a head, names as in the published fine-tunes (`module.model.visual.*`), data in folders as ImageNet's; converted, listed and learned as `docs/imagenet.md` says."""

    rate = 1e-3
    # What is smaller here than what the page's specification is for.
    smaller = {
        "heads = 12": "heads = 2", "model_batch = 18": "model_batch = 3", "batch = 128": "batch = 40", "inner_epochs = 5": "inner_epochs = 3",
        'devices = ["cuda"]': 'devices = ["cpu"]', "[soup]": f"[data.image]\nsize = {SIDE}\nresize = {SIDE}\n\n[soup]",
    }  # fmt: skip

    def make(self):
        return ClipTower()

    def transform(self, _):
        return plain(CLIP_MEAN, CLIP_STD)

    def save(self, model, path):
        """As a pickled state dict with the name of a published one."""
        pickled = path.parents[1] / "pt"
        pickled.mkdir(exist_ok=True)
        state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
        torch.save(state, pickled / f"model_{path.name.removeprefix('k')}.pt")

    def sweep(self, folder, _name, _seed, splits):
        python = [sys.executable, "-"]
        # `python` is this one, and the package is that of the repository.
        package, path = ROOT / "python", f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        convert = "python -m mehl_soup convert " + documented("python -m mehl_soup convert ", "\n")
        environment = {**os.environ, "PYTHONPATH": str(package), "PATH": path}
        subprocess.run(convert, shell=True, cwd=folder, check=True, env=environment)
        for part, samples in {"train": splits["learn"] + splits["select"], "val": splits["test"]}.items():
            for path, label in samples:
                image = folder / "imagenet" / part / f"n{label:08}" / path.name
                image.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, image)
        lists = documented("cd imagenet && python - <<'EOF'", "EOF")
        subprocess.run(python, input=lists, text=True, cwd=folder / "imagenet", check=True)
        spec = documented("```toml")
        for published, here in self.smaller.items():
            assert spec.count(published) == 1, f"docs/imagenet.md has `{published}` {spec.count(published)} times"
            spec = spec.replace(published, here)
        (folder / "sweep.toml").write_text(spec)

    def samples(self, out, name, split):
        data = out / name / "imagenet"
        if split == "test":
            return [(path, int(path.parent.name[1:])) for path in sorted((data / "val").rglob("*.png"))]
        rows = [line.split(",") for line in (data / f"{split}.csv").read_text().split()[1:]]
        return [(data / path, int(label[1:])) for path, label in rows]

    def load(self, folder):
        tensors = load_file(folder / "model.safetensors")
        model = self.make()
        model.load_state_dict({name.removeprefix("module."): tensor for name, tensor in tensors.items()}, strict=True)
        return model


class HuggingFaceClip(Family):
    """transformers' CLIPForImageClassification with its image processor, which resizes to 32 pixels what has 32 already."""

    rate = 1e-3

    def make(self):
        vision = dict(
            hidden_size=96, intermediate_size=192, num_hidden_layers=3, num_attention_heads=3, image_size=SIDE, patch_size=8
        )  # fmt: skip
        config = transformers.CLIPConfig(vision_config=vision, num_labels=CLASSES)
        return transformers.CLIPForImageClassification(config)

    def transform(self, _):
        return self.processor()

    def processor(self):
        # The one without torchvision is the one that resizes with Pillow; both leave 32 pixels as they are.
        process = transformers.CLIPImageProcessor(
            size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
        )
        return lambda image: torch.as_tensor(process(image, return_tensors="np")["pixel_values"][0])

    def save(self, model, path):
        model.save_pretrained(path)
        transformers.CLIPImageProcessor(
            size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
        ).save_pretrained(path)

    def load(self, folder):
        model, info = transformers.CLIPForImageClassification.from_pretrained(
            folder, output_loading_info=True, local_files_only=True
        )
        faults = {what: names for what, names in info.items() if names}
        if faults:
            sys.exit(f"{folder}: {faults}")
        return model


FAMILIES = {"resnet": Resnet(), "timm-vit": Timm(), "clip-vit": Clip(), "hf-clip": HuggingFaceClip()}


def logits(model, images):
    output = model(images)
    return output if isinstance(output, torch.Tensor) else output.logits


def fit(model, images, labels, rate, decay, smoothing, epochs, seed):
    """A short training with AdamW and small shifts; the model stays in training mode only here."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(labels), generator=generator).split(50):
            dx, dy = torch.randint(-2, 3, (2,), generator=generator).tolist()
            shifted = images[batch].roll((dx, dy), (2, 3))
            loss = nn.functional.cross_entropy(logits(model, shifted), labels[batch], label_smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def write_images(out):
    """UCI digits, 8x8 with 17 levels, as 32x32 PNG in OUT/data/SPLIT/DIGIT/; returns paths and labels by split."""
    digits = load_digits()
    order = np.random.default_rng(7).permutation(len(digits.target))
    splits, start = {}, 0
    for split, size in SPLITS.items():
        splits[split] = []
        for i in order[start : start + size]:
            pixels = np.minimum(digits.images[i] * 16, 255).astype(np.uint8).repeat(SIDE // 8, 0).repeat(SIDE // 8, 1)
            path = out / "data" / split / str(digits.target[i]) / f"{i:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
            splits[split].append((path, int(digits.target[i])))
        start += size
    return splits


def load_images(samples, transform):
    images = torch.stack([transform(Image.open(path).convert("RGB")) for path, _ in samples])
    return images, torch.tensor([label for _, label in samples])


def make(out):
    splits = write_images(out)
    for seed, (name, family) in enumerate(FAMILIES.items(), start=1):
        torch.manual_seed(seed)
        base = family.make()
        transform = family.transform(base)
        (base_images, base_labels), tune = load_images(splits["base"], transform), load_images(splits["tune"], transform)
        fit(base, base_images, base_labels, family.rate, 0.01, 0.0, family.epochs, seed)
        start = {key: value.clone() for key, value in base.state_dict().items()}
        folder = out / name
        (folder / "zoo").mkdir(parents=True, exist_ok=True)
        draw = np.random.default_rng(seed)
        for k in range(INGREDIENTS):
            base.load_state_dict(start)
            rate, smoothing = family.rate * 10 ** draw.uniform(-1.2, 0), draw.choice([0.0, 0.1])
            fit(base, *tune, rate, draw.choice([0.0, 0.1]), smoothing, 4, 100 * seed + k)
            family.save(base, folder / "zoo" / f"k{k}")
        family.sweep(folder, name, seed, splits)
        print(f"{name}: {INGREDIENTS} ingredients in {folder / 'zoo'}")


@torch.no_grad()
def score(model, samples, transform):
    """Mean cross-entropy and number of samples classified right."""
    images, labels = load_images(samples, transform)
    output = torch.cat([logits(model, batch) for batch in images.split(64)])
    loss = nn.functional.cross_entropy(output.double(), labels).item()
    return loss, (output.argmax(1) == labels).sum().item()


def check(out):
    faults = []
    for name, family in FAMILIES.items():
        results = json.loads((out / name / "run" / "results.json").read_text())
        rows = results["tasks"]
        failed = [row["task_id"] for row in rows if row["state"] != "succeeded"]
        if failed or len(rows) < 5:
            faults.append(f"{name}: {len(rows)} tasks, failed: {failed}")
            continue
        winner = rows[0]
        model = family.load(out / name / "run" / "best").eval()
        transform = family.transform(model)
        tolerance, samples_off = (5e-3, 3) if family.resized else (1e-5, 1)
        for split in ("select", "test"):
            samples = family.samples(out, name, split)
            loss, right = score(model, samples, transform)
            said = winner[split]
            print(
                f"{name}, {winner['method']}, {split}: loss {loss:.6f} (results say {said['loss']:.6f}), "
                f"{right} of {len(samples)} right ({said['accuracy'] * len(samples):.0f})"
            )
            if not abs(loss - said["loss"]) <= tolerance:
                faults.append(f"{name} {split}: loss {loss} in its library, {said['loss']} in results.json")
            if not abs(right - said["accuracy"] * len(samples)) <= samples_off + 1e-6:
                faults.append(f"{name} {split}: {right} right in its library, {said['accuracy'] * len(samples)} in results.json")
    for fault in faults:
        print(fault, file=sys.stderr)
    sys.exit(1 if faults else 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["images", "make", "check"])
    parser.add_argument("out", type=Path, help="folder of the images, zoos and runs")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    {"images": write_images, "make": make, "check": check}[arguments.what](arguments.out.resolve())


if __name__ == "__main__":
    main()
