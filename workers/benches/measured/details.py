"""All tables of a run."""

from . import markdown, plots
from .lines import bare_of, every, peak, ratio_to_bare
from .markdown import GB, device, show, table
from .targets import headline, others

ITERATIONS = {"bare", "mehl+", "learned+"}


def dtype(line):
    """The dtype, and what else was chosen for the passes."""
    parts = [line["dtype"]]
    parts += [line["linear"]] if line["linear"] != "pytorch" else []
    parts += ["recompute"] if line["recompute"] else []
    return ", ".join(parts)


# Columns that say what a line is about.
WHICH = {
    "who": lambda line: line["who"],
    "what": lambda line: line["what"],
    "dtype": dtype,
    "directions": lambda line: line["direction_dtype"] or "",
    "K": lambda line: str(line.get("k") or ""),
    "b": lambda line: str(line.get("b") or ""),
    "D, million": lambda line: show(line["parameters"], 1, 1e6),
}


def rows(columns, lines):
    """A table of lines, by the functions of its columns."""
    return table(columns, [[column(line) for column in columns.values()] for line in lines])


def iteration_table(lines):
    """Seconds of iterations."""
    columns = {
        **WHICH,
        "batch": lambda line: str(line["batch"]),
        "device": device,
        "s an iteration": lambda line: show(line["seconds_per_iteration"], 4),
        "samples/s": lambda line: show(line["batch"] / line["seconds_per_iteration"], 2),
        "over its bare loop": lambda line: show(ratio_to_bare(line, lines)),
        "runs": lambda line: str(line["runs"]),
    }
    return rows(columns, lines)


def memory_table(lines):
    """Memory of iterations."""

    def above(line):
        bare = bare_of(line, lines) if line["what"] != "bare" else None
        if bare is None or peak(bare) is None:
            return None
        return (peak(line) - peak(bare)) / (4 * line["parameters"])

    columns = {
        **WHICH,
        "device": device,
        "peak, GB": lambda line: show(peak(line), 2, GB),
        "of which stored, GB": lambda line: show(line.get("stored_bytes"), 2, GB),
        "above its bare loop, D x 4 bytes": lambda line: show(above(line), 2),
        "host with libraries, GB": lambda line: show(line.get("peak_anonymous_bytes"), 2, GB),
    }
    return rows(columns, [line for line in lines if peak(line) is not None])


def score_table(lines):
    """Forward passes alone."""
    columns = {
        "who": WHICH["who"],
        "dtype": dtype,
        "D, million": WHICH["D, million"],
        "batch": lambda line: str(line["batch"]),
        "device": device,
        "samples/s": lambda line: show(line["samples_per_second"], 2),
        "peak, GB": lambda line: show(peak(line), 2, GB),
        "runs": lambda line: str(line["runs"]),
    }
    return rows(columns, lines)


def merge_table(lines):
    """Means and greedy soups."""
    columns = {
        "who": WHICH["who"],
        "what": lambda line: " ".join(filter(None, [line["what"], line.get("cache")])),
        "dtype": dtype,
        "K": WHICH["K"],
        "samples": lambda line: str(line.get("samples") or ""),
        "device": device,
        "s": lambda line: show(line["seconds"], 2),
        "s to rank": lambda line: show(line.get("ranking_seconds"), 2),
        "s with imports": lambda line: show(line.get("process_seconds"), 2),
        "over K scores": lambda line: show(line.get("ratio_to_scores"), 3),
        "with libraries, MB": lambda line: show(line.get("peak_anonymous_bytes"), 0, 1e6),
        "runs": lambda line: str(line["runs"]),
    }
    return rows(columns, lines)


def text(lines, all_lines, date, folder):
    """What goes between the markers; plots go to `folder`."""
    parts = ["\n".join(markdown.conditions(all_lines, date)) + "\n"]
    for line in every(lines, what="copy"):
        rate = line["copied_gigabytes_per_second"]
        on = f"{line['who']}, {line['dtype']}, {device(line)}"
        parts.append(f"A straight copy of memory ({on}): {rate:.1f} GB/s.\n")
    targets = list(headline(lines))
    if targets:
        parts += ["## Targets\n", markdown.target_table(targets)]
    targets = list(others(lines, every(all_lines, what="number")))
    if targets:
        parts += ["## Other ratios\n", markdown.target_table(targets)]
    iterations = every(lines, what=ITERATIONS)
    if iterations:
        parts += ["## Time\n", iteration_table(iterations)]
        parts += ["## Memory\n", memory_table(iterations)]
    if scores := every(lines, what="score"):
        parts += ["## Scoring\n", score_table(scores)]
    if merges := every(lines, what={"mean", "greedy"}):
        parts += ["## Means and greedy soups\n", merge_table(merges)]
    if iterations:
        found = plots.plot(iterations, folder)
        parts += [f"![{caption}]({folder.name}/{name})\n" for name, caption in found]
    return "\n".join(parts)
