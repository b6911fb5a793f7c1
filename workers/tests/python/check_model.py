"""Does a materialized model score in transformers what `results.json` says? Exits with 1 and says so where it does not.

    check_model.py MODEL_FOLDER RESULTS_JSON --test FILE [--select FILE]

The data files are safetensors with `inputs` [N, C, H, W] and `labels` [N]. The winner is the first row of `tasks` that
succeeded. Loss must agree within 1e-5 nats (both are f32 forward passes, summed in other orders), and accuracy
within one sample (two logits may be equal up to rounding). Needs the packages of `../fixtures/requirements.txt`.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

LOSS_TOLERANCE = 1e-5
SAMPLES_TOLERANCE = 1
BATCH = 64


def load(folder):
    """The model in f32, and a line for each tensor that it lacked or did not know."""
    model, info = transformers.AutoModelForImageClassification.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, local_files_only=True
    )
    faults = [f"{what.replace('_', ' ')}: {sorted(map(str, names))}" for what, names in info.items() if names]
    return model.eval(), faults


@torch.no_grad()
def score(model, file):
    """Mean cross-entropy, number of samples classified right, number of samples."""
    data = load_file(file)
    total, right = 0.0, 0
    for inputs, labels in zip(data["inputs"].float().split(BATCH), data["labels"].long().split(BATCH)):
        logits = model(inputs).logits
        total += torch.nn.functional.cross_entropy(logits.double(), labels, reduction="sum").item()
        right += (logits.argmax(dim=1) == labels).sum().item()
    samples = len(data["labels"])
    return total / samples, right, samples


def compare(split, expected, loss, right, samples):
    """Yields one line for each number that is too far off."""
    if expected is None:
        yield f"{split}: results hold no score"
        return
    if not abs(loss - expected["loss"]) <= LOSS_TOLERANCE:
        yield f"{split} loss: results say {expected['loss']!r}, transformers finds {loss!r}"
    if not abs(right - expected["accuracy"] * samples) <= SAMPLES_TOLERANCE + 1e-6:
        yield f"{split} accuracy: results say {expected['accuracy']!r}, transformers finds {right / samples!r}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of the materialized winner")
    parser.add_argument("results", type=Path, help="results.json of the same run")
    parser.add_argument("--test", type=Path, required=True, help="the run's test data")
    parser.add_argument("--select", type=Path, help="the run's select data, where it is a file of its own")
    arguments = parser.parse_args()

    transformers.logging.disable_progress_bar()
    rows = json.loads(arguments.results.read_text())["tasks"]
    winner = next((row for row in rows if row["state"] == "succeeded"), None)
    if winner is None:
        sys.exit(f"{arguments.results}: no task succeeded")
    model, faults = load(arguments.model)
    for split in ("test", "select"):
        file = getattr(arguments, split)
        if file is not None:
            loss, right, samples = score(model, file)
            faults += compare(split, winner.get(split), loss, right, samples)
            print(f"{split}: loss {loss:.6f}, {right} of {samples} right")
    for fault in faults:
        print(f"{winner['task_id']}: {fault}", file=sys.stderr)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
