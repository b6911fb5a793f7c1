"""The modules of the control plane depend on each other in one direction only."""

import re
from collections import defaultdict
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "src"


def without_tests(text):
    """Code alone: no comments, and no module of tests at a file's end."""
    text = re.sub(r"#\[cfg\(test\)\]\s*(pub(\(\w+\))? )?mod \w+ \{.*", "", text, flags=re.S)
    return re.sub(r"//.*", "", text)


def dependencies():
    """By top-level module: the others that it names, with a file that does."""
    found = defaultdict(dict)
    for file in sorted(SOURCES.rglob("*.rs")):
        module = file.relative_to(SOURCES).parts[0].removesuffix(".rs")
        if module in ("lib", "main"):
            continue
        for other in re.findall(r"\bcrate::(\w+)", without_tests(file.read_text())):
            # What `lib.rs` shows of another module under a name of its own.
            other = {"operator_file": "untrusted"}.get(other, other)
            if other != module and not other.endswith("_contract"):
                found[module].setdefault(other, file.relative_to(SOURCES))
    return found


def cycle(graph):
    """Modules that depend on each other in a circle, or None."""
    done, path = set(), []

    def visit(module):
        if module in path:
            return path[path.index(module) :] + [module]
        if module in done:
            return None
        path.append(module)
        for other in graph.get(module, ()):
            if circle := visit(other):
                return circle
        path.pop()
        done.add(module)
        return None

    for module in list(graph):
        if circle := visit(module):
            return circle
    return None


def test_a_circle_is_found():
    assert cycle({"a": ["b"], "b": ["c"], "c": ["b"]}) == ["b", "c", "b"]
    assert cycle({"a": ["b", "c"], "b": ["c"], "c": []}) is None


def test_no_modules_depend_on_each_other_in_a_circle():
    graph = dependencies()
    assert len(graph) > 15 and "store" in graph["scheduler"]
    circle = cycle(graph)
    named = circle and [f"{graph[a][b]}: {a} -> {b}" for a, b in zip(circle, circle[1:])]
    assert circle is None, named
