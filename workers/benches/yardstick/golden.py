"""The yardstick against the golden trajectories of the tests, which a plainer script wrote."""

import json

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import soups
import zoo

# Coefficients and losses of order 1 in f64, after twenty steps summed in another order.
TOLERANCE = 1e-8
MODEL_BATCHES = [[1, 2], [0, 3]]
STEPS = 20


def distances(folder):
    """Largest differences of losses and coefficients, by method."""
    golden = json.loads((folder / "trajectories.json").read_text())
    device, dtype = torch.device("cpu"), torch.float64
    models = zoo.Zoo(folder, None, device)
    assert [models.disk[name] for name in models.mixed] == golden["groups"], "other groups"
    data = zoo.Data(folder, 24, 0, device, dtype)
    found = {}

    def compare(method, losses, tables):
        expected = golden["methods"][method]["f64"]
        for what, ours, theirs in (("loss", losses, expected["loss"]), ("A", tables, expected["A"])):
            gap = torch.tensor(ours, dtype=dtype) - torch.tensor(theirs, dtype=dtype)
            found[f"{method} {what}"] = gap.abs().max().item()

    # The recipe's: the fused kernel of f64 rounds otherwise.
    with sdpa_kernel(SDPBackend.MATH):
        losses, tables = [], []
        soup = soups.Mehl(models, data, 2, dtype)
        for members in MODEL_BATCHES:
            soup.load(members)
            soup.begin(STEPS // len(MODEL_BATCHES))
            for _ in range(STEPS // len(MODEL_BATCHES)):
                losses.append(soup.iteration().item())
                tables.append(soup.coefficients().tolist())
            soup.fold()
        compare("mehl+", losses, tables)
        losses, tables = [], []
        soup = soups.Learned(models, data, dtype)
        for _ in range(STEPS):
            losses.append(soup.iteration().item())
            tables.append(soup.coefficients().tolist())
        compare("learned+", losses, tables)
    return found
