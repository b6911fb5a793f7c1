#!/usr/bin/env bash
# Starts what the Helm chart renders, what the compose files and the docs say, with the real programs and servers,
# without a cluster or a Docker engine.
#
#   scripts/deployment.sh        runs the tests; further arguments are pytest's
#
#   MEHL_SOUP_TEST_PROGRAMS      folder of the programs, in place of where `make build` leaves them
#   MEHL_SOUP_DEPLOYMENT         namespaces (needs root) or paths, in place of the better of them that is possible
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=$(scripts/setup-chart-check.sh)
# Nothing is written beside the tests: bytecode and pytest's cache would be in the way of a clean tree.
PYTHONDONTWRITEBYTECODE=1 exec "$python" -m pytest -q -p no:cacheprovider tests/deployment "$@"
