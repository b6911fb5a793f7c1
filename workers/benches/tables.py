"""Writes lines of measurements as tables and plots into the documentation.

    tables.py LINES.jsonl... [--document docs/benchmarks.md]

Replaces what stands between the document's two markers, and the plots in the folder beside it that has its name. Plots need matplotlib
(`../tests/fixtures/requirements.txt`).

Each line is one JSON object. Those of an iteration:

    who                       mehl-soup or pytorch
    what                      bare (forward and backward alone), mehl+, learned+, copy (memory bandwidth)
    dtype                     of forward and backward: f32, bf16, f64
    direction_dtype           of directions: f32, bf16, int8, int4; that of `dtype` where it is not said
    linear                    of f32 products: onednn if not those that PyTorch takes by itself (pytorch)
    k, b, batch               ingredients, those of a model batch, samples an iteration
    parameters                D
    seconds_per_iteration     median
    samples_per_second        batch / seconds_per_iteration
    ratio_to_bare             to the bare loop, in turns in one process; where it is not said, that of the two lines
    peak_anonymous_bytes      the most anonymous resident memory of the process
    anonymous_before_bytes    what of it was there before any model (libraries); 0 where it is not said
    stored_bytes              of that, directions, or all ingredients for learned+
    peak_device_bytes         the most that the allocator gave out on a GPU
    model_batch_seconds       list: each model batch from its first byte read to its fold, with the same number of iterations
    copied_gigabytes_per_second   for copy: bytes of the buffer, read and written once, a second
    device, threads, seed, versions {name: version}, machine {cpu, cores, flags, memory_bytes, gpu}

and those of any other number that has a target, or is to be said:

    what                      number
    name, value, unit         what, how much, in what
    standard_error            of the value over seeds
    at_most, at_least         the target

Lines of `kernels` (mixing and projecting on a GPU, as `bench --part kernels` measures them) are left alone.

Lines that differ in no more than seconds, bytes and seed are runs of the same: their median seconds and largest bytes count. Other keys are left alone.
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

BEGIN, END = "<!-- tables.py: begin -->", "<!-- tables.py: end -->"
SAME = ["who", "what", "dtype", "direction_dtype", "k", "b", "batch", "device", "threads", "parameters", "linear"]
REQUIRED = {
    "iteration": ["who", "dtype", "batch", "parameters", "seconds_per_iteration", "peak_anonymous_bytes"],
    "copy": ["who", "dtype", "copied_gigabytes_per_second"],
    "number": ["name", "value"],
}
KINDS = {"bare": "iteration", "mehl+": "iteration", "learned+": "iteration", "copy": "copy", "number": "number"}
GB = 1e9


def read(files):
    """Lines by kind; ends with what is wrong with the first that cannot be used."""
    lines = defaultdict(list)
    for file in files:
        for number, text in enumerate(file.read_text().splitlines(), start=1):
            if not text.strip():
                continue
            try:
                line = json.loads(text)
                if line["what"] == "kernels":
                    continue
                kind = KINDS[line["what"]]
                missing = [key for key in REQUIRED[kind] if line.get(key) is None]
            except (ValueError, KeyError, TypeError) as error:
                sys.exit(f"{file}, line {number}: expected an object with `what` one of {', '.join(KINDS)}: {error!r}")
            if missing:
                sys.exit(f"{file}, line {number}: expected {', '.join(missing)}, found only {', '.join(line)}")
            lines[kind].append(line)
    return lines


def joined(lines):
    """One line for all runs of the same."""
    groups = defaultdict(list)
    for line in lines:
        line = {"device": "cpu", "linear": "pytorch", **line}
        line["direction_dtype"] = line.get("direction_dtype") or (line["dtype"] if line["what"] == "mehl+" else None)
        groups[tuple(line.get(key) for key in SAME)].append(line)

    def join(runs):
        one = dict(runs[0], runs=len(runs))
        for key in ("seconds_per_iteration", "ratio_to_bare", "copied_gigabytes_per_second"):
            values = [run[key] for run in runs if run.get(key) is not None]
            one[key] = statistics.median(values) if values else None
        for key in ("peak_anonymous_bytes", "peak_device_bytes"):
            one[key] = max((run[key] for run in runs if run.get(key) is not None), default=None)
        return one

    order = ["bare", "mehl+", "learned+", "copy"]
    key = lambda line: (
        line["device"],
        order.index(line["what"]),
        line["dtype"],
        line.get("k") or 0,
        line.get("b") or 0,
    )
    return sorted(map(join, groups.values()), key=key)


def find(lines, **wanted):
    """The first line with these values."""
    return next((line for line in lines if all(line.get(key) == value for key, value in wanted.items())), None)


def bare_of(line, lines):
    """The bare loop of the same program, in the same dtype, on the same device."""
    same = ("who", "dtype", "batch", "device", "threads", "parameters", "linear")
    return find(lines, what="bare", **{key: line.get(key) for key in same})


def ratio_to_bare(line, lines):
    if line.get("ratio_to_bare") or line["what"] == "bare":
        return line.get("ratio_to_bare")
    bare = bare_of(line, lines)
    return bare and line["seconds_per_iteration"] / bare["seconds_per_iteration"]


def peak(line):
    """The largest memory: the device's own, or anonymous memory without the libraries' share."""
    if line.get("peak_device_bytes") is not None:
        return line["peak_device_bytes"]
    return line["peak_anonymous_bytes"] - (line.get("anonymous_before_bytes") or 0)


def scripts_like(line, lines, what, **other):
    """PyTorch's line on the same device with the same batch and model."""
    same = {key: line.get(key) for key in ("batch", "device", "threads", "parameters")}
    return find(lines, who="pytorch", what=what, dtype="f32", **{**same, "linear": "pytorch", **other})


