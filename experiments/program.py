"""The program under test: its zoos, its sweeps, and what they leave in their run folders."""

import json
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Points that a curve is thinned out to: means over equal shares of the iterations.
CURVE = 84


class Program:
    """`mehl-soup`, and its worker beside it."""

    def __init__(self, path):
        if not path.is_file():
            sys.exit(f"{path}: not found; build it with `make build`, or set --program")
        self.path = path

    def call(self, *arguments, watch=None):
        """Runs to the end; its talk goes to our stderr. Ends this program if that one fails."""
        command = [str(self.path), *map(str, arguments)]
        print("$", *command, file=sys.stderr, flush=True)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        if watch:
            watch.begin(process)
        status = process.wait()
        if watch:
            watch.end()
        if status:
            sys.exit(f"{' '.join(command)}: exit status {status}")

    def demo(self, folder, seed, ingredients=28):
        """The demo's zoo of a seed, with its sweep over every method in `run`; returns the zoo's folder."""
        self.call("demo", "--out", folder, "--seed", seed, "--ingredients", ingredients)
        return folder

    def make_zoo(self, folder, seed, **options):
        """A zoo that is not the demo's: `bad`, `family`, `ingredients` and so on as the options of `demo --make-zoo` are named."""
        flags = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", value)]
        self.call("demo", "--make-zoo", folder, "--seed", seed, *flags)
        return folder

    def sweep(self, zoo, spec, name, changes=None, watch=None):
        """Runs a specification of this folder over a zoo, with some of its keys changed: `{"soup.method": "hl"}`."""
        document = tomllib.loads((HERE / spec).read_text())
        document["name"] = name
        for key, value in (changes or {}).items():
            *sections, last = key.split(".")
            place = document
            for section in sections:
                place = place.setdefault(section, {})
            place[last] = value
        # Beside the zoo, where its paths are seen from.
        path = zoo / f"{name}.json"
        path.write_text(json.dumps(document, indent=1) + "\n")
        out = zoo / f"run-{name}"
        self.call("run", path, "--out", out, watch=watch)
        return Results(out)


class Results:
    """What a sweep left."""

    def __init__(self, folder):
        self.folder = folder
        self.results = json.loads((folder / "results.json").read_text())
        unfinished = [row["task_id"] for row in self.results["tasks"] if row["state"] != "succeeded"]
        if unfinished:
            sys.exit(f"{folder}/results.json: expected every task to have succeeded, found {', '.join(unfinished)}")

    def rows(self, curves=False, **more):
        """What of each task is kept; `more` goes into every row."""
        return [self.row(row, curves) | more for row in self.results["tasks"]]

    def row(self, row, curves):
        soup = row["hyperparameters"]
        kept = {key: row[key] for key in ("method", "model_batch", "iterations", "seconds", "peak_host_bytes")}
        kept |= {key: soup[key] for key in ("inner_epochs", "early_stopping", "init")}
        for split in ("learn", "select", "test"):
            if row[split]:
                kept[split] = {key: round(row[split][key], 6) for key in ("loss", "accuracy")}
        # A task that was interrupted has the history of its last attempt alone.
        if curves and row["iterations"] and row["attempts"] == 1:
            kept["curve"] = self.curve(row)
        return kept

    def curve(self, row):
        """[last iteration, mean learn loss] of each of at most CURVE equal shares of a task's history."""
        history = json.loads((self.folder / "tasks" / row["task_id"] / "history.json").read_text())
        shares = {}
        for point in history["points"]:
            share = (point["iteration"] - 1) * CURVE // row["iterations"]
            shares.setdefault(share, []).append(point)
        return [[some[-1]["iteration"], round(sum(point["learn_loss"] for point in some) / len(some), 7)] for some in shares.values()]

    def best_first(self):
        """Names of the ingredients, the best by select loss first."""
        scored = [(each["select"]["loss"], each["name"]) for each in self.results["ingredients"]]
        return [name for _, name in sorted(scored)]


class AnonymousMemory:
    """The most anonymous resident memory (pages of files are not in it) of a process and what it has started, looked at every few milliseconds."""

    def __init__(self):
        self.peak = 0

    def begin(self, process):
        self.process, self.over = process, threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()

    def end(self):
        self.over.set()
        self.thread.join()

    def watch(self):
        while not self.over.wait(0.005):
            self.peak = max(self.peak, anonymous(self.process.pid))


def anonymous(pid):
    """RssAnon of a process and its children, in bytes; 0 once it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    own = next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon:")), 0)
    return own + sum(anonymous(child) for child in children)
