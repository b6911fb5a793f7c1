"""What bf16 and compact directions cost or gain on real zoos, as means over seeds.

    seeds.py --program target/release/mehl-soup --lines FILE DEMO...

Each DEMO is a folder that `mehl-soup demo --out` has made, each of another seed. Two comparisons, each as one line of JSON that `tables.py` reads, appended to FILE:

- test loss of a method computed in bf16 (and directions as `auto` has them then, in int8) less that in f32: `auto` on a large model is the former;
- all ingredients in one model batch with directions in int4 (`hl+`) against four model batches of a quarter of them in f32 (`mehl+`): iterations to the select
  loss that both reach, seconds to it, bytes of directions.

Sweeps are kept beside FILE and not run again. Test data choose nothing here.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

METHODS = ["mehl", "mehl+", "hl+"]
SOUP = dict(batch=32, inner_epochs=15, model_batch=7)


def toml(value):
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def sweep(arguments, demo, name, soup, compute, methods):
    """Rows of a sweep's results by method, each with its history and its task's direction bytes."""
    out = arguments.lines.parent / "seeds" / f"{demo.name}-{name}"
    spec = out.with_suffix(".toml")
    spec.parent.mkdir(parents=True, exist_ok=True)
    soup = "\n".join(f"{key} = {toml(value)}" for key, value in (SOUP | soup).items())
    compute = "\n".join(f"{key} = {toml(value)}" for key, value in compute.items())
    demo = demo.resolve()
    spec.write_text(
        f"[zoo]\ningredients = ['{demo}/zoo/*']\n"
        + "[data]\n" + "".join(f"{split} = '{demo}/data/{split}.safetensors'\n" for split in ("learn", "select", "test"))
        + f"[soup]\n{soup}\n[compute]\n{compute}\n"
        + f"[search]\nstrategy = 'grid'\n[search.space]\nmethod = {{ choice = {methods} }}\n"
    )
    ran = subprocess.run([arguments.program, "run", spec, "--out", out], capture_output=True, text=True)
    if ran.returncode != 0:
        sys.exit(f"{spec}: mehl-soup ended with {ran.returncode}:\n{ran.stderr}")
    results = json.loads((out / "results.json").read_text())
    rows = {}
    for task in (task for task in results["tasks"] if task["method"] in methods):
        history = json.loads((out / "tasks" / task["task_id"] / "history.json").read_text())["points"]
        rows[task["method"]] = dict(task, history=history)
    return rows


def reached(row, loss):
    """Iteration, and seconds of iterations, after which the select loss was at most `loss`."""
    seconds, before = 0.0, 0
    for point in row["history"]:
        # Thinned out: each point stands for the iterations since the one before.
        seconds += (point["iteration"] - before) * SOUP["batch"] / point["samples_per_second"]
        before = point["iteration"]
        if point["select_loss"] is not None and point["select_loss"] <= loss:
            return before, seconds
    return before, seconds


def mean(values):
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return dict(value=statistics.mean(values), standard_error=error)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demos", type=Path, nargs="+")
    parser.add_argument("--program", type=Path, default=Path("target/release/mehl-soup"))
    parser.add_argument("--lines", type=Path, required=True)
    arguments = parser.parse_args()
    differences = {method: [] for method in METHODS}
    iterations, seconds = [], []
    for demo in arguments.demos:
        f32 = sweep(arguments, demo, "f32", dict(direction_dtype="f32"), dict(dtype="f32"), METHODS)
        bf16 = sweep(arguments, demo, "auto", dict(direction_dtype="auto"), dict(dtype="bf16"), METHODS)
        for method in METHODS:
            differences[method].append(bf16[method]["test"]["loss"] - f32[method]["test"]["loss"])
        whole = sweep(arguments, demo, "int4", dict(direction_dtype="int4"), dict(dtype="f32"), ["hl+"])["hl+"]
        # As many passes over learn as four model batches have.
        parts = f32["mehl+"]
        common = max(min(p["select_loss"] for p in row["history"] if p["select_loss"] is not None) for row in (whole, parts))
        (own, own_seconds), (other, other_seconds) = reached(whole, common), reached(parts, common)
        iterations.append(own / other)
        seconds.append(own_seconds / other_seconds)
    k = len(list((arguments.demos[0] / "zoo").iterdir()))
    about = f"{len(arguments.demos)} zoos of the demo, K = {k}"
    with arguments.lines.open("a") as lines:
        def number(**line):
            lines.write(json.dumps(dict(what="number", **line)) + "\n")

        for method, values in differences.items():
            number(name=f"test loss in bf16 less that in f32, `{method}`: {about}", at_most=0.005, at_least=-0.005, **mean(values))
        same = f"`hl+` with all in int4 over `mehl+` with b = 7 in f32, to the select loss that both reach: {about}"
        number(name=f"iterations, {same}", **mean(iterations))
        number(name=f"seconds, {same}", **mean(seconds))
        number(name="bytes of directions, the same", value=k * 34 / 64 / (7 * 4))


if __name__ == "__main__":
    main()
