"""A small network without attention or images as a TorchScript module, and a zoo of fine-tuned copies: UCI digits as 64 numbers.

    mlp_zoo.py FOLDER --seed N [--ingredients 64]

FOLDER gets `model.pt`, `zoo/run-NN.safetensors`, and `data/{learn,select,test}.safetensors` with `inputs` [N, 64] f32 and `labels` [N] i64; no two parts share
a sample. A zoo that was finished is kept.
"""

import argparse
import json
import random
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from text_zoo import write
from torch.nn.functional import cross_entropy

SIZES = {"base": 300, "train": 300, "learn": 350, "select": 250, "test": 597}
WIDTH, CLASSES = 64, 10


class Network(torch.nn.Module):
    """Three layers with normalisation between them."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(64, WIDTH), torch.nn.Linear(WIDTH, WIDTH)
        self.norm1, self.norm2 = torch.nn.LayerNorm(WIDTH), torch.nn.LayerNorm(WIDTH)
        self.head = torch.nn.Linear(WIDTH, CLASSES)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = torch.nn.functional.gelu(self.norm1(self.first(inputs)))
        hidden = hidden + torch.nn.functional.gelu(self.norm2(self.second(hidden)))
        return self.head(hidden)


def train(model, data, seed, learning_rate, weight_decay, epochs, batch, label_smoothing, noise):
    """AdamW with a linear decay; `noise`: standard deviation of what is added to inputs."""
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    n = len(data["labels"])
    steps = epochs * -(-n // batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for _ in range(epochs):
        for rows in torch.randperm(n).split(batch):
            inputs = data["inputs"][rows]
            loss = cross_entropy(model(inputs + noise * torch.randn_like(inputs)), data["labels"][rows], label_smoothing=label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def recipe(seed, index):
    """As the demo's: random, and some end badly."""
    draw = random.Random(f"{seed} {index}")
    log_uniform = lambda low, high: low * (high / low) ** draw.random()  # noqa: E731
    return dict(
        learning_rate=log_uniform(2e-4, 8e-3), weight_decay=log_uniform(1e-4, 0.3), epochs=draw.randint(5, 30),
        batch=draw.choice([25, 50, 100]), label_smoothing=0.2 * draw.random(), noise=draw.random(), seed=1_000_003 * seed + index,
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--ingredients", type=int, default=64)
    arguments = parser.parse_args()
    folder, seed = arguments.folder, arguments.seed
    done = folder / "zoo.json"
    own = json.dumps(dict(seed=seed, ingredients=arguments.ingredients))
    if done.exists() and done.read_text() == own:
        return
    torch.set_num_threads(1)
    digits = load_digits()
    inputs, labels = torch.tensor(digits.data, dtype=torch.float32) / 8 - 1, torch.tensor(digits.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    data = {}
    for name, size in SIZES.items():
        rows, order = order[:size], order[size:]
        data[name] = {"inputs": inputs[rows], "labels": labels[rows]}
    for name in ("learn", "select", "test"):
        write(folder / f"data/{name}.safetensors", data[name])
    torch.manual_seed(seed)
    model = Network()
    torch.jit.script(model).save(str(folder / "model.pt"))
    train(model, data["base"], seed, learning_rate=3e-3, weight_decay=0.05, epochs=30, batch=50, label_smoothing=0.0, noise=0.3)
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for i in range(arguments.ingredients):
        model.load_state_dict(base)
        train(model, data["train"], **recipe(seed, i))
        write(folder / f"zoo/run-{i:02}.safetensors", dict(model.named_parameters()), format="pt")
    done.write_text(own)


if __name__ == "__main__":
    main()
