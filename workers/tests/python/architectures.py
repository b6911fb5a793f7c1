"""Miniature zoos of architectures that are not native: fine-tuned by their own library, exported, swept, and loaded back.

    architectures.py OUT --program mehl-soup [NAME...]

Each zoo has three fine-tunes of one random base. `python -m mehl_soup export` makes the graph, `mehl-soup run` the
sweep, and another one that learns in bf16 where the graph can. Then Python computes the scores of all ingredients on
select, and of the winner and of two learned soups, as its library loads them, on select and test. Losses must agree within 1e-5 nats, accuracies exactly but for one sample. Prints a table of Markdown.
Needs the packages of `../fixtures/requirements.txt`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import timm
import torch
import torchvision
import transformers as T
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[3]
NAMES = ["cat", "dog", "owl"]
CLASSES, INGREDIENTS, SIDE, LENGTH, VOCABULARY = 3, 3, 32, 16, 60
TOLERANCE = 1e-5
SAMPLES = {"learn": 60, "select": 50, "test": 50}


def images(n, seed, side):
    """A bright stripe whose place tells the class, on noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (n,), generator=generator)
    x = torch.rand((n, 3, side, side), generator=generator) * 0.6 - 0.5
    width = side // CLASSES
    for i, label in enumerate(labels):
        x[i, label % 3, :, label * width : (label + 1) * width] += 0.8
    return {"inputs": x}, labels


