"""A text classifier as a TorchScript module, and a zoo of fine-tuned copies: which Python package is a sentence of documentation from?

    text_zoo.py FOLDER --seed N [--ingredients 28]

The text is real: first sentences of the docstrings of five installed packages, whose versions `workers/tests/fixtures/requirements.txt` pins; its
Python runs this. Names of the packages themselves are struck out. FOLDER gets `model.pt`, `zoo/run-NN.safetensors`, and
`data/{learn,select,test}.safetensors` with `input_ids` and `attention_mask` [N, 24] i64 and `labels` [N] i64; no two parts share a sentence. A zoo that
was finished is kept.
"""

import argparse
import ast
import importlib.util
import json
import math
import os
import random
import re
from collections import Counter
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

PACKAGES = ["matplotlib", "numpy", "sklearn", "torch", "transformers"]
STRUCK = {*PACKAGES, "np", "plt", "mpl", "scikit", "pytorch", "huggingface", "hf", "ndarray", "axes", "tensor", "tensors"}
LENGTH, VOCABULARY, WIDTH, HEADS = 24, 2000, 32, 4
SIZES = {"base": 1200, "train": 1200, "learn": 400, "select": 400, "test": 1200}


def first_sentences(package):
    """Of every docstring in a package's source, as words; each once, in a fixed order."""
    root = Path(importlib.util.find_spec(package).origin).parent
    found = {}
    for file in sorted(root.rglob("*.py")):
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)) and (text := ast.get_docstring(node)):
                sentence = re.split(r"\.\s|\n\n", text, maxsplit=1)[0]
                words = tuple(word for word in re.findall(r"[a-z]+", sentence.lower()) if word not in STRUCK)
                if len(words) >= 4:
                    found[words] = None
    return list(found)


def all_sentences(kept):
    """By package. To parse the packages takes minutes, so what was found is kept beside the zoos."""
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps({package: first_sentences(package) for package in PACKAGES}))
        partial.rename(kept)
    return {package: [tuple(words) for words in sentences] for package, sentences in json.loads(kept.read_text()).items()}


def parts(seed, of):
    """Rows of each part: (words, label), as many of each package."""
    draw = random.Random(seed)
    owners = Counter(words for sentences in of.values() for words in sentences)
    rows = []
    each = sum(SIZES.values()) // len(PACKAGES)
    for label, package in enumerate(PACKAGES):
        own = [words for words in of[package] if owners[words] == 1]
        if len(own) < each:
            raise SystemExit(f"{package}: expected {each} sentences, found {len(own)}")
        rows += [(words, label) for words in draw.sample(own, each)]
    draw.shuffle(rows)
    found = {}
    for name, size in SIZES.items():
        found[name], rows = rows[:size], rows[size:]
    return found


def tensors(rows, index):
    """0 is padding, 1 a word that is not known."""
    input_ids = torch.zeros(len(rows), LENGTH, dtype=torch.long)
    for row, (words, _) in enumerate(rows):
        ids = [index.get(word, 1) for word in words[:LENGTH]]
        input_ids[row, : len(ids)] = torch.tensor(ids)
    return dict(input_ids=input_ids, attention_mask=(input_ids > 0).long(), labels=torch.tensor([label for _, label in rows]))


