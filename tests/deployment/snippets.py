"""Snippets of README.md and docs/*.md, as they stand there, and what each of them is."""

import re
import shlex
import textwrap
import tomllib
from dataclasses import dataclass

import helm
import yaml

PAGES = ["README.md", *sorted(f"docs/{file.name}" for file in (helm.ROOT / "docs").glob("*.md"))]
CONFIGURATION = {"installation", "log", "redis", "amqp", "scheduler", "worker", "client"}
SPECIFICATION = {"name", "seed", "zoo", "data", "soup", "search", "compute"}
VALUES = set(yaml.safe_load((helm.CHART / "values.yaml").read_text()))


@dataclass(frozen=True)
class Snippet:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self):
        return f"{self.page}:{self.line}"


def _read():
    for page in PAGES:
        text = (helm.ROOT / page).read_text()
        for found in re.finditer(r"^( *)```(\w*)\n(.*?)^\1```$", text, re.M | re.S):
            yield Snippet(
                page, text[: found.start()].count("\n") + 1, found[2], textwrap.dedent(found[3])
            )


ALL = list(_read())
# Those that a test has asked for by their page and what they begin with.
USED = set()


def block(page, start):
    """The one snippet of a page that has a line which begins so."""
    found = [
        one
        for one in ALL
        if one.page == page and re.search(rf"^{re.escape(start)}", one.text, re.M)
    ]
    assert len(found) == 1, f"{page}: {len(found)} snippets have a line that begins with {start}"
    USED.add(found[0])
    return found[0]


def kind(snippet):
    """`configuration`, `specification`, `values`, `commands` of the programs or variables for them,
    or None for what concerns neither.

    Fails on TOML and YAML that is none of them."""
    match snippet.language:
        case "toml" | "yaml":
            keys = set(
                tomllib.loads(snippet.text)
                if snippet.language == "toml"
                else yaml.safe_load(snippet.text)
            )
            kinds = {
                "configuration": CONFIGURATION,
                "specification": SPECIFICATION,
                "values": VALUES,
            }
            if snippet.language == "yaml":
                # Nearly all keys of a configuration are values of the chart too. On the pages, it
                # is TOML.
                del kinds["configuration"]
            for name, known in kinds.items():
                if keys <= known:
                    return name
            return f"unknown {snippet.language}"
        case "sh":
            return "commands" if re.search(r"^(export |mehl-soup)", snippet.text, re.M) else None
    return None


def of_kind(name):
    return [one for one in ALL if kind(one) == name]


@dataclass
class Command:
    """A command of a snippet, with the comment behind it."""

    words: list[str]
    comment: str


def commands(snippet):
    """Variables that a snippet exports, and its commands; `a; b` is two of them."""
    variables, found = {}, []
    for line in snippet.text.splitlines():
        code, _, comment = line.partition("  #")
        for part in code.split(";"):
            words = shlex.split(part)
            if words[:1] == ["export"]:
                variables.update(word.split("=", 1) for word in words[1:])
            elif words:
                found.append(Command(words, comment.strip()))
    return variables, found
