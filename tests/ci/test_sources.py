"""Files of zoos and data sets are opened by `src/source` alone."""

import re
from pathlib import Path

from test_modules import without_tests

ROOT = Path(__file__).parents[2]
TREES = ("src", "workers/src")
# What reads a file, or looks at one without its source.
OPENS = re.compile(
    r"\bFile::(open|options)\b|\bOpenOptions\b|\bMmap\b"
    r"|\bfs::(read|read_to_string|read_dir|metadata|canonicalize|copy)\b"
    r"|\buntrusted::(open|read|check_place)\b|\buntrusted::\{[^}]*\b(open|read|check_place)\b"
)
LOOKS = re.compile(
    r"\.(canonicalize|symlink_metadata|is_file|is_dir|exists|read_link|read_dir)\(\)"
    r"|\b(path|file|folder|place|entry)\.metadata\(\)|\bFileExt\b|\bMetadataExt\b"
)
# Folders whose files deal with zoos or data sets: they may not even look past the source.
STRICT = (
    "src/zoo/",
    "src/coefficients/",
    "workers/src/data/",
    "workers/src/families/",
    "workers/src/engine/",
)
# By file or folder: what each of its lines that reach for a file has in it, and why they may.
EXCEPTIONS = {
    "src/source/local.rs": ("", "the seam itself"),
    "src/untrusted": ("", "opens regular files, below the roots of a worker"),
    "src/files.rs": ("", "writes files and folders under a temporary name"),
    "src/host.rs": ("/proc/|folder", "memory limits of the kernel"),
    "src/runner/run_folder.rs": ("", "the program's own output"),
    "src/report/folder.rs": ("LARGEST_COEFFICIENTS", "coefficients in a run folder"),
    "src/cli/materialize.rs": ("LARGEST_COEFFICIENTS", "coefficients that the command line names"),
    "src/cli/pool/submit.rs": ("LARGEST_SPEC", "the specification that the command line names"),
    "src/cli/pool_worker.rs": ("root", "whether the operator's roots can be read"),
    "src/sweep/parse/mod.rs": ("LARGEST_SPEC", "the specification"),
    "src/scheduler/admit.rs": ("/proc/", "the kernel's random numbers"),
    "src/coefficients/companions.rs": (r"&target|to\.join", "flushes the copy that it wrote"),
    "src/coefficients/materialize.rs": (r"\bout\b|metadata", "the folder that it writes"),
    "src/zoo/hash_cache.rs": (r"self\.entry", "the cache of hashes"),
    "workers/src/data/images/cache.rs": ("", "the cache of decoded images"),
    "workers/src/data/text/cache.rs": ("", "the cache of tokens"),
    "workers/src/data/images/content_hashes.rs": (r"fs::read\(path\)", "the cache of hashes"),
    "workers/src/demo/write.rs": ("", "what the demo wrote itself"),
    "workers/src/bench/": ("", "measures files without a source, and makes what it measures"),
}


def code():
    for tree in TREES:
        for file in sorted((ROOT / tree).rglob("*.rs")):
            if file.stem not in ("tests", "testing"):
                yield str(file.relative_to(ROOT)), without_tests(file.read_text())


def accesses(name, text):
    """Lines that reach for a file."""
    patterns = (OPENS, LOOKS) if name.startswith(STRICT) else (OPENS,)
    return [line.strip() for line in text.splitlines() if any(p.search(line) for p in patterns)]


def test_an_access_is_found():
    assert accesses("src/api/mod.rs", "let f = std::fs::File::open(path)?;")
    assert accesses("src/zoo/mod.rs", "if path.is_dir() {")
    assert not accesses("src/api/mod.rs", "if path.is_dir() {")
    assert accesses("workers/src/data/mod.rs", "use memmap2::Mmap;")
    assert accesses("src/task/mod.rs", "use crate::untrusted::{LARGEST_CARD, read};")
    assert not accesses("src/zoo/mod.rs", "source::of(path).is_file(path)")


def allowed(name, line):
    """Whether an exception covers a line of a file."""
    rows = [has for place, (has, _) in EXCEPTIONS.items() if name.startswith(place)]
    return any(re.search(has, line) for has in rows)


def test_only_sources_open_files_of_zoos_and_data_sets():
    found = [(name, line) for name, text in code() for line in accesses(name, text)]
    assert found, "the trees are where they were"
    others = [access for access in found if not allowed(*access)]
    assert not others, f"read these through `mehl_soup::source` (docs/add-a-source.md): {others}"
    unused = [place for place in EXCEPTIONS if not any(name.startswith(place) for name, _ in found)]
    assert not unused, f"exceptions that nothing needs: {unused}"
