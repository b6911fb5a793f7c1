#!/usr/bin/env bash
# Tests the program that runs CI (scripts/ci) and its list of stages. Arguments are passed to pytest.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Uses the Python of the chart's tests, which has pytest.
python=$(scripts/setup-chart-check.sh)
# No bytecode and no pytest cache, so that the working tree stays clean.
PYTHONDONTWRITEBYTECODE=1 exec "$python" -m pytest -q -p no:cacheprovider tests/ci "$@"
