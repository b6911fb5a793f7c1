"""Texts with classes that any Debian has: descriptions of its packages, and the section of the archive that each is in.

    debian_texts.py COUNT > texts.jsonl

Takes the packages that apt knows of, else those that are installed. Writes rows `{"text": ..., "label": ...}` of six sections,
at most COUNT of each, in an order that depends on names alone. Texts do not name their section.
"""

import collections
import hashlib
import json
import re
import subprocess
import sys

SECTIONS = ("admin", "games", "net", "python", "science", "sound")
FEWEST = 50


def known():
    """Package, section and description of all packages that apt knows of."""
    text = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=False).stdout
    for paragraph in text.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Section|Description(?:-en)?): (.*(?:\n .*)*)", paragraph, re.M))
        description = fields.get("Description-en") or fields.get("Description")
        if description and "Section" in fields:
            yield fields["Package"], fields["Section"].split("/")[-1], description


def installed():
    """The same of packages that are installed."""
    form = "${Package}\x1f${Section}\x1f${Description}\x1e"
    text = subprocess.run(["dpkg-query", "-W", "-f", form], capture_output=True, text=True, check=True).stdout
    for row in filter(None, text.split("\x1e")):
        name, section, description = row.split("\x1f")
        yield name, section.split("/")[-1], description


def rows(packages, count):
    by_section = {section: {} for section in SECTIONS}
    for name, section, description in packages:
        text = " ".join(line.strip() for line in description.splitlines() if line.strip() != ".")
        if section in by_section and len(text) > 20:
            # One package of those that are built from one source and described alike.
            by_section[section].setdefault(text, name)
    # Such as `transitional dummy package`.
    shared = [text for texts in by_section.values() for text in texts]
    shared = {text for text, times in collections.Counter(shared).items() if times > 1}
    for section, texts in by_section.items():
        order = sorted(texts.keys() - shared, key=lambda text: hashlib.sha256(texts[text].encode()).hexdigest())
        yield section, [{"text": text, "label": section} for text in order[:count]]


def main():
    count = int(sys.argv[1])
    found = dict(rows(known(), count))
    if min(map(len, found.values())) < FEWEST:
        found = dict(rows(installed(), count))
    few = [f"{section}: {len(texts)}" for section, texts in found.items() if len(texts) < FEWEST]
    if few:
        sys.exit(f"expected at least {FEWEST} packages of each section, found {', '.join(few)}: run apt-get update first")
    for section in SECTIONS:
        for row in found[section]:
            print(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    main()
