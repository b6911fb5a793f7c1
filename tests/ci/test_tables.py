"""`workers/benches/tables.py`: rows of the benchmarks' page from lines of measurements."""

import json
import re
import sys
from pathlib import Path

import pytest

BENCHES = Path(__file__).parents[2] / "workers/benches"
sys.path.insert(0, str(BENCHES))
import tables  # noqa: E402
from measured import details, lines, page, targets  # noqa: E402

AMD = {"cpu": "AMD EPYC", "cores": 2, "flags": ["avx2"]}
INTEL = {"cpu": "Intel(R) Xeon(R)", "cores": 2}
D = 88_000_000


def of(who, what, **keys):
    """A line of a run on two threads."""
    return {"who": who, "what": what, "dtype": "f32", "threads": 2, "machine": AMD, **keys}


def iteration(who, what, seconds, **keys):
    """A line of a loop of ViT-B/32."""
    common = {"batch": 16, "parameters": D, "samples_per_second": 16 / seconds}
    common |= {"peak_anonymous_bytes": 3 * 10**9, "anonymous_before_bytes": 10**8}
    return of(who, what, seconds_per_iteration=seconds, **(common | keys))


def mehl(seconds, **keys):
    """A line of this program's learning."""
    return iteration("mehl-soup", "mehl+", seconds, **({"k": 8, "b": 4} | keys))


def script(seconds, **keys):
    """A line of the MEHL-Soup+ script."""
    return iteration("pytorch", "mehl+", seconds, **({"k": 8, "b": 4} | keys))


@pytest.fixture
def joined(tmp_path):
    """Writes lines to a file, and reads and joins them."""

    def write_and_join(*written):
        file = tmp_path / "lines.jsonl"
        file.write_text("\n".join(map(json.dumps, written)) + "\n")
        return lines.joined(lines.read([file]))

    return write_and_join


def wanted(measured, what):
    """The one target of the page whose name begins so."""
    (found,) = [each for each in targets.headline(measured) if each.what.startswith(what)]
    return found


def test_runs_of_the_same_become_one_line(joined):
    runs = [mehl(seconds, peak_anonymous_bytes=byte) for seconds, byte in ((1, 7), (5, 9), (2, 8))]
    (line,) = joined(*runs)
    assert (line["seconds_per_iteration"], line["peak_anonymous_bytes"]) == (2, 9)
    assert line["runs"] == 3


@pytest.mark.parametrize(
    "other",
    [{"recompute": True}, {"linear": "onednn"}, {"model": "small"}, {"direction_dtype": "int4"}],
)
def test_what_differs_is_not_joined(joined, other):
    assert len(joined(mehl(1), mehl(2, **other))) == 2


def test_the_ratio_to_the_onednn_script_stands_beside_that_of_the_bare_loops(joined):
    ours = mehl(2.0, ratio_to_bare=1.0, linear="onednn")
    plain = script(2.5, bare_seconds_per_iteration=2.4)
    faster = script(1.5, bare_seconds_per_iteration=1.4, linear="onednn")
    target = wanted(joined(ours, plain, faster), "times as fast as the MEHL-Soup+ script with")
    assert (target.value, target.bare_loops, target.met) == (0.75, 0.7, False)
    target = wanted(joined(mehl(1.5), faster), "times as fast as the MEHL-Soup+ script with")
    assert target.met and target.bare_loops is None


def test_on_intel_the_onednn_script_is_no_target(joined):
    measured = joined(mehl(2.0, machine=INTEL), script(1.5, linear="onednn"))
    assert wanted(measured, "times as fast").met is None


def test_bounds_over_the_bare_loop(joined):
    int8 = {"dtype": "bf16", "direction_dtype": "int8"}
    measured = joined(
        mehl(1.0, ratio_to_bare=1.06),
        mehl(1.0, ratio_to_bare=1.11, b=8, **int8),
        mehl(1.0, ratio_to_bare=1.4, model="small", parameters=136_000, batch=32, threads=1),
    )
    found = {target.what: target for target in targets.headline(measured)}
    met = [target.met for target in found.values()]
    assert met == [False, True, True], found
    assert "136 thousand values" in list(found)[2]


def test_recompute_is_held_against_its_memory(joined):
    keys = {"dtype": "bf16", "direction_dtype": "int8", "recompute": True}
    measured = joined(mehl(1.0, peak_anonymous_bytes=1_240_000_000, **keys), mehl(1.0))
    target = wanted(measured, "peak memory")
    assert target.value == pytest.approx(1.14) and target.met
    assert "recompute" in details.iteration_table(measured)


