#!/usr/bin/env bash
# Tests the Helm chart, the Dockerfiles and the compose file, without a cluster or a Docker engine.
#
#   scripts/chart.sh             runs the tests; arguments are passed to pytest
#   scripts/chart.sh --write     regenerates the table of values in the chart's README, and the dashboards
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=$(scripts/setup-chart-check.sh)
if [[ ${1:-} == --write ]]; then
    PYTHONDONTWRITEBYTECODE=1 "$python" tests/chart/readme.py
    PYTHONDONTWRITEBYTECODE=1 exec "$python" tests/chart/dashboards.py
fi
# No bytecode and no pytest cache, so that the working tree stays clean.
PYTHONDONTWRITEBYTECODE=1 exec "$python" -m pytest -q -p no:cacheprovider tests/chart "$@"
