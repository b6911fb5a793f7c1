"""Tables and plots out of `results/*.json` into `docs/experiments.md`, between its markers, and `docs/experiments/*.svg`.

    report.py [--results experiments/results] [--document docs/experiments.md]

A number is a mean over seeds with its standard error. An experiment without results leaves its part as it is.
"""

import argparse
import json
import re
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import plots

ROOT = Path(__file__).resolve().parent.parent
MB = 1e6
ORDER = ["best", "uniform", "greedy", "learned", "learned+", "hl", "hl+", "mehl", "mehl+", "steady", "mehl+, init = best", "mehl+, init = greedy"]


class Values(list):
    """One number a seed."""

    @property
    def mean(self):
        return statistics.fmean(self)

    @property
    def error(self):
        """Standard error of the mean; `None` of one number."""
        return statistics.stdev(self) / len(self) ** 0.5 if len(self) > 1 else None

    def show(self, digits):
        # A loss that is all but 0 in two significant digits.
        if 0 < abs(self.mean) < 10**-digits and (self.error or 0) < 10**-digits:
            return f"{self.mean:.1e}" + ("" if self.error is None else f" ± {self.error:.0e}")
        error = "" if self.error is None else f" ± {self.error:.{digits}f}"
        return f"{self.mean:.{digits}f}{error}"


def groups(rows, *keys):
    """Rows by the values of `keys`, in the order in which they first appear."""
    found = defaultdict(list)
    for row in rows:
        found[tuple(row[key] for key in keys)].append(row)
    return found


def of(rows, *path, scale=1.0):
    """Values at a path of keys."""
    values = Values()
    for row in rows:
        for key in path:
            row = row[key]
        values.append(row * scale)
    return values


def over(rows, others, *path):
    """Differences to other rows of the same seeds: what seeds have in common goes."""
    other = {row["seed"]: of([row], *path)[0] for row in others}
    return Values(of([row], *path)[0] - other[row["seed"]] for row in rows)


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def scores(rows, best=None):
    """Cells: select loss, test loss, test accuracy and, if `best` is given, test loss above the best ingredient's."""
    cells = [of(rows, "select", "loss").show(4), of(rows, "test", "loss").show(4), of(rows, "test", "accuracy", scale=100).show(2)]
    return cells + ([over(rows, best, "test", "loss").show(4)] if best is not None else [])


SCORES = ["select loss", "test loss", "test accuracy %"]
ABOVE = ["test loss above best ingredient's"]


def memory_and_time(rows, save):
    model = 4 * rows[0]["elements"]
    by = groups(rows, "method", "k")
    lines = []
    for (method, k), some in by.items():
        first = by[method, min(k for _, k in by)]
        peak = of(some, "peak_anonymous_bytes")
        lines.append([
            method, k, of(some, "peak_host_bytes", scale=1 / MB).show(0), of(some, "peak_anonymous_bytes", scale=1 / MB).show(0),
            f"{round((peak.mean - of(first, 'peak_anonymous_bytes').mean) / model, 1) + 0:.1f}", some[0]["iterations"], of(some, "seconds").show(2),
            Values(1000 * row["seconds"] / row["iterations"] for row in some).show(0),
        ])  # fmt: skip
    save("1-memory-and-time", plots.memory_and_time(by, of))
    lines.sort(key=lambda line: (line[0], line[1]))
    header = ["method", "K", "peak resident, MB", "peak anonymous, MB", "above K = 4, models", "iterations", "seconds", "ms per iteration (total)"]
    return f"One model is D = {model // 4:,} numbers of 4 bytes: {model / MB:.1f} MB.\n\n" + table(header, lines)


def loss_against_iterations(rows, save):
    save("2-loss-against-iterations", plots.loss_against_iterations(groups([row for row in rows if row["iterations"]], "method", "model_batch"), of))
    lines = []
    best = [row for row in rows if row["method"] == "best"]
    for (method, b), some in groups(rows, "method", "model_batch").items():
        learns = some[0]["iterations"] > 0
        lines.append([method, b if learns else "", some[0]["iterations"] or "", of(some, "learn", "loss").show(4), *scores(some, best),
                      of(some, "seconds").show(1) if learns else ""])  # fmt: skip
    lines.sort(key=lambda line: (ORDER.index(line[0]), line[1] or 0))
    return table(["method", "b", "iterations", "learn loss", *SCORES, *ABOVE, "seconds"], lines)


def few_models_little_data(rows, save):
    save("3-few-models-little-data", plots.few_models_little_data(groups(rows, "k", "images", "method", "early_stopping"), of))
    lines = []
    for (k, images), part in groups(rows, "k", "images").items():
        best = [row for row in part if row["method"] == "best"]
        for (method, early), some in groups(part, "method", "early_stopping").items():
            stopping = ("yes" if early else "no") if some[0]["iterations"] or method.startswith("mehl") else ""
            lines.append([k, images, method, stopping, of(some, "learn", "loss").show(4), *scores(some, best)])
    lines.sort(key=lambda line: (line[0], line[1], ORDER.index(line[2]), line[3]))
    return table(["K", "learn images", "method", "early stopping", "learn loss", *SCORES, *ABOVE], lines)