def test_scoring_is_compared_at_the_same_batch(joined):
    ours = iteration("mehl-soup", "score", 2.0, linear="onednn")
    faster = iteration("pytorch", "score", 1.0, linear="onednn")
    other = iteration("pytorch", "score", 0.1, batch=64, linear="onednn")
    target = wanted(joined(ours, faster, other), "samples scored a second")
    assert (target.value, target.met) == (0.5, False)


def mean(who, cache, seconds):
    """A line of a mean of eight files."""
    return of(who, "mean", k=8, cache=cache, seconds=seconds, peak_anonymous_bytes=31_000_000)


def test_means_are_compared_with_the_same_cache(joined):
    measured = joined(
        mean("mehl-soup", "warm", 1.0),
        mean("mehl-soup", "cold", 2.0),
        mean("pytorch", "warm", 5.0),
        mean("pytorch", "cold", 3.0),
        mean("mergekit", "warm", 9.0),
    )
    found = {target.what: (target.value, target.met) for target in targets.headline(measured)}
    before = "mean of 8 models from files"
    assert found == {
        f"{before}, warm cache, times as fast as mergekit": (9.0, False),
        f"{before}, warm cache, times as fast as a plain torch loop": (5.0, True),
        f"{before}, cold cache, times as fast as a plain torch loop": (1.5, False),
    }
    row = "| mean of 8 models from files, warm page cache | 1.00 s | 31.0 MB | mergekit | 9.00 s |"
    assert row in page.text(measured, [], "today", "details.md")


def greedy(who, seconds, **keys):
    """A line of a greedy soup."""
    return of(who, "greedy", k=8, samples=64, seconds=seconds, **keys)


def test_greedy_soups_are_compared_over_the_same_part(joined):
    theirs = greedy("pytorch", 3.0, total_seconds=7.0)
    choosing = joined(greedy("mehl-soup", 2.0, ratio_to_scores=1.2), theirs)
    assert wanted(choosing, "greedy soup, times as fast as a script").value == 1.5
    assert wanted(choosing, "greedy soup over K scores").met is False
    both = joined(greedy("mehl-soup", 2.0, total_seconds=5.0), theirs)
    assert wanted(both, "greedy soup, times as fast as a script").value == 1.4


def test_a_script_that_holds_all_models_is_compared_at_the_most_of_them(joined):
    bf16 = {"dtype": "bf16", "direction_dtype": "int8"}
    measured = joined(
        mehl(1.0, k=16, **bf16),
        mehl(1.0, k=32, **bf16),
        iteration("pytorch", "learned+", 2.0, k=16, b=16),
        iteration("pytorch", "learned+", 3.0, k=32, b=32),
    )
    written = page.text(measured, [], "today", "details.md")
    assert "learning from 32 models" in written and "learning from 16 models" not in written


def test_lines_without_memory_or_counterparts_leave_rows_out(joined):
    ours = mehl(1.0, peak_anonymous_bytes=None)
    measured = joined(ours)
    assert list(targets.others(measured, [])) == []
    assert "| learning, an iteration in f32, b = 4 | 1.00 s |  |  |  |  |  |" in page.text(
        measured, [ours], "today", "details.md"
    )


def test_numbers_of_other_programs_keep_their_bounds(joined):
    number = {"what": "number", "name": "loss", "value": 0.1, "at_most": 0.2, "unit": "nats"}
    (target,) = targets.others(joined(number), [number])
    assert (target.value, target.unit, target.wanted, target.met) == (
        0.1,
        "nats",
        "at most 0.2",
        True,
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "expected a JSON object with the key `what`"),
        ('{"what": "guess"}', "found `guess`"),
        ('{"what": "mean", "who": "mergekit"}', "expected dtype, k, cache, seconds"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path, text, said):
    file = tmp_path / "lines.jsonl"
    file.write_text('{"what": "kernels"}\n' + text + "\n")
    with pytest.raises(SystemExit, match=re.escape(said)) as error:
        lines.read([file])
    assert str(error.value).startswith(f"{file}, line 2: ")


def test_only_what_stands_between_the_markers_is_replaced(tmp_path):
    document = tmp_path / "page.md"
    document.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n")
    expected = f"before\n{tables.BEGIN}\nnew\n{tables.END}\nafter\n"
    assert tables.replaced(document, "new") == expected
    assert tables.BEGIN in tables.replaced(tmp_path / "other.md", "new")
    document.write_text("no markers\n")
    with pytest.raises(SystemExit, match="each once"):
        tables.replaced(document, "new")


def test_the_documents_can_be_written():
    docs = BENCHES.parents[1] / "docs"
    assert "new" in tables.replaced(docs / "benchmarks.md", "new")
    # Rows of one run only: README's numbers come from them.
    assert (docs / "benchmarks.md").read_text().count("Measured on ") == 1
