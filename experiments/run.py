"""Makes the zoos, runs the sweeps, and keeps what came of them in `results/`.

    run.py [--only 1 2 ...] [--seeds N ...] [--results experiments/results] [--out target/experiments] [--program target/release/mehl-soup]
    run.py --quick

A run can be stopped at any time: the same command goes on, as `mehl-soup run` does. With `--quick` one seed of small parts of experiments 1, 2
and 4 is run, nothing is kept in `results/`, and it fails if something is broken that must hold by construction (`check.py`).
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import check
import madeup
from program import HERE, AnonymousMemory, Program

LARGE = 32  # ingredients of the made-up zoo
LEARN = 350  # images of the demo's learn split
# Not 7, which the README shows, and not 101 to 103, on which the demo's settings were chosen.
SEEDS = [1, 2, 3, 4, 5]
# Not 201 to 204 either, on which the defaults of `steady` were chosen.
SEEDS_OF_7 = list(range(301, 311))


class Experiments:
    """Each method runs one experiment over all seeds, and returns its rows."""

    def __init__(self, program, out, seeds, torch_python=None):
        self.program, self.out, self.seeds, self.torch_python = program, out, seeds, torch_python

    def digits(self, seed, ingredients=28):
        """The demo's zoo, made on first use."""
        return self.program.demo(self.out / f"digits-{seed}", seed, ingredients)

    def memory_and_time(self, ks=(4, 8, 16, LARGE)):
        zoo = madeup.vit_zoo(self.out / "made-up", max(ks))
        rows = []
        # Methods and sizes in turns, so that whatever else the machine does meets all.
        for seed in self.seeds:
            for k in ks:
                for method in ("mehl+", "learned+"):
                    name = f"1-{method}-{k}-{seed}"
                    changes = {"seed": seed, "soup.method": method, "zoo.ingredients": [f"zoo/k{i:03}" for i in range(k)]}
                    watch = AnonymousMemory()
                    results = self.program.sweep(zoo, "1-memory-and-time.toml", name, changes, watch)
                    more = {"seed": seed, "k": k, "elements": madeup.elements()}
                    rows += keep_measured(results, watch, method, more)
        return rows

    def loss_against_iterations(self):
        rows = []
        for seed in self.seeds:
            results = self.program.sweep(self.digits(seed), "2-loss-against-iterations.toml", "2", {"seed": seed})
            rows += results.rows(curves=True, seed=seed)
        return rows

    def few_models_little_data(self, images=(50, 100, LEARN), models=(4, 28)):
        rows = []
        for seed in self.seeds:
            zoo = self.digits(seed)
            for n in images:
                for k in models:
                    changes = {"seed": seed, "zoo.ingredients": [f"zoo/run-{i:02}" for i in range(k)]}
                    if n < LEARN:
                        changes["data.learn"] = madeup.first_rows(zoo / "data/learn.safetensors", n)
                    results = self.program.sweep(zoo, "3-few-models-little-data.toml", f"3-{n}-images-{k}-models", changes)
                    rows += results.rows(seed=seed, images=n, k=k)
        return rows

    def full_gradient(self):
        rows = []
        for seed in self.seeds:
            zoo = self.digits(seed)
            passes = self.program.sweep(zoo, "4-same-passes.toml", "4-same-passes", {"seed": seed}).rows(curves=True)
            rows += [row | {"seed": seed, "part": "same passes"} for row in passes]
            # To the end of their iterations: those that do not stop early.
            mehl, hl = (next(row for row in passes if row["method"] == method and not row["early_stopping"]) for method in ("mehl+", "hl+"))
            inner_epochs = max(1, round(hl["inner_epochs"] * mehl["seconds"] / hl["seconds"]))
            time = self.program.sweep(zoo, "4-same-time.toml", "4-same-time", {"seed": seed, "soup.inner_epochs": inner_epochs})
            rows += time.rows(curves=True, seed=seed, part="same time")
        return rows

    def robustness(self):
        rows = []
        for seed in self.seeds:
            zoo = self.digits(seed)
            whole = self.program.sweep(zoo, "5-robustness.toml", "5-whole", {"seed": seed})
            rows += whole.rows(seed=seed, removed=0, bad=0.0) + self.starts(zoo, seed, 0.0)
            ranked = whole.best_first()
            for removed in (2, 8, 16):
                changes = {"seed": seed, "zoo.ingredients": [f"zoo/{name}" for name in sorted(ranked[removed:])]}
                results = self.program.sweep(zoo, "5-robustness.toml", f"5-without-{removed}", changes)
                rows += results.rows(seed=seed, removed=removed, bad=0.0)
            for bad in (0.25, 0.5):
                spoilt = self.program.make_zoo(self.out / f"bad-{round(100 * bad)}-{seed}", seed, bad=bad)
                results = self.program.sweep(spoilt, "5-robustness.toml", "5-bad", {"seed": seed})
                rows += results.rows(seed=seed, removed=0, bad=bad) + self.starts(spoilt, seed, bad)
        return rows

    def starts(self, zoo, seed, bad):
        """Rows of `mehl+` from other starts, which are in the method's name; not those of the baselines again."""
        results = self.program.sweep(zoo, "5-start.toml", "5-start", {"seed": seed})
        rows = results.rows(seed=seed, removed=0, bad=bad)
        return [row | {"method": f"mehl+, init = {row['init']}"} for row in rows if row["method"] == "mehl+"]

    def other_architectures(self):
        rows = []
        for seed in self.seeds:
            for family in ("resnet", "timm-vit"):
                zoo = self.program.make_zoo(self.out / f"{family}-{seed}", seed, family=family)
                results = self.program.sweep(zoo, "6-other-architectures.toml", "6", {"seed": seed})
                rows += results.rows(seed=seed, zoo=family)
            if self.torch_python:
                rows += self.text(seed)
            many = self.program.demo(self.out / f"digits-128-{seed}", seed, 128)
            results = self.program.sweep(many, "6-other-architectures.toml", "6", {"seed": seed})
            rows += results.rows(seed=seed, zoo="K = 128")
        return rows

    def text(self, seed):
        folder = self.out / f"text-{seed}"
        subprocess.run([self.torch_python, HERE / "text_zoo.py", folder, "--seed", str(seed)], check=True)
        changes = {
            "seed": seed,
            "zoo.ingredients": ["zoo/*.safetensors"],
            "zoo.family": "torchscript",
            "zoo.architecture": "model.pt",
            "data.inputs": ["input_ids", "attention_mask"],
        }
        return self.program.sweep(folder, "6-other-architectures.toml", "6", changes).rows(seed=seed, zoo="text")

    def default(self, kinds=None):
        """Eight kinds of zoo, none of which was used to choose anything. Without --torch-python there are six."""
        rows = []
        for seed in self.seeds:
            for kind, (zoo, changes) in self.kinds(seed).items():
                if kinds is None or kind in kinds:
                    changes = {key: value() if callable(value) else value for key, value in changes.items()}
                    name = "7-" + kind.replace(", ", "-").replace(" ", "-")
                    results = self.program.sweep(zoo(), "7-default.toml", name, {"seed": seed, **changes})
                    rows += results.rows(seed=seed, kind=kind)
        return rows

    def kinds(self, seed):
        """By name: how its zoo is made, and what differs in the specification."""
        make = lambda name, **options: lambda: self.program.make_zoo(self.out / f"7-{name}-{seed}", seed, **options)  # noqa: E731
        vit = make("vit-28", ingredients=28)
        few = lambda: madeup.first_rows(vit() / "data/learn.safetensors", 100)  # noqa: E731
        kinds = {
            "vit-28": (vit, {}),
            "vit-28, 100 samples": (vit, {"data.learn": few}),
            "vit-8": (vit, {"zoo.ingredients": [f"zoo/run-{i:02}" for i in range(8)]}),
            "vit-12, half bad": (make("vit-bad", ingredients=12, bad=0.5), {}),
            "timm-vit-12": (make("timm-vit", ingredients=12, family="timm-vit"), {}),
            "resnet-8": (make("resnet", ingredients=8, family="resnet"), {}),
        }
        if self.torch_python:
            module = {"zoo.ingredients": ["zoo/*.safetensors"], "zoo.family": "torchscript", "zoo.architecture": "model.pt"}
            kinds["text-8"] = (self.scripted("text_zoo.py", seed, 8), module | {"data.inputs": ["input_ids", "attention_mask"]})
            kinds["mlp-64"] = (self.scripted("mlp_zoo.py", seed, 64), module)
        return kinds

    def scripted(self, script, seed, ingredients):
        """Makes a zoo by a program of this folder."""
        folder = self.out / f"7-{script.removesuffix('.py')}-{seed}"
        command = [self.torch_python, HERE / script, folder, "--seed", str(seed), "--ingredients", str(ingredients)]

        def make():
            subprocess.run(command, check=True)
            return folder

        return make


