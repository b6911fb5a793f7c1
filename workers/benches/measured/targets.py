"""What is wanted of this program: each a ratio, and whether it is met."""

import statistics
from collections import defaultdict
from dataclasses import dataclass

from .lines import (
    SAME,
    bare_of,
    bare_seconds,
    every,
    peak,
    ratio_to_bare,
    script_like,
)

GB = 1e9


@dataclass(frozen=True)
class Target:
    """A measured value and its bounds, if it has any."""

    what: str
    value: float
    unit: str = ""
    standard_error: float | None = None
    at_most: float | None = None
    at_least: float | None = None
    # For a ratio to a script: the same ratio of the two bare loops.
    bare_loops: float | None = None

    @property
    def wanted(self):
        """The bounds in words."""
        bounds = [("at least", self.at_least), ("at most", self.at_most)]
        return ", ".join(f"{which} {bound:.3g}" for which, bound in bounds if bound is not None)

    @property
    def met(self):
        """Whether the value is within its bounds; None if it has none."""
        if not self.wanted:
            return None
        low = self.at_least is None or self.value >= self.at_least
        return low and (self.at_most is None or self.value <= self.at_most)


def about(line):
    """What a line of learning is about."""
    parts = [line["dtype"], f"directions {line['direction_dtype']}"]
    parts += ["recompute"] if line["recompute"] else []
    parts += [line["linear"]] if line["linear"] != "pytorch" else []
    parts += [f"K = {line['k']}", f"b = {line['b']}", f"batch {line['batch']}", line["device"]]
    return ", ".join(parts)


def on_amd(line):
    """Whether a line's processor is one of AMD's, on which MKL is slow."""
    return "AMD" in (line.get("machine") or {}).get("cpu", "")


def learning(lines):
    """This program's lines of learning, without those of the small model."""
    found = every(lines, who="mehl-soup", what="mehl+")
    return [line for line in found if line.get("model") != "small"]


def of_base(lines):
    """Those of ViT-B/32, for which targets are set."""
    return [line for line in learning(lines) if line["parameters"] > 80e6]


def times_faster(line, script, lines, **bounds):
    """How many times as fast as a script an iteration is, beside the same of the bare loops."""
    ours, theirs = bare_seconds(line, lines), bare_seconds(script, lines)
    onednn = " with oneDNN" if script["linear"] == "onednn" else ""
    return Target(
        f"times as fast as the MEHL-Soup+ script{onednn}: {about(line)}",
        script["seconds_per_iteration"] / line["seconds_per_iteration"],
        bare_loops=ours and theirs and theirs / ours,
        **bounds,
    )


def headline(lines):
    """The targets that the page shows, in the order in which they were set."""
    of_iterations = of_base(lines)
    plain = [line for line in of_iterations if line["k"] == 8 and not line["recompute"]]
    for line in every(plain, dtype="f32", direction_dtype="f32", b=4):
        script = script_like(line, lines, k=8, b=4, linear="onednn")
        if script:
            # On other processors MKL is as fast, and no ratio was asked for.
            least = 1.0 if on_amd(line) else None
            yield times_faster(line, script, lines, at_least=least)
    for line in every(plain, dtype="f32", direction_dtype="f32", b=4):
        yield from over_bare(line, lines, 1.05)
    for line in every(lines, who="mehl-soup", what="score"):
        for linear, least in (("onednn", 1.0), ("pytorch", None)):
            script = script_like(line, lines, linear=linear)
            if script:
                yield score_target(line, script, least)
    for line in every(plain, dtype="bf16", direction_dtype="int8", b=8):
        yield from over_bare(line, lines, 1.12)
    for line in every(of_iterations, dtype="bf16", direction_dtype="int8", b=4, recompute=True):
        if line["k"] == 8 and peak(line) is not None:
            yield Target(f"peak memory: {about(line)}", peak(line) / GB, "GB", at_most=1.15)
    for line in every(lines, who="mehl-soup", what="mehl+", model="small"):
        ratio = ratio_to_bare(line, lines)
        if ratio:
            size = f"{line['parameters'] / 1e3:.0f} thousand values"
            what = f"time over the bare loop, small model of {size}: {about(line)}"
            yield Target(what, ratio, at_most=1.5)
    yield from of_greedy(lines)
    yield from of_means(lines)


def over_bare(line, lines, most):
    """Time over the bare loop of the same program, in the same process."""
    ratio = ratio_to_bare(line, lines)
    if ratio:
        yield Target(f"time over the bare loop: {about(line)}", ratio, at_most=most)


def score_target(line, script, least):
    """Samples scored a second, to a script's."""
    what = f"samples scored a second over PyTorch's{with_onednn(script)}"
    of = f"{line['dtype']}, batch {line['batch']}, {line['device']}"
    ratio = line["samples_per_second"] / script["samples_per_second"]
    return Target(f"{what}: {of}", ratio, at_least=least)


def with_onednn(script):
    """For PyTorch's lines, whose products they are."""
    return " with oneDNN" if script["linear"] == "onednn" else ""