def allowance(line, lines):
    """(3 D x 4 bytes + stored directions) x 1.10 + the bare loop's activations, which are what it takes above weights and gradients."""
    bare = bare_of(line, lines)
    if bare is None or line.get("stored_bytes") is None:
        return None
    width = {"bf16": 2, "f32": 4, "f64": 8}[bare["dtype"]]
    activations = max(0, peak(bare) - 2 * width * line["parameters"])
    return (3 * 4 * line["parameters"] + line["stored_bytes"]) * 1.10 + activations


def targets(lines, numbers):
    """(what, value, unit, standard error, at_most, at_least) of everything that is wanted of mehl-soup."""
    for line in lines:
        if line["who"] != "mehl-soup" or line["what"] != "mehl+":
            continue
        about = f"{line['dtype']}, directions {line['direction_dtype']}, K = {line['k']}, b = {line['b']}"
        about += f", batch {line['batch']}, {line['device']}"
        script = scripts_like(line, lines, "mehl+", k=line["k"], b=line["b"])
        if script:
            times = script["seconds_per_iteration"] / line["seconds_per_iteration"]
            least = {"bf16": 8.0 if line["device"] != "cpu" else 2.8}.get(line["dtype"])
            yield f"times faster than the MEHL-Soup+ script: {about}", times, "", None, None, least
        faster = scripts_like(line, lines, "mehl+", k=line["k"], b=line["b"], linear="onednn")
        if faster:
            times = faster["seconds_per_iteration"] / line["seconds_per_iteration"]
            yield f"times faster than the MEHL-Soup+ script with oneDNN: {about}", times, "", None, None, None
        ratio = ratio_to_bare(line, lines)
        if ratio:
            most = {"f32": 1.08, "bf16": 1.15}.get(line["dtype"])
            yield f"time over the bare loop: {about}", ratio, "", None, most, None
        allowed = allowance(line, lines)
        if allowed:
            yield f"memory over what is allowed: {about}", peak(line) / allowed, "", None, 1.0, None
        if line["k"] == line["b"] == 8 and script:
            yield f"memory over the MEHL-Soup+ script's: {about}", peak(line) / peak(script), "", None, 0.5, None
        learned = scripts_like(line, lines, "learned+", k=line["k"])
        if learned:
            yield f"memory over the Learned-Soup+ script's: {about}", peak(line) / peak(learned), "", None, None, None
    yield from flatness(lines)
    for number in numbers:
        rest = [number.get(key) for key in ("standard_error", "at_most", "at_least")]
        yield number["name"], number["value"], number.get("unit", ""), *rest


