"""The table of values in the chart's README, made of the comments in values.yaml. Run as a program, it writes the README anew."""

import sys
from pathlib import Path

import yaml

CHART = Path(__file__).resolve().parents[2] / "charts" / "mehl-soup"
BEGIN, END = "<!-- values: written by scripts/chart.sh --write -->\n", "<!-- end of values -->\n"
MARK = "# -- "


def documented(text):
    """Path and comment of each key of values.yaml that has one."""
    rows, path, comment = [], [], None
    for line in text.splitlines():
        words = line.strip()
        if words.startswith(MARK):
            comment = words.removeprefix(MARK)
        elif words and not words.startswith(("#", "-")):
            depth = (len(line) - len(line.lstrip())) // 2
            path = [*path[:depth], words.split(":")[0]]
            if comment:
                rows.append((".".join(path), comment))
                comment = None
    return rows


def undocumented(value, known, path=""):
    """Paths of values that neither themselves nor by what they are in have a comment."""
    if path in known:
        return []
    if isinstance(value, dict) and value:
        return [one for key, part in value.items() for one in undocumented(part, known, f"{path}.{key}".lstrip("."))]
    return [path]


def shown(value):
    """A default, as YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False).removesuffix("\n...\n").strip()
    return "" if value == "" else f"`{text}`"


def table():
    """The table, in Markdown."""
    text = (CHART / "values.yaml").read_text()
    values, rows = yaml.safe_load(text), documented(text)
    lines = ["| value | default | what |", "|---|---|---|"]
    for path, comment in rows:
        value = values
        for key in path.split("."):
            value = value[key]
        lines.append(f"| `{path}` | {shown(value)} | {comment} |")
    return "\n".join(lines) + "\n"


def with_table(readme):
    """The README with the table as it should be."""
    before, rest = readme.split(BEGIN)
    return before + BEGIN + "\n" + table() + "\n" + END + rest.split(END)[1]


if __name__ == "__main__":
    file = CHART / "README.md"
    file.write_text(with_table(file.read_text()))
    print(file, file=sys.stderr)
