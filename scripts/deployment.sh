#!/usr/bin/env bash
# Runs what the Helm chart, the compose files and the docs start, with the real programs and servers, without a
# cluster or a Docker engine.
#
#   scripts/deployment.sh        runs the tests; arguments are passed to pytest
#
#   MEHL_SOUP_TEST_PROGRAMS      folder of the programs (default: that of `make build`)
#   MEHL_SOUP_DEPLOYMENT         namespaces (needs root) or paths (default: namespaces if possible)
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=$(scripts/setup-chart-check.sh)
# No bytecode and no pytest cache, so that the working tree stays clean.
PYTHONDONTWRITEBYTECODE=1 exec "$python" -m pytest -q -p no:cacheprovider tests/deployment "$@"
