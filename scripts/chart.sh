#!/usr/bin/env bash
# Tests the Helm chart, the Dockerfiles and the compose file, without a cluster or a Docker engine.
#
#   scripts/chart.sh             runs the tests; further arguments are pytest's
#   scripts/chart.sh --write     writes the table of values in the chart's README anew
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=$(scripts/setup-chart-check.sh)
if [[ ${1:-} == --write ]]; then
    exec "$python" tests/chart/readme.py
fi
# Nothing is written beside the tests: bytecode and pytest's cache would be in the way of a clean tree.
PYTHONDONTWRITEBYTECODE=1 exec "$python" -m pytest -q -p no:cacheprovider tests/chart "$@"
