"""What must hold by construction, whatever the machine and the seed: `run.py --quick` ends with an error if it does not."""

import sys

LEARN, BATCH = 350, 32
K = 8


def quick(experiments):
    """One seed of small parts of experiments 1, 2 and 4, on a zoo of 8."""
    failures = []

    def hold(what, holds):
        print(f"{'holds' if holds else 'BROKEN'}: {what}", file=sys.stderr)
        if not holds:
            failures.append(what)

    memory(experiments.memory_and_time(ks=(4, 16)), hold)
    soups(experiments, hold)
    if failures:
        sys.exit("broken: " + "; ".join(failures))


def memory(rows, hold):
    peak = {(row["method"], row["k"]): row["peak_anonymous_bytes"] for row in rows}
    model = 4 * rows[0]["elements"]
    grown = {method: (peak[method, 16] - peak[method, 4]) / model for method in ("mehl+", "learned+")}
    # Noise of the allocator is well below two models; 12 more models are held, or none.
    hold(f"from K = 4 to 16, mehl+ with b = 4 takes no more memory (measured: {grown['mehl+']:.1f} models)", grown["mehl+"] < 2)
    hold(f"and learned+ takes at least 11 models more (measured: {grown['learned+']:.1f})", grown["learned+"] > 11)


def soups(experiments, hold):
    (seed,) = experiments.seeds
    zoo = experiments.digits(seed, K)
    changes = {
        "seed": seed,
        "soup": {"method": "hl+", "batch": BATCH, "inner_epochs": 4},
        "search": {
            "points": [
                {"method": "mehl+", "model_batch": K, "inner_epochs": 4},
                {"method": "mehl+", "model_batch": 3, "inner_epochs": 2, "early_stopping": False},
                {"method": "mehl", "model_batch": 1, "inner_epochs": 1, "early_stopping": False},
                {"method": "learned+", "inner_epochs": 2},
            ]
        },
    }
    results = experiments.program.sweep(zoo, "2-loss-against-iterations.toml", "quick", changes)
    rows = results.rows(curves=True)
    hold("every task has finished, and has a score on each split", len(rows) == 7 and all("test" in row for row in rows))
    task = {(row["method"], row["model_batch"], row["early_stopping"]): row for row in rows if row["iterations"]}
    hl, whole = task["hl+", K, True], task["mehl+", K, True]
    same = all(hl[split] == whole[split] for split in ("learn", "select", "test"))
    hold("mehl+ with all ingredients in one model batch is hl+", same and hl["iterations"] == whole["iterations"])
    uniform = next(row for row in rows if row["method"] == "uniform")
    # They begin there, and standing still is a candidate; the sixth digit may be rounding.
    hold("by select, hl+ is not worse than uniform", hl["select"]["loss"] <= uniform["select"]["loss"] + 2e-6)
    passes = -(-LEARN // BATCH)
    for (method, b, epochs) in (("mehl+", 3, 2), ("mehl", 1, 1)):
        expected = -(-K // b) * epochs * passes
        found = task[method, b, False]["iterations"]
        hold(f"{method} with b = {b} makes {expected} iterations (made: {found})", found == expected)
    # A task of a run that was interrupted has none.
    ends = [(row["curve"][0][0], row["curve"][-1][0], row["iterations"]) for row in rows if "curve" in row]
    hold("curves go from the first iteration to the last", all(first <= last == iterations for first, last, iterations in ends))