def greedy_seconds(line, script):
    """Seconds of both: with the ranking of single models if both lines have it."""
    key = "total_seconds" if line.get("total_seconds") else "seconds"
    return line[key], script[key]


def of_greedy(lines):
    """A greedy soup, to its scores and to a script."""
    for line in every(lines, who="mehl-soup", what="greedy"):
        of = f"K = {line['k']}, {line['samples']} samples, {line['dtype']}, {line['device']}"
        if line.get("ratio_to_scores"):
            what = f"greedy soup over K scores of one model: {of}"
            yield Target(what, line["ratio_to_scores"], at_most=1.15)
        for script in greedy_scripts(line, lines):
            ours, theirs = greedy_seconds(line, script)
            least = 1.5 if script["linear"] == "pytorch" else None
            what = f"greedy soup, times as fast as a script{with_onednn(script)}: {of}"
            yield Target(what, theirs / ours, at_least=least)


def greedy_scripts(line, lines):
    """PyTorch's greedy soups of the same models and number of samples."""
    same = {key: line[key] for key in ("k", "samples", "dtype", "device")}
    found = every(lines, who="pytorch", what="greedy", **same)
    return [script for script in found if script.get("threads") == line.get("threads")]


# Times as fast as another program's mean: by program and cache.
MEANS = {
    ("mergekit", "warm"): 9.2,
    ("pytorch", "warm"): 4.8,
    ("mergekit", "cold"): 3.0,
    ("pytorch", "cold"): 2.0,
}
OTHERS = {"mergekit": "mergekit", "pytorch": "a plain torch loop"}


def of_means(lines):
    """The mean of model files, to those of other programs."""
    for (who, cache), least in MEANS.items():
        for line in every(lines, who="mehl-soup", what="mean", cache=cache):
            same = {key: line[key] for key in ("k", "cache", "device")}
            for other in every(lines, who=who, what="mean", **same):
                what = f"mean of {line['k']} models from files, {cache} cache, times as fast as"
                ratio = other["seconds"] / line["seconds"]
                yield Target(f"{what} {OTHERS[who]}", ratio, at_least=least)


def allowance(line, lines):
    """Bytes of D: (3 D x 4 + stored directions) x 1.10 + the bare loop's activations.

    Those activations are what the bare loop takes above weights and gradients.
    """
    bare = bare_of(line, lines)
    if bare is None or peak(bare) is None or line.get("stored_bytes") is None:
        return None
    width = {"bf16": 2, "f32": 4, "f64": 8}[bare["dtype"]]
    activations = max(0, peak(bare) - 2 * width * line["parameters"])
    return (3 * 4 * line["parameters"] + line["stored_bytes"]) * 1.10 + activations


def others(lines, numbers):
    """All other ratios, and what else was measured."""
    shown = {target.what for target in headline(lines)}
    for target in [*of_learning(lines), *flatness(lines)]:
        if target.what not in shown:
            yield target
    for number in numbers:
        keys = ("unit", "standard_error", "at_most", "at_least")
        rest = {key: number[key] for key in keys if number.get(key) is not None}
        yield Target(number["name"], number["value"], **rest)


def of_learning(lines):
    """Ratios of each line of learning to scripts, bare loop and allowed memory."""
    for line in learning(lines):
        of = about(line)
        k_and_b = dict(k=line["k"], b=line["b"])
        script = script_like(line, lines, **k_and_b)
        for other in (script, script_like(line, lines, linear="onednn", **k_and_b)):
            if other:
                yield times_faster(line, other, lines)
        yield from over_bare(line, lines, {"f32": 1.05, "bf16": 1.15}.get(line["dtype"]))
        used = peak(line)
        if used is None:
            continue
        allowed = allowance(line, lines)
        if allowed:
            yield Target(f"memory over what is allowed: {of}", used / allowed, at_most=1.0)
        if line["k"] == line["b"] == 8 and script and peak(script):
            ratio = used / peak(script)
            yield Target(f"memory over the MEHL-Soup+ script's: {of}", ratio, at_most=0.5)
        learned = script_like(line, lines, "learned+", k=line["k"])
        if learned and peak(learned):
            yield Target(f"memory over the Learned-Soup+ script's: {of}", used / peak(learned))


def flatness(lines):
    """What should not grow with K: the largest over the smallest of lines that differ in K."""
    series = defaultdict(list)
    for line in learning(lines):
        series[tuple(line.get(key) for key in SAME if key != "k")].append(line)
    for of_k in series.values():
        if len(of_k) < 2:
            continue
        first = of_k[0]
        of = f"{first['dtype']}, directions {first['direction_dtype']}, b = {first['b']}"
        among = f"of K = {', '.join(str(line['k']) for line in of_k)}: {of}, {first['device']}"
        costs = [
            statistics.median(line["model_batch_seconds"])
            for line in of_k
            if line.get("model_batch_seconds")
        ]
        if len(costs) > 1:
            what = f"dearest over cheapest model batch {among}"
            yield Target(what, max(costs) / min(costs), at_most=1.05)
        peaks = [peak(line) for line in of_k if peak(line)]
        if len(peaks) > 1:
            yield Target(f"largest over smallest memory {among}", max(peaks) / min(peaks))
