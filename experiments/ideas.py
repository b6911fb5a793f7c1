"""Ideas beside `steady`, tried in PyTorch on random splits of the learn and select files of a zoo.

    ideas.py ZOO [--learn N] [--splits 5] [--only NAME ...]

ZOO is a folder of `mehl-soup demo --make-zoo` (family vit or timm-vit). The samples of learn and
select are pooled and split at random: N for learning, 125 for early stopping, 125 for the comparison.
The test file is not read. All begin at the mean, or at the best ingredient if that has the lower loss.
Prints for each idea the mean and standard error over the splits of its loss less that of the best ingredient, and
of its loss less that of `steady`.
"""

import argparse
import json
import math
import statistics
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

EPOCHS, BATCH, PATIENCE, RATE, WARMUP = 12, 32, 3, 0.02, 0.2
STEER = CHOOSE = 125


class Zoo:
    """All ingredients as one tensor for each name, [K, ...]."""

    def __init__(self, folder):
        paths = sorted((folder / "zoo").iterdir())
        config = json.loads((paths[0] / "config.json").read_text())
        if "architecture" in config:
            import timm

            model = timm.create_model(config["architecture"], num_classes=config["num_classes"], **config["model_args"])
            files = [load_file(path / "model.safetensors") for path in paths]
        else:
            import transformers

            models = [transformers.ViTForImageClassification.from_pretrained(path) for path in paths]
            model, files = models[0], [each.state_dict() for each in models]
        self.model = model.eval().requires_grad_(False)
        names = [name for name, _ in model.named_parameters()]
        self.theta = {name: torch.stack([file[name] for file in files]) for name in names}
        self.K, self.names = len(files), names
        parts = [load_file(folder / f"data/{split}.safetensors") for split in ("learn", "select")]
        self.inputs = torch.cat([part["inputs"] for part in parts])
        self.labels = torch.cat([part["labels"] for part in parts])

    def outputs(self, weights, rows):
        out = torch.func.functional_call(self.model, weights, (self.inputs[rows],))
        return getattr(out, "logits", out)

    def loss(self, weights, rows):
        return cross_entropy(self.outputs(weights, rows), self.labels[rows])

    def mix(self, A):
        """A: [K, L], columns sum to 1."""
        return {name: torch.tensordot(A[:, l], self.theta[name], 1) for l, name in enumerate(self.names)}


def rate(step, steps):
    rising = int(WARMUP * steps)
    if step < rising:
        return RATE * (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising))) * RATE


def project(s, radius):
    """Scales s so that its root mean square length over the groups is at most `radius`."""
    length = s.square().sum(0).mean().sqrt()
    return s * min(1.0, radius / (length.item() + 1e-12))


