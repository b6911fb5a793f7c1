"""Reading measurements, joining runs of the same, and finding what a line is compared with."""

import json
import statistics
import sys
from collections import defaultdict

ITERATION = ["who", "dtype", "batch", "parameters", "seconds_per_iteration"]
REQUIRED = {
    "bare": ITERATION,
    "mehl+": [*ITERATION, "k", "b"],
    "learned+": [*ITERATION, "k"],
    "score": [*ITERATION, "samples_per_second"],
    "greedy": ["who", "dtype", "k", "samples", "seconds"],
    "mean": ["who", "dtype", "k", "cache", "seconds"],
    "copy": ["who", "dtype", "copied_gigabytes_per_second"],
    "number": ["name", "value"],
}
# Of other tools.
IGNORED = {"kernels"}

# Lines with the same values of these are runs of the same.
SAME = [
    "who",
    "what",
    "dtype",
    "direction_dtype",
    "k",
    "b",
    "batch",
    "device",
    "threads",
    "parameters",
    "linear",
    "recompute",
    "model",
    "cache",
    "samples",
]
MEDIANS = [
    "seconds_per_iteration",
    "samples_per_second",
    "ratio_to_bare",
    "bare_seconds_per_iteration",
    "seconds",
    "ranking_seconds",
    "total_seconds",
    "process_seconds",
    "ratio_to_scores",
    "copied_gigabytes_per_second",
]
LARGEST = ["peak_anonymous_bytes", "peak_device_bytes"]
DEFAULTS = dict(device="cpu", linear="pytorch", recompute=False)


def read(files):
    """All lines; ends with what is wrong with the first that cannot be used."""
    found = []
    for file in files:
        for number, text in enumerate(file.read_text().splitlines(), start=1):
            if not text.strip():
                continue
            where = f"{file}, line {number}"
            try:
                line = json.loads(text)
                what = line["what"]
            except (ValueError, KeyError, TypeError) as error:
                sys.exit(f"{where}: expected a JSON object with the key `what`: {error!r}")
            if what in IGNORED:
                continue
            if what not in REQUIRED:
                sys.exit(f"{where}: expected `what` to be {', '.join(REQUIRED)}, found `{what}`")
            missing = [key for key in REQUIRED[what] if line.get(key) is None]
            if missing:
                sys.exit(f"{where}: expected {', '.join(missing)}, found only {', '.join(line)}")
            found.append(line)
    return found


def joined(lines):
    """One line for all runs of the same, in the order of the tables, without `number` lines."""
    groups = defaultdict(list)
    for line in lines:
        if line["what"] == "number":
            continue
        line = {**DEFAULTS, **{key: value for key, value in line.items() if value is not None}}
        if line["what"] == "mehl+":
            line.setdefault("direction_dtype", line["dtype"])
        else:
            line["direction_dtype"] = None
        groups[tuple(line.get(key) for key in SAME)].append(line)

    def join(runs):
        one = dict(runs[0], runs=len(runs))
        for keys, of in ((MEDIANS, statistics.median), (LARGEST, max)):
            for key in keys:
                values = [run[key] for run in runs if run.get(key) is not None]
                one[key] = of(values) if values else None
        return one

    order = list(REQUIRED)

    def key(line):
        rank = order.index(line["what"])
        sizes = (line.get("k") or 0, line.get("b") or 0, line.get("cache") or "")
        return (line["device"], rank, line["dtype"], *sizes, line["who"])

    return sorted(map(join, groups.values()), key=key)


def every(lines, **wanted):
    """The lines with these values; a value may be a set of values."""

    def fits(line, key, value):
        return line.get(key) in value if isinstance(value, set) else line.get(key) == value

    return [line for line in lines if all(fits(line, *item) for item in wanted.items())]


def find(lines, **wanted):
    """The first line with these values."""
    return next(iter(every(lines, **wanted)), None)


def bare_of(line, lines):
    """The bare loop of the same program, in the same dtype, on the same device."""
    same = ["who", "dtype", "batch", "device", "threads", "parameters", "linear", "recompute"]
    return find(lines, what="bare", **{key: line.get(key) for key in same})


def ratio_to_bare(line, lines):
    """How many times its bare loop's seconds an iteration takes."""
    if line.get("ratio_to_bare") or line["what"] == "bare":
        return line.get("ratio_to_bare")
    bare = bare_of(line, lines)
    return bare and line["seconds_per_iteration"] / bare["seconds_per_iteration"]


def bare_seconds(line, lines):
    """Seconds of a bare iteration: of the same process if the line says it."""
    if line.get("bare_seconds_per_iteration"):
        return line["bare_seconds_per_iteration"]
    ratio = ratio_to_bare(line, lines)
    return ratio and line["seconds_per_iteration"] / ratio


def peak(line):
    """The most memory: the device's, or anonymous memory without the libraries' share."""
    if line.get("peak_device_bytes") is not None:
        return line["peak_device_bytes"]
    if line.get("peak_anonymous_bytes") is None:
        return None
    return line["peak_anonymous_bytes"] - (line.get("anonymous_before_bytes") or 0)


def script_like(line, lines, what=None, **other):
    """PyTorch's line for the same work on the same device; `linear` and others as said."""
    same = {key: line.get(key) for key in ("batch", "device", "threads", "parameters")}
    wanted = dict(dtype="f32", linear="pytorch") | same | other
    return find(lines, who="pytorch", what=what or line["what"], **wanted)
