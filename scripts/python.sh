#!/usr/bin/env bash
# Checks the Python package in python/: format, lint, types, tests.
#
#   scripts/python.sh            runs all checks; arguments are passed to pytest
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/common.sh

# torch, transformers and timm come from the environment that other tests use too: fetched once.
models=$(scripts/setup-python-check.sh)
tools=$(python_with python/tests/requirements.txt 11 14 \
    "what checks the Python package (30 MB to fetch, once)")

cd python
"$tools" -m ruff format --no-cache --check .
"$tools" -m ruff check --no-cache .
# No caches, so that the working tree stays clean.
"$tools" -m mypy --python-executable "$models" --cache-dir /dev/null
# pytest and hatchling are plain Python, so the other environment can use them from where they are.
# One thread: other checks run at the same time.
packages=$("$tools" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$packages \
    exec "$models" -m pytest -q -p no:cacheprovider "$@"
