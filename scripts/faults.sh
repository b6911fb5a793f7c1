#!/usr/bin/env bash
# Runs the fault suite: pools of the real programs with real servers, and what befalls them.
#
#   scripts/faults.sh            runs the tests; further arguments are pytest's
#
#   MEHL_SOUP_FAULTS_PROGRAMS    folder of other programs than those of the last `make build`
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=$(scripts/setup-chart-check.sh)
# Most of a test is waiting for a lease or for the end of an outage: several run at once. Nothing is
# written beside the tests: bytecode and pytest's cache would be in the way of a clean tree.
PYTHONDONTWRITEBYTECODE=1 exec "$python" -m pytest -q -p no:cacheprovider -n 4 tests/faults "$@"
