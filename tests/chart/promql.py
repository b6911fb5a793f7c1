"""What tests ask of Prometheus' promtool, and of queries."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import yaml

import helm

# What Grafana puts in for its variables.
VARIABLES = {"$__rate_interval": "1m", "$__range": "1h", "$namespace": ".*", "$job": ".*"}


def promtool(*arguments):
    """Runs promtool. It belongs to Prometheus, which `make setup-servers` installs."""
    program = shutil.which("promtool")
    assert program, "promtool: not found; make setup-servers installs it (Debian: prometheus)"
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def substituted(query):
    """A query with values for Grafana's variables."""
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    assert "$" not in query, f"{query}: a variable that is not known"
    return query


def check_queries(queries):
    """Lets promtool parse them all, as rules that record them."""
    rules = [{"record": f"query:{i}", "expr": substituted(query)} for i, query in enumerate(queries)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "queries.yaml"
        file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
        assert f"{len(queries)} rules found" in promtool("check", "rules", file)


def registry():
    """Every series of the programs: kind and labels by name. From the table that the programs' own tests hold against their registry."""
    text = (helm.ROOT / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(mehl_soup_\w+)(?:\{([^}]*)\})?` \| (counter|gauge|histogram) \|", text, re.M)
    assert len(rows) > 30
    return {name: (kind, set(filter(None, labels.split(", ")))) for name, labels, kind in rows}


def series(query):
    """Series in a query, each with the labels that it is selected by."""
    found = re.findall(r"\b((?:mehl_soup|DCGM)_\w+)(?:\{([^}]*)\})?", query)
    return [(name, set(re.findall(r"(\w+)\s*[=!]", labels))) for name, labels in found]


def plain(name, known):
    """The name that a series of a query is defined by, and whether it is a part of a histogram."""
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    return (base, True) if name not in known and known.get(base, ("",))[0] == "histogram" else (name, False)


def rates(query):
    """Names that a rate or an increase is taken of."""
    return re.findall(r"\b(?:rate|increase)\((\w+)", query)