class TextClassifier(torch.nn.Module):
    """One transformer block over word embeddings, mean pooling, a linear head."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(VOCABULARY + 2, WIDTH)
        self.position = torch.nn.Parameter(torch.randn(LENGTH, WIDTH) * 0.1)
        self.norm1, self.norm2 = torch.nn.LayerNorm(WIDTH), torch.nn.LayerNorm(WIDTH)
        self.qkv, self.out = torch.nn.Linear(WIDTH, 3 * WIDTH), torch.nn.Linear(WIDTH, WIDTH)
        self.up, self.down = torch.nn.Linear(WIDTH, 4 * WIDTH), torch.nn.Linear(4 * WIDTH, WIDTH)
        self.classifier = torch.nn.Linear(WIDTH, len(PACKAGES))
        self.heads: int = HEADS
        self.scale: float = 1 / math.sqrt(WIDTH // HEADS)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        n, length, heads = input_ids.size(0), input_ids.size(1), self.heads
        hidden = self.embed(input_ids) + self.position[:length]
        q, k, v = self.qkv(self.norm1(hidden)).view(n, length, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1)) * self.scale
        weights = weights.masked_fill(attention_mask.view(n, 1, 1, length) == 0, -1e9).softmax(-1)
        hidden = hidden + self.out((weights @ v).transpose(1, 2).reshape(n, length, -1))
        hidden = hidden + self.down(torch.nn.functional.gelu(self.up(self.norm2(hidden))))
        mask = attention_mask.to(hidden.dtype).unsqueeze(-1)
        return self.classifier((hidden * mask).sum(1) / mask.sum(1).clamp(min=1.0))


def train(model, data, seed, learning_rate, weight_decay, epochs, batch, label_smoothing, dropped):
    """AdamW with a cosine schedule after a tenth of warm-up; `dropped`: share of words that become unknown ones."""
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    n = len(data["labels"])
    steps, step = epochs * -(-n // batch), 0
    for _ in range(epochs):
        for rows in torch.randperm(n).split(batch):
            progress = step / steps
            factor = progress / 0.1 if progress < 0.1 else 0.5 * (1 + math.cos(math.pi * (progress - 0.1) / 0.9))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * max(factor, 1e-3)
            ids, mask = data["input_ids"][rows], data["attention_mask"][rows]
            ids = torch.where((torch.rand(ids.shape) < dropped) & (ids > 0), 1, ids)
            loss = cross_entropy(model(ids, mask), data["labels"][rows], label_smoothing=label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1


def recipe(seed, index):
    """As the demo's: random, and some end badly."""
    draw = random.Random(f"{seed} {index}")
    log_uniform = lambda low, high: low * (high / low) ** draw.random()  # noqa: E731
    return dict(
        learning_rate=log_uniform(2e-4, 4e-3), weight_decay=log_uniform(1e-4, 0.3), epochs=draw.randint(5, 15),
        batch=draw.choice([25, 50, 100]), label_smoothing=0.2 * draw.random(), dropped=0.3 * draw.random(), seed=1_000_003 * seed + index,
    )  # fmt: skip


def write(path, content, **metadata):
    """Under a temporary name, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    save_file({name: tensor.detach().contiguous() for name, tensor in content.items()}, partial, metadata=metadata or None)
    partial.rename(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--ingredients", type=int, default=28)
    arguments = parser.parse_args()
    folder, seed = arguments.folder, arguments.seed
    done = folder / "zoo.json"
    own = json.dumps(dict(seed=seed, ingredients=arguments.ingredients))
    if done.exists() and done.read_text() == own:
        return
    torch.set_num_threads(1)
    split = parts(seed, all_sentences(folder.parent / "sentences.json"))
    counts = Counter(word for words, _ in split["base"] for word in words)
    index = {word: i + 2 for i, (word, _) in enumerate(sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:VOCABULARY])}
    data = {name: tensors(rows, index) for name, rows in split.items()}
    for name in ("learn", "select", "test"):
        write(folder / f"data/{name}.safetensors", data[name])
    torch.manual_seed(seed)
    model = TextClassifier()
    torch.jit.script(model).save(str(folder / "model.pt"))
    train(model, data["base"], seed, learning_rate=3e-3, weight_decay=0.05, epochs=15, batch=50, label_smoothing=0.0, dropped=0.2)
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for i in range(arguments.ingredients):
        model.load_state_dict(base)
        train(model, data["train"], **recipe(seed, i))
        write(folder / f"zoo/run-{i:02}.safetensors", dict(model.named_parameters()), format="pt")
    done.write_text(own)


if __name__ == "__main__":
    main()
