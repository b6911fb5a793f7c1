"""Plots of iterations: seconds, and memory over K."""

import sys
from collections import defaultdict

from .lines import peak
from .markdown import GB

COLOURS = {"mehl-soup": "tab:blue", "pytorch": "tab:orange"}


def label(line, with_k=True):
    """What a line is about, for an axis or a legend."""
    parts = [line["who"], line["what"], line["dtype"]]
    if line["direction_dtype"] and line["direction_dtype"] != line["dtype"]:
        parts.append(line["direction_dtype"])
    if line["what"] == "mehl+":
        parts.append(f"b={line['b']}")
    if with_k and line.get("k"):
        parts.append(f"K={line['k']}")
    parts.append(f"batch {line['batch']}")
    parts += [line["linear"]] if line["linear"] != "pytorch" else []
    parts += ["recompute"] if line["recompute"] else []
    return " ".join(parts)


def pyplot():
    """matplotlib, set so that the same numbers give the same bytes."""
    try:
        import matplotlib
    except ImportError:
        sys.exit("matplotlib is missing; scripts/setup-python-check.sh prints a Python that has it")
    matplotlib.use("svg")
    settings = {"svg.hashsalt": "mehl-soup", "svg.fonttype": "none"}
    matplotlib.rcParams.update(settings | {"figure.constrained_layout.use": True})
    import matplotlib.pyplot

    return matplotlib.pyplot


def plot(lines, folder):
    """Bars of seconds by device, and memory over K; yields name and caption of each file."""
    plt = pyplot()
    folder.mkdir(parents=True, exist_ok=True)
    # The small model's would not be seen beside the others'.
    lines = [line for line in lines if line.get("model") != "small"]

    def save(figure, name):
        figure.savefig(folder / name, metadata={"Date": None})
        plt.close(figure)

    for where in sorted({line["device"] for line in lines}):
        here = [line for line in lines if line["device"] == where][::-1]
        figure, axes = plt.subplots(figsize=(8, 0.8 + 0.32 * len(here)))
        seconds = [line["seconds_per_iteration"] for line in here]
        colours = [COLOURS.get(line["who"], "grey") for line in here]
        axes.barh([label(line) for line in here], seconds, color=colours)
        axes.set_xlabel("seconds an iteration (median)")
        name = f"seconds-{where.replace(':', '-')}.svg"
        save(figure, name)
        yield name, f"Seconds an iteration on {where}"

    series = defaultdict(list)
    for line in lines:
        if line["what"] != "bare" and peak(line) is not None:
            key = line["device"], label(line, with_k=False)
            series[key].append((line["k"], peak(line) / GB))
    if series:
        figure, axes = plt.subplots(figsize=(8, 4))
        for (where, name), points in sorted(series.items()):
            style = "-" if "mehl-soup" in name else "--"
            shown = name if where == "cpu" else f"{name}, {where}"
            axes.plot(*zip(*sorted(points)), style, marker="o", label=shown)
        axes.set_xlabel("ingredients K")
        axes.set_ylabel("peak memory, GB")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)
        save(figure, "memory.svg")
        yield "memory.svg", "Peak memory over K"
