"""The page: what users ask, and the targets."""

from . import markdown
from .lines import every, find, peak, script_like
from .markdown import memory, rounded, seconds
from .targets import greedy_scripts, greedy_seconds, headline, of_base

HEAD = ["what", "time", "memory", "against", "its time", "its memory", "times as fast"]
# Whose f32 products a script may use.
LINEARS = ("pytorch", "onednn")


def row(what, ours, against, theirs):
    """Two sides as (seconds, bytes); what is not known stays empty."""
    fast = rounded(theirs[0] / ours[0]) if ours[0] and theirs[0] else ""
    shown = [seconds(ours[0]) if ours[0] else "", memory(ours[1])]
    shown += [against, seconds(theirs[0]) if theirs[0] else "", memory(theirs[1])]
    return [what, *shown, fast]


def side(line):
    """Seconds and bytes of an iteration."""
    return line["seconds_per_iteration"], peak(line)


def whole(line, seconds):
    """Seconds of a run, and bytes of its process with all libraries."""
    return seconds, line.get("peak_anonymous_bytes")


def script_name(script, what):
    """What a script of PyTorch is called in the table."""
    onednn = ", oneDNN" if script["linear"] == "onednn" else ""
    return f"{what}, PyTorch {script['dtype']}{onednn}"


# The lines of learning that the page shows, of those with 8 ingredients.
SHOWN = [
    dict(dtype="bf16", direction_dtype="int8", b=4, recompute=False),
    dict(dtype="bf16", direction_dtype="int8", b=4, recompute=True),
    dict(dtype="bf16", direction_dtype="int8", b=8, recompute=False),
    dict(dtype="f32", direction_dtype="f32", b=4, recompute=False),
]


def learning_rows(lines):
    """An iteration, to the scripts that were measured."""
    for which in SHOWN:
        for line in every(of_base(lines), k=8, **which):
            what = f"learning, an iteration in {line['dtype']}, b = {line['b']}"
            what += ", recompute" if line["recompute"] else ""
            same = dict(k=8, b=line["b"])
            scripts = [script_like(line, lines, linear=linear, **same) for linear in LINEARS]
            scripts = [script for script in scripts if script]
            for script in scripts:
                yield row(what, side(line), script_name(script, "script"), side(script))
            if not scripts:
                yield row(what, side(line), "", (None, None))


def bounded_rows(lines):
    """Many ingredients: this program holds b of them, Learned-Soup+ all."""
    lines_of_k = [line for line in of_base(lines) if line["k"] > 8 and line["dtype"] == "bf16"]
    for line in sorted(lines_of_k, key=lambda line: line["k"])[-1:]:
        script = script_like(line, lines, "learned+", k=line["k"])
        if script:
            what = f"learning from {line['k']} models, an iteration in bf16, b = {line['b']}"
            name = script_name(script, "script that holds all")
            yield row(what, side(line), name, side(script))


def small_rows(lines):
    """An iteration of a small model, to its bare loop."""
    for line in every(lines, who="mehl-soup", what="mehl+", model="small"):
        same = {key: line.get(key) for key in ("dtype", "batch", "threads", "linear")}
        bare = find(lines, who="mehl-soup", what="bare", model="small", **same)
        if bare:
            size = f"{line['parameters'] / 1e3:.0f} thousand values"
            threads = f"{line.get('threads', 1)} thread"
            what = f"learning, an iteration of a ViT of {size}, batch {line['batch']}, {threads}"
            yield row(what, side(line), "its own forward and backward pass", side(bare))


def score_rows(lines):
    """Forward passes, as seconds for a batch."""
    for line in every(lines, who="mehl-soup", what="score"):
        for linear in LINEARS:
            script = script_like(line, lines, linear=linear)
            if script:
                rate = f"{rounded(line['samples_per_second'])} samples/s"
                what = f"scoring {line['batch']} samples in {line['dtype']} ({rate})"
                name = script_name(script, "the same model")
                yield row(what, side(line), name, side(script))


def mean_rows(lines):
    """The mean of files, with a warm and a cold page cache."""
    for cache in ("warm", "cold"):
        for line in every(lines, who="mehl-soup", what="mean", cache=cache):
            what = f"mean of {line['k']} models from files, {cache} page cache"
            for who, name in (("pytorch", "plain torch loop"), ("mergekit", "mergekit")):
                same = {key: line[key] for key in ("k", "cache", "device")}
                other = find(lines, who=who, what="mean", **same)
                if other:
                    yield row(
                        what, whole(line, line["seconds"]), name, whole(other, other["seconds"])
                    )


def greedy_rows(lines):
    """A greedy soup, to scripts."""
    for line in every(lines, who="mehl-soup", what="greedy"):
        for script in greedy_scripts(line, lines):
            ours, theirs = greedy_seconds(line, script)
            what = f"greedy soup of {line['k']} models, {line['samples']} samples"
            name = script_name(script, "script")
            yield row(what, whole(line, ours), name, whole(script, theirs))


def user_rows(lines):
    """All rows of the table of what users ask."""
    for part in (learning_rows, bounded_rows, small_rows, score_rows, mean_rows, greedy_rows):
        yield from part(lines)


def text(lines, all_lines, date, details):
    """What goes between the page's markers."""
    where = "; ".join(markdown.machines(all_lines)) or "an unknown machine"
    parts = [f"Measured on {date} on {where}. [All tables of this run]({details}).\n"]
    rows = list(user_rows(lines))
    if rows:
        parts.append(markdown.table(HEAD, rows))
    targets = list(headline(lines))
    if targets:
        parts += ["### Targets\n", markdown.target_table(targets)]
    return "\n".join(parts)