def flatness(lines):
    """Targets of what should not grow with K: the largest over the smallest of lines that differ in K."""
    series = defaultdict(list)
    for line in lines:
        if line["who"] == "mehl-soup" and line["what"] == "mehl+":
            series[tuple(line.get(key) for key in SAME if key != "k")].append(line)
    for of_k in series.values():
        first = of_k[0]
        about = f"{first['dtype']}, directions {first['direction_dtype']}, b = {first['b']}, {first['device']}"
        among = f"of K = {', '.join(str(line['k']) for line in of_k)}: {about}"
        costs = [statistics.median(line["model_batch_seconds"]) for line in of_k if line.get("model_batch_seconds")]
        if len(costs) > 1:
            yield f"dearest over cheapest model batch {among}", max(costs) / min(costs), "", None, 1.05, None
        if len(of_k) > 1:
            peaks = [peak(line) for line in of_k]
            yield f"largest over smallest memory {among}", max(peaks) / min(peaks), "", None, None, None


def table(head, rows):
    """A table of Markdown."""
    return "\n".join(["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]) + "\n"


def show(value, digits=3, unit=1):
    return "" if value is None else f"{value / unit:.{digits}f}"


def device(line):
    return line["device"] if line["device"] != "cpu" else f"cpu, {line.get('threads', '?')} threads"


# Columns that say what a line is about.
WHICH = {
    "who": lambda line: line["who"],
    "what": lambda line: line["what"],
    "dtype": lambda line: line["dtype"] + ("" if line["linear"] == "pytorch" else f", {line['linear']}"),
    "directions": lambda line: line["direction_dtype"] or "",
    "K": lambda line: str(line.get("k") or ""),
    "b": lambda line: str(line.get("b") or ""),
    "D, million": lambda line: show(line["parameters"], 1, 1e6),
}


def iteration_table(lines):
    columns = {
        **WHICH,
        "batch": lambda line: str(line["batch"]),
        "device": device,
        "s an iteration": lambda line: show(line["seconds_per_iteration"], 4),
        "samples/s": lambda line: show(line["batch"] / line["seconds_per_iteration"], 2),
        "over its bare loop": lambda line: show(ratio_to_bare(line, lines)),
        "runs": lambda line: str(line["runs"]),
    }
    return table(columns, [[column(line) for column in columns.values()] for line in lines])


def memory_table(lines):
    def above(line):
        bare = bare_of(line, lines) if line["what"] != "bare" else None
        return bare and (peak(line) - peak(bare)) / (4 * line["parameters"])

    columns = {
        **WHICH,
        "device": device,
        "peak, GB": lambda line: show(peak(line), 2, GB),
        "of which stored, GB": lambda line: show(line.get("stored_bytes"), 2, GB),
        "above its bare loop, D x 4 bytes": lambda line: show(above(line), 2),
        "host with libraries, GB": lambda line: show(line["peak_anonymous_bytes"], 2, GB),
    }
    return table(columns, [[column(line) for column in columns.values()] for line in lines])


def target_table(rows):
    def row(what, value, unit, error, at_most, at_least):
        bounds = [("at least", at_least), ("at most", at_most)]
        wanted = ", ".join(f"{which} {bound:g}" for which, bound in bounds if bound is not None)
        met = (at_most is None or value <= at_most) and (at_least is None or value >= at_least)
        measured = f"{value:.4g}" + (f" ± {error:.2g}" if error is not None else "") + (f" {unit}" if unit else "")
        return [what, measured, wanted, ("yes" if met else "**no**") if wanted else ""]

    return table(["what", "measured", "target", "met"], [row(*each) for each in rows])


def conditions(lines):
    """Machines, versions and seeds that the lines tell of."""
    machines, versions, seeds = {}, {}, defaultdict(set)
    for line in lines:
        if line.get("machine"):
            machine = dict(line["machine"], flags=set(line["machine"].get("flags") or []))
            # What else there is to say, the programs look for in their own ways.
            same = tuple(machine.get(key) for key in ("cpu", "cpu_family", "cpu_model", "cores"))
            machines.setdefault(same, machine)["flags"] |= machine["flags"]
        for name, version in (line.get("versions") or {}).items():
            versions[f"{name} {version}"] = None
        if line.get("seed") is not None:
            seeds[line.get("who", "")].add(line["seed"])
    for machine in machines.values():
        parts = [machine.get("cpu", "")]
        if machine.get("cpu_family"):
            parts[0] += f" (family {machine['cpu_family']}, model {machine['cpu_model']})"
        parts += [f"{machine['cores']} cores"] if machine.get("cores") else []
        parts += [", ".join(sorted(machine["flags"]))] if machine.get("flags") else []
        parts += [f"{machine['memory_bytes'] / 2**30:.1f} GiB"] if machine.get("memory_bytes") else []
        parts += [machine["gpu"]] if machine.get("gpu") else []
        yield "Machine: " + "; ".join(parts) + "."
    if versions:
        yield "Versions: " + ", ".join(sorted(versions)) + "."
    if seeds:
        told = (f"{who} {', '.join(map(str, sorted(of)))}" for who, of in sorted(seeds.items()))
        yield "Seeds: " + "; ".join(told) + "."


def label(line, with_k=True):
    parts = [line["who"], line["what"], line["dtype"]]
    if line["direction_dtype"] and line["direction_dtype"] != line["dtype"]:
        parts.append(line["direction_dtype"])
    if line["what"] == "mehl+":
        parts.append(f"b={line['b']}")
    if with_k and line.get("k"):
        parts.append(f"K={line['k']}")
    parts.append(f"batch {line['batch']}")
    parts += [line["linear"]] if line["linear"] != "pytorch" else []
    return " ".join(parts)


def plot(lines, folder):
    """Bars of seconds by device, and memory over K; yields name and caption of each file."""
    try:
        import matplotlib
    except ImportError:
        sys.exit("tables.py: matplotlib is missing; scripts/setup-python-check.sh prints a Python that has it")
    matplotlib.use("svg")
    # The same numbers give the same bytes.
    matplotlib.rcParams.update(
        {"svg.hashsalt": "mehl-soup", "svg.fonttype": "none", "figure.constrained_layout.use": True}
    )
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)

    def save(figure, name):
        figure.savefig(folder / name, metadata={"Date": None})
        plt.close(figure)

    colours = {"mehl-soup": "tab:blue", "pytorch": "tab:orange"}
    for where in sorted({line["device"] for line in lines}):
        here = [line for line in lines if line["device"] == where][::-1]
        figure, axes = plt.subplots(figsize=(8, 0.8 + 0.32 * len(here)))
        seconds = [line["seconds_per_iteration"] for line in here]
        axes.barh([label(line) for line in here], seconds, color=[colours.get(line["who"], "grey") for line in here])
        axes.set_xlabel("seconds an iteration (median)")
        name = f"seconds-{where.replace(':', '-')}.svg"
        save(figure, name)
        yield name, f"Seconds an iteration on {where}"

    series = defaultdict(list)
    for line in lines:
        if line["what"] != "bare":
            series[line["device"], label(line, with_k=False)].append((line["k"], peak(line) / GB))
    if series:
        figure, axes = plt.subplots(figsize=(8, 4))
        for (where, name), points in sorted(series.items()):
            style = "-" if "mehl-soup" in name else "--"
            axes.plot(*zip(*sorted(points)), style, marker="o", label=name if where == "cpu" else f"{name}, {where}")
        axes.set_xlabel("ingredients K")
        axes.set_ylabel("peak memory, GB")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)
        save(figure, "memory.svg")
        yield "memory.svg", "Peak memory over K"