def texts(n, seed, _side):
    """Tokens of which those of the class come twice as often, with padding behind."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (n,), generator=generator)
    ids = torch.randint(4, VOCABULARY, (n, LENGTH), generator=generator)
    own = torch.rand((n, LENGTH), generator=generator) < 0.3
    ids = torch.where(own, labels[:, None] + 1, ids)
    lengths = torch.randint(LENGTH // 2, LENGTH + 1, (n, 1), generator=generator)
    mask = (torch.arange(LENGTH) < lengths).long()
    return {"input_ids": ids * mask, "attention_mask": mask}, labels


class Zoo:
    """How an architecture is built, saved and loaded."""

    data = staticmethod(images)
    side, steps, rate = SIDE, 25, 2e-3

    def save(self, model, folder):
        raise NotImplementedError

    def load(self, folder):
        raise NotImplementedError

    def logits(self, model, inputs):
        return model(inputs["inputs"])

    def export(self, zoo):
        """Arguments of `export`."""
        return [str(zoo / "0")]


class Transformers(Zoo):
    def __init__(self, kind, config, **keywords):
        self.kind, self.config = getattr(T, kind), getattr(T, config)
        self.keywords = keywords

    def make(self):
        config = self.config(**self.keywords)
        config.id2label = dict(enumerate(NAMES))
        config.label2id = {name: i for i, name in enumerate(NAMES)}
        return self.kind(config)

    def save(self, model, folder):
        model.save_pretrained(folder)

    def load(self, folder):
        return self.kind.from_pretrained(folder)

    def logits(self, model, inputs):
        return model(pixel_values=inputs["inputs"]).logits


class Text(Transformers):
    data = staticmethod(texts)

    def logits(self, model, inputs):
        return model(**inputs).logits


class TimmWrapper(Transformers):
    def __init__(self):
        super().__init__("TimmWrapperForImageClassification", "TimmWrapperConfig")

    def make(self):
        cfg = timm.get_pretrained_cfg("resnet18").to_dict()
        fields = {"architecture": "resnet18", "model_args": {"layers": [1, 1, 1, 1]}, "pretrained_cfg": cfg}
        config = T.TimmWrapperConfig.from_dict({**fields, "num_classes": CLASSES, "label_names": NAMES})
        config.id2label = dict(enumerate(NAMES))
        config.label2id = {name: i for i, name in enumerate(NAMES)}
        return self.kind(config)


class Timm(Zoo):
    def __init__(self, name, **arguments):
        self.name, self.arguments = name, arguments

    def make(self):
        return timm.create_model(self.name, num_classes=CLASSES, **self.arguments)

    def save(self, model, folder):
        timm.models.save_for_hf(model, folder, model_args=dict(self.arguments), safe_serialization=True)

    def load(self, folder):
        return timm.create_model(f"local-dir:{folder}", pretrained=True)


class Torchvision(Zoo):
    def __init__(self, name):
        self.name = name

    def make(self):
        return torchvision.models.get_model(self.name, weights=None, num_classes=CLASSES)

    def save(self, model, folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.clone().contiguous() for name, tensor in model.state_dict().items()}
        save_file(state, f"{folder}.safetensors", metadata={"format": "pt"})

    def load(self, folder):
        model = self.make()
        file = folder / "model.safetensors" if folder.is_dir() else Path(f"{folder}.safetensors")
        model.load_state_dict(load_file(file))
        return model

    def export(self, zoo):
        arguments = json.dumps({"num_classes": CLASSES})
        return [f"torchvision:{self.name}", "--ingredient", str(zoo / "0.safetensors"), "--arguments", arguments]


SMALL = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=8)
TOWER = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
ZOOS = {
    "deberta-v2": Text(
        "DebertaV2ForSequenceClassification", "DebertaV2Config", vocab_size=VOCABULARY, hidden_size=32,
        num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=64,
        relative_attention=True, position_buckets=8, pos_att_type=["p2c", "c2p"], norm_rel_ebd="layer_norm",
        share_att_key=True, position_biased_input=False, type_vocab_size=0, pooler_hidden_size=32,
    ),
    "siglip": Transformers(
        "SiglipForImageClassification", "SiglipConfig", text_config=dict(TOWER, vocab_size=40),
        vision_config=dict(SMALL, intermediate_size=64),
    ),
    "convnext": Transformers(
        "ConvNextForImageClassification", "ConvNextConfig", hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]
    ),
    "swin": Transformers(
        "SwinForImageClassification", "SwinConfig", image_size=SIDE, patch_size=2, embed_dim=12, depths=[1, 1],
        num_heads=[2, 2], window_size=4,
    ),
    "dinov2": Transformers("Dinov2ForImageClassification", "Dinov2Config", mlp_ratio=2, **SMALL),
    "beit": Transformers("BeitForImageClassification", "BeitConfig", intermediate_size=64, **SMALL),
    "resnet-hf": Transformers(
        "ResNetForImageClassification", "ResNetConfig", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1],
        layer_type="basic",
    ),
    "timm-wrapper": TimmWrapper(),
    "eva": Timm("eva02_tiny_patch14_224", img_size=SIDE, patch_size=8, embed_dim=48, depth=2, num_heads=3),
    "efficientnet": Timm("test_efficientnet"),
    "mobilenetv3": Timm("mobilenetv3_small_050"),
    "regnet": Torchvision("regnet_y_400mf"),
}  # fmt: skip


def tune(zoo, model, steps, seed):
    torch.manual_seed(seed)
    inputs, labels = zoo.data(96, 7, zoo.side)
    optimizer = torch.optim.AdamW(model.parameters(), zoo.rate)
    model.train()
    for _ in range(steps):
        some = torch.randint(0, len(labels), (24,))
        logits = zoo.logits(model, {name: tensor[some] for name, tensor in inputs.items()})
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, labels[some]).backward()
        optimizer.step()


def make(zoo, folder):
    torch.manual_seed(0)
    model = zoo.make()
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for i in range(INGREDIENTS):
        model.load_state_dict(base)
        tune(zoo, model, zoo.steps + 8 * i, i)
        zoo.save(model, folder / "zoo" / str(i))
    (folder / "data").mkdir()
    for seed, (split, n) in enumerate(SAMPLES.items()):
        inputs, labels = zoo.data(n, 100 + seed, zoo.side)
        save_file({**inputs, "labels": labels}, folder / "data" / f"{split}.safetensors")
    data = "\n".join(f'{split} = "data/{split}.safetensors"' for split in SAMPLES)
    names = json.dumps(list(zoo.data(1, 0, zoo.side)[0]))
    (folder / "sweep.toml").write_text(
        f'[zoo]\ningredients = ["zoo/*"]\narchitecture = "exported"\nallow_chance = true\n[data]\n{data}\n'
        f"inputs = {names}\n[soup]\nbatch = 20\ninner_epochs = 2\nearly_stopping = true\n"
        '[search]\ngreedy_baseline = true\n[search.space]\nmethod = ["uniform", "mehl", "mehl+"]\n'
        '[compute]\nthreads = 1\ndtype = "f32"\n'
    )


def score(zoo, model, file):
    tensors = load_file(file)
    labels = tensors.pop("labels")
    with torch.no_grad():
        logits = zoo.logits(model.eval(), tensors).double()
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    return loss, (logits.argmax(1) == labels).double().mean().item()


def call(*arguments, **options):
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, arguments[:4]))}: exit {done.returncode}\n{done.stderr.strip()}")
    return done


def check(name, zoo, folder, program):
    """The largest difference of a loss from Python's, what the export says, the winner, and `export.json`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    make(zoo, folder)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python"), "OMP_NUM_THREADS": "2"}
    out = str(folder / "exported")
    export = call(sys.executable, "-m", "mehl_soup", "export", *zoo.export(folder / "zoo"), "--out", out, env=environment)
    call(program, "run", str(folder / "sweep.toml"), "--out", str(folder / "run"))
    results = json.loads((folder / "run" / "results.json").read_text())
    differences = []

    def compare(what, found, expected, samples):
        loss, accuracy = expected
        differences.append(abs(found["loss"] - loss))
        if not differences[-1] <= TOLERANCE or abs(found["accuracy"] - accuracy) > 1.5 / samples:
            raise RuntimeError(f"{what}: expected {expected} as in Python, found {found}")

    def compare_soup(task, written):
        model = zoo.load(written)
        for split in ("select", "test"):
            expected = score(zoo, model, folder / "data" / f"{split}.safetensors")
            compare(f"{task['method']} on {split}", task[split], expected, SAMPLES[split])

    def learned(run):
        """A task that learned, and its soup, written."""
        tasks = json.loads((run / "results.json").read_text())["tasks"]
        task = next(task for task in tasks if task["method"].startswith("mehl"))
        coefficients = run / "tasks" / task["task_id"] / "coefficients.safetensors"
        call(program, "materialize", str(coefficients), "--out", str(folder / f"of-{run.name}"))
        return task, folder / f"of-{run.name}"

    for i, ingredient in enumerate(results["ingredients"]):
        model = zoo.load(folder / "zoo" / str(i))
        expected = score(zoo, model, folder / "data" / "select.safetensors")
        compare(f"ingredient {i} on select", ingredient["select"], expected, SAMPLES["select"])
    # The winner may be an ingredient; so a soup that was learned is written too.
    winner = results["tasks"][0]
    compare_soup(winner, folder / "run" / "best")
    compare_soup(*learned(folder / "run"))
    described = json.loads((folder / "exported" / "export.json").read_text())
    # Scores are in f32 then too.
    sweep = (folder / "sweep.toml").read_text().replace('dtype = "f32"', 'dtype = "bf16"')
    (folder / "bf16.toml").write_text(sweep)
    call(program, "run", str(folder / "bf16.toml"), "--out", str(folder / "run-bf16"))
    task, written = learned(folder / "run-bf16")
    expected = "f32" if described["bf16"] is None else "bf16"
    if task["dtype"] != expected:
        raise RuntimeError(f"expected a task in {expected}, found {task['dtype']}")
    compare_soup(task, written)
    return max(differences), export.stderr, winner, described


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--program", default="target/release/mehl-soup")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(ZOOS)}")
    options = parser.parse_args()
    torch.set_num_threads(2)
    T.logging.set_verbosity_error()
    T.logging.disable_progress_bar()
    failed = []
    columns = ["architecture", "of", "tensors", "renamed", "statistics", "bf16", "winner", "largest difference of a loss"]
    print(f"| {' | '.join(columns)} | seconds |")
    print("| --- " * (len(columns) + 1) + "|")
    for name in options.names or ZOOS:
        begun = time.monotonic()
        try:
            difference, said, winner, described = check(name, ZOOS[name], (options.out / name).resolve(), options.program)
        except Exception as error:
            failed.append(name)
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            continue
        tensors = described["tensors"]
        renamed = sum(own != f"module.{disk}" for own, disk in tensors.items())
        cells = [
            name, described["model"]["library"], len(tensors), renamed, len(described["statistics"]),
            "no" if described["bf16"] is None else "yes", winner["method"], f"{difference:.1e}", f"{time.monotonic() - begun:.0f}",
        ]  # fmt: skip
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
        print(f"{name}: {said}", file=sys.stderr, flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
