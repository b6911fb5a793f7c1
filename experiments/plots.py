"""The plots: one function each, of rows that `report.py` has grouped. White background, so that they can be read on dark pages too."""

import matplotlib
import numpy

matplotlib.use("svg")
# The same numbers give the same bytes.
matplotlib.rcParams.update({"svg.hashsalt": "mehl-soup", "figure.constrained_layout.use": True, "axes.grid": True, "grid.alpha": 0.3, "font.size": 9})
import matplotlib.pyplot as plt  # noqa: E402

COLOURS = {
    "best": "black", "uniform": "tab:gray", "greedy": "tab:green", "learned": "tab:pink", "learned+": "tab:orange",
    "hl": "tab:olive", "hl+": "tab:purple", "mehl": "tab:cyan", "mehl+": "tab:blue", "steady": "tab:red",
    "mehl+, init = best": "darkred", "mehl+, init = greedy": "tab:brown",
}  # fmt: skip
NAMES = {"best": "best ingredient"}


def save(figure, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None}, facecolor="white")
    plt.close(figure)


def line(axes, points, label, colour, style="-"):
    """Points are (x, values)."""
    points = sorted(points, key=lambda point: point[0])
    x, values = [point[0] for point in points], [point[1] for point in points]
    errors = [value.error or 0 for value in values]
    axes.errorbar(x, [value.mean for value in values], yerr=errors, fmt=style, marker="o", markersize=4, capsize=3, label=label, color=colour)


def curve(axes, rows, x_of, label, colour):
    """Mean loss with a band of one standard error, of those rows that have a curve. `x_of(row, iteration)` in the axis' unit."""
    curves = [(row, numpy.array(row["curve"])) for row in rows if "curve" in row]
    if not curves:
        return
    # Curves of different lengths are seen at the same shares of their own.
    shares = numpy.linspace(0, 1, max(len(points) for _, points in curves))
    at_shares = lambda values: numpy.interp(shares, numpy.linspace(0, 1, len(values)), values)  # noqa: E731
    x = numpy.mean([at_shares([x_of(row, i) for i in points[:, 0]]) for row, points in curves], axis=0)
    losses = numpy.array([at_shares(points[:, 1]) for _, points in curves])
    mean, n = losses.mean(axis=0), len(curves)
    error = losses.std(axis=0, ddof=1) / n**0.5 if n > 1 else 0 * mean
    axes.plot(x, mean, label=label, color=colour)
    axes.fill_between(x, numpy.maximum(mean - error, mean / 100), mean + error, color=colour, alpha=0.15, linewidth=0)


def memory_and_time(by, of):
    figure, (memory, time) = plt.subplots(1, 2, figsize=(9, 3.4))
    for method in ("learned+", "mehl+"):
        mine = {k: rows for (name, k), rows in by.items() if name == method}
        label = f"{method}, b = 4" if method == "mehl+" else method
        line(memory, [(k, of(rows, "peak_anonymous_bytes", scale=1e-6)) for k, rows in mine.items()], label, COLOURS[method])
        line(time, [(k, of(rows, "seconds")) for k, rows in mine.items()], label, COLOURS[method])
    memory.set(xlabel="ingredients K", ylabel="peak anonymous memory, MB", ylim=(0, None))
    time.set(xlabel="ingredients K", ylabel="seconds", ylim=(0, None))
    memory.legend()
    return figure


def loss_against_iterations(by, of):
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    for axes, method in zip(panels, ("mehl", "mehl+")):
        sizes = sorted(b for name, b in by if name == method)
        for b, colour in zip(sizes, ("tab:red", "tab:orange", "tab:green", "tab:blue")):
            label = f"b = {b}" + (" = K" if b == sizes[-1] else "")
            curve(axes, by[method, b], lambda row, i: i, label, colour)
        axes.set(title=method, xlabel="iterations", yscale="log")
        axes.legend()
    panels[0].set_ylabel("learn loss")
    return figure


def few_models_little_data(by, of):
    sizes = sorted({k for k, *_ in by})
    figure, panels = plt.subplots(1, len(sizes), figsize=(9, 3.6), sharey=True)
    for axes, k in zip(panels, sizes):
        kinds = sorted({(method, early) for size, _, method, early in by if size == k}, key=lambda kind: (kind[0], not kind[1]))
        for method, early in kinds:
            learns = method.startswith("mehl")
            label = NAMES.get(method, method) + ((", early stopping" if early else ", no early stopping") if learns else "")
            points = [(n, of(rows, "test", "loss")) for (size, n, name, stops), rows in by.items() if (size, name, stops) == (k, method, early)]
            line(axes, points, label, COLOURS[method], "-" if early else "--")
        # Over-fitting goes far up: the rest is to be told apart too.
        axes.set(title=f"K = {k}", xlabel="learn images", xscale="log", xticks=[50, 100, 350], yscale="log", yticks=[0.1, 0.2, 0.4])
        axes.get_yaxis().set_major_formatter(matplotlib.ticker.ScalarFormatter())
        axes.get_xaxis().set_major_formatter(matplotlib.ticker.ScalarFormatter())
        axes.minorticks_off()
    panels[0].set_ylabel("test loss")
    panels[-1].legend(fontsize=7)
    return figure