def text(lines, folder):
    """What goes between the markers."""
    measured = joined(lines["iteration"])
    parts = ["\n".join(conditions([line for kind in lines.values() for line in kind])) + "\n"]
    for line in joined(lines["copy"]):
        rate = line["copied_gigabytes_per_second"]
        parts.append(f"A straight copy of memory ({line['who']}, {line['dtype']}, {device(line)}): {rate:.1f} GB/s.\n")
    wanted = list(targets(measured, lines["number"]))
    if wanted:
        parts += ["### Targets\n", target_table(wanted)]
    if measured:
        parts += ["### Time\n", iteration_table(measured), "### Memory\n", memory_table(measured)]
        parts += [f"![{caption}]({folder.name}/{name})\n" for name, caption in plot(measured, folder)]
    return "\n".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", type=Path, nargs="+", help="files of measurements, one JSON object a line")
    default = Path(__file__).resolve().parents[2] / "docs/benchmarks.md"
    parser.add_argument("--document", type=Path, default=default)
    arguments = parser.parse_args()
    document = arguments.document.read_text()
    if document.count(BEGIN) != 1 or document.count(END) != 1 or document.index(BEGIN) > document.index(END):
        sys.exit(f"{arguments.document}: expected the lines `{BEGIN}` and `{END}`, each once")
    before, rest = document.split(BEGIN)
    middle = text(read(arguments.lines), arguments.document.with_suffix(""))
    arguments.document.write_text(f"{before}{BEGIN}\n{middle}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
