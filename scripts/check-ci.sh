#!/usr/bin/env bash
# Tests the program that runs CI (scripts/ci) and its list of stages. Arguments are pytest's.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The Python of the chart's tests, because it has pytest.
python=$(scripts/setup-chart-check.sh)
# Without bytecode and pytest's cache the tree stays clean.
PYTHONDONTWRITEBYTECODE=1 exec "$python" -m pytest -q -p no:cacheprovider tests/ci "$@"