def full_gradient(passes, time, of):
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    by_method = [("mehl+", "mehl+, b = 7"), ("hl+", "hl+, b = K = 28")]
    units = [(passes, lambda row, i: i / 11, "passes over learn"), (time, lambda row, i: i * row["seconds"] / row["iterations"], "seconds")]
    for axes, (rows, x_of, unit) in zip(panels, units):
        for method, label in by_method:
            curve(axes, [row for row in rows if row["method"] == method], x_of, label, COLOURS[method])
        axes.set(xlabel=unit, yscale="log")
    panels[0].set_ylabel("learn loss")
    panels[0].legend()
    return figure


def robustness(by, of):
    figure, panels = plt.subplots(2, 2, figsize=(9, 6.4), sharey="row")
    methods = ["best", "uniform", "greedy", "learned+", "mehl+", "mehl+, init = best", "mehl+, init = greedy"]
    for row, (key, unit, scale) in zip(panels, (("loss", "test loss", 1), ("accuracy", "test accuracy, %", 100))):
        for method in methods:
            mine = {(removed, bad): rows for (removed, bad, name), rows in by.items() if name == method}
            label = NAMES.get(method, method)
            line(row[0], [(removed, of(rows, "test", key, scale=scale)) for (removed, bad), rows in mine.items() if not bad], label, COLOURS[method])
            line(row[1], [(100 * bad, of(rows, "test", key, scale=scale)) for (removed, bad), rows in mine.items() if not removed], label, COLOURS[method])
        row[0].set(xlabel="best ingredients removed, of 28", ylabel=unit)
        row[1].set(xlabel="bad ingredients, %")
    for axes in panels[0]:
        # What is built on bad ingredients goes far up: the rest is to be told apart too.
        axes.set(yscale="log", yticks=[0.1, 0.2, 0.5, 1, 2])
        axes.get_yaxis().set_major_formatter(matplotlib.ticker.ScalarFormatter())
        axes.minorticks_off()
    panels[0][1].legend(fontsize=7)
    return figure


def other_architectures(by, over):
    zoos = list(dict.fromkeys(zoo for zoo, _ in by))
    figure, panels = plt.subplots(1, len(zoos), figsize=(2.6 * len(zoos), 3.4), squeeze=False)
    for axes, zoo in zip(panels[0], zoos):
        methods = [method for method in COLOURS if method != "best" and (zoo, method) in by]
        values = [over(by[zoo, method], by[zoo, "best"], "test", "loss") for method in methods]
        axes.bar(methods, [v.mean for v in values], yerr=[v.error or 0 for v in values], color=[COLOURS[m] for m in methods], capsize=3)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set(title=zoo)
        axes.tick_params(axis="x", rotation=60)
    panels[0][0].set_ylabel("test loss above best ingredient's")
    return figure


# Largest difference that is drawn, in %; what is beyond is an arrow with its number.
RIGHT = 100


def default(by, over):
    """One row of points a kind: test loss above the best ingredient's, as a part of it, with bars of two standard errors."""
    kinds = list(dict.fromkeys(kind for kind, _ in by))
    methods = ["uniform", "greedy", "learned+", "mehl", "mehl+", "steady"]
    figure, axes = plt.subplots(figsize=(9, 0.6 * len(kinds) + 1))
    for i, method in enumerate(methods):
        x, errors, y = [], [], []
        for place, kind in enumerate(kinds):
            best = by[kind, "best"]
            scale = numpy.mean([row["test"]["loss"] for row in best])
            differences = over(by[kind, method], best, "test", "loss")
            x.append(100 * differences.mean / scale)
            errors.append(200 * (differences.error or 0) / scale)
            y.append(place + (i - 2.5) * 0.12)
            if x[-1] > RIGHT:
                axes.annotate(
                    f"{x[-1]:.0f} % ", (RIGHT, y[-1]), (-4, 0), textcoords="offset points", ha="right", va="center", fontsize=7,
                    color=COLOURS[method],
                )
                axes.plot(RIGHT, y[-1], ">", color=COLOURS[method], markersize=5, clip_on=False)
        axes.errorbar(x, y, xerr=errors, fmt="o", markersize=5 if method == "steady" else 3, capsize=2, label=method, color=COLOURS[method])
    axes.axvline(0, color="black", linewidth=1)
    axes.axvline(5, color="black", linewidth=0.7, linestyle=":")
    axes.set(yticks=range(len(kinds)), yticklabels=kinds, xlabel="test loss above the best ingredient's, % of it; bars: two standard errors", xlim=(-80, RIGHT))
    axes.invert_yaxis()
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
