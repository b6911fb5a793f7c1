#!/usr/bin/env bash
# Runs the fault tests: pools of the real programs with real servers, whose parts fail.
#
#   scripts/faults.sh            runs the tests; arguments are passed to pytest
#
#   MEHL_SOUP_FAULTS_PROGRAMS    folder of the programs (default: that of `make build`)
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=$(scripts/setup-chart-check.sh)
# Tests mostly wait for leases and outages, so several run at once. No bytecode and no pytest cache, so that
# the working tree stays clean.
PYTHONDONTWRITEBYTECODE=1 exec "$python" -m pytest -q -p no:cacheprovider -n 4 tests/faults "$@"