def keep_measured(results, watch, method, more):
    """The row of the method, without those of the baselines, which the sweep has too."""
    (row,) = [row for row in results.rows(**more) if row["method"] == method]
    # Where the sweep was finished before, nothing ran now: what was measured then stands beside it.
    file = results.folder / "peak-anonymous.json"
    if file.exists():
        peak = json.loads(file.read_text())
    else:
        peak = watch.peak
        file.write_text(json.dumps(peak))
    return [row | {"peak_anonymous_bytes": peak}]


def conditions():
    """What a reader must know of the machine."""
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "?")
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "system": platform.system()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=int, nargs="+", default=range(1, 8), metavar="N")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="default: 1 to 5; 301 to 310 for experiment 7")
    parser.add_argument("--out", type=Path, default=HERE.parent / "target/experiments")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the result rows; rows of other seeds are kept")
    parser.add_argument("--program", type=Path, default=HERE.parent / "target/release/mehl-soup")
    parser.add_argument("--torch-python", type=Path, help="Python of scripts/setup-python-check.sh, for the text classifier (default: no text classifier)")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    program = Program(arguments.program.resolve())
    if arguments.quick:
        check.quick(Experiments(program, out / "quick", (arguments.seeds or SEEDS)[:1]))
        return
    experiments = Experiments(program, out, [], arguments.torch_python)
    known = {
        1: experiments.memory_and_time,
        2: experiments.loss_against_iterations,
        3: experiments.few_models_little_data,
        4: experiments.full_gradient,
        5: experiments.robustness,
        6: experiments.other_architectures,
        7: experiments.default,
    }
    for number in arguments.only:
        if number not in known:
            sys.exit(f"--only {number}: expected 1 to {len(known)}")
        file = arguments.results / f"{number}.json"
        experiments.seeds = arguments.seeds or (SEEDS_OF_7 if number == 7 else SEEDS)
        refuse_to_mix(file, experiments.seeds)
        keep(file, known[number](), experiments.seeds)


def refuse_to_mix(file, seeds):
    """Seconds and zoos of one machine are not those of another: rows of other seeds stay only if they are of such a machine as this."""
    kept = json.loads(file.read_text()) if file.exists() else {"rows": []}
    others = {row["seed"] for row in kept["rows"]} - set(seeds)
    if others and kept["conditions"] != conditions():
        sys.exit(f"{file}: seeds {sorted(others)} are of {kept['conditions']}, this is {conditions()}: give all seeds, or use another folder (--results)")


def keep(file, rows, seeds):
    """Writes the rows of some seeds; those of others that are there stay."""
    others = json.loads(file.read_text())["rows"] if file.exists() else []
    rows = sorted([row for row in others if row["seed"] not in seeds] + rows, key=lambda row: row["seed"])
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(row) for row in rows)
    partial = file.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(f'{{"conditions": {json.dumps(conditions())},\n"rows": [\n{lines}\n]}}\n')
    partial.rename(file)
    print(f"{file}: {len(rows)} rows", file=sys.stderr)


if __name__ == "__main__":
    main()
