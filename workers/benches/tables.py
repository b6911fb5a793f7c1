"""Writes lines of measurements as tables and plots into the documentation.

    tables.py LINES.jsonl... [--page docs/benchmarks.md] [--details docs/benchmarks/details.md]

Replaces what stands between the two markers of each document. A document that does not exist is
made. Plots go to the folder beside the details that has their name; they need matplotlib
(`../tests/fixtures/requirements.txt`). Rows whose lines are missing are left out.

Each line is one JSON object. Those of an iteration (`bare`, `mehl+`, `learned+`) and of `score`:

    who                       mehl-soup or pytorch
    what                      bare (forward and backward alone), mehl+, learned+,
                              score (forward alone)
    dtype                     of passes: f32, bf16, f64
    direction_dtype           of directions: f32, bf16, int8, int4; without it that of `dtype`
    linear                    onednn if f32 linear layers go to oneDNN; without it MKL, by default
    recompute                 true if activations are computed again in the backward pass
    model                     small for the small ViT; without it ViT-B/32 or as `parameters` says
    k, b, batch               ingredients, those of a model batch, samples an iteration
    parameters                D
    seconds_per_iteration     median
    samples_per_second        batch / seconds_per_iteration
    ratio_to_bare             to the bare loop, in turns in one process; else that of two lines
    bare_seconds_per_iteration  of that bare loop
    peak_anonymous_bytes      the most anonymous resident memory of the process
    anonymous_before_bytes    what of it was there before any model (libraries); 0 without it
    stored_bytes              of that, directions, or all ingredients for learned+
    peak_device_bytes         the most that the allocator gave out on a GPU
    model_batch_seconds       list: each model batch from its first byte read to its fold

Those of a mean of model files and of a greedy soup:

    who                       mehl-soup, pytorch or mergekit
    what                      mean, greedy
    dtype, k, linear          as above
    cache                     mean: warm or cold, of the model files' pages
    samples                   greedy: those that a score takes
    seconds                   mean: from the first file to the written one, without imports;
                              greedy: from the single models' scores to the soup
    ranking_seconds           greedy: the single models' scores
    total_seconds             greedy: both. Compared instead of `seconds` if mehl-soup's line has it
    process_seconds           mean: with imports
    ratio_to_scores           greedy: `seconds` over K scores of one model
    peak_anonymous_bytes      of the whole process

Those of memory bandwidth: `what` copy, `copied_gigabytes_per_second` (bytes of the buffer, read and
written once, a second). All lines may have

    device, threads, seed, versions {name: version}, machine {cpu, cores, flags, memory_bytes, gpu}

Other numbers that have a target, or are to be said:

    what                      number
    name, value, unit         what, how much, in what
    standard_error            of the value over seeds
    at_most, at_least         the target

Lines of `kernels` (`bench --part kernels`) are left alone. Lines that differ in no more than
seconds, bytes and seed are runs of the same: their median seconds and largest bytes count.
"""

import argparse
import datetime
import sys
from os.path import relpath
from pathlib import Path

from measured import details, lines, page

BEGIN, END = "<!-- tables.py: begin -->", "<!-- tables.py: end -->"
DOCS = Path(__file__).resolve().parents[2] / "docs"


def replaced(document, between, title="Benchmarks"):
    """The document's text with `between` in place of what stands between its markers."""
    if not document.exists():
        return f"# {title}\n\n{BEGIN}\n{between}\n{END}\n"
    text = document.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        sys.exit(f"{document}: expected the lines `{BEGIN}` and `{END}`, each once")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{between}\n{END}{rest.split(END)[1]}"


def last_change(files):
    """The day on which the last of the files changed, in words."""
    changed = max(file.stat().st_mtime for file in files)
    day = datetime.datetime.fromtimestamp(changed, datetime.timezone.utc)
    return f"{day.day} {day:%B %Y}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lines", type=Path, nargs="+", help="files of one JSON object a line")
    parser.add_argument("--page", type=Path, default=DOCS / "benchmarks.md")
    parser.add_argument("--details", type=Path, default=DOCS / "benchmarks/details.md")
    parser.add_argument("--date", help="of the run; by default the files' last change")
    arguments = parser.parse_args()
    date = arguments.date or last_change(arguments.lines)
    read = lines.read(arguments.lines)
    measured = lines.joined(read)
    link = relpath(arguments.details, arguments.page.parent)
    folder = arguments.details.with_suffix("")
    # Both texts before the first is written, so that an error changes nothing.
    tables = details.text(measured, read, date, folder)
    written = {
        arguments.page: replaced(arguments.page, page.text(measured, read, date, link)),
        arguments.details: replaced(arguments.details, tables, "Benchmarks: all tables of a run"),
    }
    for document, text in written.items():
        document.parent.mkdir(parents=True, exist_ok=True)
        document.write_text(text)


if __name__ == "__main__":
    main()