def full_gradient(rows, save):
    learning = [row for row in rows if row["method"] in ("mehl+", "hl+")]
    passes = [row for row in learning if row["part"] == "same passes"]
    time = [row for row in learning if row["part"] == "same time"]
    save("4-full-gradient", plots.full_gradient([row for row in passes if not row["early_stopping"]], time, of))
    best = [row for row in rows if row["method"] == "best" and row["part"] == "same passes"]
    lines = []
    for (part, early, method), some in groups(learning, "part", "early_stopping", "method").items():
        lines.append([part, "yes" if early else "no", method, of(some, "iterations").show(0), of(some, "seconds").show(2),
                      of(some, "learn", "loss").show(4), *scores(some, best)])  # fmt: skip
    lines.sort(key=lambda line: (line[0], line[1], line[2]))
    differences = []
    for (part, early), some in groups(learning, "part", "early_stopping").items():
        mehl, hl = ([row for row in some if row["method"] == method] for method in ("mehl+", "hl+"))
        differences.append([part, "yes" if early else "no", *(over(mehl, hl, split, "loss").show(4) for split in ("learn", "select", "test"))])
    header = ["same", "early stopping", "method", "iterations", "seconds", "learn loss", *SCORES, *ABOVE]
    second = table(["same", "early stopping", "learn loss", "select loss", "test loss"], differences)
    return table(header, lines) + "\n`mehl+` minus `hl+` on the same zoo (negative: `mehl+` is better):\n\n" + second


def robustness(rows, save):
    save("5-robustness", plots.robustness(groups(rows, "removed", "bad", "method"), of))
    lines = []
    for (removed, bad), part in groups(rows, "removed", "bad").items():
        best = [row for row in part if row["method"] == "best"]
        for (method,), some in groups(part, "method").items():
            what = f"{100 * bad:.0f} % bad" if bad else f"best {removed} removed" if removed else "whole"
            lines.append((bad, removed, ORDER.index(method), [what, method, *scores(some, best)]))
    lines.sort(key=lambda line: line[:3])
    return table(["zoo", "method", *SCORES, *ABOVE], [line[-1] for line in lines])


def other_architectures(rows, save):
    save("6-other-architectures", plots.other_architectures(groups(rows, "zoo", "method"), over))
    lines = []
    for (zoo,), part in groups(rows, "zoo").items():
        best = [row for row in part if row["method"] == "best"]
        parts = sorted(groups(part, "method").items(), key=lambda each: ORDER.index(each[0][0]))
        lines += [[zoo, len({row["seed"] for row in some}), method, *scores(some, best), of(some, "seconds").show(1)] for (method,), some in parts]
    return table(["zoo", "seeds", "method", *SCORES, *ABOVE, "seconds"], lines)


# Experiment 7, as docs/experiments.md says before it ran.
RIVALS = ["best", "greedy", "mehl", "mehl+", "learned+"]
MARGIN = 0.05
# Of Student's t with 9 degrees of freedom, one-sided; the kinds have ten seeds each.
T_95 = 1.833


def default(rows, save):
    save("7-default", plots.default(groups(rows, "kind", "method"), over))
    lines, better, worse = [], 0, []
    kinds = groups(rows, "kind")
    for (kind,), part in kinds.items():
        by = groups(part, "method")
        steady, best = by[("steady",)], by[("best",)]
        margin = MARGIN * of(best, "test", "loss").mean
        cells = []
        for rival in RIVALS:
            differences = over(steady, by[(rival,)], "test", "loss")
            bound = differences.mean + T_95 * (differences.error or 0)
            cells.append(differences.show(4) + ("" if bound <= margin else " **!**"))
            if bound > margin:
                worse.append(f"{kind} against {rival}")
        gain = over(steady, best, "test", "loss")
        is_better = gain.mean < -2 * (gain.error or 0)
        better += is_better
        accuracy = Values(100 * v for v in over(steady, best, "test", "accuracy"))
        lines.append([kind, len(steady), of(best, "test", "loss").show(4), f"{margin:.4f}", *cells, accuracy.show(2), "yes" if is_better else "no"])
    header = ["zoo", "seeds", "best ingredient's test loss", "margin", *(f"`steady` minus `{rival}`" for rival in RIVALS), "accuracy, points", "better"]
    said = [
        f"Better than the best ingredient by two standard errors on {better} of {len(kinds)} kinds.",
        f"Non-inferiority is not shown for: {', '.join(worse)}." if worse else "Non-inferior on every kind to each of them.",
    ]
    note = "**!**: the upper 95 % bound of the mean difference is above the margin."
    return table(header, lines) + "\n" + note + "\n\n" + "\n".join(said) + "\n"


PARTS = {
    1: memory_and_time,
    2: loss_against_iterations,
    3: few_models_little_data,
    4: full_gradient,
    5: robustness,
    6: other_architectures,
    7: default,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "experiments/results")
    parser.add_argument("--document", type=Path, default=ROOT / "docs/experiments.md")
    arguments = parser.parse_args()
    text = arguments.document.read_text()
    folder = arguments.document.with_suffix("")
    for number, part in PARTS.items():
        file = arguments.results / f"{number}.json"
        if not file.exists():
            print(f"{file}: not found, so its part of the document is unchanged", file=sys.stderr)
            continue
        document = json.loads(file.read_text())
        drawn = []

        def save(name, figure):
            plots.save(figure, folder / f"{name}.svg")
            drawn.append(f"![Experiment {number}]({folder.name}/{name}.svg)\n")

        middle = part(document["rows"], save)
        seeds = sorted({row["seed"] for row in document["rows"]})
        machine = document["conditions"]
        said = f"Seeds {', '.join(map(str, seeds))}; {machine['cores']} core{'s' * (machine['cores'] > 1)} of {machine['cpu']}.\n"
        begin, end = f"<!-- report.py: {number} begin -->", f"<!-- report.py: {number} end -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            sys.exit(f"{arguments.document}: expected `{begin}` and `{end}`, once each")
        generated = "\n".join([begin, said, middle, *drawn, end])
        text = pattern.sub(lambda _: generated, text)
    partial = arguments.document.with_suffix(".partial")
    partial.write_text(text)
    partial.rename(arguments.document)


if __name__ == "__main__":
    main()