def steady(zoo, start, learn, steer, seed=0, shrink=20.0, average=0.97, temperature=False, sam=0.0, trust=None,
           shrink_a=0.0, epochs=EPOCHS, patience=PATIENCE):
    """One model batch that holds all. Returns s [K, L] with the best loss on `steer`, and its epoch;
    without `steer` the last."""
    centre = zoo.mix(start)
    D = {name: zoo.theta[name] - centre[name] for name in zoo.names}
    L = len(zoo.names)
    a = torch.zeros(zoo.K, 1, requires_grad=True)
    delta = torch.zeros(zoo.K, L, requires_grad=True)
    inverse = torch.ones((), requires_grad=True)
    optimizer = torch.optim.AdamW([a, delta] + ([inverse] if temperature else []), lr=RATE, weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)

    def place(s):
        return {name: centre[name] + torch.tensordot(s[:, l], D[name], 1) for l, name in enumerate(zoo.names)}

    mean, best, best_epoch, step = torch.zeros(zoo.K, L), None, 0, 0
    s_best = torch.zeros(zoo.K, L)
    if steer is not None:
        with torch.no_grad():
            best = zoo.loss(centre, steer).item()
    steps = epochs * -(-len(learn) // BATCH)
    for epoch in range(1, epochs + 1):
        order = learn[torch.randperm(len(learn), generator=generator)]
        for rows in order.split(BATCH):
            now = rate(step, steps)
            optimizer.param_groups[0]["lr"] = now

            def gradient(shift):
                w = place(a + delta + shift)
                for tensor in w.values():
                    tensor.retain_grad()
                optimizer.zero_grad()
                cross_entropy(inverse * zoo.outputs(w, rows), zoo.labels[rows]).backward()
                clip = min(1.0, 1.0 / (math.sqrt(sum(t.grad.square().sum().item() for t in w.values())) + 1e-6))
                a.grad *= clip
                delta.grad *= clip

            gradient(torch.zeros(zoo.K, L))
            if sam:
                # The gradient with respect to s is that with respect to delta.
                g = delta.grad.clone()
                gradient(sam * g / (g.norm() + 1e-12))
            optimizer.step()
            step += 1
            with torch.no_grad():
                delta /= 1 + now * shrink
                a /= 1 + now * shrink_a
                if trust:
                    s = project(a + delta, trust)
                    factor = (s.norm() / ((a + delta).norm() + 1e-12)).item()
                    a *= factor
                    delta *= factor
                mean = average * mean + (1 - average) * (a + delta)
        s = mean / (1 - average**step) if average else (a + delta).detach()
        if steer is None:
            s_best, best_epoch = s.clone(), epoch
            continue
        with torch.no_grad():
            found = zoo.loss(place(s), steer).item()
        if found < best:
            best, best_epoch, s_best = found, epoch, s.clone()
        elif epoch - best_epoch >= patience:
            break
    return s_best, best_epoch


def fold(start, s):
    return (1 - s.sum(0, keepdim=True)) * start + s


def ideas(zoo, start, learn, steer):
    """By name: the coefficients."""
    one = lambda **options: lambda: fold(start, steady(zoo, start, learn, steer, **options)[0])  # noqa: E731

    def bagged(times, bootstrap):
        total = 0
        for i in range(times):
            generator = torch.Generator().manual_seed(i)
            drawn = torch.randint(len(learn), (len(learn),), generator=generator)
            rows = learn[drawn] if bootstrap else learn
            total = total + steady(zoo, start, rows, steer, seed=i)[0]
        return fold(start, total / times)

    def crossed(folds, refit):
        both = torch.cat([learn, steer])
        both = both[torch.randperm(len(both), generator=torch.Generator().manual_seed(0))]
        parts = both.tensor_split(folds)
        total, epochs = 0, []
        for i, held in enumerate(parts):
            rest = torch.cat([part for j, part in enumerate(parts) if j != i])
            s, epoch = steady(zoo, start, rest, held, seed=i)
            total, epochs = total + s, epochs + [epoch]
        if refit:
            epochs = round(sum(epochs) / folds)
            return fold(start, steady(zoo, start, both, None, epochs=epochs)[0]) if epochs else start
        return fold(start, total / folds)

    n = len(learn)
    return {
        "steady": one(),
        "shrink 7000 / learn samples": one(shrink=7000 / n),
        "shrink 5": one(shrink=5.0),
        "shrink 100": one(shrink=100.0),
        "temperature": one(temperature=True),
        "SAM, 0.05": one(sam=0.05),
        "SAM, 0.2": one(sam=0.2),
        "trust region, 0.3": one(trust=0.3),
        "trust region, 1": one(trust=1.0),
        "a shrunk too, by 1": one(shrink_a=1.0),
        "5 bootstraps, mean": lambda: bagged(5, True),
        "3 orders, mean": lambda: bagged(3, False),
        "cross-fitting, 4 folds, mean": lambda: crossed(4, False),
        "cross-fitting, 4 folds, refit": lambda: crossed(4, True),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--learn", type=int, default=350)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    zoo = Zoo(arguments.zoo)
    table = {}
    for split in range(arguments.splits):
        order = torch.randperm(len(zoo.labels), generator=torch.Generator().manual_seed(split))
        learn, steer = order[: arguments.learn], order[-STEER - CHOOSE : -CHOOSE]
        choose = order[-CHOOSE:]
        with torch.no_grad():
            single = [torch.eye(zoo.K)[:, [k]].expand(-1, len(zoo.names)) for k in range(zoo.K)]
            steered = [zoo.loss(zoo.mix(A), steer).item() for A in single]
            best = single[min(range(zoo.K), key=lambda k: steered[k])]
            uniform = torch.full((zoo.K, len(zoo.names)), 1 / zoo.K)
            start = uniform if zoo.loss(zoo.mix(uniform), steer) < min(steered) else best
        for name, coefficients in ideas(zoo, start, learn, steer).items():
            if arguments.only and name not in ["steady", *arguments.only]:
                continue
            A = coefficients()
            with torch.no_grad():
                loss = zoo.loss(zoo.mix(A), choose).item()
                reference = zoo.loss(zoo.mix(best), choose).item()
            table.setdefault(name, []).append(loss - reference)
    for name, found in table.items():
        beside = [x - y for x, y in zip(found, table["steady"])]
        error = lambda x: statistics.stdev(x) / math.sqrt(len(x)) if len(x) > 1 else math.nan  # noqa: E731
        of = lambda x: f"{statistics.mean(x):+.4f} ± {error(x):.4f}"  # noqa: E731
        print(f"{name:32} {of(found)}   {of(beside)}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(table))


if __name__ == "__main__":
    main()
